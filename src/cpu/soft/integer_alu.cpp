// ADD OR ADC SBB AND SUB XOR CMP TEST.
#include "cpu/soft/integer.hpp"
#include "cpu/soft/integer_arithmetic.hpp"

namespace stasis::soft {
namespace {

// register or memory <- itself O source
template <class O, class T, class Source>
struct Combine {
  static T run(Cpu& cpu, const Op* op, T old) {
    const Result<T> result = O::template run<T>(cpu.status, old, Source::template get<T>(cpu, op));
    cpu.status = result.status;
    return result.value;
  }
};
// register op->dst <- itself O operand
template <class O, class T>
struct Accumulate {
  static bool run(Cpu& cpu, const Op* op, T operand) {
    const u8 dst = op->dst;
    const Result<T> result = O::template run<T>(cpu.status, cpu.reg<T>(dst), operand);
    if constexpr (O::kWrites) cpu.set_reg<T>(dst, result.value);
    cpu.status = result.status;
    return true;
  }
};
// operand O source, for the flags only
template <class O, class T, class Source>
struct Compare {
  static bool run(Cpu& cpu, const Op* op, T operand) {
    cpu.status = O::template run<T>(cpu.status, operand, Source::template get<T>(cpu, op)).status;
    return true;
  }
};

// XOR r, r; SUB r, r.
template <class T>
void op_zero(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(op->dst, 0);
  cpu.status = kStatusZf | kStatusPf | 0x0200;
  STASIS_NEXT(cpu, op);
}

template <class O, class T, class Source>
Handler destination(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& to = in.operands[0];
  if (is_memory(to)) {
    return by_address(in, to, op, [](auto a) -> Handler {
      using A = typename decltype(a)::type;
      if constexpr (O::kWrites) return OnModify<T, A, Combine<O, T, Source>>::handle;
      else return OnLoad<T, A, Compare<O, T, Source>>::handle;
    });
  }
  op.dst = register_offset(to.reg.value);
  if constexpr (O::kWrites) return on_register<T, Combine<O, T, Source>>;
  else return on_register_read<T, Compare<O, T, Source>>;
}

template <class O>
Handler choose(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& to = in.operands[0];
  const ZydisDecodedOperand& from = in.operands[1];
  return by_width(to.size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (is_immediate(from)) {
      op.imm = from.imm.value.u;
      return destination<O, T, FromImmediate>(in, op);
    }
    if (is_memory(from)) {
      op.dst = register_offset(to.reg.value);
      return by_address(in, from, op, [](auto a) -> Handler { return OnLoad<T, typename decltype(a)::type, Accumulate<O, T>>::handle; });
    }
    op.src = register_offset(from.reg.value);
    return destination<O, T, FromRegister>(in, op);
  });
}

Handler choose_zero(const Decoded& in, Op& op) {
  return by_width(in.operands[0].size, [&](auto t) -> Handler {
    op.dst = register_offset(in.operands[0].reg.value);
    return op_zero<typename decltype(t)::type>;
  });
}

}  // namespace

Bound bind_alu(const Decoded& in, Op& op) {
  const bool same = is_general(in.operands[0]) && is_general(in.operands[1]) && in.operands[0].reg.value == in.operands[1].reg.value;
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_ADD: return bound(op, choose<Add>(in, op));
    case ZYDIS_MNEMONIC_OR: return bound(op, choose<Or>(in, op));
    case ZYDIS_MNEMONIC_ADC: return bound(op, choose<Adc>(in, op));
    case ZYDIS_MNEMONIC_SBB: return bound(op, choose<Sbb>(in, op));
    case ZYDIS_MNEMONIC_AND: return bound(op, choose<And>(in, op));
    case ZYDIS_MNEMONIC_SUB: return bound(op, same ? choose_zero(in, op) : choose<Sub>(in, op));
    case ZYDIS_MNEMONIC_XOR: return bound(op, same ? choose_zero(in, op) : choose<Xor>(in, op));
    case ZYDIS_MNEMONIC_CMP: return bound(op, choose<Cmp>(in, op));
    case ZYDIS_MNEMONIC_TEST: return bound(op, choose<Test>(in, op));
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
