// The CPU contract: what the guest was shown of its processor and may rely on for ever.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "state/codec.hpp"

namespace stasis {

struct CpuidLeaf {
  u32 leaf = 0, subleaf = 0;
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
  static constexpr auto layout() {
    using S = CpuidLeaf;
    return state::Layout("x86.cpuid_leaf", 1, state::field<&S::leaf>("leaf").hex(), state::field<&S::subleaf>("subleaf").hex(),
                         state::field<&S::eax>("eax").hex(), state::field<&S::ebx>("ebx").hex(),
                         state::field<&S::ecx>("ecx").hex(), state::field<&S::edx>("edx").hex());
  }
  bool operator==(const CpuidLeaf&) const = default;
};

struct CpuContract {
  std::string model = "x86-64-v2";
  u64 tsc_hz = 1'000'000'000;
  u64 arch_capabilities = 0;      // MSR 0x10A as the guest reads it
  std::vector<CpuidLeaf> cpuid{};  // ascending by leaf, subleaf; absent leaves read as zero
  static constexpr auto layout() {
    using S = CpuContract;
    return state::Layout("x86.cpu_contract", 1, state::field<&S::model>("model"), state::field<&S::tsc_hz>("tsc_hz").unit("Hz").range(1'000'000, 100'000'000'000),
                         state::field<&S::arch_capabilities>("arch_capabilities").hex(), state::field<&S::cpuid>("cpuid"));
  }
  bool operator==(const CpuContract&) const = default;
};

// What an engine on this host can show a guest.
struct CpuOffer {
  std::string engine;              // "soft", "kvm"
  std::vector<CpuidLeaf> cpuid{};  // feature leaves with every bit that it can show; identification leaves as the host has them
  u64 arch_capabilities = 0;       // of MSR 0x10A
  std::vector<u32> msrs{};         // those that it keeps beside what VcpuState has a field for
  u64 tsc_hz = 0;                  // the rate that the guest's TSC has by itself
  bool any_tsc_rate = false;       // others are possible too; else those within 250 ppm of tsc_hz
  u32 physical_bits = 46;          // widest guest physical address
  u32 most_cpus = 1;
};

// The soft engine's: x86-64-v2 and what decision 0006 adds, any TSC rate, one vCPU.
CpuOffer soft_offer();

// No more than this is ever shown: the local APIC's record and the soft engine's page walks know 46 bits.
inline constexpr u32 kMostPhysicalBits = 46;

struct CpuModelOptions {
  u32 cpus = 1;
  u64 memory_bytes = 512 * kMiB;
  std::optional<u64> tsc_hz{};  // none: the offer's own rate
};

// What a guest of `model` (x86-64-v2, x86-64-v3, host) is shown with this offer. The model's own features must be
// there, or the error lists each missing one by name; beside them it shows what protects (SMEP, SMAP, UMIP, IBRS, …)
// or speeds up without being relied on, where the offer has it.
Result<CpuContract> make_contract(std::string_view model, const CpuModelOptions& options, const CpuOffer& offer);

// The contract is written for every processor alike; these put one's local APIC ID where CPUID shows it.
CpuidLeaf leaf_for(const CpuidLeaf& leaf, u32 apic_id);
std::vector<CpuidLeaf> cpuid_for(const CpuContract& contract, u32 apic_id);

// The model x86-64-v2 as the soft engine offers it by default (TSC at 1 GHz).
CpuContract default_cpu_contract(unsigned cpus);

// Empty when a guest's TSC can have this rate here; else why not.
std::string tsc_rate_problem(u64 wanted, const CpuOffer& offer);

// Guest physical address bits, as CPUID 0x80000008 says; 36 where there is no such leaf.
u32 physical_bits(const CpuContract& contract);
// XSAVE components that CPUID 0xD shows (XCR0's bits); x87 and SSE where there is no such leaf.
u64 xsave_components(const CpuContract& contract);
// Features that CPUID 0x40000001 shows (kKvmclock…).
u32 pv_features(const CpuContract& contract);
inline constexpr u32 kKvmclockOld = 1u << 0, kKvmclock = 1u << 3, kKvmclockStable = 1u << 24;

}  // namespace stasis
