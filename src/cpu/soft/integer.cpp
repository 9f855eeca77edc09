// Binding of integer instructions: asks each family in turn.
#include "cpu/soft/integer.hpp"

namespace stasis::soft {
namespace {

void op_undefined(Cpu& cpu, const Op* op) { cpu.raise(op, kUd); }

}  // namespace

Bound bind_integer(const Decoded& in, Op& op) {
  // LOCK without a memory destination; the decoder refuses most of these already.
  if ((in.instruction.attributes & ZYDIS_ATTRIB_HAS_LOCK) && in.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
    return bound(op, op_undefined);
  }
  constexpr Bound (*kFamilies[])(const Decoded&, Op&) = {bind_move, bind_alu,      bind_unary, bind_stack, bind_condition,
                                                         bind_shift, bind_exchange, bind_bits,  bind_flags, bind_multiply};
  for (const auto family : kFamilies) {
    if (const Bound found = family(in, op); found != Bound::no) return found;
  }
  return Bound::no;
}

}  // namespace stasis::soft
