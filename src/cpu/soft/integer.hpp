// The families of integer instructions, one file each, and the choice of a handler by width and addressing.
#pragma once

#include "cpu/soft/bind.hpp"
#include "cpu/soft/integer_access.hpp"

namespace stasis::soft {

Bound bind_alu(const Decoded& in, Op& op);       // ADD OR ADC SBB AND SUB XOR CMP TEST
Bound bind_unary(const Decoded& in, Op& op);     // NOT NEG INC DEC
Bound bind_exchange(const Decoded& in, Op& op);  // XCHG XADD CMPXCHG CMPXCHG8B/16B
Bound bind_move(const Decoded& in, Op& op);      // MOV MOVZX MOVSX MOVSXD MOVNTI LEA XLAT BSWAP
Bound bind_condition(const Decoded& in, Op& op); // CMOVcc SETcc
Bound bind_shift(const Decoded& in, Op& op);     // SHL SHR SAR ROL ROR RCL RCR SHLD SHRD
Bound bind_multiply(const Decoded& in, Op& op);  // MUL IMUL DIV IDIV, decimal adjustments
Bound bind_bits(const Decoded& in, Op& op);      // BT BTS BTR BTC BSF BSR POPCNT CRC32
Bound bind_stack(const Decoded& in, Op& op);     // PUSH POP PUSHA POPA ENTER LEAVE
Bound bind_flags(const Decoded& in, Op& op);     // LAHF SAHF CLC STC CMC CLD STD, CBW … CQO, NOP, BOUND

template <class T>
struct As {
  using type = T;
};

// Handler of the right width: f gets As<u8>, As<u16>, As<u32> or As<u64>.
template <class F>
Handler by_width(unsigned bits, F f) {
  switch (bits) {
    case 8: return f(As<u8>{});
    case 16: return f(As<u16>{});
    case 32: return f(As<u32>{});
    case 64: return f(As<u64>{});
  }
  return nullptr;
}
// The same for instructions without an 8-bit form.
template <class F>
Handler by_wide(unsigned bits, F f) {
  switch (bits) {
    case 16: return f(As<u16>{});
    case 32: return f(As<u32>{});
    case 64: return f(As<u64>{});
  }
  return nullptr;
}
// Fills the memory operand; f gets As<BaseAddress>, As<FlatAddress> or As<AnyAddress>.
template <class F>
Handler by_address(const Decoded& in, const ZydisDecodedOperand& operand, Op& op, F f) {
  if (!fill_memory(in, operand, op)) return f(As<AnyAddress>{});
  if (op.index == kZeroSlot) return f(As<BaseAddress>{});
  return f(As<FlatAddress>{});
}
// The same for what is not hot.
template <class F>
Handler by_address_cold(const Decoded& in, const ZydisDecodedOperand& operand, Op& op, F f) {
  if (fill_memory(in, operand, op)) return f(As<FlatAddress>{});
  return f(As<AnyAddress>{});
}

inline bool is_memory(const ZydisDecodedOperand& operand) { return operand.type == ZYDIS_OPERAND_TYPE_MEMORY; }
inline bool is_immediate(const ZydisDecodedOperand& operand) { return operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE; }

inline Bound bound(Op& op, Handler fn) {
  if (!fn) return Bound::no;
  op.fn = fn;
  return Bound::goes_on;
}

}  // namespace stasis::soft
