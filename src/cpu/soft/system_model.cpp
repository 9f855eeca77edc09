// CPUID, model-specific registers and the time stamp counter (Intel SDM vol. 4; vol. 2, CPUID).
#include <algorithm>

#include "cpu/engine.hpp"
#include "cpu/soft/system.hpp"

namespace stasis::soft {
namespace {

// ---- CPUID --------------------------------------------------------------------------------------------------------

bool has_subleaves(u32 leaf) { return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x1f; }

void identify(Cpu& cpu, const Op* op) {
  const u32 leaf = static_cast<u32>(cpu.r[kRax]), subleaf = static_cast<u32>(cpu.r[kRcx]);
  const u32 wanted = has_subleaves(leaf) ? subleaf : 0;
  CpuidLeaf found;
  for (const CpuidLeaf& entry : cpu.board->contract.cpuid)
    if (entry.leaf == leaf && entry.subleaf == wanted) found = entry;
  if (leaf == 0xb) found.leaf = leaf, found.subleaf = subleaf;  // any subleaf says the ID
  found = leaf_for(found, cpu.apic->state().id);
  if (leaf == 1 && !(cpu.apic->state().base & LocalApicState::kGlobalEnable)) found.edx &= ~(1u << 9);
  cpu.r[kRax] = found.eax, cpu.r[kRbx] = found.ebx, cpu.r[kRcx] = found.ecx, cpu.r[kRdx] = found.edx;
  cpu.rip = cpu.next_rip_of(op);
}

// ---- time -----------------------------------------------------------------------------------------------------------

u64 time_stamp(const Cpu& cpu, const Op* op) {
  return mul_div(cpu.time_before(op), cpu.board->contract.tsc_hz, kSecond) + cpu.sys.tsc_offset;
}
void set_pair(Cpu& cpu, u64 value) {
  cpu.r[kRax] = static_cast<u32>(value);
  cpu.r[kRdx] = value >> 32;
}
void read_time_stamp(Cpu& cpu, const Op* op) {  // extra 1: RDTSCP
  if (cpu.cpl != 0 && (cpu.sys.cr4 & kCr4Tsd)) return cpu.raise(op, kGp, 0);
  set_pair(cpu, time_stamp(cpu, op));
  if (op->extra) cpu.r[kRcx] = static_cast<u32>(cpu.sys.tsc_aux);
  STASIS_NEXT(cpu, op);
}
void move_time_stamp(Cpu& cpu, u64 by) {
  cpu.sys.tsc_offset += by;
  cpu.apic->tsc_offset_changed(cpu.sys.tsc_offset);
}

void no_counters(Cpu& cpu, const Op* op) { cpu.raise(op, kGp, 0); }

// ---- the paravirtual clock -----------------------------------------------------------------------------------------

// struct pvclock_vcpu_time_info (Linux Documentation/virt/kvm/x86/msr.rst).
struct TimeInfo {
  u32 version = 2, pad0 = 0;  // even: not being written
  u64 tsc_timestamp = 0, system_time = 0;
  u32 tsc_to_system_mul = 0;
  signed char tsc_shift = 0;
  u8 flags = 1;  // the TSCs of all vCPUs agree
  u8 pad[2] = {};
};
static_assert(sizeof(TimeInfo) == 32);

bool has_pvclock(const Cpu& cpu, unsigned bit) {
  for (const CpuidLeaf& leaf : cpu.board->contract.cpuid)
    if (leaf.leaf == 0x4000'0001) return cpu.board->pvclock && (leaf.eax >> bit & 1);
  return false;
}

// ns = (ticks << shift) * mul >> 32, with the shift that makes mul as large as it can be.
void set_scale(TimeInfo& info, u64 tsc_hz) {
  u64 rate = tsc_hz;
  for (; rate > 2 * kSecond; rate >>= 1) --info.tsc_shift;
  for (; rate <= kSecond; rate <<= 1) ++info.tsc_shift;
  info.tsc_to_system_mul = static_cast<u32>((kSecond << 32) / rate);
}

template <class T>
void write_guest(Cpu& cpu, u64 address, const T& value) {
  if (cpu.board->memory.write(address, {reinterpret_cast<const u8*>(&value), sizeof value})) cpu.mmu->memory_written(address, sizeof value);
}

void write_system_time(Cpu& cpu, const Op* op, u64 value) {
  cpu.sys.pvclock_system_time = value;
  if (!(value & 1)) return;
  TimeInfo info{.tsc_timestamp = time_stamp(cpu, op), .system_time = cpu.time_before(op) + cpu.board->pvclock->offset_ns};
  set_scale(info, cpu.board->contract.tsc_hz);
  write_guest(cpu, value & ~u64{3}, info);
}

void write_wall_clock(Cpu& cpu, u64 value) {
  cpu.sys.pvclock_wall_clock = value;
  write_guest(cpu, value & ~u64{3}, wall_clock_of(*cpu.board->pvclock, cpu.board->start_time));
}

// ---- MSRs -----------------------------------------------------------------------------------------------------------

enum Msr : u32 {
  kTsc = 0x10, kPlatformId = 0x17, kTscAdjust = 0x3b, kSpecCtrl = 0x48, kPredCmd = 0x49, kBiosUpdate = 0x79, kBiosSignature = 0x8b,
  kPlatformInfo = 0xce, kMtrrCap = 0xfe, kArchCapabilities = 0x10a, kSysenterCs = 0x174, kSysenterEsp = 0x175,
  kSysenterEip = 0x176, kMcgCap = 0x179, kMcgStatus = 0x17a, kMiscEnable = 0x1a0, kDebugCtl = 0x1d9, kMtrrFirst = 0x200,
  kMtrrLast = 0x20f, kMtrrFixed64K = 0x250, kMtrrFixed16K = 0x258, kMtrrFixed4K = 0x268, kPat = 0x277, kMtrrDefType = 0x2ff, kMc0Ctl = 0x400,
  kEfer = 0xc000'0080, kStar, kLstar, kCstar, kSfmask, kFsBase = 0xc000'0100, kGsBase, kKernelGsBase, kTscAux,
  kWallClockOld = 0x11, kSystemTimeOld = 0x12, kWallClock = 0x4b56'4d00, kSystemTime = 0x4b56'4d01,
};
constexpr u64 kMtrrCapValue = 0x508;        // eight variable ranges, fixed ranges, write combining
constexpr u64 kSpecCtrlBits = 7, kMiscEnableBits = 0x4'0040'1c01;

u64* plain_register(VcpuState& sys, u32 index) {
  switch (index) {
    case kSysenterCs: return &sys.sysenter_cs;
    case kSysenterEsp: return &sys.sysenter_esp;
    case kSysenterEip: return &sys.sysenter_eip;
    case kStar: return &sys.star;
    case kLstar: return &sys.lstar;
    case kCstar: return &sys.cstar;
    case kSfmask: return &sys.sfmask;
    case kKernelGsBase: return &sys.kernel_gs_base;
    case kTscAux: return &sys.tsc_aux;
    case kTscAdjust: return &sys.tsc_adjust;
    case kDebugCtl: return &sys.last_branch.debug_ctl;
    case kMc0Ctl: return &sys.machine_check.ctl;
    case kMc0Ctl + 1: return &sys.machine_check.status;
    case kMc0Ctl + 2: return &sys.machine_check.addr;
    case kMc0Ctl + 3: return &sys.machine_check.misc;
    case kSpecCtrl: return &sys.spec_ctrl;
    case kMiscEnable: return &sys.misc_enable;
    case kPat: return &sys.pat;
    case kEfer: return &sys.efer;
    case kMtrrDefType: return &sys.mtrr.def_type;
    case kMtrrFixed64K: return &sys.mtrr.fixed[0];
    case kMtrrFixed16K:
    case kMtrrFixed16K + 1: return &sys.mtrr.fixed[1 + index - kMtrrFixed16K];
    default: break;
  }
  if (index >= kMtrrFixed4K && index < kMtrrFixed4K + 8) return &sys.mtrr.fixed[3 + index - kMtrrFixed4K];
  if (index >= kMtrrFirst && index <= kMtrrLast) {
    const u32 range = (index - kMtrrFirst) / 2;
    return (index & 1) ? &sys.mtrr.mask[range] : &sys.mtrr.base[range];
  }
  return nullptr;
}

bool read_register(Cpu& cpu, const Op* op, u32 index, u64& value) {
  if (const u64* plain = plain_register(cpu.sys, index)) {
    value = *plain;
    return true;
  }
  switch (index) {
    case kTsc: value = time_stamp(cpu, op); return true;
    case kWallClockOld:
    case kWallClock: value = cpu.sys.pvclock_wall_clock; return has_pvclock(cpu, index == kWallClock ? 3 : 0);
    case kSystemTimeOld:
    case kSystemTime: value = cpu.sys.pvclock_system_time; return has_pvclock(cpu, index == kSystemTime ? 3 : 0);
    case kFsBase: value = cpu.seg[kFs].base; return true;
    case kGsBase: value = cpu.seg[kGs].base; return true;
    case kMtrrCap: value = kMtrrCapValue; return true;
    case kArchCapabilities: value = cpu.board->contract.arch_capabilities; return true;
    case kBiosSignature: value = 1ull << 32; return true;
    case kMcgCap: value = 1; return true;  // banks
    case kMcgStatus: value = cpu.sys.machine_check.mcg_status; return true;
    case kPlatformInfo:
    case kPlatformId: value = 0; return true;
    default: return false;
  }
}

bool is_pat(u64 value) {
  for (unsigned i = 0; i < 64; i += 8) {
    const u64 type = value >> i & 0xff;
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}

bool write_efer(Cpu& cpu, u64 value) {
  VcpuState& sys = cpu.sys;
  const u64 changed = (value ^ sys.efer) & ~kEferLma;
  if ((value & ~(kEferSce | kEferLme | kEferLma | kEferNxe)) || ((changed & kEferLme) && (sys.cr0 & kCr0Pg))) return false;
  sys.efer = (value & ~kEferLma) | (sys.efer & kEferLma);
  if (changed & kEferNxe) cpu.mmu->paging_changed();
  return true;
}

bool set_base(Cpu& cpu, Segment segment, u64 value) {
  if (!is_canonical(value)) return false;
  cpu.seg[segment].base = cpu.segment_base[segment] = value;
  return true;
}

bool acceptable(u32 index, u64 value) {
  switch (index) {
    case kSysenterEsp:
    case kSysenterEip:
    case kLstar:
    case kCstar:
    case kKernelGsBase: return is_canonical(value);
    case kTscAux: return !(value >> 32);
    case kSpecCtrl: return !(value & ~kSpecCtrlBits);
    case kMiscEnable: return !(value & ~kMiscEnableBits);
    case kPat: return is_pat(value);
    case kMtrrDefType: return !(value & ~0xcffull);
    case kDebugCtl: return !(value & ~3ull);  // LBR and BTF: kept, and nothing comes of them
    case kMc0Ctl + 1:
    case kMc0Ctl + 2:
    case kMc0Ctl + 3: return value == 0;  // software may clear them
    default: return true;
  }
}

bool write_register(Cpu& cpu, const Op* op, u32 index, u64 value) {
  switch (index) {
    case kTsc: {
      const u64 by = value - time_stamp(cpu, op);
      cpu.sys.tsc_adjust += by;
      move_time_stamp(cpu, by);
      return true;
    }
    case kTscAdjust:
      move_time_stamp(cpu, value - cpu.sys.tsc_adjust);
      cpu.sys.tsc_adjust = value;
      return true;
    case kWallClockOld:
    case kWallClock: return has_pvclock(cpu, index == kWallClock ? 3 : 0) && (write_wall_clock(cpu, value), true);
    case kSystemTimeOld:
    case kSystemTime: return has_pvclock(cpu, index == kSystemTime ? 3 : 0) && (write_system_time(cpu, op, value), true);
    case kEfer: return write_efer(cpu, value);
    case kFsBase: return set_base(cpu, kFs, value);
    case kGsBase: return set_base(cpu, kGs, value);
    case kPredCmd: return !(value & ~1ull);
    case kBiosSignature:
    case kBiosUpdate: return true;
    case kMcgStatus: cpu.sys.machine_check.mcg_status = value & 7; return true;
    default: break;
  }
  u64* plain = plain_register(cpu.sys, index);
  if (!plain || !acceptable(index, value)) return false;
  if (index == kSfmask) value = static_cast<u32>(value);
  *plain = value;
  return true;
}

bool moves_time(u32 index) {
  return index == kTsc || index == kTscAdjust || index == kWallClock || index == kWallClockOld || index == kSystemTime || index == kSystemTimeOld;
}

void read_msr(Cpu& cpu, const Op* op) {
  if (!privileged(cpu, op)) return;
  const u32 index = static_cast<u32>(cpu.r[kRcx]);
  u64 value = 0;
  if (LocalApic::owns_msr(index)) {
    if (!cpu.alone) return cpu.leave_alone(op);
    if (!cpu.apic->read_msr(index, value)) return cpu.raise(op, kGp, 0);
  } else if (!read_register(cpu, op, index, value)) {
    return cpu.raise(op, kGp, 0);
  }
  set_pair(cpu, value);
  cpu.rip = cpu.next_rip_of(op);
}

void write_msr(Cpu& cpu, const Op* op) {
  if (!privileged(cpu, op)) return;
  const u32 index = static_cast<u32>(cpu.r[kRcx]);
  const u64 value = static_cast<u32>(cpu.r[kRax]) | cpu.r[kRdx] << 32;
  bool ok;
  if ((LocalApic::owns_msr(index) || moves_time(index)) && !cpu.alone) return cpu.leave_alone(op);
  if (LocalApic::owns_msr(index)) {
    ok = cpu.apic->write_msr(index, value, cpu.sys.tsc_offset);
    if (index == 0x1b) cpu.mmu->paging_changed();  // the page of the APIC may have moved
  } else {
    ok = write_register(cpu, op, index, value);
  }
  if (!ok) return cpu.raise(op, kGp, 0);
  cpu.rip = cpu.next_rip_of(op);
}

}  // namespace

Bound bind_model(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_CPUID: op.fn = identify; return Bound::ends;
    case ZYDIS_MNEMONIC_RDTSC: op.fn = read_time_stamp; return Bound::goes_on;
    case ZYDIS_MNEMONIC_RDTSCP: op.extra = 1, op.fn = read_time_stamp; return Bound::goes_on;
    case ZYDIS_MNEMONIC_RDPMC: op.fn = no_counters; return Bound::ends;
    case ZYDIS_MNEMONIC_RDMSR: op.fn = read_msr; return Bound::ends;
    case ZYDIS_MNEMONIC_WRMSR: op.fn = write_msr; return Bound::ends;
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
