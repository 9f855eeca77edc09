// Which engine a machine gets, and why.
#pragma once

#include <optional>

#include "cpu/contract.hpp"
#include "cpu/kvm/system.hpp"

namespace stasis {

struct EngineOptions {
  std::string engine = "soft";       // auto, soft, kvm
  std::string cpu = "x86-64-v2";     // x86-64-v2, x86-64-v3, host; for new machines only
  std::optional<u64> tsc_hz{};       // for new machines only
  std::shared_ptr<kvm::Kernel> kernel{};  // whose KVM; none: the host's
  std::string soft_because{};        // not empty: `auto` takes the soft engine, for this reason
};

struct ChosenEngine {
  std::optional<kvm::System> kvm;  // none: soft
  CpuOffer offer;
  std::string why;                 // in words
};

// `auto` takes KVM where kvm_intel or kvm_amd is loaded and /dev/kvm opens. Errors: usage (no such engine), and for
// `kvm` what keeps it from being used.
Result<ChosenEngine> choose_engine(const EngineOptions& options);

}  // namespace stasis
