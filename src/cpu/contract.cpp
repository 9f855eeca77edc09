// CPU models: what they have in common, and the soft engine's offer (Intel SDM vol. 2, CPUID; vol. 4, IA32_ARCH_CAPABILITIES).
#include "cpu/contract.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/contract_parts.hpp"
#include "cpu/features.hpp"

namespace stasis {
namespace cpu_model {

extern const u64 kImmune = 1ull << 0     // RDCL_NO
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

u32 word(std::string_view text, unsigned index) {
  u32 value = 0;
  if (index * 4 < text.size()) std::memcpy(&value, text.data() + index * 4, std::min<std::size_t>(4, text.size() - index * 4));
  return value;
}

namespace {

struct Ratio {
  u32 numerator, denominator;
};

// TSC to crystal, where the crystal is the local APIC timer's clock of 1 GHz. Linux multiplies the crystal in kHz with
// the numerator in 32 bits, so that may be 4294 at most; exact where it can be, else the nearest such fraction (a
// Stern-Brocot walk), which is off by a few parts in a million (kvmclock tells it exactly).
Ratio tsc_ratio(u64 tsc_hz) {
  constexpr u32 kMost = 4294;
  const double wanted = static_cast<double>(tsc_hz) / 1e9;
  Ratio low{0, 1}, high{1, 0}, best{1, 1};
  const auto distance = [&](Ratio r) { return r.denominator == 0 ? 1e18 : std::abs(static_cast<double>(r.numerator) / r.denominator - wanted); };
  for (;;) {
    const Ratio middle{low.numerator + high.numerator, low.denominator + high.denominator};
    if (middle.numerator > kMost || middle.denominator > 1'000'000) return best;
    if (distance(middle) < distance(best)) best = middle;
    const u64 left = u64{middle.numerator} * kSecond, right = tsc_hz * middle.denominator;
    if (left == right) return middle;
    (left < right ? low : high) = middle;
  }
}

}  // namespace

void add_common(CpuContract& contract, const Shape& shape, std::string_view brand) {
  const auto add = [&](u32 leaf, u32 eax, u32 ebx, u32 ecx, u32 edx, u32 subleaf = 0) {
    contract.cpuid.push_back({leaf, subleaf, eax, ebx, ecx, edx});
  };
  const u32 id_bits = static_cast<u32>(std::bit_width(shape.cpus - 1));
  const u32 mhz = static_cast<u32>(contract.tsc_hz / 1'000'000);
  const Ratio ratio = tsc_ratio(contract.tsc_hz);
  constexpr std::string_view kSignature = "KVMKVMKVM";
  add(0xb, 0, 1, 1u << 8, 0);
  add(0xb, id_bits, shape.cpus, 2u << 8, 0, 1);
  add(0x15, ratio.denominator, ratio.numerator, static_cast<u32>(kSecond), 0);
  add(0x16, mhz, mhz, 100, 0);
  add(0x4000'0000, 0x4000'0001, word(kSignature, 0), word(kSignature, 1), word(kSignature, 2));
  add(0x4000'0001, kKvmclockOld | kKvmclock | kKvmclockStable, 0, 0, 0);
  for (u32 i = 0; i < 3; ++i) add(0x8000'0002 + i, word(brand, 4 * i), word(brand, 4 * i + 1), word(brand, 4 * i + 2), word(brand, 4 * i + 3));
}

void finish(CpuContract& contract, const CpuidLeaf& vendor) {
  u32 basic = 0, extended = 0;
  for (const CpuidLeaf& l : contract.cpuid) {
    if (l.leaf < 0x4000'0000) basic = std::max(basic, l.leaf);
    else if (l.leaf >= 0x8000'0000) extended = std::max(extended, l.leaf);
  }
  contract.cpuid.push_back({0, 0, basic, vendor.ebx, vendor.ecx, vendor.edx});
  const bool amd = vendor.ebx == word("AuthenticAMD", 0);
  contract.cpuid.push_back({0x8000'0000, 0, extended, amd ? vendor.ebx : 0, amd ? vendor.ecx : 0, amd ? vendor.edx : 0});
  std::ranges::sort(contract.cpuid, {}, [](const CpuidLeaf& l) { return u64{l.leaf} << 32 | l.subleaf; });
}

}  // namespace cpu_model

using namespace cpu_model;

CpuOffer soft_offer() {
  CpuOffer offer{.engine = "soft", .arch_capabilities = kImmune, .tsc_hz = kSecond, .any_tsc_rate = true, .physical_bits = kMostPhysicalBits};
  offer.cpuid = required_features(false);
  const auto more = [&](u32 leaf, CpuidLeaf add) {
    for (CpuidLeaf& l : offer.cpuid)
      if (l.leaf == leaf) {
        l.eax |= add.eax, l.ebx |= add.ebx, l.ecx |= add.ecx, l.edx |= add.edx;
        return;
      }
    add.leaf = leaf;
    offer.cpuid.push_back(add);
  };
  more(0, {.eax = 0x16, .ebx = word("Genu", 0), .ecx = word("ntel", 0), .edx = word("ineI", 0)});
  more(1, {.eax = 0x000a'06f1, .ecx = bits({24}), .edx = bits({27})});  // TSC-deadline; self-snoop, which early contracts showed
  // TSC_ADJUST, FDP on exceptions only, SMEP, ERMS, no FCS and FDS, SMAP; UMIP; FSRM, SPEC_CTRL, ARCH_CAPABILITIES
  more(7, {.ebx = bits({1, 6, 7, 9, 13, 20}), .ecx = bits({2}), .edx = bits({4, 26, 29})});
  more(0x8000'0001, {.edx = bits({26})});  // 1 GiB pages
  more(0x8000'0007, {.edx = bits({8})});   // invariant TSC
  more(0x8000'0008, {.eax = kMostPhysicalBits | 48u << 8});
  std::ranges::sort(offer.cpuid, {}, &CpuidLeaf::leaf);
  return offer;
}

Result<CpuContract> make_contract(std::string_view model, const CpuModelOptions& options, const CpuOffer& offer) {
  const auto refuse = [](ErrorCode code, std::string message, std::string hint) { return fail(code, "cpu", std::move(message), std::move(hint)); };
  const bool v3 = model == "x86-64-v3", host = model == "host";
  if (!v3 && !host && model != "x86-64-v2")
    return refuse(ErrorCode::usage, fmt::format("no CPU model '{}'", model), "allowed are x86-64-v2, x86-64-v3 and host");
  const u32 cpus = std::max(1u, options.cpus);
  if (cpus > offer.most_cpus)
    return refuse(ErrorCode::unsupported, fmt::format("cpus is {}, the {} engine runs {}", cpus, offer.engine, offer.most_cpus), "ask for fewer");
  if (const auto missing = missing_features(required_features(v3), offer.cpuid); !missing.empty())
    return refuse(ErrorCode::unsupported, fmt::format("the {} engine on this host lacks what model {} needs: {}", offer.engine, model, joined(missing)),
                  v3 ? "use --cpu x86-64-v2" : "use --engine soft");
  CpuContract contract;
  contract.model = model;
  contract.tsc_hz = options.tsc_hz.value_or(offer.tsc_hz);
  if (const std::string wrong = tsc_rate_problem(contract.tsc_hz, offer); !wrong.empty())
    return refuse(ErrorCode::unsupported, wrong, "leave the TSC rate to the engine");
  constexpr u64 kHole = 1 * kGiB;  // below 4 GiB
  const u64 top = options.memory_bytes + kHole;
  constexpr u32 kUsual = 39;  // every processor with x86-64-v2 has as many
  const u32 most = std::min(kMostPhysicalBits, offer.physical_bits);
  const u32 physical = !host && top <= 1ull << kUsual ? std::min(kUsual, most) : most;
  if (top > 1ull << physical)
    return refuse(ErrorCode::unsupported, fmt::format("memory reaches to {:#x}, the {} engine on this host has {} physical address bits", top, offer.engine, physical),
                  "give the machine less memory");
  const Shape shape{cpus, physical};
  if (host) fill_host(contract, shape, offer);
  else fill_movable(contract, shape, offer, v3);
  return contract;
}

CpuContract default_cpu_contract(unsigned cpus) {
  CpuOffer offer = soft_offer();
  offer.most_cpus = std::max(1u, cpus);
  return make_contract("x86-64-v2", {.cpus = cpus}, offer).value();
}

std::string tsc_rate_problem(u64 wanted, const CpuOffer& offer) {
  constexpr u64 kParts = 1'000'000, kTolerance = 250;  // as KVM's own
  if (offer.any_tsc_rate) return {};
  const u64 difference = wanted > offer.tsc_hz ? wanted - offer.tsc_hz : offer.tsc_hz - wanted;
  if (difference <= mul_div(offer.tsc_hz, kTolerance, kParts)) return {};
  return fmt::format("tsc_hz is {}, the {} engine on this host has {} and no other (within {} ppm)", wanted, offer.engine, offer.tsc_hz, kTolerance);
}

CpuidLeaf leaf_for(const CpuidLeaf& leaf, u32 apic_id) {
  CpuidLeaf out = leaf;
  if (leaf.leaf == 1) out.ebx = (leaf.ebx & 0x00ff'ffff) | apic_id << 24;
  else if (leaf.leaf == 0xb) out.edx = apic_id;
  if (leaf.leaf == 0xb) out.ecx = (leaf.ecx & ~0xffu) | (leaf.subleaf & 0xff);
  return out;
}

std::vector<CpuidLeaf> cpuid_for(const CpuContract& contract, u32 apic_id) {
  std::vector<CpuidLeaf> out;
  for (const CpuidLeaf& leaf : contract.cpuid) out.push_back(leaf_for(leaf, apic_id));
  return out;
}

u32 physical_bits(const CpuContract& contract) {
  constexpr u32 kWithoutLeaf = 36;
  const CpuidLeaf* leaf = find_leaf(contract.cpuid, 0x8000'0008);
  return leaf ? leaf->eax & 0xff : kWithoutLeaf;
}

u64 xsave_components(const CpuContract& contract) {
  constexpr u64 kLegacy = 3;
  const CpuidLeaf* leaf = find_leaf(contract.cpuid, 0xd);
  return kLegacy | (leaf ? u64{leaf->edx} << 32 | leaf->eax : 0);
}

u32 pv_features(const CpuContract& contract) {
  const CpuidLeaf* leaf = find_leaf(contract.cpuid, 0x4000'0001);
  return leaf ? leaf->eax : 0;
}

}  // namespace stasis
