// MOV MOVZX MOVSX MOVSXD MOVNTI LEA XLAT BSWAP.
#include <algorithm>

#include "cpu/soft/integer.hpp"

namespace stasis::soft {
namespace {

template <class T>
void op_move(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(op->dst, cpu.reg<T>(op->src));
  STASIS_NEXT(cpu, op);
}
template <class T>
void op_move_immediate(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(op->dst, static_cast<T>(op->imm));
  STASIS_NEXT(cpu, op);
}
// register op->dst <- operand, extended from S (signed or not) to T
template <class T, class S>
struct Extend {
  using Unsigned = std::make_unsigned_t<S>;
  static bool run(Cpu& cpu, const Op* op, Unsigned value) {
    cpu.set_reg<T>(op->dst, static_cast<T>(static_cast<S>(value)));
    return true;
  }
};
template <class T, class Source>
struct Store {
  static T value(Cpu& cpu, const Op* op) { return Source::template get<T>(cpu, op); }
};

Handler choose_move(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& to = in.operands[0];
  const ZydisDecodedOperand& from = in.operands[1];
  return by_width(to.size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (is_memory(to)) {
      if (is_immediate(from)) {
        op.imm = from.imm.value.u;
        return by_address(in, to, op, [](auto a) -> Handler { return OnStore<T, typename decltype(a)::type, Store<T, FromImmediate>>::handle; });
      }
      if (!is_general(from)) return nullptr;
      op.src = register_offset(from.reg.value);
      return by_address(in, to, op, [](auto a) -> Handler { return OnStore<T, typename decltype(a)::type, Store<T, FromRegister>>::handle; });
    }
    if (!is_general(to)) return nullptr;
    op.dst = register_offset(to.reg.value);
    if (is_memory(from)) {
      return by_address(in, from, op, [](auto a) -> Handler { return OnLoad<T, typename decltype(a)::type, Extend<T, T>>::handle; });
    }
    if (is_immediate(from)) {
      op.imm = from.imm.value.u;
      return op_move_immediate<T>;
    }
    if (!is_general(from)) return nullptr;
    op.src = register_offset(from.reg.value);
    return op_move<T>;
  });
}

template <class T, class S>
Handler choose_extend_from(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& from = in.operands[1];
  using Unsigned = std::make_unsigned_t<S>;
  op.dst = register_offset(in.operands[0].reg.value);
  if (is_memory(from)) {
    return by_address(in, from, op, [](auto a) -> Handler { return OnLoad<Unsigned, typename decltype(a)::type, Extend<T, S>>::handle; });
  }
  op.src = register_offset(from.reg.value);
  return on_source<Unsigned, Extend<T, S>>;
}
Handler choose_extend(const Decoded& in, Op& op, bool sign) {
  // With a 16-bit target MOVSXD reads 16 bits, whatever Zydis says.
  const unsigned width = std::min<unsigned>(in.operands[1].size, in.operands[0].size);
  return by_wide(in.operands[0].size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    switch (width) {
      case 8: return sign ? choose_extend_from<T, i8>(in, op) : choose_extend_from<T, u8>(in, op);
      case 16: return sign ? choose_extend_from<T, i16>(in, op) : choose_extend_from<T, u16>(in, op);
      case 32: return choose_extend_from<T, i32>(in, op);  // MOVSXD only
    }
    return nullptr;
  });
}

// LEA: no segment; cut to the address size, then to the operand's.
template <class T, class Address>
void op_lea(Cpu& cpu, const Op* op) {
  if constexpr (std::is_same_v<Address, AnyAddress>) cpu.set_reg<T>(op->dst, static_cast<T>(AnyAddress::offset(cpu, op)));
  else cpu.set_reg<T>(op->dst, static_cast<T>(Address::linear(cpu, op)));
  STASIS_NEXT(cpu, op);
}

void op_xlat(Cpu& cpu, const Op* op) {
  u64 offset = cpu.r[kRbx] + cpu.reg<u8>(kRax * 8);
  if (op->address_bytes != 8) offset &= op->address_bytes == 4 ? 0xffff'ffffu : 0xffffu;
  const Linear at = linear_of(cpu, op, static_cast<Segment>(op->segment), offset, 1, false);
  if (!at.ok) return;
  const Loaded value = cpu.read<u8>(at.address, op);
  if (!value.ok) return;
  cpu.reg<u8>(kRax * 8) = static_cast<u8>(value.value);
  STASIS_NEXT(cpu, op);
}

// A 16-bit BSWAP is undefined; zero, as processors do.
template <class T>
void op_bswap(Cpu& cpu, const Op* op) {
  const T value = cpu.reg<T>(op->dst);
  cpu.set_reg<T>(op->dst, sizeof(T) == 8 ? static_cast<T>(__builtin_bswap64(value)) : sizeof(T) == 4 ? static_cast<T>(__builtin_bswap32(static_cast<u32>(value))) : T{0});
  STASIS_NEXT(cpu, op);
}

Handler choose_lea(const Decoded& in, Op& op) {
  return by_wide(in.operands[0].size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    op.dst = register_offset(in.operands[0].reg.value);
    fill_memory(in, in.operands[1], op);
    if (op.address_bytes != 8) return op_lea<T, AnyAddress>;
    return op.index == kZeroSlot ? op_lea<T, BaseAddress> : op_lea<T, FlatAddress>;
  });
}

Handler choose_xlat(const Decoded& in, Op& op) {
  for (unsigned i = 0; i < in.instruction.operand_count; ++i) {
    if (is_memory(in.operands[i])) fill_memory(in, in.operands[i], op);
  }
  return op_xlat;
}

}  // namespace

Bound bind_move(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVNTI: return bound(op, choose_move(in, op));
    case ZYDIS_MNEMONIC_MOVZX: return bound(op, choose_extend(in, op, false));
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD: return bound(op, choose_extend(in, op, true));
    case ZYDIS_MNEMONIC_LEA: return bound(op, choose_lea(in, op));
    case ZYDIS_MNEMONIC_XLAT: return bound(op, choose_xlat(in, op));
    case ZYDIS_MNEMONIC_BSWAP:
      op.dst = register_offset(in.operands[0].reg.value);
      return bound(op, by_wide(in.operands[0].size, [](auto t) -> Handler { return op_bswap<typename decltype(t)::type>; }));
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
