// SHL SHR SAR ROL ROR RCL RCR SHLD SHRD. In software throughout: which flags a host leaves undefined differs.
#include "cpu/soft/integer.hpp"
#include "cpu/soft/integer_arithmetic.hpp"

namespace stasis::soft {
namespace {

struct FromCl {
  template <class T>
  static T get(Cpu& cpu, const Op*) { return static_cast<T>(cpu.reg<u8>(kRcx * 8)); }
};

constexpr u16 with_carry_overflow(u16 status, u64 carry, u64 overflow) {
  return static_cast<u16>((status & ~(kStatusCf | kStatusOf)) | (carry & 1) << 8 | (overflow & 1));
}
// OF of left shifts is MSB xor CF, of right shifts the two top bits of the result; architectural for a count of 1.
template <class T>
constexpr u64 top_two_differ(T value) { return sign_bit<T>(static_cast<T>(value ^ static_cast<T>(value << 1))); }

// Each run() gets a count of 1 .. 31 (63 for 64 bits), so a shift of a u64 by it is always defined.
struct Shl {
  template <class T>
  static Result<T> run(u16, T a, unsigned count) {
    const T value = static_cast<T>(static_cast<u64>(a) << count);
    const u64 carry = count <= kBits<T> ? static_cast<u64>(a) >> (kBits<T> - count) : 0;
    return {value, with_carry_overflow(result_status<T>(value), carry, carry ^ sign_bit<T>(value))};
  }
};
struct Shr {
  template <class T>
  static Result<T> run(u16, T a, unsigned count) {
    const T value = static_cast<T>(static_cast<u64>(a) >> count);
    return {value, with_carry_overflow(result_status<T>(value), static_cast<u64>(a) >> (count - 1), top_two_differ<T>(value))};
  }
};
struct Sar {
  template <class T>
  static Result<T> run(u16, T a, unsigned count) {
    const i64 wide = static_cast<std::make_signed_t<T>>(a);
    const T value = static_cast<T>(wide >> count);
    return {value, with_carry_overflow(result_status<T>(value), static_cast<u64>(wide >> (count - 1)), 0)};
  }
};
struct Rol {
  template <class T>
  static Result<T> run(u16 status, T a, unsigned count) {
    const T value = std::rotl(a, static_cast<int>(count));
    return {value, with_carry_overflow(status, value, value ^ sign_bit<T>(value))};
  }
};
struct Ror {
  template <class T>
  static Result<T> run(u16 status, T a, unsigned count) {
    const T value = std::rotr(a, static_cast<int>(count));
    return {value, with_carry_overflow(status, sign_bit<T>(value), top_two_differ<T>(value))};
  }
};
// Rotation of width + 1 bits; a count that is a multiple of that leaves all as it is.
struct Rcl {
  template <class T>
  static Result<T> run(u16 status, T a, unsigned count) {
    count %= kBits<T> + 1;
    if (count == 0) return {a, status};
    const u64 wide = a, in = status >> 8 & 1;
    const T value = static_cast<T>((wide << count) | in << (count - 1) | (count > 1 ? wide >> (kBits<T> + 1 - count) : 0));
    const u64 carry = wide >> (kBits<T> - count) & 1;
    return {value, with_carry_overflow(status, carry, carry ^ sign_bit<T>(value))};
  }
};
struct Rcr {
  template <class T>
  static Result<T> run(u16 status, T a, unsigned count) {
    count %= kBits<T> + 1;
    if (count == 0) return {a, status};
    const u64 wide = a, in = status >> 8 & 1;
    const T value = static_cast<T>((wide >> count) | in << (kBits<T> - count) | (count > 1 ? wide << (kBits<T> + 1 - count) : 0));
    return {value, with_carry_overflow(status, wide >> (count - 1), top_two_differ<T>(value))};
  }
};

// `from` is what comes in. Of 16 bits a count above 16 is undefined: it goes on into the destination again.
struct Shld {
  template <class T>
  static Result<T> run(T a, T from, unsigned count) {
    T value;
    u64 carry;
    if constexpr (sizeof(T) == 2) {
      const u64 wide = static_cast<u64>(a) << 32 | static_cast<u64>(from) << 16 | a;
      value = static_cast<T>(wide << count >> 32);
      carry = wide >> (48 - count);
    } else {
      value = static_cast<T>(a << count | from >> (kBits<T> - count));
      carry = a >> (kBits<T> - count);
    }
    return {value, with_carry_overflow(result_status<T>(value), carry, carry ^ sign_bit<T>(value))};
  }
};
struct Shrd {
  template <class T>
  static Result<T> run(T a, T from, unsigned count) {
    T value;
    u64 carry;
    if constexpr (sizeof(T) == 2) {
      const u64 wide = static_cast<u64>(a) << 32 | static_cast<u64>(from) << 16 | a;
      value = static_cast<T>(wide >> count);
      carry = wide >> (count - 1);
    } else {
      value = static_cast<T>(a >> count | from << (kBits<T> - count));
      carry = a >> (count - 1);
    }
    return {value, with_carry_overflow(result_status<T>(value), carry, top_two_differ<T>(value))};
  }
};

template <class T>
inline constexpr unsigned kCountMask = sizeof(T) == 8 ? 63 : 31;

// A count of 0 leaves the flags, but the destination is written (and a 32-bit one loses its upper half).
template <class O, class T, class Count>
struct Shift {
  static T run(Cpu& cpu, const Op* op, T old) {
    const unsigned count = Count::template get<u8>(cpu, op) & kCountMask<T>;
    if (count == 0) return old;
    const Result<T> result = O::template run<T>(cpu.status, old, count);
    cpu.status = result.status;
    return result.value;
  }
};
template <class O, class T, class Count>
struct DoubleShift {
  static T run(Cpu& cpu, const Op* op, T old) {
    const unsigned count = Count::template get<u8>(cpu, op) & kCountMask<T>;
    if (count == 0) return old;
    const Result<T> result = O::template run<T>(old, cpu.reg<T>(op->src), count);
    cpu.status = result.status;
    return result.value;
  }
};

template <class T, class F>
Handler destination(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& to = in.operands[0];
  if (is_memory(to)) {
    return by_address_cold(in, to, op, [](auto a) -> Handler { return OnModify<T, typename decltype(a)::type, F>::handle; });
  }
  op.dst = register_offset(to.reg.value);
  return on_register<T, F>;
}
template <class O>
Handler choose(const Decoded& in, Op& op) {
  return by_width(in.operands[0].size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (!is_immediate(in.operands[1])) return destination<T, Shift<O, T, FromCl>>(in, op);
    op.imm = in.operands[1].imm.value.u;
    return destination<T, Shift<O, T, FromImmediate>>(in, op);
  });
}
template <class O>
Handler choose_double(const Decoded& in, Op& op) {
  return by_wide(in.operands[0].size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    op.src = register_offset(in.operands[1].reg.value);
    if (!is_immediate(in.operands[2])) return destination<T, DoubleShift<O, T, FromCl>>(in, op);
    op.imm = in.operands[2].imm.value.u;
    return destination<T, DoubleShift<O, T, FromImmediate>>(in, op);
  });
}

}  // namespace

Bound bind_shift(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_SHL: return bound(op, choose<Shl>(in, op));
    case ZYDIS_MNEMONIC_SHR: return bound(op, choose<Shr>(in, op));
    case ZYDIS_MNEMONIC_SAR: return bound(op, choose<Sar>(in, op));
    case ZYDIS_MNEMONIC_ROL: return bound(op, choose<Rol>(in, op));
    case ZYDIS_MNEMONIC_ROR: return bound(op, choose<Ror>(in, op));
    case ZYDIS_MNEMONIC_RCL: return bound(op, choose<Rcl>(in, op));
    case ZYDIS_MNEMONIC_RCR: return bound(op, choose<Rcr>(in, op));
    case ZYDIS_MNEMONIC_SHLD: return bound(op, choose_double<Shld>(in, op));
    case ZYDIS_MNEMONIC_SHRD: return bound(op, choose_double<Shrd>(in, op));
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
