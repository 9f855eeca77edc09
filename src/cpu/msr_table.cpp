// MSR numbers: Intel SDM vol. 4; AMD64 APM vol. 2, appendix A; Linux Documentation/virt/kvm/x86/msr.rst.
#include "cpu/msr_table.hpp"

#include <algorithm>

namespace stasis {
namespace {

using enum MsrHome;
constexpr std::string_view kPmu = "no performance counters are shown", kVmx = "virtualization is hidden", kHyperV = "Hyper-V's interface is not shown",
                           kPv = "of KVM's interface only the clock is shown", kTrace = "processor trace is hidden", kCet = "control-flow enforcement is hidden";

// Ascending.
constexpr MsrEntry kTable[] = {
    {0x10, 0x10, "IA32_TIME_STAMP_COUNTER", vcpu, "tsc_offset"},
    {0x11, 0x11, "MSR_KVM_WALL_CLOCK", vcpu, "pvclock_wall_clock"},
    {0x12, 0x12, "MSR_KVM_SYSTEM_TIME", vcpu, "pvclock_system_time"},
    {0x17, 0x17, "IA32_PLATFORM_ID", contract, "zero in every contract"},
    {0x1b, 0x1b, "IA32_APIC_BASE", local_apic, "base"},
    {0x34, 0x34, "MSR_SMI_COUNT", other, "counts"},
    {0x3a, 0x3a, "IA32_FEATURE_CONTROL", other, "locked by firmware or kernel"},
    {0x3b, 0x3b, "IA32_TSC_ADJUST", vcpu, "tsc_adjust"},
    {0x48, 0x48, "IA32_SPEC_CTRL", vcpu, "spec_ctrl"},
    {0x49, 0x49, "IA32_PRED_CMD", contract, "holds nothing: a command"},
    {0x79, 0x79, "IA32_BIOS_UPDT_TRIG", contract, "holds nothing: a command"},
    {0x8b, 0x8b, "IA32_BIOS_SIGN_ID", contract, "the same in every contract"},
    {0x8c, 0x8f, "IA32_SGXLEPUBKEYHASH", not_offered, "enclaves are hidden"},
    {0x9e, 0x9e, "IA32_SMBASE", vcpu, "smm/smbase"},
    {0xc1, 0xc8, "IA32_PMC", not_offered, kPmu},
    {0xce, 0xce, "MSR_PLATFORM_INFO", contract, "zero in every contract"},
    {0xe1, 0xe1, "IA32_UMWAIT_CONTROL", other, "WAITPKG"},
    {0xfe, 0xfe, "IA32_MTRRCAP", contract, "the same in every contract"},
    {0x10a, 0x10a, "IA32_ARCH_CAPABILITIES", contract, "arch_capabilities"},
    {0x10b, 0x10b, "IA32_FLUSH_CMD", contract, "holds nothing: a command"},
    {0x122, 0x122, "IA32_TSX_CTRL", not_offered, "ARCH_CAPABILITIES never shows TSX_CTRL"},
    {0x140, 0x140, "MSR_MISC_FEATURES_ENABLES", other, "CPUID faulting"},
    {0x174, 0x174, "IA32_SYSENTER_CS", vcpu, "sysenter_cs"},
    {0x175, 0x175, "IA32_SYSENTER_ESP", vcpu, "sysenter_esp"},
    {0x176, 0x176, "IA32_SYSENTER_EIP", vcpu, "sysenter_eip"},
    {0x179, 0x179, "IA32_MCG_CAP", contract, "one bank in every contract"},
    {0x17a, 0x17a, "IA32_MCG_STATUS", vcpu, "machine_check/mcg_status"},
    {0x17b, 0x17b, "IA32_MCG_CTL", not_offered, "IA32_MCG_CAP shows no MCG_CTL_P"},
    {0x186, 0x18d, "IA32_PERFEVTSEL", not_offered, kPmu},
    {0x1a0, 0x1a0, "IA32_MISC_ENABLE", vcpu, "misc_enable"},
    {0x1c4, 0x1c4, "IA32_XFD", other, "AMX"},
    {0x1c5, 0x1c5, "IA32_XFD_ERR", other, "AMX"},
    {0x1d9, 0x1d9, "IA32_DEBUGCTL", vcpu, "last_branch/debug_ctl"},
    {0x1db, 0x1db, "MSR_LASTBRANCHFROMIP", vcpu, "last_branch/branch_from"},
    {0x1dc, 0x1dc, "MSR_LASTBRANCHTOIP", vcpu, "last_branch/branch_to"},
    {0x1dd, 0x1dd, "MSR_LASTINTFROMIP", vcpu, "last_branch/exception_from"},
    {0x1de, 0x1de, "MSR_LASTINTTOIP", vcpu, "last_branch/exception_to"},
    {0x1fc, 0x1fc, "MSR_POWER_CTL", other, "C1E"},
    {0x200, 0x20f, "IA32_MTRR_PHYSBASE and MASK", vcpu, "mtrr/base and mtrr/mask"},
    {0x250, 0x250, "IA32_MTRR_FIX64K", vcpu, "mtrr/fixed"},
    {0x258, 0x259, "IA32_MTRR_FIX16K", vcpu, "mtrr/fixed"},
    {0x268, 0x26f, "IA32_MTRR_FIX4K", vcpu, "mtrr/fixed"},
    {0x277, 0x277, "IA32_PAT", vcpu, "pat"},
    {0x280, 0x29f, "IA32_MC_CTL2", not_offered, "IA32_MCG_CAP shows no MCG_CMCI_P"},
    {0x2ff, 0x2ff, "IA32_MTRR_DEF_TYPE", vcpu, "mtrr/def_type"},
    {0x309, 0x30c, "IA32_FIXED_CTR", not_offered, kPmu},
    {0x345, 0x345, "IA32_PERF_CAPABILITIES", not_offered, kPmu},
    {0x38d, 0x391, "IA32_FIXED_CTR_CTRL and IA32_PERF_GLOBAL", not_offered, kPmu},
    {0x3f1, 0x3f2, "IA32_PEBS_ENABLE and MSR_PEBS_DATA_CFG", not_offered, kPmu},
    {0x400, 0x400, "IA32_MC0_CTL", vcpu, "machine_check/ctl"},
    {0x401, 0x401, "IA32_MC0_STATUS", vcpu, "machine_check/status"},
    {0x402, 0x402, "IA32_MC0_ADDR", vcpu, "machine_check/addr"},
    {0x403, 0x403, "IA32_MC0_MISC", vcpu, "machine_check/misc"},
    {0x404, 0x47f, "IA32_MC1 and on", not_offered, "IA32_MCG_CAP shows one bank"},
    {0x480, 0x491, "IA32_VMX", not_offered, kVmx},
    {0x4c1, 0x4c8, "IA32_A_PMC", not_offered, kPmu},
    {0x4d0, 0x4d0, "IA32_MCG_EXT_CTL", not_offered, "IA32_MCG_CAP shows no MCG_LMCE_P"},
    {0x560, 0x561, "IA32_RTIT_OUTPUT", not_offered, kTrace},
    {0x570, 0x572, "IA32_RTIT", not_offered, kTrace},
    {0x580, 0x587, "IA32_RTIT_ADDR", not_offered, kTrace},
    {0x600, 0x600, "IA32_DS_AREA", not_offered, kPmu},
    {0x680, 0x69f, "MSR_LASTBRANCH", not_offered, kPmu},
    {0x6a0, 0x6a8, "IA32_U_CET, IA32_S_CET and shadow stacks", not_offered, kCet},
    {0x6e0, 0x6e0, "IA32_TSC_DEADLINE", local_apic, "deadline"},
    {0x800, 0x8ff, "x2APIC registers", local_apic, "the registers' fields"},
    {0xd90, 0xd90, "IA32_BNDCFGS", other, "MPX"},
    {0xda0, 0xda0, "IA32_XSS", vcpu, "xsave/xss"},
    {0x1200, 0x121f, "IA32_LBR_INFO", not_offered, kPmu},
    {0x14ce, 0x14cf, "IA32_LBR_CTL and IA32_LBR_DEPTH", not_offered, kPmu},
    {0x1500, 0x151f, "IA32_LBR_FROM_IP", not_offered, kPmu},
    {0x1600, 0x161f, "IA32_LBR_TO_IP", not_offered, kPmu},
    {0x1900, 0x19ff, "IA32_PMC (second range)", not_offered, kPmu},
    {0x4000'0000, 0x4000'0fff, "HV_X64_MSR", not_offered, kHyperV},
    {0x4b56'4d00, 0x4b56'4d00, "MSR_KVM_WALL_CLOCK_NEW", vcpu, "pvclock_wall_clock"},
    {0x4b56'4d01, 0x4b56'4d01, "MSR_KVM_SYSTEM_TIME_NEW", vcpu, "pvclock_system_time"},
    {0x4b56'4d02, 0x4b56'4d02, "MSR_KVM_ASYNC_PF_EN", not_offered, kPv},
    {0x4b56'4d03, 0x4b56'4d03, "MSR_KVM_STEAL_TIME", not_offered, kPv},
    {0x4b56'4d04, 0x4b56'4d04, "MSR_KVM_EOI_EN", not_offered, kPv},
    {0x4b56'4d05, 0x4b56'4d05, "MSR_KVM_POLL_CONTROL", not_offered, kPv},
    {0x4b56'4d06, 0x4b56'4d07, "MSR_KVM_ASYNC_PF_INT and ACK", not_offered, kPv},
    {0x4b56'4d08, 0x4b56'4d08, "MSR_KVM_MIGRATION_CONTROL", not_offered, kPv},
    {0xc000'0080, 0xc000'0080, "IA32_EFER", vcpu, "efer"},
    {0xc000'0081, 0xc000'0081, "IA32_STAR", vcpu, "star"},
    {0xc000'0082, 0xc000'0082, "IA32_LSTAR", vcpu, "lstar"},
    {0xc000'0083, 0xc000'0083, "IA32_CSTAR", vcpu, "cstar"},
    {0xc000'0084, 0xc000'0084, "IA32_FMASK", vcpu, "sfmask"},
    {0xc000'0100, 0xc000'0100, "IA32_FS_BASE", vcpu, "fs/base"},
    {0xc000'0101, 0xc000'0101, "IA32_GS_BASE", vcpu, "gs/base"},
    {0xc000'0102, 0xc000'0102, "IA32_KERNEL_GS_BASE", vcpu, "kernel_gs_base"},
    {0xc000'0103, 0xc000'0103, "IA32_TSC_AUX", vcpu, "tsc_aux"},
    {0xc000'0104, 0xc000'0104, "TSC_RATIO", not_offered, kVmx},
    {0xc000'0300, 0xc000'0303, "PERF_CNTR_GLOBAL", not_offered, kPmu},
    {0xc001'0000, 0xc001'0007, "PERF_CTL and PERF_CTR (K7)", not_offered, kPmu},
    {0xc001'0015, 0xc001'0015, "HWCR", vcpu, "hwcr"},
    {0xc001'0114, 0xc001'0114, "VM_CR", not_offered, kVmx},
    {0xc001'0117, 0xc001'0117, "VM_HSAVE_PA", not_offered, kVmx},
    {0xc001'011f, 0xc001'011f, "VIRT_SPEC_CTRL", other, "AMD's switch for speculative store bypass"},
    {0xc001'0140, 0xc001'0141, "OSVW_ID_LENGTH and OSVW_STATUS", contract, "zero in every contract"},
    {0xc001'0200, 0xc001'020b, "PERF_CTL and PERF_CTR", not_offered, kPmu},
    {0xc001'1029, 0xc001'1029, "DE_CFG", contract, "LFENCE is serializing in every contract"},
};

constexpr bool ascending() {
  for (std::size_t i = 0; i < std::size(kTable); ++i)
    if (kTable[i].first > kTable[i].last || (i > 0 && kTable[i - 1].last >= kTable[i].first)) return false;
  return true;
}
static_assert(ascending());

u64* mtrr_field(MtrrState& m, u32 index) {
  if (index >= 0x200 && index <= 0x20f) return (index & 1) ? &m.mask[(index - 0x200) / 2] : &m.base[(index - 0x200) / 2];
  if (index == 0x250) return &m.fixed[0];
  if (index == 0x258 || index == 0x259) return &m.fixed[1 + index - 0x258];
  if (index >= 0x268 && index <= 0x26f) return &m.fixed[3 + index - 0x268];
  return index == 0x2ff ? &m.def_type : nullptr;
}

}  // namespace

const MsrEntry* find_msr(u32 index) {
  const auto* const found = std::ranges::upper_bound(kTable, index, {}, &MsrEntry::first);
  if (found == std::begin(kTable)) return nullptr;
  const MsrEntry& before = found[-1];
  return index <= before.last ? &before : nullptr;
}

std::string_view msr_name(u32 index) {
  const MsrEntry* entry = find_msr(index);
  return entry ? entry->name : "unknown";
}

u64* msr_field(VcpuState& s, u32 index) {
  switch (index) {
    case 0x11:
    case 0x4b56'4d00: return &s.pvclock_wall_clock;
    case 0x12:
    case 0x4b56'4d01: return &s.pvclock_system_time;
    case 0x3b: return &s.tsc_adjust;
    case 0x48: return &s.spec_ctrl;
    case 0x9e: return &s.smm.smbase;
    case 0x174: return &s.sysenter_cs;
    case 0x175: return &s.sysenter_esp;
    case 0x176: return &s.sysenter_eip;
    case 0x17a: return &s.machine_check.mcg_status;
    case 0x1a0: return &s.misc_enable;
    case 0x1d9: return &s.last_branch.debug_ctl;
    case 0x1db: return &s.last_branch.branch_from;
    case 0x1dc: return &s.last_branch.branch_to;
    case 0x1dd: return &s.last_branch.exception_from;
    case 0x1de: return &s.last_branch.exception_to;
    case 0x277: return &s.pat;
    case 0x400: return &s.machine_check.ctl;
    case 0x401: return &s.machine_check.status;
    case 0x402: return &s.machine_check.addr;
    case 0x403: return &s.machine_check.misc;
    case 0xda0: return &s.xsave.xss;
    case 0xc000'0080: return &s.efer;
    case 0xc000'0081: return &s.star;
    case 0xc000'0082: return &s.lstar;
    case 0xc000'0083: return &s.cstar;
    case 0xc000'0084: return &s.sfmask;
    case 0xc000'0100: return &s.fs.base;
    case 0xc000'0101: return &s.gs.base;
    case 0xc000'0102: return &s.kernel_gs_base;
    case 0xc000'0103: return &s.tsc_aux;
    case 0xc001'0015: return &s.hwcr;
    default: return mtrr_field(s.mtrr, index);
  }
}

bool msr_get(const VcpuState& state, u32 index, u64& value) {
  if (const u64* field = msr_field(const_cast<VcpuState&>(state), index)) {
    value = *field;
    return true;
  }
  const MsrEntry* entry = find_msr(index);
  if (!entry || entry->home != MsrHome::other) return false;
  const auto found = std::ranges::lower_bound(state.other_msrs, index, {}, &MsrState::index);
  value = found != state.other_msrs.end() && found->index == index ? found->value : 0;
  return true;
}

bool msr_set(VcpuState& state, u32 index, u64 value) {
  if (u64* field = msr_field(state, index)) {
    *field = value;
    return true;
  }
  const MsrEntry* entry = find_msr(index);
  if (!entry || entry->home != MsrHome::other) return false;
  auto found = std::ranges::lower_bound(state.other_msrs, index, {}, &MsrState::index);
  const bool held = found != state.other_msrs.end() && found->index == index;
  if (value == 0) {
    if (held) state.other_msrs.erase(found);
  } else if (held) {
    found->value = value;
  } else {
    state.other_msrs.insert(found, {index, value});
  }
  return true;
}

}  // namespace stasis
