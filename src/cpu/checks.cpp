// Checks of vCPU states and CPU contracts. Bit names: Intel SDM vol. 2A, CPUID; vol. 3A, 2.5 control registers.
#include "cpu/checks.hpp"

#include <fmt/format.h>

#include <utility>

namespace stasis {
namespace {

constexpr u64 kCr0Bits = 0xe005'003f;                 // PG CD NW AM WP NE ET TS EM MP PE
constexpr u64 kCr4Bits = 0x0037'07ff;                 // VME..OSXMMEXCPT, UMIP 11 apart, FSGSBASE, PCIDE, SMEP, SMAP
constexpr u64 kCr4Umip = 1 << 11;
constexpr u64 kEferBits = 0xd01;                      // SCE LME LMA NXE
constexpr u64 kLma = 0x400, kLme = 0x100, kPg = 0x8000'0000, kPe = 1, kPae = 0x20;
constexpr u64 kMostRetired = 1ull << 62;              // beyond it counts could wrap
constexpr u64 kPhysicalBits = 0x000f'ffff'ffff'ffff;

bool canonical(u64 address) { return static_cast<u64>(static_cast<i64>(address << 16) >> 16) == address; }

struct Feature {
  u32 leaf, subleaf;
  char reg;  // 'b', 'c', 'd'
  unsigned bit;
  std::string_view name;
};
// The features that software decides by. A bit without a name here is told by its place.
constexpr Feature kFeatures[] = {
    {1, 0, 'c', 0, "SSE3"}, {1, 0, 'c', 1, "PCLMULQDQ"}, {1, 0, 'c', 3, "MONITOR"}, {1, 0, 'c', 9, "SSSE3"},
    {1, 0, 'c', 12, "FMA"}, {1, 0, 'c', 13, "CX16"}, {1, 0, 'c', 17, "PCID"}, {1, 0, 'c', 19, "SSE4.1"},
    {1, 0, 'c', 20, "SSE4.2"}, {1, 0, 'c', 21, "x2APIC"}, {1, 0, 'c', 22, "MOVBE"}, {1, 0, 'c', 23, "POPCNT"},
    {1, 0, 'c', 24, "TSC-deadline timer"}, {1, 0, 'c', 25, "AES"}, {1, 0, 'c', 26, "XSAVE"}, {1, 0, 'c', 28, "AVX"},
    {1, 0, 'c', 29, "F16C"}, {1, 0, 'c', 30, "RDRAND"}, {1, 0, 'd', 0, "x87 FPU"}, {1, 0, 'd', 4, "TSC"},
    {1, 0, 'd', 6, "PAE"}, {1, 0, 'd', 9, "local APIC"}, {1, 0, 'd', 12, "MTRR"}, {1, 0, 'd', 13, "PGE"},
    {1, 0, 'd', 15, "CMOV"}, {1, 0, 'd', 16, "PAT"}, {1, 0, 'd', 23, "MMX"}, {1, 0, 'd', 24, "FXSR"},
    {1, 0, 'd', 25, "SSE"}, {1, 0, 'd', 26, "SSE2"}, {7, 0, 'b', 0, "FSGSBASE"}, {7, 0, 'b', 3, "BMI1"},
    {7, 0, 'b', 5, "AVX2"}, {7, 0, 'b', 7, "SMEP"}, {7, 0, 'b', 8, "BMI2"}, {7, 0, 'b', 9, "ERMS"},
    {7, 0, 'b', 10, "INVPCID"}, {7, 0, 'b', 16, "AVX-512F"}, {7, 0, 'b', 18, "RDSEED"}, {7, 0, 'b', 19, "ADX"},
    {7, 0, 'b', 20, "SMAP"}, {7, 0, 'b', 29, "SHA"}, {7, 0, 'c', 2, "UMIP"}, {7, 0, 'c', 3, "PKU"},
    {7, 0, 'c', 16, "LA57"}, {7, 0, 'c', 22, "RDPID"}, {7, 0, 'd', 4, "FSRM"}, {7, 0, 'd', 26, "SPEC_CTRL"},
    {7, 0, 'd', 29, "ARCH_CAPABILITIES"}, {0x8000'0001, 0, 'd', 11, "SYSCALL"}, {0x8000'0001, 0, 'd', 20, "NX"},
    {0x8000'0001, 0, 'd', 26, "1 GiB pages"}, {0x8000'0001, 0, 'd', 27, "RDTSCP"}, {0x8000'0001, 0, 'd', 29, "long mode"},
    {0x8000'0001, 0, 'c', 0, "LAHF in 64-bit mode"}, {0x8000'0007, 0, 'd', 8, "invariant TSC"}};

bool is_feature_leaf(const CpuidLeaf& leaf) {
  return leaf.leaf == 1 || leaf.leaf == 7 || leaf.leaf == 0x8000'0001 || leaf.leaf == 0x8000'0007;
}

std::string feature_name(const CpuidLeaf& leaf, char reg, unsigned bit) {
  for (const Feature& f : kFeatures)
    if (f.leaf == leaf.leaf && f.subleaf == leaf.subleaf && f.reg == reg && f.bit == bit) return std::string(f.name);
  return fmt::format("CPUID {:#x}.{} E{}X bit {}", leaf.leaf, leaf.subleaf, static_cast<char>(reg - 'a' + 'A'), bit);
}

const CpuidLeaf* find_leaf(const CpuContract& contract, u32 leaf, u32 subleaf) {
  for (const CpuidLeaf& l : contract.cpuid)
    if (l.leaf == leaf && l.subleaf == subleaf) return &l;
  return nullptr;
}

void name_missing(const CpuidLeaf& leaf, char reg, u32 saved, u32 here, state::Problems& problems) {
  for (u32 missing = saved & ~here; missing; missing &= missing - 1)
    problems.push_back({ErrorCode::unsupported, "cpu/contract",
                        fmt::format("the guest was shown {}, which the soft engine does not offer",
                                    feature_name(leaf, reg, static_cast<unsigned>(__builtin_ctz(missing)))),
                        "resume it with an engine and host that have it"});
}

}  // namespace

std::string check_vcpu(const VcpuState& s) {
  const auto reserved = [](std::string_view name, u64 value, u64 allowed) {
    return fmt::format("{} has reserved bits set ({:#x}), allowed bits are {:#x}", name, value, allowed);
  };
  if (s.cr0 & ~kCr0Bits) return reserved("cr0", s.cr0, kCr0Bits);
  if (s.cr4 & ~(kCr4Bits | kCr4Umip)) return reserved("cr4", s.cr4, kCr4Bits | kCr4Umip);
  if (s.efer & ~kEferBits) return reserved("efer", s.efer, kEferBits);
  if (s.cr3 & ~kPhysicalBits) return reserved("cr3", s.cr3, kPhysicalBits);
  if (s.retired > kMostRetired) return fmt::format("retired is {}, allowed are up to {}", s.retired, kMostRetired);
  if (!(s.rflags & 2)) return fmt::format("rflags is {:#x}, but bit 1 is always set", s.rflags);
  if ((s.cr0 & kPg) && !(s.cr0 & kPe)) return fmt::format("cr0 is {:#x}: paging without protection", s.cr0);
  const bool long_mode = s.efer & kLma;
  if (long_mode != ((s.efer & kLme) && (s.cr0 & kPg)))
    return fmt::format("efer is {:#x}: LMA must be set exactly when LME and CR0.PG are", s.efer);
  if (long_mode && !(s.cr4 & kPae)) return fmt::format("cr4 is {:#x}, but long mode needs PAE", s.cr4);
  if (s.pending.valid && s.pending.vector > 31 && s.pending.has_error_code)
    return fmt::format("pending/vector is {}, only exceptions 0 to 31 have an error code", s.pending.vector);
  for (const auto& [name, value] : {std::pair<std::string_view, u64>{"lstar", s.lstar}, {"cstar", s.cstar},
                                    {"kernel_gs_base", s.kernel_gs_base}, {"fs/base", s.fs.base}, {"gs/base", s.gs.base},
                                    {"sysenter_esp", s.sysenter_esp}, {"sysenter_eip", s.sysenter_eip}})
    if (long_mode && !canonical(value)) return fmt::format("{} is {:#x}, which is not canonical", name, value);
  return {};
}

void check_contract(const CpuContract& saved, u32 cpus, state::Problems& problems) {
  const CpuContract here = default_cpu_contract(cpus);
  const auto refuse = [&](std::string message) {
    problems.push_back({ErrorCode::unsupported, "cpu/contract", std::move(message), "resume it with an engine and host that have it"});
  };
  if (saved.tsc_hz != here.tsc_hz)
    refuse(fmt::format("tsc_hz is {}, the soft engine offers {} only", saved.tsc_hz, here.tsc_hz));
  constexpr std::size_t kMostLeaves = 256;
  if (saved.cpuid.size() > kMostLeaves) return refuse(fmt::format("cpuid has {} leaves, allowed are {}", saved.cpuid.size(), kMostLeaves));
  if (saved.cpuid.empty()) refuse("cpuid is empty, wanted is at least leaf 0");
  if (const u64 missing = saved.arch_capabilities & ~here.arch_capabilities)
    refuse(fmt::format("arch_capabilities has {:#x}, of which {:#x} is not offered here", saved.arch_capabilities, missing));
  for (const CpuidLeaf& leaf : saved.cpuid) {
    const CpuidLeaf none{}, *ours = find_leaf(here, leaf.leaf, leaf.subleaf);
    if (!ours) ours = &none;
    if (leaf.leaf == 0 && (leaf.ebx != ours->ebx || leaf.ecx != ours->ecx || leaf.edx != ours->edx))
      refuse("the guest was shown a processor of another vendor than the soft engine's");
    if (!is_feature_leaf(leaf)) continue;
    if (leaf.leaf != 1) name_missing(leaf, 'b', leaf.ebx, ours->ebx, problems);
    name_missing(leaf, 'c', leaf.ecx, ours->ecx, problems);
    name_missing(leaf, 'd', leaf.edx, ours->edx, problems);
  }
}

}  // namespace stasis
