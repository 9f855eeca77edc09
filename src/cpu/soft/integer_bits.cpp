// BT BTS BTR BTC BSF BSR POPCNT CRC32. BMI is hidden, so TZCNT and LZCNT run as BSF and BSR.
#include "cpu/soft/integer.hpp"

namespace stasis::soft {
namespace {

struct Keep {
  static constexpr bool kWrites = false;
  template <class T>
  static T run(T value, T) { return value; }
};
struct Set {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(T value, T bit) { return value | bit; }
};
struct Reset {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(T value, T bit) { return value & static_cast<T>(~bit); }
};
struct Complement {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(T value, T bit) { return value ^ bit; }
};

// Only CF changes.
template <class O, class T, class Source>
struct Bit {
  static T run(Cpu& cpu, const Op* op, T old) {
    const unsigned at = static_cast<unsigned>(Source::template get<T>(cpu, op) & (kBits<T> - 1));
    cpu.status = static_cast<u16>((cpu.status & ~kStatusCf) | (old >> at & 1) << 8);
    return O::template run<T>(old, static_cast<T>(T{1} << at));
  }
};
template <class O, class T, class Source>
struct BitRead {
  static bool run(Cpu& cpu, const Op* op, T old) {
    Bit<O, T, Source>::run(cpu, op, old);
    return true;
  }
};

// A bit string in memory: the register's upper bits, signed, count operands from the addressed one.
template <class O, class T>
void op_bit_string(Cpu& cpu, const Op* op) {
  const i64 bit = static_cast<std::make_signed_t<T>>(cpu.reg<T>(op->src));
  const u64 distance = static_cast<u64>((bit >> std::countr_zero(kBits<T>)) * static_cast<i64>(sizeof(T)));
  u64 offset = AnyAddress::offset(cpu, op) + distance;
  if (op->address_bytes != 8) offset &= op->address_bytes == 4 ? 0xffff'ffffu : 0xffffu;
  const Linear at = linear_of(cpu, op, static_cast<Segment>(op->segment), offset, sizeof(T), O::kWrites);
  if (!at.ok) return;
  if constexpr (O::kWrites) {
    if (!modify_at<T, Bit<O, T, FromRegister>>(cpu, op, at.address)) return;
  } else {
    const Loaded old = cpu.read<T>(at.address, op);
    if (!old.ok) return;
    Bit<O, T, FromRegister>::run(cpu, op, static_cast<T>(old.value));
  }
  STASIS_NEXT(cpu, op);
}

template <class T, class O, class Source>
Handler fixed(const Decoded& in, Op& op) {
  const ZydisDecodedOperand& to = in.operands[0];
  if (is_memory(to)) {
    return by_address_cold(in, to, op, [](auto a) -> Handler {
      using A = typename decltype(a)::type;
      if constexpr (O::kWrites) return OnModify<T, A, Bit<O, T, Source>>::handle;
      else return OnLoad<T, A, BitRead<O, T, Source>>::handle;
    });
  }
  op.dst = register_offset(to.reg.value);
  if constexpr (O::kWrites) return on_register<T, Bit<O, T, Source>>;
  else return on_register_read<T, BitRead<O, T, Source>>;
}
template <class O>
Handler choose_bit(const Decoded& in, Op& op) {
  return by_wide(in.operands[0].size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    if (is_immediate(in.operands[1])) {
      op.imm = in.operands[1].imm.value.u;
      return fixed<T, O, FromImmediate>(in, op);
    }
    op.src = register_offset(in.operands[1].reg.value);
    if (!is_memory(in.operands[0])) return fixed<T, O, FromRegister>(in, op);
    fill_memory(in, in.operands[0], op);
    return op_bit_string<O, T>;
  });
}

// ZF says that the source is zero; the destination is unchanged then. The other flags are undefined: clear.
template <class T, bool kReverse>
struct Scan {
  static bool run(Cpu& cpu, const Op* op, T value) {
    if (value == 0) {
      cpu.status = kStatusZf | 0x0200;
    } else {
      cpu.status = 0x0200;
      cpu.set_reg<T>(op->dst, static_cast<T>(kReverse ? kBits<T> - 1 - static_cast<unsigned>(std::countl_zero(value)) : static_cast<unsigned>(std::countr_zero(value))));
    }
    return true;
  }
};
template <class T>
struct Population {
  static bool run(Cpu& cpu, const Op* op, T value) {
    u64 count;
    asm("popcnt %1, %0" : "=r"(count) : "r"(static_cast<u64>(value)));
    cpu.status = value == 0 ? kStatusZf | 0x0200 : 0x0200;
    cpu.set_reg<T>(op->dst, static_cast<T>(count));
    return true;
  }
};
template <class T>
struct Crc {
  static bool run(Cpu& cpu, const Op* op, T value) {
    u64 crc = cpu.reg<u32>(op->dst);
    if constexpr (sizeof(T) == 8) {
      asm("crc32q %1, %0" : "+r"(crc) : "r"(value));
    } else {
      u32 narrow = static_cast<u32>(crc);
      if constexpr (sizeof(T) == 1) asm("crc32b %1, %0" : "+r"(narrow) : "r"(value));
      else if constexpr (sizeof(T) == 2) asm("crc32w %1, %0" : "+r"(narrow) : "r"(value));
      else asm("crc32l %1, %0" : "+r"(narrow) : "r"(value));
      crc = narrow;
    }
    cpu.reg<u64>(op->dst) = crc;
    return true;
  }
};

template <class T, class F>
Handler to_register(const Decoded& in, Op& op) {
  op.dst = register_offset(in.operands[0].reg.value);
  const ZydisDecodedOperand& from = in.operands[1];
  if (is_memory(from)) {
    return by_address_cold(in, from, op, [](auto a) -> Handler { return OnLoad<T, typename decltype(a)::type, F>::handle; });
  }
  op.src = register_offset(from.reg.value);
  return on_source<T, F>;
}
template <bool kReverse>
Handler choose_scan(const Decoded& in, Op& op) {
  return by_wide(in.operands[1].size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    return to_register<T, Scan<T, kReverse>>(in, op);
  });
}

}  // namespace

Bound bind_bits(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_BT: return bound(op, choose_bit<Keep>(in, op));
    case ZYDIS_MNEMONIC_BTS: return bound(op, choose_bit<Set>(in, op));
    case ZYDIS_MNEMONIC_BTR: return bound(op, choose_bit<Reset>(in, op));
    case ZYDIS_MNEMONIC_BTC: return bound(op, choose_bit<Complement>(in, op));
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_TZCNT: return bound(op, choose_scan<false>(in, op));
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_LZCNT: return bound(op, choose_scan<true>(in, op));
    case ZYDIS_MNEMONIC_POPCNT:
      return bound(op, by_wide(in.operands[1].size, [&](auto t) -> Handler {
                     using T = typename decltype(t)::type;
                     return to_register<T, Population<T>>(in, op);
                   }));
    case ZYDIS_MNEMONIC_CRC32:
      return bound(op, by_width(in.operands[1].size, [&](auto t) -> Handler {
                     using T = typename decltype(t)::type;
                     return to_register<T, Crc<T>>(in, op);
                   }));
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
