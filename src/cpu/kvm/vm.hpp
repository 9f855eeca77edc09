// One KVM machine: memory slots, interrupt routing, clock. Its vCPUs are in vcpu.hpp.
#pragma once

#include <array>
#include <span>

#include "cpu/kvm/system.hpp"
#include "memory/guest_memory.hpp"

namespace stasis::kvm {

// MSR_KVM_WALL_CLOCK and MSR_KVM_WALL_CLOCK_NEW: one register of the machine under two numbers.
inline constexpr std::array<u32, 2> kWallClockMsrs{0x11, 0x4b56'4d00};

class Vm {
 public:
  static constexpr unsigned kPins = 24;  // of the I/O APIC, which is ours
  static Result<Vm> create(const System& system, GuestMemory& memory);
  GuestMemory& memory() const { return *memory_; }

  const Handle& handle() const { return handle_; }
  const System& system() const { return *system_; }

  Result<> send_message(u64 address, u32 data);  // an MSI
  // Messages of level-triggered pins: KVM then tells of their ends of interrupt. Others: address 0.
  struct Route {
    u64 address = 0;
    u32 data = 0;
    bool operator==(const Route&) const = default;
  };
  Result<> set_routes(std::span<const Route> pins);
  // An interrupt message whenever `event_fd` is written to, without us in between; `gsi`: kPins and up, one for each.
  Result<> connect_irqfd(int event_fd, u32 gsi, Route message);
  // `event_fd` is signalled by a guest's write of `size` bytes at a port or physical address, and no exit happens.
  Result<> connect_ioeventfd(int event_fd, u64 address, u32 size, bool port);

  struct ClockReading {
    u64 ns = 0;
    u64 host_tsc = 0;  // at that instant; 0: not told
  };
  Result<ClockReading> clock() const;  // KVM's pvclock
  Result<> set_clock_ns(u64 value);

  // KVM notes which pages the guest writes. collect_dirty() moves these notes to the memory's own marks, slot by slot:
  // KVM forgets what it has told, so an error half way loses nothing.
  Result<> log_dirty(bool on);
  Result<> collect_dirty();

 private:
  Vm(const System& system, GuestMemory& memory, Handle handle) : system_(&system), memory_(&memory), handle_(std::move(handle)) {}
  Result<> take_wall_clock();
  Result<> set_memory(bool log);
  Result<> write_routes();
  const System* system_;
  GuestMemory* memory_;
  Handle handle_;
  std::vector<Route> pins_ = std::vector<Route>(kPins);
  std::vector<std::pair<u32, Route>> messages_;
};

}  // namespace stasis::kvm
