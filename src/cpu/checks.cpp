// Checks of vCPU states and CPU contracts (Intel SDM vol. 3A, 2.5 control registers, 6.3 events, 13 XSAVE).
#include "cpu/checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cpu/features.hpp"
#include "cpu/msr_table.hpp"

namespace stasis {
namespace {

constexpr u64 kCr0Bits = 0xe005'003f;     // PG CD NW AM WP NE ET TS EM MP PE
constexpr u64 kCr4Bits = 0x0077'1fff;     // VME..OSXMMEXCPT, UMIP, LA57, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE
constexpr u64 kEferBits = 0x20'cd01;      // SCE LME LMA NXE FFXSR TCE AIBRSE
constexpr u64 kXssBits = 0x1'fd00;
constexpr u64 kLma = 0x400, kLme = 0x100, kPg = 0x8000'0000, kPe = 1, kPae = 0x20, kLa57 = 0x1000, kVm = 0x2'0000;
constexpr u64 kMostRetired = 1ull << 62;  // beyond it counts could wrap
constexpr u64 kCr3Bits = 0x000f'ffff'ffff'ffff;
constexpr u32 kFeatureControl = 0x3a;
constexpr u8 kNmiVector = 2, kDebug = 1, kPageFault = 14, kExceptions = 32;

bool canonical(u64 address, unsigned bits) {
  const unsigned shift = 64 - bits;
  return static_cast<u64>(static_cast<i64>(address << shift) >> shift) == address;
}

bool is_pat(u64 value) {
  for (unsigned i = 0; i < 64; i += 8)
    if (const u64 type = value >> i & 0xff; type > 7 || type == 2 || type == 3) return false;
  return true;
}

std::string reserved(std::string_view name, u64 value, u64 allowed) {
  return fmt::format("{} has reserved bits set ({:#x}), allowed bits are {:#x}", name, value, allowed);
}

std::string check_control(const VcpuState& s) {
  if (s.cr0 & ~kCr0Bits) return reserved("cr0", s.cr0, kCr0Bits);
  if (s.cr4 & ~kCr4Bits) return reserved("cr4", s.cr4, kCr4Bits);
  if (s.efer & ~kEferBits) return reserved("efer", s.efer, kEferBits);
  if (s.cr3 & ~kCr3Bits) return reserved("cr3", s.cr3, kCr3Bits);
  if (s.dr6 >> 32) return reserved("dr6", s.dr6, ~0u);
  if (s.dr7 >> 32) return reserved("dr7", s.dr7, ~0u);
  if (s.retired > kMostRetired) return fmt::format("retired is {}, allowed are up to {}", s.retired, kMostRetired);
  if (!(s.rflags & 2)) return fmt::format("rflags is {:#x}, but bit 1 is always set", s.rflags);
  if ((s.cr0 & kPg) && !(s.cr0 & kPe)) return fmt::format("cr0 is {:#x}: paging without protection", s.cr0);
  const bool long_mode = s.efer & kLma;
  if (long_mode != ((s.efer & kLme) && (s.cr0 & kPg)))
    return fmt::format("efer is {:#x}: LMA must be set exactly when LME and CR0.PG are", s.efer);
  if (long_mode && !(s.cr4 & kPae)) return fmt::format("cr4 is {:#x}, but long mode needs PAE", s.cr4);
  if (long_mode && (s.rflags & kVm)) return fmt::format("rflags is {:#x}: no virtual-8086 mode in long mode", s.rflags);
  if (!is_pat(s.pat)) return fmt::format("pat is {:#x}, allowed types are 0, 1 and 4 to 7", s.pat);
  if (s.tsc_aux >> 32) return reserved("tsc_aux", s.tsc_aux, ~0u);
  const unsigned bits = (s.cr4 & kLa57) ? 57 : 48;
  for (const auto& [name, value] : {std::pair<std::string_view, u64>{"lstar", s.lstar}, {"cstar", s.cstar},
                                    {"kernel_gs_base", s.kernel_gs_base}, {"fs/base", s.fs.base}, {"gs/base", s.gs.base},
                                    {"sysenter_esp", s.sysenter_esp}, {"sysenter_eip", s.sysenter_eip}})
    if (long_mode && !canonical(value, bits)) return fmt::format("{} is {:#x}, which is not canonical", name, value);
  return {};
}

std::string check_event(std::string_view name, const PendingEventState& e, bool waits) {
  if (!e.valid) return {};
  const bool exception = e.type == EventType::exception || (e.type == EventType::by_vector && e.vector < kExceptions);
  if (e.vector >= kExceptions && e.has_error_code)
    return fmt::format("{}/vector is {}, only exceptions 0 to 31 have an error code", name, e.vector);
  if (e.has_error_code && !exception)
    return fmt::format("{}/type is {}, only exceptions have an error code", name, kEventTypeNames[static_cast<u8>(e.type)]);
  if (e.type == EventType::exception && (e.vector >= kExceptions || e.vector == kNmiVector))
    return fmt::format("{}/vector is {}, allowed for an exception are 0 to 31 without 2", name, e.vector);
  if (e.type == EventType::nmi && e.vector != kNmiVector) return fmt::format("{}/vector is {}, an NMI's is 2", name, e.vector);
  if (waits && !exception) return fmt::format("{}/type is {}, allowed is exception", name, kEventTypeNames[static_cast<u8>(e.type)]);
  if (e.has_payload && !waits) return fmt::format("{}/has_payload is true, but CR2 and DR6 have it when the event is on its way", name);
  if (e.has_payload && e.vector != kDebug && e.vector != kPageFault)
    return fmt::format("{}/has_payload is true for vector {}, allowed for 1 and 14", name, e.vector);
  if (e.payload != 0 && !e.has_payload) return fmt::format("{}/payload is {:#x}, but has_payload is false", name, e.payload);
  return {};
}

std::string check_xsave(const XsaveState& x) {
  constexpr u64 kSse = 2, kAvx = 4, kBounds = 0x18, kAvx512 = 0xe0, kTiles = 0x6'0000;
  const auto wrong = [&](std::string_view why) { return fmt::format("xsave/xcr0 is {:#x}: {}", x.xcr0, why); };
  const auto partly = [&](u64 group) { return (x.xcr0 & group) != 0 && (x.xcr0 & group) != group; };
  if (!(x.xcr0 & 1)) return wrong("x87 is always on");
  if ((x.xcr0 & kAvx) && !(x.xcr0 & kSse)) return wrong("AVX needs SSE");
  if (partly(kBounds)) return wrong("the two MPX components go together");
  if (partly(kAvx512)) return wrong("the three AVX-512 components go together");
  if ((x.xcr0 & kAvx512) && !(x.xcr0 & kAvx)) return wrong("AVX-512 needs AVX");
  if (partly(kTiles)) return wrong("the two AMX components go together");
  if (x.xss & ~kXssBits) return reserved("xsave/xss", x.xss, kXssBits);
  if (x.tile_config.size() != 0 && x.tile_config.size() != 64)
    return fmt::format("xsave/tile_config has {} bytes, allowed are 0 and 64", x.tile_config.size());
  if (x.tile_data.size() != 0 && x.tile_data.size() != 8192)
    return fmt::format("xsave/tile_data has {} bytes, allowed are 0 and 8192", x.tile_data.size());
  return {};
}

std::string check_other_msrs(const std::vector<MsrState>& msrs) {
  constexpr std::size_t kMost = 256;
  if (msrs.size() > kMost) return fmt::format("other_msrs has {} members, allowed are {}", msrs.size(), kMost);
  for (std::size_t i = 0; i < msrs.size(); ++i) {
    const MsrState& msr = msrs[i];
    if (i > 0 && msrs[i - 1].index >= msr.index)
      return fmt::format("other_msrs/{}/index is {:#x} after {:#x}, they must ascend", i, msr.index, msrs[i - 1].index);
    const MsrEntry* entry = find_msr(msr.index);
    if (!entry || entry->home != MsrHome::other)
      return fmt::format("other_msrs/{}/index is {:#x} ({}), which may not stand there", i, msr.index, msr_name(msr.index));
  }
  return {};
}

}  // namespace

std::string check_vcpu(const VcpuState& s) {
  std::string wrong = check_control(s);
  if (wrong.empty()) wrong = check_event("pending", s.pending, false);
  if (wrong.empty()) wrong = check_event("exception", s.exception, true);
  if (wrong.empty()) wrong = check_xsave(s.xsave);
  if (wrong.empty()) wrong = check_other_msrs(s.other_msrs);
  if (wrong.empty() && s.smm.smbase >> 32) wrong = reserved("smm/smbase", s.smm.smbase, ~0u);
  return wrong;
}

std::string check_for_soft(const VcpuState& s, const CpuContract& contract) {
  constexpr u64 kSoftCr4 = 0x0030'0fff, kSoftEfer = 0xd01, kBig = 0x400, kLong = 0x200;
  constexpr u64 kBeyondSse = ~3ull;
  const auto cannot = [](std::string_view what, std::string_view field, auto value) {
    return fmt::format("{} is {:#x}: the soft engine has no {}, resume it with --engine kvm", field, value, what);
  };
  if (s.activity != Activity::wait_for_sipi && s.activity != Activity::shutdown) {
    if (!(s.cr0 & kPe)) return cannot("real mode", "cr0", s.cr0);
    if (s.rflags & kVm) return cannot("virtual-8086 mode", "rflags", s.rflags);
    if (!(s.cs.attributes & (kBig | kLong))) return cannot("16-bit code", "cs/attributes", s.cs.attributes);
  }
  if (s.cr4 & ~kSoftCr4) return cannot(fmt::format("CR4 bits {:#x}", s.cr4 & ~kSoftCr4), "cr4", s.cr4);
  if (s.efer & ~kSoftEfer) return cannot(fmt::format("EFER bits {:#x}", s.efer & ~kSoftEfer), "efer", s.efer);
  if (s.smm.active || s.smm.pending) return cannot("system management mode", s.smm.active ? "smm/active" : "smm/pending", 1);
  if (s.smm.latched_init) return cannot("system management mode", "smm/latched_init", 1);
  if (s.pending.valid && s.pending.type == EventType::software) return cannot("software interrupt on its way", "pending/vector", s.pending.vector);
  if (s.xsave.xcr0 & kBeyondSse) return cannot("XSAVE", "xsave/xcr0", s.xsave.xcr0);
  if (s.xsave.xss) return cannot("XSAVES", "xsave/xss", s.xsave.xss);
  if (s.xsave.in_use & kBeyondSse) return cannot("XSAVE components beyond SSE", "xsave/in_use", s.xsave.in_use);
  constexpr u64 kSoftDebugCtl = 3;  // kept, without effect
  if (s.last_branch.debug_ctl & ~kSoftDebugCtl) return cannot("branch trace", "last_branch/debug_ctl", s.last_branch.debug_ctl);
  constexpr u64 kTscFrequencySelect = 1u << 24;  // says what the TSC counts with, switches nothing
  if (s.hwcr & ~kTscFrequencySelect) return cannot("HWCR", "hwcr", s.hwcr);
  if (s.pvclock_system_time & 1 && !(pv_features(contract) & (kKvmclock | kKvmclockOld)))
    return fmt::format("pvclock_system_time is {:#x}, but the guest was never shown kvmclock; the file is damaged or not ours", s.pvclock_system_time);
  for (const MsrState& msr : s.other_msrs)
    if (msr.value != 0 && !(msr.index == kFeatureControl && msr.value == 1))  // locked, with everything off
      return cannot(fmt::format("MSR {:#x} ({})", msr.index, msr_name(msr.index)), "other_msrs", msr.value);
  const u64 beyond = ~((1ull << physical_bits(contract)) - 1);
  if (s.cr3 & beyond) return reserved("cr3", s.cr3, ~beyond);
  return {};
}

void check_for_kvm(const VcpuState& s, const CpuContract& contract, const CpuOffer& here, const std::string& object, state::Problems& problems) {
  const auto refuse = [&](std::string message, std::string hint) { problems.push_back({ErrorCode::unsupported, object, std::move(message), std::move(hint)}); };
  if (const u64 unseen = s.xsave.xcr0 & ~xsave_components(contract))
    refuse(fmt::format("xsave/xcr0 is {:#x}, and the guest was never shown {:#x}", s.xsave.xcr0, unseen), "the file is damaged or not ours");
  for (const MsrState& msr : s.other_msrs)
    if (msr.value != 0 && !std::ranges::binary_search(here.msrs, msr.index))
      refuse(fmt::format("the guest uses MSR {:#x} ({}), its value is {:#x}, and KVM on this host does not keep it", msr.index, msr_name(msr.index), msr.value),
             "resume it on a host that has it");
}

void check_contract(const CpuContract& saved, const CpuOffer& here, u32 cpus, state::Problems& problems) {
  const auto refuse = [&](std::string message, std::string hint = "resume it with an engine and host that have it") {
    problems.push_back({ErrorCode::unsupported, "cpu/contract", std::move(message), std::move(hint)});
  };
  constexpr std::size_t kMostLeaves = 256;
  if (saved.cpuid.size() > kMostLeaves) return refuse(fmt::format("cpuid has {} leaves, allowed are {}", saved.cpuid.size(), kMostLeaves));
  if (cpus > here.most_cpus) refuse(fmt::format("cpus is {}, the {} engine runs {}", cpus, here.engine, here.most_cpus));
  if (const std::string wrong = tsc_rate_problem(saved.tsc_hz, here); !wrong.empty()) refuse(wrong, "resume it on a host with that rate or with TSC scaling");
  const CpuidLeaf none{}, *saved_vendor = find_leaf(saved.cpuid, 0), *here_vendor = find_leaf(here.cpuid, 0);
  if (!saved_vendor) refuse("cpuid has no leaf 0");
  const CpuidLeaf &was = saved_vendor ? *saved_vendor : none, &is = here_vendor ? *here_vendor : none;
  // The movable models are Intel-shaped wherever they run (docs/decisions/0006); an engine that is not Intel's shows them as well.
  constexpr CpuidLeaf kIntel{.ebx = 0x756e'6547, .ecx = 0x6c65'746e, .edx = 0x4965'6e69};
  const auto same_vendor = [](const CpuidLeaf& a, const CpuidLeaf& b) { return a.ebx == b.ebx && a.ecx == b.ecx && a.edx == b.edx; };
  const bool host = saved.model == "host", movable = !host && same_vendor(was, kIntel);
  if (saved_vendor && !movable && !same_vendor(was, is))
    refuse(fmt::format("the guest was shown a processor of another vendor than the {} engine's on this host", here.engine));
  if (host) {
    const CpuidLeaf *then = find_leaf(saved.cpuid, 1), *now = find_leaf(here.cpuid, 1);
    const u32 signature = then ? then->eax : 0, ours = now ? now->eax : 0;
    if (signature != ours)
      refuse(fmt::format("the model is host: the guest was shown family, model and stepping {:#x}, here are {:#x}", signature, ours),
             "resume it on the same kind of processor; the models x86-64-v2 and x86-64-v3 can move");
  }
  if (const u32 bits = physical_bits(saved); bits > here.physical_bits)
    refuse(fmt::format("the guest was shown {} physical address bits, the {} engine on this host has {}", bits, here.engine, here.physical_bits));
  for (const std::string& name : missing_features(saved.cpuid, here.cpuid))
    refuse(fmt::format("the guest was shown {}, which the {} engine on this host does not offer", name, here.engine));
  for (const std::string& name : arch_capability_names(saved.arch_capabilities & ~here.arch_capabilities))
    refuse(fmt::format("the guest was shown ARCH_CAPABILITIES {}, which the {} engine on this host does not offer", name, here.engine));
}

}  // namespace stasis
