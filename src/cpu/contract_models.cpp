// The models x86-64-v2, x86-64-v3 (x86-64 psABI, "Micro-Architecture Levels") and host.
#include <algorithm>

#include "cpu/contract_parts.hpp"
#include "cpu/features.hpp"
#include "cpu/vcpu_state.hpp"

namespace stasis::cpu_model {
namespace {

constexpr u32 kSignature = 0x000a'06f1;  // family 6, the value of EDX after reset too
constexpr u32 kLinearBits = 48;
constexpr CpuidLeaf kIntel{.ebx = 0x756e'6547, .ecx = 0x6c65'746e, .edx = 0x4965'6e69};

// Shown where the offer has it: it protects, or is faster, or tells about time.
std::vector<CpuidLeaf> optional_features(bool v3) {
  std::vector<CpuidLeaf> out{
      {.leaf = 1, .ecx = bits({24})},  // TSC-deadline
      // TSC_ADJUST, FDP on exceptions only, SMEP, ERMS, no FCS and FDS, SMAP; UMIP; FSRM, SPEC_CTRL, ARCH_CAPABILITIES
      {.leaf = 7, .ebx = bits({1, 6, 7, 9, 13, 20}), .ecx = bits({2}), .edx = bits({4, 26, 29})},
      {.leaf = 0x8000'0001, .edx = bits({26})},
      {.leaf = 0x8000'0007, .edx = bits({8})}};
  if (v3) {
    out[1].ebx |= bits({0});                                           // FSGSBASE
    out.push_back({.leaf = 0xd, .subleaf = 1, .eax = bits({0, 1, 2})});  // XSAVEOPT, XSAVEC, XGETBV with ECX 1
  }
  return out;
}

// Leaf 4: eax without the core count, ebx: ways - 1 << 22 | line - 1, ecx: sets - 1.
CpuidLeaf cache(u32 subleaf, u32 type, u32 level, u32 ways, u32 sets, u32 cpus) {
  return {4, subleaf, type | level << 5 | 1u << 8 | (cpus - 1) << 26, (ways - 1) << 22 | 63, sets - 1, 0};
}

// The leaf in `contract`, made when it is not there. Good until the next is asked for.
CpuidLeaf& leaf_of(CpuContract& contract, u32 leaf, u32 subleaf = 0) {
  for (CpuidLeaf& l : contract.cpuid)
    if (l.leaf == leaf && l.subleaf == subleaf) return l;
  return contract.cpuid.emplace_back(CpuidLeaf{.leaf = leaf, .subleaf = subleaf});
}

// XSAVE's areas for `components`; their places are the processor's.
void add_xsave(CpuContract& contract, const CpuOffer& offer, u32 components, u32 instructions) {
  constexpr u32 kLegacy = 512 + 64;
  u32 size = kLegacy;
  for (u32 i = 2; i < 32; ++i) {
    const CpuidLeaf* area = (components >> i & 1) ? find_leaf(offer.cpuid, 0xd, i) : nullptr;
    if (!area) continue;
    CpuidLeaf& shown = leaf_of(contract, 0xd, i);
    shown.eax = area->eax, shown.ebx = area->ebx, shown.ecx = area->ecx & ~1u;
    size = std::max(size, area->eax + area->ebx);
  }
  CpuidLeaf& main = leaf_of(contract, 0xd);
  main.eax = components, main.ebx = size, main.ecx = size, main.edx = 0;
  CpuidLeaf& more = leaf_of(contract, 0xd, 1);
  more.eax = instructions, more.ebx = (instructions & 2) ? size : 0, more.ecx = more.edx = 0;
}

void show_arch_capabilities(CpuContract& contract, u64 value) {
  contract.arch_capabilities = (leaf_of(contract, 7).edx >> 29 & 1) ? value : 0;
}

}  // namespace

std::vector<CpuidLeaf> required_features(bool v3) {
  std::vector<CpuidLeaf> out{
      // SSE3 SSSE3 CX16 SSE4.1 SSE4.2 x2APIC POPCNT;
      // FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2
      {.leaf = 1, .ecx = bits({0, 9, 13, 19, 20, 21, 23}),
       .edx = bits({0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26})},
      {.leaf = 0x4000'0001, .eax = kKvmclockOld | kKvmclock | kKvmclockStable},
      {.leaf = 0x8000'0001, .ecx = bits({0}), .edx = bits({11, 20, 27, 29})}};  // LAHF; SYSCALL NX RDTSCP LM
  if (v3) {
    out[0].ecx |= bits({12, 22, 26, 28, 29});                       // FMA MOVBE XSAVE AVX F16C
    out[2].ecx |= bits({5});                                        // LZCNT
    out.push_back({.leaf = 7, .ebx = bits({3, 5, 8})});             // BMI1 AVX2 BMI2
    out.push_back({.leaf = 0xd, .eax = bits({0, 1, 2})});
  }
  return out;
}

void fill_movable(CpuContract& contract, const Shape& shape, const CpuOffer& offer, bool v3) {
  contract.cpuid = required_features(v3);
  std::erase_if(contract.cpuid, [](const CpuidLeaf& l) { return l.leaf == 0x4000'0001; });
  u32 instructions = 0;
  for (const CpuidLeaf& extra : optional_features(v3)) {
    const CpuidLeaf* have = find_leaf(offer.cpuid, extra.leaf, extra.subleaf);
    if (!have) continue;
    if (extra.leaf == 0xd) {
      instructions = extra.eax & have->eax;
      continue;
    }
    CpuidLeaf& shown = leaf_of(contract, extra.leaf);
    shown.ebx |= extra.ebx & have->ebx, shown.ecx |= extra.ecx & have->ecx, shown.edx |= extra.edx & have->edx;
  }
  CpuidLeaf& one = leaf_of(contract, 1);
  one.eax = kSignature, one.ebx = 8u << 8 | shape.cpus << 16;
  one.ecx |= bits({31});  // hypervisor
  if (shape.cpus > 1) one.edx |= bits({28});
  leaf_of(contract, 2).eax = 0x00fe'ff01;  // see leaf 4
  contract.cpuid.push_back(cache(0, 1, 1, 8, 64, 1));
  contract.cpuid.push_back(cache(1, 2, 1, 8, 64, 1));
  contract.cpuid.push_back(cache(2, 3, 2, 16, 1024, 1));
  contract.cpuid.push_back(cache(3, 3, 3, 16, 16384, shape.cpus));
  leaf_of(contract, 6).eax = bits({2});  // ARAT
  if (v3) add_xsave(contract, offer, bits({0, 1, 2}), instructions);
  leaf_of(contract, 0x8000'0006).ecx = 0x0400'8040;
  leaf_of(contract, 0x8000'0008).eax = shape.physical_bits | kLinearBits << 8;
  show_arch_capabilities(contract, offer.arch_capabilities & kImmune);
  add_common(contract, shape, v3 ? "Stasis virtual CPU, x86-64-v3" : "Stasis virtual CPU, x86-64-v2");
  finish(contract, kIntel);
}

namespace {

// What the host model does not pass on: nesting, performance counters and tracing, enclaves, resource control, thermal and
// debug stores, MONITOR, control-flow enforcement, and whatever else keeps state that no field holds.
constexpr CpuidLeaf kHidden[] = {
    {.leaf = 1, .ecx = bits({2, 3, 4, 5, 6, 7, 8, 10, 11, 14, 15, 18, 27}), .edx = bits({18, 21, 22, 28, 29, 31})},
    {.leaf = 6, .eax = ~bits({2}), .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
    {.leaf = 7, .ebx = bits({2, 12, 15, 25}), .ecx = bits({4, 7, 13, 23, 29, 30, 31}), .edx = bits({5, 18, 19, 20, 30})},
    {.leaf = 7, .subleaf = 1, .eax = bits({6, 17, 26}), .ebx = ~0u, .ecx = ~0u, .edx = bits({18})},
    {.leaf = 0x8000'0001, .ecx = bits({2, 3, 10, 12, 13, 15, 22, 23, 24, 26, 27, 28, 29})},
    {.leaf = 0x8000'0008, .eax = ~0u, .ecx = ~0u, .edx = ~0u},
    {.leaf = 0x8000'0021, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
};
constexpr u32 kPassed[] = {1, 2, 4, 6, 7, 0x1d, 0x1e, 0x24, 0x8000'0001, 0x8000'0005, 0x8000'0006, 0x8000'0007,
                           0x8000'0008, 0x8000'0019, 0x8000'001a, 0x8000'0021};
// Capabilities that come with an MSR to switch something.
constexpr u64 kSwitches = 1ull << 7 | 1ull << 10 | 1ull << 11 | 1ull << 18;

void pass_on(CpuContract& contract, const CpuOffer& offer, u32 cpus) {
  for (CpuidLeaf leaf : offer.cpuid) {
    if (std::ranges::find(kPassed, leaf.leaf) == std::end(kPassed)) continue;
    for (const CpuidLeaf& hidden : kHidden)
      if (hidden.leaf == leaf.leaf && hidden.subleaf == leaf.subleaf)
        leaf.eax &= ~hidden.eax, leaf.ebx &= ~hidden.ebx, leaf.ecx &= ~hidden.ecx, leaf.edx &= ~hidden.edx;
    if (leaf.leaf == 4 && (leaf.eax & 0x1f)) {  // who shares the cache, and how many cores
      const bool shared = (leaf.eax >> 5 & 7) >= 3;
      leaf.eax = (leaf.eax & 0x3fff) | (shared ? cpus - 1 : 0) << 14 | (cpus - 1) << 26;
    }
    if (leaf.eax | leaf.ebx | leaf.ecx | leaf.edx) contract.cpuid.push_back(leaf);
  }
}

}  // namespace

void fill_host(CpuContract& contract, const Shape& shape, const CpuOffer& offer) {
  pass_on(contract, offer, shape.cpus);
  const CpuidLeaf* const first = find_leaf(offer.cpuid, 0);
  const CpuidLeaf vendor = first ? *first : kIntel;
  CpuidLeaf& one = leaf_of(contract, 1);
  one.ebx = 8u << 8 | shape.cpus << 16;
  one.ecx |= bits({31});
  if (shape.cpus > 1) one.edx |= bits({28});
  const bool xsave = one.ecx >> 26 & 1;
  leaf_of(contract, 6).eax |= bits({2});
  if (xsave) {
    const CpuidLeaf *main = find_leaf(offer.cpuid, 0xd), *more = find_leaf(offer.cpuid, 0xd, 1);
    const u32 held = static_cast<u32>(XsaveState::kHeld) & (main ? main->eax : 3);
    add_xsave(contract, offer, held, more ? more->eax & bits({0, 1, 2, 4}) : 0);
  }
  const bool amd = vendor.ebx == word("AuthenticAMD", 0);
  const u32 linear_bits = (leaf_of(contract, 7).ecx >> 16 & 1) ? 57 : kLinearBits;
  CpuidLeaf& sizes = leaf_of(contract, 0x8000'0008);
  sizes.eax = shape.physical_bits | linear_bits << 8;
  sizes.ecx = amd ? shape.cpus - 1 : 0;
  show_arch_capabilities(contract, offer.arch_capabilities & ~kSwitches);
  add_common(contract, shape, "Stasis virtual CPU, host");
  finish(contract, vendor);
}

}  // namespace stasis::cpu_model
