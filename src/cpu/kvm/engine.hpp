// The KVM engine: a thread for each vCPU, devices under one lock, guest time from the host's TSC.
//
// Held: all vCPU threads are parked, guest time stands still, and the saved form (states_, apics_) is the truth.
// Running: the kernel's is. thaw() and freeze() go between them. The lock belongs to whoever touches devices: a vCPU
// thread during an exit, or the thread that calls run() whenever it is not waiting in it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/file_descriptor.hpp"
#include "bus/clock.hpp"
#include "bus/mmio_bus.hpp"
#include "bus/port_bus.hpp"
#include "cpu/engine.hpp"
#include "cpu/kvm/vcpu.hpp"

namespace stasis::kvm {

struct KvmBoard {
  GuestMemory& memory;
  PortBus& ports;
  MmioBus& mmio;
  Clock& clock;
  PvclockState& pvclock;
  const CpuContract& contract;
  u32 cpus = 1;
  u64 start_time = 0;               // wall clock at guest time 0, seconds since 1970-01-01 UTC
  u64 stop_limit_ns = 2 * kSecond;  // how long hold() waits for vCPUs
};

class KvmEngine final : public Engine, private MessageSink {
 public:
  static Result<std::unique_ptr<KvmEngine>> create(System system, const KvmBoard& board);
  ~KvmEngine() override;

  std::string_view name() const override { return "kvm"; }
  u32 vcpus() const override { return static_cast<u32>(workers_.size()); }
  VcpuState get(u32 vcpu = 0) const override { return states_[vcpu]; }
  void set(const VcpuState& state, u32 vcpu = 0) override;
  LocalApicState get_apic(u32 vcpu = 0) const override;
  void set_apic(const LocalApicState& state, u32 vcpu = 0) override { apics_[vcpu] = state; }
  u64 retired() const override { return states_[0].retired; }
  Result<> load() override;
  bool real_time() const override { return true; }
  Result<> hold() override;
  bool held() const override { return held_; }
  bool ended() const override { return reason_ != StopReason::count; }
  void soon() override;
  void connect(CpuChips chips) override { chips_ = std::move(chips); }
  MessageSink& messages() override { return *this; }
  void set_intr(bool level) override;
  void pins_changed(std::span<const u64> redirection) override;

  StopReason run(u64 until_retired) override;
  std::string failure() const override { return failure_; }
  void kick() override;
  void attention() override { attention_ = true; }
  void set_a20(bool open) override { static_cast<void>(open); }  // KVM has no A20 gate: it is always open
  void memory_written(u64 address, u64 size) override { static_cast<void>(address), static_cast<void>(size); }
  Result<> track_writes(bool on) override;
  Result<> collect_writes(std::span<u64> pages) override;

  Vm& vm() { return *vm_; }
  // After load(): what the kernel has, not what it was told (for tests).
  Result<VcpuState> kernel_state(u32 vcpu) const;
  Result<LocalApicState> kernel_apic(u32 vcpu) const;

 private:
  struct Worker {
    explicit Worker(Vcpu v) : vcpu(std::move(v)) {}
    Vcpu vcpu;
    std::thread thread;
    pthread_t handle{};
    pid_t id = 0;           // of the thread
    bool parked = false;
    bool started = false;
    u64 kernel_offset = 0;  // the TSC offset that thaw() gave the kernel
    u64 settled_ns = 0;     // when nothing waited for an entry: see Vcpu::settle()
    bool changed = true;    // set() since the kernel last had it
  };
  using Lock = std::unique_lock<std::mutex>;

  KvmEngine(System system, const KvmBoard& board) : system_(std::move(system)), board_(board) {}
  Result<> make_vcpus();
  void start_threads();

  // Time.
  u64 guest_time_at(u64 host_ticks) const;
  u64 guest_now() const;
  void advance_clock();
  bool scales() const { return system_.scales_to(board_.contract.tsc_hz); }
  Result<u64> tsc_ahead(u64 host_ticks, u64 kernel_offset, u64 expected) const;
  Result<u64> scaled_tsc_at(u64 host_ticks) const;
  u64 scaled(u64 host_ticks) const { return mul_div(host_ticks, board_.contract.tsc_hz, system_.tsc_hz); }
  Instant instant(u32 vcpu) const;

  // Between held and running.
  Result<> freeze();
  Result<> thaw();
  Result<> write_changed();
  Result<> set_time(u64 at);
  Result<> set_pvclock(u64 at);
  u64 since(u64 host_ticks) const;
  u64 span_ns(u64 from_ticks, u64 to_ticks) const;
  Result<> stop();  // as hold(), but a vCPU that is late leaves the others standing
  StopReason stop_for_attention();
  Result<> wait_parked(Lock& lock);
  std::string ended_vcpus() const;
  void release();
  void prod(Worker& worker);

  // The vCPU threads.
  void work(Worker& worker);
  bool look_at_window(Worker& worker);
  void execute(Worker& worker);
  void finish_exit(Worker& worker);
  void settle(Worker& worker);
  bool handle_exit(Worker& worker);
  void port_access(::kvm_run& page);
  void memory_access(::kvm_run& page);
  void stop_with(StopReason reason, std::string why);
  void offer_intr(Worker& worker);
  void after_device_access();
  void sleep(u64 nanoseconds);
  void wake();

  // MessageSink
  void deliver(u64 address, u32 data) override;
  void deliver_held(u64 address, u32 data);

  System system_;
  const KvmBoard board_;
  std::unique_ptr<Vm> vm_;
  std::vector<std::unique_ptr<Worker>> workers_;
  CpuChips chips_;
  std::vector<VcpuState> states_;
  std::vector<LocalApicState> apics_;

  std::mutex mutex_;  // what follows, and all devices
  Lock lock_{mutex_, std::defer_lock};  // of the thread that calls run()
  std::condition_variable go_, parked_;
  bool held_ = true, quit_ = false;
  std::atomic<bool> stop_{true}, kicked_{false};
  std::atomic<bool> intr_{false};
  FileDescriptor wake_;  // an event counter: run() sleeps on it
  bool attention_ = false;
  StopReason reason_ = StopReason::count;  // other than count: what a vCPU met
  std::string failure_;
  u64 sleeps_until_ = 0, due_ = Clock::kNever;  // guest ns: when run() looks again; when it was asked to return
  u64 base_ticks_ = 0, base_ns_ = 0;            // an instant known in host TSC and guest time
};

}  // namespace stasis::kvm
