// Near branches. Far ones are in far_transfer.cpp.
#include <utility>

#include "cpu/soft/bind.hpp"
#include "cpu/soft/block.hpp"
#include "cpu/soft/segments.hpp"

namespace stasis::soft {
namespace {

// kWidth: bytes of the instruction pointer by operand size; 8 means 64-bit code.
template <unsigned kWidth>
constexpr u64 cut(u64 rip) {
  return kWidth == 8 ? rip : kWidth == 4 ? static_cast<u32>(rip) : static_cast<u16>(rip);
}
// May `to` be branched to? False: raised.
template <unsigned kWidth>
bool reachable(Cpu& cpu, const Op* op, u64 to) {
  const bool ok = kWidth == 8 ? is_canonical(to) : to <= cpu.seg[kCs].limit;
  if (!ok) [[unlikely]] cpu.raise(op, kGp, 0);
  return ok;
}

template <unsigned kWidth>
bool push(Cpu& cpu, const Op* op, u64 value) {
  if constexpr (kWidth == 8) {
    const u64 rsp = cpu.r[kRsp] - 8;
    if (!cpu.write<u64>(rsp, value, op)) return false;
    cpu.r[kRsp] = rsp;
    return true;
  } else {
    Stack stack(cpu, op);
    if (!stack.push(value, kWidth)) return false;
    stack.commit();
    return true;
  }
}

// Direct branches: imm is the target and disp the next instruction, relative to the block's RIP.
template <unsigned kWidth>
void jump_direct(Cpu& cpu, const Op* op) {
  const u64 to = cut<kWidth>(cpu.r[kRipSlot] + op->imm);
  if (kWidth != 8 && !reachable<kWidth>(cpu, op, to)) return;
  STASIS_GO_LINK(cpu, to, 0);
}

template <unsigned kCondition, unsigned kWidth>
void jump_if(Cpu& cpu, const Op* op) {
  if (condition<kCondition>(cpu.status)) {
    const u64 to = cut<kWidth>(cpu.r[kRipSlot] + op->imm);
    if (kWidth != 8 && !reachable<kWidth>(cpu, op, to)) return;
    STASIS_GO_LINK(cpu, to, 1);
  }
  const u64 to = cpu.r[kRipSlot] + static_cast<u64>(op->disp);
  STASIS_GO_LINK(cpu, to, 0);
}

template <unsigned kWidth>
void call_direct(Cpu& cpu, const Op* op) {
  const u64 to = cut<kWidth>(cpu.r[kRipSlot] + op->imm);
  if (!reachable<kWidth>(cpu, op, to)) return;
  if (!push<kWidth>(cpu, op, cpu.r[kRipSlot] + static_cast<u64>(op->disp))) return;
  STASIS_GO_LINK(cpu, to, 0);
}

template <unsigned kWidth>
void jump_register(Cpu& cpu, const Op* op) {
  const u64 to = cut<kWidth>(cpu.reg<u64>(op->dst));
  if (!reachable<kWidth>(cpu, op, to)) return;
  STASIS_GO(cpu, to);
}

template <unsigned kWidth>
void call_register(Cpu& cpu, const Op* op) {
  const u64 to = cut<kWidth>(cpu.reg<u64>(op->dst));
  if (!reachable<kWidth>(cpu, op, to) || !push<kWidth>(cpu, op, cpu.next_rip_of(op))) return;
  STASIS_GO(cpu, to);
}

template <unsigned kWidth>
Loaded load_target(Cpu& cpu, const Op* op, u64 linear) {
  if constexpr (kWidth == 8) return cpu.read<u64>(linear, op);
  else if constexpr (kWidth == 4) return cpu.read<u32>(linear, op);
  else return cpu.read<u16>(linear, op);
}

template <class Address, unsigned kWidth, bool kCall>
void branch_memory(Cpu& cpu, const Op* op) {
  const u64 linear = Address::linear(cpu, op);
  if (!Address::check(cpu, op, linear, kWidth, false)) return;
  const Loaded to = load_target<kWidth>(cpu, op, linear);
  if (!to.ok || !reachable<kWidth>(cpu, op, to.value)) return;
  if (kCall && !push<kWidth>(cpu, op, cpu.next_rip_of(op))) return;
  STASIS_GO(cpu, to.value);
}

void return_long(Cpu& cpu, const Op* op) {  // imm: bytes to release
  const Loaded to = cpu.read<u64>(cpu.r[kRsp], op);
  if (!to.ok || !reachable<8>(cpu, op, to.value)) return;
  cpu.r[kRsp] += 8 + op->imm;
  STASIS_GO(cpu, to.value);
}

template <unsigned kWidth>
void return_near(Cpu& cpu, const Op* op) {
  Stack stack(cpu, op);
  u64 to;
  if (!stack.pop(to, kWidth) || !reachable<kWidth>(cpu, op, to)) return;
  stack.skip(op->imm);
  stack.commit();
  STASIS_GO(cpu, to);
}

// LOOP, LOOPE, LOOPNE (extra 0, 1, 2) and JCXZ (3): the counter's width is the address size.
template <unsigned kWidth>
void loop_counter(Cpu& cpu, const Op* op) {
  const u64 mask = op->address_bytes == 8 ? ~0ull : op->address_bytes == 4 ? 0xffff'ffffull : 0xffffull;
  const u64 left = (cpu.r[kRcx] - (op->extra == 3 ? 0 : 1)) & mask;
  const bool zero = cpu.status & kStatusZf;
  const bool taken = op->extra == 3 ? left == 0 : left != 0 && (op->extra == 0 || (op->extra == 1) == zero);
  const u64 to = cut<kWidth>(cpu.r[kRipSlot] + op->imm);
  if (taken && !reachable<kWidth>(cpu, op, to)) return;
  if (op->extra != 3) cpu.r[kRcx] = op->address_bytes == 2 ? (cpu.r[kRcx] & ~mask) | left : left;
  if (taken) STASIS_GO_LINK(cpu, to, 1);
  const u64 next = cpu.r[kRipSlot] + static_cast<u64>(op->disp);
  STASIS_GO_LINK(cpu, next, 0);
}

template <unsigned kWidth, std::size_t... kConditions>
constexpr std::array<Handler, 16> conditions(std::index_sequence<kConditions...>) {
  return {jump_if<kConditions, kWidth>...};
}

unsigned condition_of(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_JO: return 0;
    case ZYDIS_MNEMONIC_JNO: return 1;
    case ZYDIS_MNEMONIC_JB: return 2;
    case ZYDIS_MNEMONIC_JNB: return 3;
    case ZYDIS_MNEMONIC_JZ: return 4;
    case ZYDIS_MNEMONIC_JNZ: return 5;
    case ZYDIS_MNEMONIC_JBE: return 6;
    case ZYDIS_MNEMONIC_JNBE: return 7;
    case ZYDIS_MNEMONIC_JS: return 8;
    case ZYDIS_MNEMONIC_JNS: return 9;
    case ZYDIS_MNEMONIC_JP: return 10;
    case ZYDIS_MNEMONIC_JNP: return 11;
    case ZYDIS_MNEMONIC_JL: return 12;
    case ZYDIS_MNEMONIC_JNL: return 13;
    case ZYDIS_MNEMONIC_JLE: return 14;
    case ZYDIS_MNEMONIC_JNLE: return 15;
    default: return 16;
  }
}

template <unsigned kWidth>
Bound bind_indirect(const Decoded& in, Op& op, bool call) {
  const ZydisDecodedOperand& target = in.operands[0];
  if (target.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    op.dst = register_offset(target.reg.value);
    op.fn = call ? call_register<kWidth> : jump_register<kWidth>;
  } else if (fill_memory(in, target, op)) {
    op.fn = call ? branch_memory<FlatAddress, kWidth, true> : branch_memory<FlatAddress, kWidth, false>;
  } else {
    op.fn = call ? branch_memory<AnyAddress, kWidth, true> : branch_memory<AnyAddress, kWidth, false>;
  }
  return Bound::ends;
}

template <unsigned kWidth>
Bound bind_near(const Decoded& in, Op& op) {
  static constexpr auto kConditional = conditions<kWidth>(std::make_index_sequence<16>{});
  const ZydisMnemonic mnemonic = in.instruction.mnemonic;
  const ZydisDecodedOperand& target = in.operands[0];
  op.disp = op.at + op.length;
  op.address_bytes = static_cast<u8>(in.instruction.address_width / 8);
  const bool direct = target.type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  if (direct && mnemonic != ZYDIS_MNEMONIC_RET) op.imm = static_cast<u64>(op.disp + target.imm.value.s);
  if (const unsigned c = condition_of(mnemonic); c < 16) {
    op.fn = kConditional[c];
    return Bound::ends;
  }
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
      if (!direct) return bind_indirect<kWidth>(in, op, false);
      op.fn = jump_direct<kWidth>;
      return Bound::ends;
    case ZYDIS_MNEMONIC_CALL:
      op.segment = kSs;
      if (!direct) return bind_indirect<kWidth>(in, op, true);
      op.fn = call_direct<kWidth>;
      return Bound::ends;
    case ZYDIS_MNEMONIC_RET:
      op.segment = kSs;
      op.imm = direct ? target.imm.value.u & 0xffff : 0;
      op.fn = kWidth == 8 ? return_long : return_near<kWidth>;
      return Bound::ends;
    case ZYDIS_MNEMONIC_LOOP: op.extra = 0; break;
    case ZYDIS_MNEMONIC_LOOPE: op.extra = 1; break;
    case ZYDIS_MNEMONIC_LOOPNE: op.extra = 2; break;
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: op.extra = 3; break;
    default: return Bound::no;
  }
  op.fn = loop_counter<kWidth>;
  return Bound::ends;
}

}  // namespace

Bound bind_control_flow(const Decoded& in, Op& op) {
  if (in.instruction.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT || in.instruction.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR) {
    if (in.long_mode) return bind_near<8>(in, op);
    return in.instruction.operand_width == 32 ? bind_near<4>(in, op) : bind_near<2>(in, op);
  }
  return bind_far(in, op);
}

}  // namespace stasis::soft
