// MUL IMUL DIV IDIV, and the decimal adjustments AAA AAS AAM AAD DAA DAS.
#include "cpu/soft/integer.hpp"
#include "cpu/soft/integer_arithmetic.hpp"

namespace stasis::soft {
namespace {

template <class T>
using Wide = std::conditional_t<sizeof(T) == 1, u16, std::conditional_t<sizeof(T) == 2, u32, std::conditional_t<sizeof(T) == 4, u64, u128>>>;
template <class T>
using SignedWide = std::conditional_t<sizeof(T) == 1, i16, std::conditional_t<sizeof(T) == 2, i32, std::conditional_t<sizeof(T) == 4, i64, i128>>>;

// CF and OF say that the upper half matters; SF, ZF and PF are undefined and follow the lower half.
template <class T>
u16 product_status(T low, bool overflow) {
  return static_cast<u16>(result_status<T>(low) | (overflow ? kStatusCf | kStatusOf : 0));
}
// The double-width accumulator: AX, or rDX:rAX.
template <class T>
Wide<T> accumulator(Cpu& cpu) {
  if constexpr (sizeof(T) == 1) return cpu.reg<u16>(kRax * 8);
  else return static_cast<Wide<T>>(static_cast<Wide<T>>(cpu.reg<T>(kRdx * 8)) << kBits<T> | cpu.reg<T>(kRax * 8));
}
template <class T>
void set_accumulator(Cpu& cpu, T high, T low) {
  if constexpr (sizeof(T) == 1) {
    cpu.reg<u16>(kRax * 8) = static_cast<u16>(high << 8 | low);
  } else {
    cpu.set_reg<T>(kRax * 8, low);
    cpu.set_reg<T>(kRdx * 8, high);
  }
}

template <class T>
struct Mul {
  static bool run(Cpu& cpu, const Op*, T operand) {
    const Wide<T> product = static_cast<Wide<T>>(static_cast<Wide<T>>(cpu.reg<T>(kRax * 8)) * operand);
    const T low = static_cast<T>(product), high = static_cast<T>(product >> kBits<T>);
    set_accumulator<T>(cpu, high, low);
    cpu.status = product_status<T>(low, high != 0);
    return true;
  }
};
template <class T>
SignedWide<T> signed_product(T a, T b) {
  using S = std::make_signed_t<T>;
  return static_cast<SignedWide<T>>(static_cast<SignedWide<T>>(static_cast<S>(a)) * static_cast<S>(b));
}
template <class T>
struct Imul {
  static bool run(Cpu& cpu, const Op*, T operand) {
    const SignedWide<T> product = signed_product<T>(cpu.reg<T>(kRax * 8), operand);
    const T low = static_cast<T>(product);
    set_accumulator<T>(cpu, static_cast<T>(product >> kBits<T>), low);
    cpu.status = product_status<T>(low, product != static_cast<std::make_signed_t<T>>(low));
    return true;
  }
};
// dst <- operand * (imm or dst)
template <class T, bool kImmediate>
struct ImulTo {
  static bool run(Cpu& cpu, const Op* op, T operand) {
    const u8 dst = op->dst;
    const SignedWide<T> product = signed_product<T>(operand, kImmediate ? static_cast<T>(op->imm) : cpu.reg<T>(dst));
    const T low = static_cast<T>(product);
    cpu.set_reg<T>(dst, low);
    cpu.status = product_status<T>(low, product != static_cast<std::make_signed_t<T>>(low));
    return true;
  }
};

template <class T>
struct Quotient {
  T quotient, remainder;
};
// high < divisor, so that the quotient fits.
template <class T>
Quotient<T> divide(T high, T low, T divisor) {
  if constexpr (sizeof(T) == 8) {
    asm("divq %2" : "+a"(low), "+d"(high) : "r"(divisor));
    return {low, high};
  } else {
    const Wide<T> dividend = static_cast<Wide<T>>(static_cast<Wide<T>>(high) << kBits<T> | low);
    return {static_cast<T>(dividend / divisor), static_cast<T>(dividend % divisor)};
  }
}

// DIV and IDIV leave every flag as it is (all are undefined).
template <class T>
struct Div {
  static bool run(Cpu& cpu, const Op* op, T divisor) {
    const Wide<T> dividend = accumulator<T>(cpu);
    const T high = static_cast<T>(dividend >> kBits<T>);
    if (high >= divisor) {  // a divisor of 0 too
      cpu.raise(op, kDe);
      return false;
    }
    const Quotient<T> got = divide<T>(high, static_cast<T>(dividend), divisor);
    set_accumulator<T>(cpu, got.remainder, got.quotient);
    return true;
  }
};
// By magnitudes; the remainder has the sign of the dividend.
template <class T>
struct Idiv {
  static bool run(Cpu& cpu, const Op* op, T operand) {
    Wide<T> dividend = accumulator<T>(cpu);
    const bool negative = dividend >> (2 * kBits<T> - 1) & 1;
    const bool flip = negative != static_cast<bool>(sign_bit<T>(operand));
    if (negative) dividend = static_cast<Wide<T>>(-dividend);
    const T divisor = sign_bit<T>(operand) ? static_cast<T>(-operand) : operand;
    const T high = static_cast<T>(dividend >> kBits<T>);
    const T limit = static_cast<T>(T{1} << (kBits<T> - 1));  // magnitude of the least quotient
    if (high < divisor) {
      const Quotient<T> got = divide<T>(high, static_cast<T>(dividend), divisor);
      if (got.quotient < limit || (flip && got.quotient == limit)) {
        set_accumulator<T>(cpu, static_cast<T>(negative ? -got.remainder : got.remainder), static_cast<T>(flip ? -got.quotient : got.quotient));
        return true;
      }
    }
    cpu.raise(op, kDe);
    return false;
  }
};

template <template <class> class F>
Handler choose(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& from = in.operands[0];
  return by_width(from.size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (is_memory(from)) {
      return by_address_cold(in, from, op, [](auto a) -> Handler { return OnLoad<T, typename decltype(a)::type, F<T>>::handle; });
    }
    op.src = register_offset(from.reg.value);
    return on_source<T, F<T>>;
  });
}
template <bool kImmediate>
Handler choose_to(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& from = in.operands[1];
  if (kImmediate) op.imm = in.operands[2].imm.value.u;
  op.dst = register_offset(in.operands[0].reg.value);
  return by_wide(in.operands[0].size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (is_memory(from)) {
      return by_address_cold(in, from, op, [](auto a) -> Handler { return OnLoad<T, typename decltype(a)::type, ImulTo<T, kImmediate>>::handle; });
    }
    op.src = register_offset(from.reg.value);
    return on_source<T, ImulTo<T, kImmediate>>;
  });
}

// ---- decimal adjustments; outside 64-bit mode only ---------------------------------------------------
u8& al(Cpu& cpu) { return cpu.reg<u8>(kRax * 8); }
u8& ah(Cpu& cpu) { return cpu.reg<u8>(kRax * 8 + 1); }

// AAA (+) and AAS (-). OF, SF, ZF and PF are undefined: OF clear, the others follow AL.
template <bool kAdd>
void op_ascii_adjust(Cpu& cpu, const Op* op) {
  const bool adjust = (al(cpu) & 15) > 9 || (cpu.status & kStatusAf);
  if (adjust) cpu.reg<u16>(kRax * 8) = static_cast<u16>(cpu.reg<u16>(kRax * 8) + (kAdd ? 0x106 : -0x106));
  al(cpu) &= 15;
  cpu.status = static_cast<u16>(result_status<u8>(al(cpu)) | (adjust ? kStatusAf | kStatusCf : 0));
  STASIS_NEXT(cpu, op);
}
// DAA (+) and DAS (-). OF is undefined: clear.
template <bool kAdd>
void op_decimal_adjust(Cpu& cpu, const Op* op) {
  const u8 old = al(cpu);
  const bool carry = cpu.status & kStatusCf;
  const bool low = (old & 15) > 9 || (cpu.status & kStatusAf);
  const bool high = old > 0x99 || carry;
  const u8 step = static_cast<u8>((low ? 6 : 0) + (high ? 0x60 : 0));
  const u8 value = static_cast<u8>(kAdd ? old + step : old - step);
  // DAS borrows when the low adjustment does, too.
  const bool carry_out = high || (!kAdd && low && old < 6);
  al(cpu) = value;
  cpu.status = static_cast<u16>(result_status<u8>(value) | (low ? kStatusAf : 0) | (carry_out ? kStatusCf : 0));
  STASIS_NEXT(cpu, op);
}
// OF, AF and CF of AAM and AAD are undefined: clear.
void op_aam(Cpu& cpu, const Op* op) {
  const u8 divisor = static_cast<u8>(op->imm);
  if (divisor == 0) return cpu.raise(op, kDe);
  const u8 old = al(cpu);
  ah(cpu) = old / divisor;
  al(cpu) = old % divisor;
  cpu.status = result_status<u8>(al(cpu));
  STASIS_NEXT(cpu, op);
}
void op_aad(Cpu& cpu, const Op* op) {
  cpu.reg<u16>(kRax * 8) = static_cast<u8>(al(cpu) + ah(cpu) * static_cast<u8>(op->imm));
  cpu.status = result_status<u8>(al(cpu));
  STASIS_NEXT(cpu, op);
}

}  // namespace

Bound bind_multiply(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_MUL: return bound(op, choose<Mul>(in, op));
    case ZYDIS_MNEMONIC_DIV: return bound(op, choose<Div>(in, op));
    case ZYDIS_MNEMONIC_IDIV: return bound(op, choose<Idiv>(in, op));
    case ZYDIS_MNEMONIC_IMUL:
      switch (in.instruction.operand_count_visible) {
        case 1: return bound(op, choose<Imul>(in, op));
        case 2: return bound(op, choose_to<false>(in, op));
        default: return bound(op, choose_to<true>(in, op));
      }
    case ZYDIS_MNEMONIC_AAA: return bound(op, op_ascii_adjust<true>);
    case ZYDIS_MNEMONIC_AAS: return bound(op, op_ascii_adjust<false>);
    case ZYDIS_MNEMONIC_DAA: return bound(op, op_decimal_adjust<true>);
    case ZYDIS_MNEMONIC_DAS: return bound(op, op_decimal_adjust<false>);
    case ZYDIS_MNEMONIC_AAM: op.imm = in.operands[0].imm.value.u; return bound(op, op_aam);
    case ZYDIS_MNEMONIC_AAD: op.imm = in.operands[0].imm.value.u; return bound(op, op_aad);
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
