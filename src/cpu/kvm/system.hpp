// KVM on this host: is it there, may we use it, and what can it show a guest.
#pragma once

#include <vector>

#include "base/error.hpp"
#include "cpu/contract.hpp"
#include "cpu/kvm/kernel.hpp"

namespace stasis::kvm {

// A file descriptor of the seam.
class Handle {
 public:
  Handle() = default;
  Handle(std::shared_ptr<Kernel> kernel, int fd) : kernel_(std::move(kernel)), fd_(fd) {}
  Handle(Handle&& other) noexcept : kernel_(std::move(other.kernel_)), fd_(std::exchange(other.fd_, -1)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(kernel_, other.kernel_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Handle() {
    if (fd_ >= 0) kernel_->close(fd_);
  }
  int get() const { return fd_; }

  // -errno or a value of 0 and up.
  long ask(unsigned long request, void* argument) const { return kernel_->ioctl(fd_, request, argument); }
  // `what` names the request in the error: "kvm: KVM_SET_REGS of vCPU 0: Invalid argument".
  Result<long> call(std::string_view what, unsigned long request, void* argument) const;
  Result<long> call_value(std::string_view what, unsigned long request, u64 argument = 0) const;

 private:
  std::shared_ptr<Kernel> kernel_;
  int fd_ = -1;
};

struct System {
  std::shared_ptr<Kernel> kernel;
  Handle device;
  std::string module;
  u64 tsc_hz = 0;
  bool scales_to(u64 hz) const { return tsc_scaling && hz / 1000 != tsc_hz / 1000; }  // KVM's own unit is the kHz
  bool tsc_scaling = false, xsave2 = false, exception_payload = false, smm = false, pmu_switch = false, pv_enforced = false;
  bool msr_exits = false;            // writes to chosen MSRs can be left to user space
  u32 most_vcpus = 0;
  u64 run_size = 0;                  // of struct kvm_run's mapping
  std::vector<CpuidLeaf> cpuid;      // KVM_GET_SUPPORTED_CPUID
  std::vector<u32> msrs;             // KVM_GET_MSR_INDEX_LIST
  u64 arch_capabilities = 0;

  // Errors: /dev/kvm absent or forbidden, too old a KVM (each missing capability by name).
  static Result<System> open(std::shared_ptr<Kernel> kernel);
  CpuOffer offer() const;
  long has(unsigned long capability) const;
};

// Which engine `auto` takes, and why, in words.
struct Choice {
  bool kvm = false;
  std::string why;
};
Choice choose(Kernel& kernel);

}  // namespace stasis::kvm
