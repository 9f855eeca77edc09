// Operands: register offsets and memory operands of an Op, from Zydis's view.
#include "cpu/soft/bind.hpp"

namespace stasis::soft {

u8 register_offset(ZydisRegister reg) {
  const auto in = [reg](ZydisRegister first, ZydisRegister last) { return reg >= first && reg <= last; };
  if (in(ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_R15)) return static_cast<u8>((reg - ZYDIS_REGISTER_RAX) * 8);
  if (in(ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_R15D)) return static_cast<u8>((reg - ZYDIS_REGISTER_EAX) * 8);
  if (in(ZYDIS_REGISTER_AX, ZYDIS_REGISTER_R15W)) return static_cast<u8>((reg - ZYDIS_REGISTER_AX) * 8);
  if (in(ZYDIS_REGISTER_AL, ZYDIS_REGISTER_BL)) return static_cast<u8>((reg - ZYDIS_REGISTER_AL) * 8);
  if (in(ZYDIS_REGISTER_AH, ZYDIS_REGISTER_BH)) return static_cast<u8>((reg - ZYDIS_REGISTER_AH) * 8 + 1);
  if (in(ZYDIS_REGISTER_SPL, ZYDIS_REGISTER_R15B)) return static_cast<u8>((reg - ZYDIS_REGISTER_SPL + 4) * 8);
  if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP) return kRipSlot * 8;
  return kZeroSlot * 8;
}

bool is_general(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && operand.reg.value >= ZYDIS_REGISTER_AL &&
         operand.reg.value <= ZYDIS_REGISTER_R15;
}

bool fill_memory(const Decoded& in, const ZydisDecodedOperand& operand, Op& op) {
  const ZydisDecodedOperandMem& mem = operand.mem;
  op.base = register_offset(mem.base) / 8;
  op.index = register_offset(mem.index) / 8;
  op.scale = mem.scale ? static_cast<u8>(std::countr_zero(static_cast<unsigned>(mem.scale))) : 0;
  op.disp = mem.disp.has_displacement ? mem.disp.value : 0;
  // Zydis 4.0 takes R13D for the base of a SIB that has none (mod 0, base 5) when REX.B is set.
  const auto& raw = in.instruction.raw;
  if ((in.instruction.attributes & ZYDIS_ATTRIB_HAS_SIB) && raw.modrm.mod == 0 &&
      raw.sib.base == 5) {
    op.base = kZeroSlot;
    op.disp = raw.disp.value;
  }
  if (op.base == kRipSlot) op.disp += op.at + op.length;
  switch (mem.segment) {
    case ZYDIS_REGISTER_ES: op.segment = kEs; break;
    case ZYDIS_REGISTER_CS: op.segment = kCs; break;
    case ZYDIS_REGISTER_SS: op.segment = kSs; break;
    case ZYDIS_REGISTER_FS: op.segment = kFs; break;
    case ZYDIS_REGISTER_GS: op.segment = kGs; break;
    default: op.segment = kDs; break;
  }
  op.address_bytes = static_cast<u8>(in.instruction.address_width / 8);
  return in.long_mode && op.segment < kFs && op.address_bytes == 8;
}

}  // namespace stasis::soft
