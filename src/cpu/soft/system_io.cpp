// IN and OUT.
#include "bus/port_bus.hpp"
#include "cpu/engine.hpp"
#include "cpu/soft/ports.hpp"
#include "cpu/soft/system.hpp"

namespace stasis::soft {
namespace {

bool permitted(Cpu& cpu, const Op* op, u16 port, unsigned size) {
  if (!(cpu.sys.cr0 & kCr0Pe) || (cpu.cpl <= (cpu.rflags_rest >> 12 & 3) && !(cpu.rflags_rest & kVm))) return true;
  const bool wide = cpu.tr.present() && (cpu.tr.type() & 0xd) == 9;
  if (wide && cpu.tr.limit >= 0x67) {
    const Loaded map = cpu.mmu->load(cpu.tr.base + 0x66, 2, kSupervisor, op);
    if (!map.ok) return false;
    const u64 at = map.value + port / 8;
    if (at + 1 <= cpu.tr.limit) {
      const Loaded bits = cpu.mmu->load(cpu.tr.base + at, 2, kSupervisor, op);
      if (!bits.ok) return false;
      if (!(bits.value >> (port & 7) & ((1u << size) - 1))) return true;
    }
  }
  cpu.raise(op, kGp, 0);
  return false;
}

bool reachable(Cpu& cpu, const Op* op, u16 port, unsigned size) {
  if (!permitted(cpu, op, port, size)) return false;
  if (!cpu.alone) cpu.leave_alone(op);
  return cpu.alone;
}

void input(Cpu& cpu, const Op* op) {  // extra: size; src 1: port in imm, else DX
  const u16 port = op->src ? static_cast<u16>(op->imm) : static_cast<u16>(cpu.r[kRdx]);
  const Loaded value = port_in(cpu, op, port, op->extra);
  if (!value.ok) return;
  if (op->extra == 1) cpu.set_reg<u8>(0, static_cast<u8>(value.value));
  else if (op->extra == 2) cpu.set_reg<u16>(0, static_cast<u16>(value.value));
  else cpu.set_reg<u32>(0, static_cast<u32>(value.value));
  cpu.rip = cpu.next_rip_of(op);
}

void output(Cpu& cpu, const Op* op) {
  const u16 port = op->src ? static_cast<u16>(op->imm) : static_cast<u16>(cpu.r[kRdx]);
  const u64 mask = op->extra == 4 ? 0xffff'ffff : (1ull << (8 * op->extra)) - 1;
  if (port_out(cpu, op, port, op->extra, static_cast<u32>(cpu.r[kRax] & mask))) cpu.rip = cpu.next_rip_of(op);
}

}  // namespace

Loaded port_in(Cpu& cpu, const Op* op, u16 port, unsigned size) {
  if (!reachable(cpu, op, port, size)) return {0, false};
  return {cpu.board->ports.read(port, size), true};
}

bool port_out(Cpu& cpu, const Op* op, u16 port, unsigned size, u32 value) {
  if (!reachable(cpu, op, port, size)) return false;
  cpu.board->ports.write(port, size, value);
  return true;
}

Bound bind_io(const Decoded& in, Op& op) {
  const bool in_not_out = in.instruction.mnemonic == ZYDIS_MNEMONIC_IN;
  if (!in_not_out && in.instruction.mnemonic != ZYDIS_MNEMONIC_OUT) return Bound::no;
  const ZydisDecodedOperand& port = in.operands[in_not_out ? 1 : 0];
  const ZydisDecodedOperand& data = in.operands[in_not_out ? 0 : 1];
  op.extra = static_cast<u8>(data.size / 8);
  op.src = port.type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  op.imm = op.src ? port.imm.value.u & 0xff : 0;
  op.fn = in_not_out ? input : output;
  return Bound::alone;
}

}  // namespace stasis::soft
