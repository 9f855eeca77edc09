// One KVM vCPU: its state in and out of the kernel, in the one declared layout.
#pragma once

#include <span>

#include "cpu/kvm/vm.hpp"
#include "cpu/local_apic_state.hpp"
#include "cpu/pvclock.hpp"
#include "cpu/vcpu_state.hpp"

struct kvm_run;

namespace stasis::kvm {

// What the kernel's local APIC counts in its own time, as the guest's.
struct Instant {
  u64 guest_ns = 0;
  u64 tsc_hz = 0;      // of the guest
  u64 tsc_offset = 0;  // VcpuState's
  u64 settled_ns = 0;  // guest time of the vCPU's settle()
};

class Vcpu {
 public:
  static Result<Vcpu> create(const Vm& vm, const CpuContract& contract, u32 id);
  Vcpu(Vcpu&& other) noexcept;
  Vcpu& operator=(Vcpu&&) = delete;
  ~Vcpu();

  u32 id() const { return id_; }
  ::kvm_run& run_page() const { return *run_; }
  long enter() const { return handle_.ask(0xae80 /* KVM_RUN */, nullptr); }

  // On the vCPU's own thread, which begin_thread() has prepared. Some of what the guest has coming is in no structure of
  // KVM's until the next entry: the interrupt of a timer that has expired, the end of an interrupt that an I/O APIC waits
  // for. So the way in is gone to the point where the guest would run, and back. Returns as enter().
  static void begin_thread();
  Result<long> settle();
  // What a guest's write to one of kWallClockMsrs does.
  Result<> set_wall_clock(u32 index, u64 address, const PvclockWallClock& now);

  // Not while it is entered. Everything but time: TSC offset, deadline and timers are set apart, when time goes on.
  Result<> read(VcpuState& out);
  Result<> write(const VcpuState& state);
  Result<> read_apic(LocalApicState& out, const Instant& at);
  Result<> write_apic(const LocalApicState& state, const Instant& at);

  Result<u64> kernel_tsc_offset() const;
  Result<> set_kernel_tsc_offset(u64 offset);
  Result<u64> guest_tsc() const;
  Result<> inject(u8 vector);      // an external interrupt that the vCPU can take now

 private:
  Vcpu(const Vm& vm, Handle handle, u32 id, bool has_xsave) : vm_(&vm), handle_(std::move(handle)), id_(id), has_xsave_(has_xsave) {}
  Result<> call(std::string_view what, unsigned long request, void* argument) const;
  Result<> show(const CpuContract& contract);
  Result<> find_msrs();
  Result<> read_fpu(VcpuState& out) const;
  Result<> write_fpu(const VcpuState& state);
  Result<> read_events(VcpuState& out) const;
  Result<> write_events(const VcpuState& state);
  Result<> clear_smm();
  Result<> read_msrs(VcpuState& out) const;
  Result<> write_msrs(const VcpuState& state);
  Result<u64> read_msr(u32 index) const;
  Result<u32> timer_left() const;
  Result<> write_msr(u32 index, u64 value);
  Result<> write_wall_clock_msr(u32 index, u64 address);  // the page stays as it is

  const Vm* vm_;
  Handle handle_;
  u32 id_;
  bool has_xsave_;                 // the guest was shown XSAVE
  u64 components_ = 0;             // those that it was shown; an older KVM tells of the host's others as well
  ::kvm_run* run_ = nullptr;
  u64 xsave_size_ = 4096;
  std::array<u32, 64> component_at_{};  // offsets in the XSAVE area; 0: not there
  std::vector<u32> msrs_;               // those that this vCPU has and a field holds
  u32 settled_left_ = 0;                // the timer's current count before settle()'s entry
};

}  // namespace stasis::kvm
