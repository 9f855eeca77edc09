// Control and debug registers, HLT, SWAPGS, and instructions for caches and TLBs that we do not have.
#include "cpu/soft/system.hpp"

namespace stasis::soft {
namespace {

constexpr u64 kCr0Bits = kCr0Pe | kCr0Mp | kCr0Em | kCr0Ts | kCr0Et | kCr0Ne | kCr0Wp | kCr0Am | kCr0Nw | kCr0Cd | kCr0Pg;
constexpr u64 kCr4Bits = kCr4Tsd | kCr4De | kCr4Pse | kCr4Pae | kCr4Mce | kCr4Pge | kCr4Pce | kCr4Osfxsr | kCr4Osxmmexcpt |
                         kCr4Umip | kCr4Smep | kCr4Smap;

bool write_cr0(Cpu& cpu, const Op* op, u64 value) {
  VcpuState& sys = cpu.sys;
  const bool pg = value & kCr0Pg, was_pg = sys.cr0 & kCr0Pg;
  bool bad = value >> 32 || (pg && !(value & kCr0Pe)) || ((value & kCr0Nw) && !(value & kCr0Cd));
  if (pg && !was_pg && (sys.efer & kEferLme)) bad = bad || !(sys.cr4 & kCr4Pae) || cpu.seg[kCs].long_mode();
  if (!pg && was_pg) bad = bad || cpu.long_mode;
  if (bad) {
    cpu.raise(op, kGp, 0);
    return false;
  }
  value = (value & kCr0Bits) | kCr0Et;
  const u64 changed = value ^ sys.cr0;
  sys.cr0 = value;
  if (changed & kCr0Pg) sys.efer = pg && (sys.efer & kEferLme) ? sys.efer | kEferLma : sys.efer & ~kEferLma;
  if (changed & (kCr0Pg | kCr0Wp | kCr0Pe)) cpu.mmu->paging_changed();
  return true;
}

bool write_cr3(Cpu& cpu, const Op* op, u64 value) {
  if (!in_ia32e(cpu)) value = static_cast<u32>(value);
  if (value >> cpu.mmu->physical_bits()) {
    cpu.raise(op, kGp, 0);
    return false;
  }
  if (value != cpu.sys.cr3) {
    cpu.sys.cr3 = value;
    cpu.mmu->cr3_changed();
  }
  return true;
}

bool write_cr4(Cpu& cpu, const Op* op, u64 value) {
  VcpuState& sys = cpu.sys;
  if ((value & ~kCr4Bits) || (!(value & kCr4Pae) && in_ia32e(cpu))) {
    cpu.raise(op, kGp, 0);
    return false;
  }
  const u64 changed = value ^ sys.cr4;
  sys.cr4 = value;
  if (changed & (kCr4Pse | kCr4Pae | kCr4Smep | kCr4Smap)) cpu.mmu->paging_changed();
  return true;
}

void read_control(Cpu& cpu, const Op* op) {  // extra: number; dst
  if (!privileged(cpu, op)) return;
  const VcpuState& sys = cpu.sys;
  u64 value = 0;
  switch (op->extra) {
    case 0: value = sys.cr0; break;
    case 2: value = sys.cr2; break;
    case 3: value = sys.cr3; break;
    case 4: value = sys.cr4; break;
    default: value = cpu.apic->cr8(); break;
  }
  cpu.reg<u64>(op->dst) = cpu.long_mode ? value : static_cast<u32>(value);
  STASIS_NEXT(cpu, op);
}

void write_control(Cpu& cpu, const Op* op) {  // extra: number; src
  if (!privileged(cpu, op)) return;
  const u64 value = cpu.long_mode ? cpu.reg<u64>(op->src) : cpu.reg<u32>(op->src);
  cpu.rip = cpu.next_rip_of(op);
  switch (op->extra) {
    case 0: write_cr0(cpu, op, value); break;
    case 2: cpu.sys.cr2 = value; break;
    case 3: write_cr3(cpu, op, value); break;
    default: write_cr4(cpu, op, value); break;
  }
}

void write_cr8(Cpu& cpu, const Op* op) {
  if (!privileged(cpu, op)) return;
  if (!cpu.alone) return cpu.leave_alone(op);
  const u64 value = cpu.reg<u64>(op->src);
  if (value > 15) return cpu.raise(op, kGp, 0);
  cpu.apic->set_cr8(static_cast<u8>(value));
  cpu.rip = cpu.next_rip_of(op);
}

void store_machine_status(Cpu& cpu, const Op* op) {  // src: register width
  if (cpu.cpl != 0 && (cpu.sys.cr4 & kCr4Umip)) return cpu.raise(op, kGp, 0);
  if (!store_operand(cpu, op, cpu.sys.cr0, 2, op->src)) return;
  STASIS_NEXT(cpu, op);
}

void load_machine_status(Cpu& cpu, const Op* op) {
  if (!privileged(cpu, op)) return;
  const Loaded loaded = load_operand(cpu, op, 2);
  if (!loaded.ok) return;
  const u64 pe = cpu.sys.cr0 & kCr0Pe;
  cpu.rip = cpu.next_rip_of(op);
  write_cr0(cpu, op, (cpu.sys.cr0 & ~0xeull) | (loaded.value & 0xf) | pe);
}

void clear_task_switched(Cpu& cpu, const Op* op) {
  if (!privileged(cpu, op)) return;
  cpu.sys.cr0 &= ~kCr0Ts;
  STASIS_NEXT(cpu, op);
}

// Debug registers: false when access is not allowed.
bool debug_access(Cpu& cpu, const Op* op, unsigned& number) {
  if (!privileged(cpu, op)) return false;
  if (number == 4 || number == 5) {
    if (cpu.sys.cr4 & kCr4De) {
      cpu.raise(op, kUd);
      return false;
    }
    number += 2;
  }
  if (cpu.sys.dr7 & 0x2000) {  // GD
    cpu.sys.dr6 |= 0x2000;
    cpu.sys.dr7 &= ~0x2000ull;
    cpu.raise(op, kDb);
    return false;
  }
  return true;
}

void read_debug(Cpu& cpu, const Op* op) {
  unsigned number = op->extra;
  if (!debug_access(cpu, op, number)) return;
  const VcpuState& sys = cpu.sys;
  const u64 value = number < 4 ? sys.dr[number] : number == 6 ? sys.dr6 : sys.dr7;
  cpu.reg<u64>(op->dst) = cpu.long_mode ? value : static_cast<u32>(value);
  cpu.rip = cpu.next_rip_of(op);
}

void write_debug(Cpu& cpu, const Op* op) {
  unsigned number = op->extra;
  if (!debug_access(cpu, op, number)) return;
  VcpuState& sys = cpu.sys;
  const u64 value = cpu.long_mode ? cpu.reg<u64>(op->src) : cpu.reg<u32>(op->src);
  if (number >= 6 && value >> 32) return cpu.raise(op, kGp, 0);
  if (number < 4) sys.dr[number] = value;
  else if (number == 6) sys.dr6 = (value & 0xe00f) | 0xffff'0ff0;
  else sys.dr7 = (value & 0xffff'23ff) | 0x400;
  cpu.rip = cpu.next_rip_of(op);
}

void halt(Cpu& cpu, const Op* op) {
  if (!privileged(cpu, op)) return;
  cpu.sys.activity = Activity::halted;
  cpu.rip = cpu.next_rip_of(op);
}

void swap_gs(Cpu& cpu, const Op* op) {
  if (!cpu.long_mode) return cpu.raise(op, kUd);
  if (!privileged(cpu, op)) return;
  std::swap(cpu.seg[kGs].base, cpu.sys.kernel_gs_base);
  cpu.segment_base[kGs] = cpu.seg[kGs].base;
  STASIS_NEXT(cpu, op);
}

// INVLPG, WBINVD, INVD: the TLB is coherent and there is no cache.
void privileged_nothing(Cpu& cpu, const Op* op) {
  if (!privileged(cpu, op)) return;
  STASIS_NEXT(cpu, op);
}

void nothing(Cpu& cpu, const Op* op) { STASIS_NEXT(cpu, op); }

Bound bind_register_move(const Decoded& in, Op& op) {
  const ZydisRegister to = in.operands[0].reg.value, from = in.operands[1].reg.value;
  const auto control = [](ZydisRegister r) { return r >= ZYDIS_REGISTER_CR0 && r <= ZYDIS_REGISTER_CR15; };
  const auto debug = [](ZydisRegister r) { return r >= ZYDIS_REGISTER_DR0 && r <= ZYDIS_REGISTER_DR15; };
  if (in.operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER || in.operands[1].type != ZYDIS_OPERAND_TYPE_REGISTER) return Bound::no;
  const ZydisRegister special = control(to) || debug(to) ? to : from;
  const bool writes = special == to;
  op.dst = register_offset(to), op.src = register_offset(from);
  if (control(special)) {
    op.extra = static_cast<u8>(special - ZYDIS_REGISTER_CR0);
    if (op.extra == 1 || (op.extra > 4 && op.extra != 8)) return Bound::no;
    op.fn = !writes ? read_control : op.extra == 8 ? write_cr8 : write_control;
    return !writes ? Bound::goes_on : op.extra == 8 ? Bound::alone : Bound::ends;
  }
  if (!debug(special)) return Bound::no;
  op.extra = static_cast<u8>(special - ZYDIS_REGISTER_DR0);
  if (op.extra > 7) return Bound::no;
  op.fn = writes ? write_debug : read_debug;
  return Bound::ends;
}

}  // namespace

Bound bind_control(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_MOV: return bind_register_move(in, op);
    case ZYDIS_MNEMONIC_SMSW:
      fill_operand(in, in.operands[0], op);
      op.src = static_cast<u8>(in.instruction.operand_width / 8);
      op.fn = store_machine_status;
      return Bound::goes_on;
    case ZYDIS_MNEMONIC_LMSW: fill_operand(in, in.operands[0], op), op.fn = load_machine_status; return Bound::ends;
    case ZYDIS_MNEMONIC_CLTS: op.fn = clear_task_switched; return Bound::goes_on;
    case ZYDIS_MNEMONIC_HLT: op.fn = halt; return Bound::ends;
    case ZYDIS_MNEMONIC_SWAPGS: op.fn = swap_gs; return Bound::goes_on;
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_INVD: op.fn = privileged_nothing; return Bound::goes_on;
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_PAUSE: op.fn = nothing; return Bound::goes_on;
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
