// System instructions: who binds what, and their operands.
#include "cpu/soft/system.hpp"

namespace stasis::soft {

void fill_operand(const Decoded& in, const ZydisDecodedOperand& operand, Op& op) {
  if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
    fill_memory(in, operand, op);
    op.extra |= kToMemory;
  } else {
    op.dst = register_offset(operand.reg.value);
  }
}

bool store_operand(Cpu& cpu, const Op* op, u64 value, unsigned memory_bytes, unsigned register_bytes) {
  if (op->extra & kToMemory) {
    const u64 linear = AnyAddress::linear(cpu, op);
    return AnyAddress::check(cpu, op, linear, memory_bytes, true) && cpu.write_slow(linear, value, memory_bytes, op);
  }
  if (register_bytes == 2) cpu.set_reg<u16>(op->dst, static_cast<u16>(value));
  else if (register_bytes == 4) cpu.set_reg<u32>(op->dst, static_cast<u32>(value));
  else cpu.set_reg<u64>(op->dst, value);
  return true;
}

Loaded load_operand(Cpu& cpu, const Op* op, unsigned bytes) {
  if (op->extra & kToMemory) {
    const u64 linear = AnyAddress::linear(cpu, op);
    if (!AnyAddress::check(cpu, op, linear, bytes, false)) return {0, false};
    return cpu.read_slow(linear, bytes, op);
  }
  return {cpu.reg<u64>(op->dst) & (bytes == 8 ? ~0ull : (1ull << (8 * bytes)) - 1), true};
}

Bound bind_system(const Decoded& in, Op& op) {
  for (const auto bind : {bind_control, bind_interrupt_flags, bind_descriptors, bind_model, bind_io})
    if (const Bound bound = bind(in, op); bound != Bound::no) return bound;
  return Bound::no;
}

}  // namespace stasis::soft
