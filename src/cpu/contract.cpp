// The CPU model x86-64-v2 (Intel SDM vol. 2, CPUID; vol. 4, IA32_ARCH_CAPABILITIES).
#include "cpu/contract.hpp"

#include <array>
#include <bit>
#include <cstring>
#include <string_view>

namespace stasis {
namespace {

constexpr u32 bits(std::initializer_list<unsigned> set) {
  u32 value = 0;
  for (const unsigned bit : set) value |= 1u << bit;
  return value;
}

u32 word(std::string_view text, unsigned index) {
  u32 value = 0;
  if (index * 4 < text.size()) std::memcpy(&value, text.data() + index * 4, std::min<std::size_t>(4, text.size() - index * 4));
  return value;
}

constexpr u32 kSignature = 0x000a'06f1;  // family 6, the value of EDX after reset too
constexpr std::string_view kBrand = "Stasis virtual CPU, x86-64-v2";
constexpr u32 kPhysicalAddressBits = 46, kLinearAddressBits = 48;

// IA32_ARCH_CAPABILITIES: immune to what a guest would work around; software state only, no speculation at all.
constexpr u64 kImmune = 1ull << 0    // RDCL_NO
                        | 1ull << 1   // IBRS_ALL
                        | 1ull << 3   // SKIP_L1DFL_VMENTRY
                        | 1ull << 4   // SSB_NO
                        | 1ull << 5   // MDS_NO
                        | 1ull << 6   // PSCHANGE_MC_NO
                        | 1ull << 8   // TAA_NO
                        | 1ull << 13  // SBDR_SSDP_NO
                        | 1ull << 14  // FBSDP_NO
                        | 1ull << 15  // PSDP_NO
                        | 1ull << 20  // BHI_NO
                        | 1ull << 24  // PBRSB_NO
                        | 1ull << 26  // GDS_NO
                        | 1ull << 27  // RFDS_NO
                        | 1ull << 62;  // ITS_NO

// Leaf 4: eax without the core count, ebx: ways - 1 << 22 | line - 1, ecx: sets - 1.
CpuidLeaf cache(u32 subleaf, u32 type, u32 level, u32 ways, u32 sets, u32 cpus) {
  return {4, subleaf, type | level << 5 | 1u << 8 | (cpus - 1) << 26, (ways - 1) << 22 | 63, sets - 1, 0};
}

}  // namespace

CpuContract default_cpu_contract(unsigned cpus) {
  CpuContract contract;
  contract.arch_capabilities = kImmune;
  const u32 count = cpus ? cpus : 1;
  const u32 id_bits = static_cast<u32>(std::bit_width(count - 1));
  const u32 ghz = static_cast<u32>(contract.tsc_hz / 1'000'000);
  const std::string_view vendor = "GenuineIntel", signature = "StasisStasis";
  auto& leaves = contract.cpuid;
  const auto add = [&](u32 leaf, u32 eax, u32 ebx, u32 ecx, u32 edx, u32 subleaf = 0) {
    leaves.push_back({leaf, subleaf, eax, ebx, ecx, edx});
  };
  add(0, 0x16, word(vendor, 0), word(vendor, 2), word(vendor, 1));
  // ECX: SSE3 SSSE3 CX16 SSE4.1 SSE4.2 x2APIC POPCNT TSC-deadline hypervisor.
  // EDX: FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2 SS; HTT below.
  add(1, kSignature, 8u << 8 | count << 16, bits({0, 9, 13, 19, 20, 21, 23, 24, 31}),
      bits({0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27}) | (count > 1 ? 1u << 28 : 0));
  add(2, 0x00fe'ff01, 0, 0, 0);  // see leaf 4
  leaves.push_back(cache(0, 1, 1, 8, 64, 1));
  leaves.push_back(cache(1, 2, 1, 8, 64, 1));
  leaves.push_back(cache(2, 3, 2, 16, 1024, 1));
  leaves.push_back(cache(3, 3, 3, 16, 16384, count));
  add(6, bits({2}), 0, 0, 0);  // ARAT
  // EBX: TSC_ADJUST, FDP on exceptions only, SMEP ERMS, no FCS and FDS, SMAP. ECX: UMIP. EDX: FSRM, IBRS and IBPB, ARCH_CAPABILITIES.
  add(7, 0, bits({1, 6, 7, 9, 13, 20}), bits({2}), bits({4, 26, 29}));
  add(0xb, 0, 1, 1u << 8, 0);
  add(0xb, id_bits, count, 2u << 8, 0, 1);
  add(0x15, 1, 1, static_cast<u32>(contract.tsc_hz), 0);  // TSC = crystal, 1 GHz
  add(0x16, ghz, ghz, 100, 0);
  add(0x4000'0000, 0x4000'0000, word(signature, 0), word(signature, 1), word(signature, 2));
  add(0x8000'0000, 0x8000'0008, 0, 0, 0);
  add(0x8000'0001, 0, 0, bits({0}), bits({11, 20, 26, 27, 29}));  // LAHF; SYSCALL NX 1 GiB pages RDTSCP LM
  for (u32 i = 0; i < 3; ++i)
    add(0x8000'0002 + i, word(kBrand, 4 * i), word(kBrand, 4 * i + 1), word(kBrand, 4 * i + 2), word(kBrand, 4 * i + 3));
  add(0x8000'0006, 0, 0, 0x0400'8040, 0);
  add(0x8000'0007, 0, 0, 0, bits({8}));  // invariant TSC
  add(0x8000'0008, kPhysicalAddressBits | kLinearAddressBits << 8, 0, 0, 0);
  return contract;
}

}  // namespace stasis
