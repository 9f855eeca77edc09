// PUSH POP PUSHA POPA ENTER LEAVE. Segment registers are popped elsewhere (system).
#include "cpu/soft/integer.hpp"
#include "cpu/soft/mmu.hpp"

namespace stasis::soft {
namespace {

// The stack pointer by its width, which op->extra holds.
u64 stack_cut(const Op* op, u64 value) { return op->extra == 8 ? value : op->extra == 4 ? static_cast<u32>(value) : static_cast<u16>(value); }
u64 stack_pointer(Cpu& cpu, const Op* op) { return stack_cut(op, cpu.r[kRsp]); }
void set_stack_register(Cpu& cpu, const Op* op, u8 slot, u64 value) {
  if (op->extra == 2) cpu.reg<u16>(slot * 8) = static_cast<u16>(value);
  else cpu.r[slot] = stack_cut(op, value);
}
void set_stack_pointer(Cpu& cpu, const Op* op, u64 value) { set_stack_register(cpu, op, kRsp, value); }

// The stack's own fault: op->segment may be that of another operand.
Linear stack_at(Cpu& cpu, const Op* op, u64 offset, unsigned size, bool write) {
  if (!cpu.long_mode) return linear_of(cpu, op, kSs, offset, size, write);
  if (is_canonical(offset) && is_canonical(offset + size - 1)) return {offset, true};
  cpu.raise(op, kSsFault, 0);
  return {0, false};
}
template <class T>
bool stack_write(Cpu& cpu, const Op* op, u64 offset, T value) {
  const Linear at = stack_at(cpu, op, offset, sizeof(T), true);
  return at.ok && cpu.write<T>(at.address, value, op);
}
template <class T>
Loaded stack_read(Cpu& cpu, const Op* op, u64 offset) {
  const Linear at = stack_at(cpu, op, offset, sizeof(T), false);
  if (!at.ok) return {0, false};
  return cpu.read<T>(at.address, op);
}
template <class T>
bool push_value(Cpu& cpu, const Op* op, T value) {
  const u64 to = stack_cut(op, cpu.r[kRsp] - sizeof(T));
  if (!stack_write<T>(cpu, op, to, value)) return false;
  set_stack_pointer(cpu, op, to);
  return true;
}

template <class T, class Source>
[[gnu::noinline]] void op_push_any(Cpu& cpu, const Op* op) {
  if (!push_value<T>(cpu, op, Source::template get<T>(cpu, op))) return;
  STASIS_NEXT(cpu, op);
}
// 64-bit code.
template <class T, class Source>
void op_push(Cpu& cpu, const Op* op) {
  const u64 to = cpu.r[kRsp] - sizeof(T);
  u8* at = writable<T>(cpu, to);
  if (!at) [[unlikely]] return op_push_any<T, Source>(cpu, op);
  poke<T>(at, Source::template get<T>(cpu, op));
  cpu.r[kRsp] = to;
  STASIS_NEXT(cpu, op);
}
template <class T>
struct PushOperand {
  static bool run(Cpu& cpu, const Op* op, T value) { return push_value<T>(cpu, op, value); }
};
struct FromSegment {
  template <class T>
  static T get(Cpu& cpu, const Op* op) { return cpu.seg[op->src].selector; }
};

// POP rSP: the value read wins over the increment.
template <class T>
[[gnu::noinline]] void op_pop_any(Cpu& cpu, const Op* op) {
  const u64 from = stack_pointer(cpu, op);
  const Loaded value = stack_read<T>(cpu, op, from);
  if (!value.ok) return;
  set_stack_pointer(cpu, op, from + sizeof(T));
  cpu.set_reg<T>(op->dst, static_cast<T>(value.value));
  STASIS_NEXT(cpu, op);
}
template <class T>
void op_pop(Cpu& cpu, const Op* op) {
  const u64 from = cpu.r[kRsp];
  const u8* at = readable<T>(cpu, from);
  if (!at) [[unlikely]] return op_pop_any<T>(cpu, op);
  const T value = peek<T>(at);
  cpu.r[kRsp] = from + sizeof(T);
  cpu.set_reg<T>(op->dst, value);
  STASIS_NEXT(cpu, op);
}
// An address made with rSP takes the incremented one.
template <class T>
void op_pop_memory(Cpu& cpu, const Op* op) {
  const u64 before = cpu.r[kRsp];
  const u64 from = stack_pointer(cpu, op);
  const Loaded value = stack_read<T>(cpu, op, from);
  if (!value.ok) return;
  set_stack_pointer(cpu, op, from + sizeof(T));
  if (!store_any<T>(cpu, op, static_cast<T>(value.value))) {
    cpu.r[kRsp] = before;
    return;
  }
  STASIS_NEXT(cpu, op);
}

template <class T>
void op_push_all(Cpu& cpu, const Op* op) {
  const u64 from = stack_pointer(cpu, op);
  for (unsigned i = 0; i < 8; ++i) {
    if (!stack_write<T>(cpu, op, stack_cut(op, from - (i + 1) * sizeof(T)), static_cast<T>(cpu.r[i]))) return;
  }
  set_stack_pointer(cpu, op, from - 8 * sizeof(T));
  STASIS_NEXT(cpu, op);
}
// The slot of rSP is read past.
template <class T>
void op_pop_all(Cpu& cpu, const Op* op) {
  const u64 from = stack_pointer(cpu, op);
  T values[8];
  for (unsigned i = 0; i < 8; ++i) {
    const Loaded value = stack_read<T>(cpu, op, stack_cut(op, from + i * sizeof(T)));
    if (!value.ok) return;
    values[7 - i] = static_cast<T>(value.value);
  }
  for (unsigned i = 0; i < 8; ++i) {
    if (i != kRsp) cpu.set_reg<T>(static_cast<u8>(i * 8), values[i]);
  }
  set_stack_pointer(cpu, op, from + 8 * sizeof(T));
  STASIS_NEXT(cpu, op);
}

// imm: bytes of locals | nesting level << 16. Registers change only after every access has worked.
template <class T>
void op_enter(Cpu& cpu, const Op* op) {
  const unsigned level = op->imm >> 16 & 31;
  u64 at = stack_cut(op, cpu.r[kRsp] - sizeof(T));
  if (!stack_write<T>(cpu, op, at, cpu.reg<T>(kRbp * 8))) return;
  const u64 frame = at;
  u64 display = cpu.r[kRbp];
  for (unsigned i = 1; i < level; ++i) {
    display = stack_cut(op, display - sizeof(T));
    const Loaded link = stack_read<T>(cpu, op, display);
    if (!link.ok) return;
    at = stack_cut(op, at - sizeof(T));
    if (!stack_write<T>(cpu, op, at, static_cast<T>(link.value))) return;
  }
  if (level > 0) {
    at = stack_cut(op, at - sizeof(T));
    if (!stack_write<T>(cpu, op, at, static_cast<T>(frame))) return;
  }
  at = stack_cut(op, at - (op->imm & 0xffff));
  // The new top must be writable; nothing is written there.
  const Linear top = stack_at(cpu, op, at, sizeof(T), true);
  if (!top.ok || !cpu.read_for_write(top.address, sizeof(T), op).ok) return;
  cpu.set_reg<T>(kRbp * 8, static_cast<T>(frame));
  set_stack_pointer(cpu, op, at);
  STASIS_NEXT(cpu, op);
}
template <class T>
[[gnu::noinline]] void op_leave_any(Cpu& cpu, const Op* op) {
  const u64 from = stack_cut(op, cpu.r[kRbp]);
  const Loaded value = stack_read<T>(cpu, op, from);
  if (!value.ok) return;
  set_stack_pointer(cpu, op, from + sizeof(T));
  cpu.set_reg<T>(kRbp * 8, static_cast<T>(value.value));
  STASIS_NEXT(cpu, op);
}

// 64-bit code.
template <class T>
void op_leave(Cpu& cpu, const Op* op) {
  const u64 from = cpu.r[kRbp];
  const u8* at = readable<T>(cpu, from);
  if (!at) [[unlikely]] return op_leave_any<T>(cpu, op);
  cpu.r[kRsp] = from + sizeof(T);
  cpu.set_reg<T>(kRbp * 8, peek<T>(at));
  STASIS_NEXT(cpu, op);
}

Handler choose_push(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& from = in.operands[0];
  return by_wide(in.instruction.operand_width, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (is_memory(from)) {
      return by_address_cold(in, from, op, [](auto a) -> Handler { return OnLoad<T, typename decltype(a)::type, PushOperand<T>>::handle; });
    }
    op.segment = kSs;
    if (is_immediate(from)) {
      op.imm = from.imm.value.u;
      return in.long_mode ? op_push<T, FromImmediate> : op_push_any<T, FromImmediate>;
    }
    if (is_general(from)) {
      op.src = register_offset(from.reg.value);
      return in.long_mode ? op_push<T, FromRegister> : op_push_any<T, FromRegister>;
    }
    if (from.reg.value < ZYDIS_REGISTER_ES || from.reg.value > ZYDIS_REGISTER_GS) return nullptr;
    op.src = static_cast<u8>(from.reg.value - ZYDIS_REGISTER_ES);
    return op_push_any<T, FromSegment>;
  });
}
Handler choose_pop(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& to = in.operands[0];
  return by_wide(in.instruction.operand_width, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (is_memory(to)) {
      fill_memory(in, to, op);
      return op_pop_memory<T>;
    }
    if (!is_general(to)) return nullptr;
    op.segment = kSs;
    op.dst = register_offset(to.reg.value);
    return in.long_mode ? op_pop<T> : op_pop_any<T>;
  });
}

}  // namespace

Bound bind_stack(const Decoded& in, Op& op) {
  op.extra = static_cast<u8>(in.stack_bytes);
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH: return bound(op, choose_push(in, op));
    case ZYDIS_MNEMONIC_POP: return bound(op, choose_pop(in, op));
    case ZYDIS_MNEMONIC_PUSHA: op.segment = kSs; return bound(op, op_push_all<u16>);
    case ZYDIS_MNEMONIC_PUSHAD: op.segment = kSs; return bound(op, op_push_all<u32>);
    case ZYDIS_MNEMONIC_POPA: op.segment = kSs; return bound(op, op_pop_all<u16>);
    case ZYDIS_MNEMONIC_POPAD: op.segment = kSs; return bound(op, op_pop_all<u32>);
    case ZYDIS_MNEMONIC_ENTER:
      op.segment = kSs;
      op.imm = (in.operands[0].imm.value.u & 0xffff) | (in.operands[1].imm.value.u & 0xff) << 16;
      return bound(op, by_wide(in.instruction.operand_width, [](auto t) -> Handler { return op_enter<typename decltype(t)::type>; }));
    case ZYDIS_MNEMONIC_LEAVE:
      op.segment = kSs;
      return bound(op, by_wide(in.instruction.operand_width, [&in](auto t) -> Handler {
                     using T = typename decltype(t)::type;
                     return in.long_mode ? op_leave<T> : op_leave_any<T>;
                   }));
    default: op.extra = 0; return Bound::no;
  }
}

}  // namespace stasis::soft
