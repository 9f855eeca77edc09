// NOT NEG INC DEC.
#include "cpu/soft/integer.hpp"
#include "cpu/soft/integer_arithmetic.hpp"

namespace stasis::soft {
namespace {

template <class O, class T>
struct Apply {
  static T run(Cpu& cpu, const Op*, T old) {
    const Result<T> result = O::template run<T>(cpu.status, old);
    cpu.status = result.status;
    return result.value;
  }
};

template <class O>
Handler choose(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& to = in.operands[0];
  return by_width(to.size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (is_memory(to)) {
      return by_address(in, to, op, [](auto a) -> Handler { return OnModify<T, typename decltype(a)::type, Apply<O, T>>::handle; });
    }
    op.dst = register_offset(to.reg.value);
    return on_register<T, Apply<O, T>>;
  });
}

}  // namespace

Bound bind_unary(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_NOT: return bound(op, choose<Not>(in, op));
    case ZYDIS_MNEMONIC_NEG: return bound(op, choose<Neg>(in, op));
    case ZYDIS_MNEMONIC_INC: return bound(op, choose<Inc>(in, op));
    case ZYDIS_MNEMONIC_DEC: return bound(op, choose<Dec>(in, op));
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
