// XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B. One vCPU thread: LOCK needs nothing.
#include "cpu/soft/integer.hpp"
#include "cpu/soft/integer_arithmetic.hpp"

namespace stasis::soft {
namespace {

// The other register is op->src.
template <class T>
struct Exchange {
  static T run(Cpu& cpu, const Op* op, T old) {
    const u8 src = op->src;
    const T value = cpu.reg<T>(src);
    cpu.set_reg<T>(src, old);
    return value;
  }
};
template <class T>
struct ExchangeAdd {
  static T run(Cpu& cpu, const Op* op, T old) {
    const u8 src = op->src;
    const Result<T> sum = Add::run<T>(0, old, cpu.reg<T>(src));
    cpu.set_reg<T>(src, old);
    cpu.status = sum.status;
    return sum.value;
  }
};
// A memory destination is written in any case.
template <class T>
struct CompareExchange {
  static T run(Cpu& cpu, const Op* op, T old) {
    const T expected = cpu.reg<T>(kRax * 8);
    cpu.status = Cmp::run<T>(0, expected, old).status;
    if (expected == old) return cpu.reg<T>(op->src);
    cpu.set_reg<T>(kRax * 8, old);
    return old;
  }
};
// Register form: of two registers only the one that changes is written (matters for the upper half).
template <class T>
void op_compare_exchange_register(Cpu& cpu, const Op* op) {
  const u8 dst = op->dst;
  const T expected = cpu.reg<T>(kRax * 8), old = cpu.reg<T>(dst);
  cpu.status = Cmp::run<T>(0, expected, old).status;
  if (expected == old) cpu.set_reg<T>(dst, cpu.reg<T>(op->src));
  else cpu.set_reg<T>(kRax * 8, old);
  STASIS_NEXT(cpu, op);
}

struct CompareExchange8 {
  static u64 run(Cpu& cpu, const Op*, u64 old) {
    const u64 expected = cpu.r[kRdx] << 32 | static_cast<u32>(cpu.r[kRax]);
    if (expected == old) {
      cpu.status |= kStatusZf;
      return cpu.r[kRcx] << 32 | static_cast<u32>(cpu.r[kRbx]);
    }
    cpu.status &= static_cast<u16>(~kStatusZf);
    cpu.r[kRax] = static_cast<u32>(old);
    cpu.r[kRdx] = old >> 32;
    return old;
  }
};

void op_compare_exchange_16(Cpu& cpu, const Op* op) {
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, 16, true)) return;
  if (linear & 15) return cpu.raise(op, kGp, 0);
  // Aligned, so within one page: if the first half can be written, so can the second.
  u8* const at = writable<u64>(cpu, linear);
  const Loaded low = at ? Loaded{peek<u64>(at), true} : cpu.read_for_write(linear, 8, op);
  if (!low.ok) return;
  const Loaded high = at ? Loaded{peek<u64>(at + 8), true} : cpu.read_for_write(linear + 8, 8, op);
  if (!high.ok) return;
  const bool equal = low.value == cpu.r[kRax] && high.value == cpu.r[kRdx];
  const u64 new_low = equal ? cpu.r[kRbx] : low.value, new_high = equal ? cpu.r[kRcx] : high.value;
  if (at) {
    poke<u64>(at, new_low);
    poke<u64>(at + 8, new_high);
  } else if (!cpu.write<u64>(linear, new_low, op) || !cpu.write<u64>(linear + 8, new_high, op)) {
    return;
  }
  if (equal) {
    cpu.status |= kStatusZf;
  } else {
    cpu.status &= static_cast<u16>(~kStatusZf);
    cpu.r[kRax] = low.value;
    cpu.r[kRdx] = high.value;
  }
  STASIS_NEXT(cpu, op);
}

template <template <class> class F>
Handler choose(const Decoded& in, Op& op, const ZydisDecodedOperand& to, const ZydisDecodedOperand& from) {
  return by_width(to.size, [&](auto t) -> Handler {
    using T = typename decltype(t)::type;
    op.src = register_offset(from.reg.value);
    if (is_memory(to)) {
      return by_address_cold(in, to, op, [](auto a) -> Handler { return OnModify<T, typename decltype(a)::type, F<T>>::handle; });
    }
    op.dst = register_offset(to.reg.value);
    return on_register<T, F<T>>;
  });
}

}  // namespace

Bound bind_exchange(const Decoded& in, Op& op) {
  const ZydisDecodedOperand* operand = in.operands;
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_XCHG:
      if (is_memory(operand[1])) return bound(op, choose<Exchange>(in, op, operand[1], operand[0]));
      return bound(op, choose<Exchange>(in, op, operand[0], operand[1]));
    case ZYDIS_MNEMONIC_XADD: return bound(op, choose<ExchangeAdd>(in, op, operand[0], operand[1]));
    case ZYDIS_MNEMONIC_CMPXCHG:
      if (is_memory(operand[0])) return bound(op, choose<CompareExchange>(in, op, operand[0], operand[1]));
      op.dst = register_offset(operand[0].reg.value);
      op.src = register_offset(operand[1].reg.value);
      return bound(op, by_width(operand[0].size, [](auto t) -> Handler { return op_compare_exchange_register<typename decltype(t)::type>; }));
    case ZYDIS_MNEMONIC_CMPXCHG8B:
      return bound(op, by_address_cold(in, operand[0], op, [](auto a) -> Handler {
                     return OnModify<u64, typename decltype(a)::type, CompareExchange8>::handle;
                   }));
    case ZYDIS_MNEMONIC_CMPXCHG16B: fill_memory(in, operand[0], op); return bound(op, op_compare_exchange_16);
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
