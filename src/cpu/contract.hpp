// The CPU contract: what the guest was shown of its processor and may rely on for ever.
#pragma once

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

// The model x86-64-v2: SSE to 4.2, POPCNT, CX16, NX, 1 GiB pages, ERMS, FSRM, SMEP, SMAP, UMIP, x2APIC,
// TSC-deadline, invariant TSC at 1 GHz; nothing that depends on the host.
CpuContract default_cpu_contract(unsigned cpus);

}  // namespace stasis
