// Names: Intel SDM vol. 2A, CPUID, and vol. 4, table 2-2; AMD64 APM vol. 3, appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst.
#include "cpu/features.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace stasis {
namespace {

constexpr u32 kExtended = 0x8000'0001, kKvm = 0x4000'0001;

// A register that holds features; `promise`: the bits that a guest relies on.
struct FeatureRegister {
  u32 leaf, subleaf;
  u32 CpuidLeaf::*reg;
  char letter;
  u32 promise;
};
constexpr FeatureRegister kRegisters[] = {
    {1, 0, &CpuidLeaf::ecx, 'C', ~(1u << 27 | 1u << 31)},        // OSXSAVE follows CR4; the hypervisor bit is ours
    {1, 0, &CpuidLeaf::edx, 'D', ~(1u << 28)},                   // HTT: topology
    {7, 0, &CpuidLeaf::ebx, 'B', ~(1u << 6 | 1u << 9 | 1u << 13)},  // FDP on exceptions only, ERMS, no FCS and FDS
    {7, 0, &CpuidLeaf::ecx, 'C', ~(1u << 4)},                    // OSPKE follows CR4
    {7, 0, &CpuidLeaf::edx, 'D', ~(1u << 4)},                    // FSRM
    {7, 1, &CpuidLeaf::eax, 'A', ~0u},
    {7, 1, &CpuidLeaf::edx, 'D', ~0u},
    {7, 2, &CpuidLeaf::edx, 'D', ~0u},
    {0xd, 0, &CpuidLeaf::eax, 'A', ~0u},
    {0xd, 1, &CpuidLeaf::eax, 'A', ~0u},
    {kExtended, 0, &CpuidLeaf::ecx, 'C', ~0u},
    {kExtended, 0, &CpuidLeaf::edx, 'D', ~0u},
    {0x8000'0007, 0, &CpuidLeaf::edx, 'D', ~0u},
    {0x8000'0008, 0, &CpuidLeaf::ebx, 'B', ~0u},
    {0x8000'0021, 0, &CpuidLeaf::eax, 'A', ~0u},
    {kKvm, 0, &CpuidLeaf::eax, 'A', ~0u},
};

struct Feature {
  u32 leaf, subleaf;
  char letter;
  unsigned bit;
  std::string_view name;
};
constexpr Feature kFeatures[] = {
    {1, 0, 'C', 0, "SSE3"}, {1, 0, 'C', 1, "PCLMULQDQ"}, {1, 0, 'C', 3, "MONITOR"}, {1, 0, 'C', 5, "VMX"},
    {1, 0, 'C', 9, "SSSE3"}, {1, 0, 'C', 12, "FMA"}, {1, 0, 'C', 13, "CX16"}, {1, 0, 'C', 17, "PCID"},
    {1, 0, 'C', 19, "SSE4.1"}, {1, 0, 'C', 20, "SSE4.2"}, {1, 0, 'C', 21, "x2APIC"}, {1, 0, 'C', 22, "MOVBE"},
    {1, 0, 'C', 23, "POPCNT"}, {1, 0, 'C', 24, "TSC-deadline timer"}, {1, 0, 'C', 25, "AES"}, {1, 0, 'C', 26, "XSAVE"},
    {1, 0, 'C', 28, "AVX"}, {1, 0, 'C', 29, "F16C"}, {1, 0, 'C', 30, "RDRAND"},
    {1, 0, 'D', 0, "x87 FPU"}, {1, 0, 'D', 1, "VME"}, {1, 0, 'D', 2, "DE"}, {1, 0, 'D', 3, "PSE"}, {1, 0, 'D', 4, "TSC"},
    {1, 0, 'D', 5, "MSR"}, {1, 0, 'D', 6, "PAE"}, {1, 0, 'D', 7, "MCE"}, {1, 0, 'D', 8, "CX8"}, {1, 0, 'D', 9, "local APIC"},
    {1, 0, 'D', 11, "SYSENTER"}, {1, 0, 'D', 12, "MTRR"}, {1, 0, 'D', 13, "PGE"}, {1, 0, 'D', 14, "MCA"},
    {1, 0, 'D', 15, "CMOV"}, {1, 0, 'D', 16, "PAT"}, {1, 0, 'D', 17, "PSE-36"}, {1, 0, 'D', 19, "CLFLUSH"},
    {1, 0, 'D', 23, "MMX"}, {1, 0, 'D', 24, "FXSR"}, {1, 0, 'D', 25, "SSE"}, {1, 0, 'D', 26, "SSE2"}, {1, 0, 'D', 27, "self-snoop"},
    {7, 0, 'B', 0, "FSGSBASE"}, {7, 0, 'B', 1, "TSC_ADJUST"}, {7, 0, 'B', 3, "BMI1"}, {7, 0, 'B', 4, "HLE"}, {7, 0, 'B', 5, "AVX2"},
    {7, 0, 'B', 7, "SMEP"}, {7, 0, 'B', 8, "BMI2"}, {7, 0, 'B', 10, "INVPCID"}, {7, 0, 'B', 11, "RTM"}, {7, 0, 'B', 14, "MPX"},
    {7, 0, 'B', 16, "AVX-512F"}, {7, 0, 'B', 17, "AVX-512DQ"}, {7, 0, 'B', 18, "RDSEED"}, {7, 0, 'B', 19, "ADX"},
    {7, 0, 'B', 20, "SMAP"}, {7, 0, 'B', 21, "AVX-512IFMA"}, {7, 0, 'B', 23, "CLFLUSHOPT"}, {7, 0, 'B', 24, "CLWB"},
    {7, 0, 'B', 28, "AVX-512CD"}, {7, 0, 'B', 29, "SHA"}, {7, 0, 'B', 30, "AVX-512BW"}, {7, 0, 'B', 31, "AVX-512VL"},
    {7, 0, 'C', 1, "AVX-512VBMI"}, {7, 0, 'C', 2, "UMIP"}, {7, 0, 'C', 3, "PKU"}, {7, 0, 'C', 6, "AVX-512VBMI2"}, {7, 0, 'C', 8, "GFNI"},
    {7, 0, 'C', 9, "VAES"}, {7, 0, 'C', 10, "VPCLMULQDQ"}, {7, 0, 'C', 11, "AVX-512VNNI"}, {7, 0, 'C', 12, "AVX-512BITALG"},
    {7, 0, 'C', 14, "AVX-512VPOPCNTDQ"}, {7, 0, 'C', 16, "LA57"}, {7, 0, 'C', 22, "RDPID"}, {7, 0, 'C', 24, "bus lock detection"},
    {7, 0, 'C', 25, "CLDEMOTE"}, {7, 0, 'C', 27, "MOVDIRI"}, {7, 0, 'C', 28, "MOVDIR64B"},
    {7, 0, 'D', 8, "AVX-512VP2INTERSECT"}, {7, 0, 'D', 10, "MD_CLEAR"}, {7, 0, 'D', 14, "SERIALIZE"}, {7, 0, 'D', 16, "TSXLDTRK"},
    {7, 0, 'D', 22, "AMX-BF16"}, {7, 0, 'D', 23, "AVX-512FP16"}, {7, 0, 'D', 24, "AMX-TILE"}, {7, 0, 'D', 25, "AMX-INT8"},
    {7, 0, 'D', 26, "SPEC_CTRL"}, {7, 0, 'D', 27, "STIBP"}, {7, 0, 'D', 28, "L1D_FLUSH"}, {7, 0, 'D', 29, "ARCH_CAPABILITIES"}, {7, 0, 'D', 31, "SSBD"},
    {7, 1, 'A', 4, "AVX-VNNI"}, {7, 1, 'A', 5, "AVX-512BF16"}, {7, 1, 'A', 7, "CMPCCXADD"}, {7, 1, 'A', 10, "fast zero-length REP MOVSB"},
    {7, 1, 'A', 11, "fast short REP STOSB"}, {7, 1, 'A', 12, "fast short REP CMPSB"}, {7, 1, 'A', 21, "AMX-FP16"}, {7, 1, 'A', 23, "AVX-IFMA"},
    {7, 1, 'D', 4, "AVX-VNNI-INT8"}, {7, 1, 'D', 5, "AVX-NE-CONVERT"}, {7, 1, 'D', 14, "PREFETCHI"},
    {0xd, 0, 'A', 0, "XSAVE component 0 (x87)"}, {0xd, 0, 'A', 1, "XSAVE component 1 (SSE)"}, {0xd, 0, 'A', 2, "XSAVE component 2 (AVX)"},
    {0xd, 0, 'A', 3, "XSAVE component 3 (MPX bounds)"}, {0xd, 0, 'A', 4, "XSAVE component 4 (MPX status)"},
    {0xd, 0, 'A', 5, "XSAVE component 5 (AVX-512 masks)"}, {0xd, 0, 'A', 6, "XSAVE component 6 (AVX-512 ZMM high halves)"},
    {0xd, 0, 'A', 7, "XSAVE component 7 (AVX-512 ZMM16 to 31)"}, {0xd, 0, 'A', 9, "XSAVE component 9 (PKRU)"},
    {0xd, 0, 'A', 17, "XSAVE component 17 (AMX tile configuration)"}, {0xd, 0, 'A', 18, "XSAVE component 18 (AMX tile data)"},
    {0xd, 1, 'A', 0, "XSAVEOPT"}, {0xd, 1, 'A', 1, "XSAVEC"}, {0xd, 1, 'A', 2, "XGETBV with ECX 1"}, {0xd, 1, 'A', 3, "XSAVES"}, {0xd, 1, 'A', 4, "XFD"},
    {kExtended, 0, 'C', 0, "LAHF in 64-bit mode"}, {kExtended, 0, 'C', 1, "CMP_LEGACY"}, {kExtended, 0, 'C', 4, "CR8 by LOCK MOV CR0"}, {kExtended, 0, 'C', 5, "LZCNT"},
    {kExtended, 0, 'C', 6, "SSE4A"}, {kExtended, 0, 'C', 7, "misaligned SSE"}, {kExtended, 0, 'C', 8, "PREFETCHW"}, {kExtended, 0, 'C', 11, "XOP"},
    {kExtended, 0, 'C', 16, "FMA4"}, {kExtended, 0, 'C', 21, "TBM"}, {kExtended, 0, 'C', 22, "topology extensions"},
    {kExtended, 0, 'D', 11, "SYSCALL"}, {kExtended, 0, 'D', 20, "NX"}, {kExtended, 0, 'D', 22, "MMX extensions"}, {kExtended, 0, 'D', 25, "FFXSR"},
    {kExtended, 0, 'D', 26, "1 GiB pages"}, {kExtended, 0, 'D', 27, "RDTSCP"}, {kExtended, 0, 'D', 29, "long mode"},
    {kExtended, 0, 'D', 30, "3DNow! extensions"}, {kExtended, 0, 'D', 31, "3DNow!"},
    {0x8000'0007, 0, 'D', 8, "invariant TSC"},
    {0x8000'0008, 0, 'B', 0, "CLZERO"}, {0x8000'0008, 0, 'B', 2, "XSAVEERPTR"}, {0x8000'0008, 0, 'B', 9, "WBNOINVD"}, {0x8000'0008, 0, 'B', 12, "IBPB"},
    {0x8000'0008, 0, 'B', 14, "IBRS"}, {0x8000'0008, 0, 'B', 15, "STIBP (AMD)"}, {0x8000'0008, 0, 'B', 18, "IBRS preferred"}, {0x8000'0008, 0, 'B', 24, "SSBD (AMD)"},
    {0x8000'0008, 0, 'B', 25, "VIRT_SSBD"}, {0x8000'0008, 0, 'B', 26, "SSB_NO (AMD)"}, {0x8000'0008, 0, 'B', 28, "PSFD"}, {0x8000'0008, 0, 'B', 30, "IBPB_RET"},
    {0x8000'0021, 0, 'A', 0, "no nested data breakpoints"}, {0x8000'0021, 0, 'A', 2, "LFENCE always serializing"},
    {0x8000'0021, 0, 'A', 6, "null selector clears the base"}, {0x8000'0021, 0, 'A', 8, "automatic IBRS"},
    {kKvm, 0, 'A', 0, "kvmclock (old MSRs)"}, {kKvm, 0, 'A', 3, "kvmclock"}, {kKvm, 0, 'A', 24, "kvmclock stable bit"},
};

constexpr std::string_view kArchCapabilities[] = {
    "RDCL_NO", "IBRS_ALL", "RSBA", "SKIP_L1DFL_VMENTRY", "SSB_NO", "MDS_NO", "PSCHANGE_MC_NO", "TSX_CTRL", "TAA_NO", "MCU_CONTROL",
    "MISC_PACKAGE_CTLS", "ENERGY_FILTERING_CTL", "DOITM", "SBDR_SSDP_NO", "FBSDP_NO", "PSDP_NO", "MCU_ENUM", "FB_CLEAR", "FB_CLEAR_CTRL", "RRSBA",
    "BHI_NO", "XAPIC_DISABLE_STATUS", "MCU_EXTENDED_SERVICE", "OVERCLOCKING_STATUS", "PBRSB_NO", "GDS_CTRL", "GDS_NO", "RFDS_NO", "RFDS_CLEAR"};
constexpr unsigned kItsNo = 62;

std::string name_of_bit(const FeatureRegister& reg, unsigned bit) {
  for (const Feature& f : kFeatures)
    if (f.leaf == reg.leaf && f.subleaf == reg.subleaf && f.letter == reg.letter && f.bit == bit) return std::string(f.name);
  return fmt::format("CPUID {:#x}.{} E{}X bit {}", reg.leaf, reg.subleaf, reg.letter, bit);
}

}  // namespace

const CpuidLeaf* find_leaf(const std::vector<CpuidLeaf>& leaves, u32 leaf, u32 subleaf) {
  for (const CpuidLeaf& l : leaves)
    if (l.leaf == leaf && l.subleaf == subleaf) return &l;
  return nullptr;
}

std::vector<std::string> missing_features(const std::vector<CpuidLeaf>& wanted, const std::vector<CpuidLeaf>& offered) {
  std::vector<std::string> names;
  for (const FeatureRegister& reg : kRegisters) {
    const CpuidLeaf *want = find_leaf(wanted, reg.leaf, reg.subleaf), *have = find_leaf(offered, reg.leaf, reg.subleaf);
    if (!want) continue;
    for (u32 missing = want->*reg.reg & ~(have ? have->*reg.reg : 0) & reg.promise; missing; missing &= missing - 1)
      names.push_back(name_of_bit(reg, static_cast<unsigned>(__builtin_ctz(missing))));
  }
  return names;
}

std::vector<std::string> arch_capability_names(u64 value) {
  std::vector<std::string> names;
  for (; value; value &= value - 1) {
    const unsigned bit = static_cast<unsigned>(__builtin_ctzll(value));
    if (bit < std::size(kArchCapabilities)) names.emplace_back(kArchCapabilities[bit]);
    else names.push_back(bit == kItsNo ? "ITS_NO" : fmt::format("bit {}", bit));
  }
  return names;
}

std::string joined(const std::vector<std::string>& names) { return fmt::format("{}", fmt::join(names, ", ")); }

}  // namespace stasis
