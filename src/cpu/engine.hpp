// What runs a vCPU. An engine only gets and sets the architectural state and executes;
// saving, comparing and printing are written once, elsewhere.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "bus/clock.hpp"
#include "bus/mmio_bus.hpp"
#include "bus/port_bus.hpp"
#include "cpu/contract.hpp"
#include "cpu/local_apic.hpp"
#include "cpu/pvclock.hpp"
#include "cpu/vcpu_state.hpp"
#include "memory/guest_memory.hpp"

namespace stasis {

// What the soft engine's vCPU is plugged into. Outlives the engine.
struct CpuBoard {
  GuestMemory& memory;
  PortBus& ports;
  MmioBus& mmio;     // without the local APIC: the engine decodes that itself, before mmio and RAM
  Clock& clock;
  LocalApic& apic;
  const CpuContract& contract;
  PvclockState* pvclock = nullptr;  // null: no pvclock
  u64 start_time = 0;               // wall clock at guest time 0, seconds since 1970-01-01 UTC
};

// The chips beside the processors.
struct CpuChips {
  std::function<u8()> pic_acknowledge;       // the 8259's INTA cycle; returns the vector
  std::function<void(u8 vector)> eoi;        // end of a level-triggered interrupt, for I/O APICs
};

enum class StopReason {
  count,      // retired() reached the limit
  idle,       // halted, nothing deliverable pending: guest time must move to go on
  attention,  // kick() was called, or a device asked the machine for something (see Engine::attention)
  shutdown,   // triple fault
  failed,     // the engine met something it cannot execute; failure() says what
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string_view name() const = 0;

  virtual u32 vcpus() const { return 1; }

  // Between runs only, and when there are several threads behind it, after hold().
  virtual VcpuState get(u32 vcpu = 0) const = 0;
  virtual void set(const VcpuState& state, u32 vcpu = 0) = 0;  // state was checked; drops every cached derivation
  virtual LocalApicState get_apic(u32 vcpu = 0) const = 0;
  virtual void set_apic(const LocalApicState& state, u32 vcpu = 0) = 0;
  virtual u64 retired() const = 0;
  // Puts what set() and set_apic() gave into effect; an error names what the host did not take. For restores: a run
  // does it too.
  virtual Result<> load() { return {}; }

  // Guest time follows the host's by itself; nobody paces, counts or skips it.
  virtual bool real_time() const { return false; }
  // All vCPUs stop at an instruction boundary and guest time stands still, until the next run(). An error names the
  // vCPU that did not stop in time; the guest then runs on.
  virtual Result<> hold() { return {}; }
  virtual bool held() const { return true; }  // between runs
  // Whether the guest crashed, or the engine failed, on the way to where it is held: the next run() tells which.
  virtual bool ended() const { return false; }
  // From a device: run() returns soon (some ms), the guest runs on meanwhile.
  virtual void soon() {}

  virtual void connect(CpuChips chips) = 0;
  virtual MessageSink& messages() = 0;          // where interrupt messages go
  virtual void set_intr(bool level) = 0;        // the 8259's INTR, wired to LINT0 of the first processor
  // The I/O APIC's redirection entries (82093AA form) changed: which vectors it wants to see the end of.
  virtual void pins_changed(std::span<const u64> redirection) { static_cast<void>(redirection); }

  // Executes until retired() == until_retired exactly, or an earlier reason. Fires the clock's alarms on
  // the way; on return the clock stands where the vCPU stands. Idle with an alarm ahead returns idle: who
  // calls decides whether to jump or to wait, and advances the clock itself.
  // A real-time engine takes until_retired - retired() as nanoseconds of guest time, returns `count` after them, and
  // its vCPUs go on executing between runs: devices may be touched then, state only after hold().
  virtual StopReason run(u64 until_retired) = 0;
  virtual std::string failure() const = 0;

  // From any thread: run() returns `attention` soon (within some 100,000 instructions).
  virtual void kick() = 0;
  // From a device, inside run(): run() returns `attention` right after the current instruction.
  virtual void attention() = 0;
  virtual void set_a20(bool open) = 0;
  // Guest RAM was written by someone else than this vCPU (DMA, a loader): drop what was derived from it.
  virtual void memory_written(u64 address, u64 size) = 0;

  // ---- which pages of RAM were written: between runs, and after hold() ----
  // Follows writes, by vCPUs and by others (GuestMemory::mark_written), from now on; or no more. On again: no change.
  // After an error nothing is followed.
  virtual Result<> track_writes(bool on) = 0;
  // Adds to `pages` (a bit per page by RAM offset, 64 a word) every page written since track_writes(true) or the last
  // collection that succeeded, and perhaps some that were not. After an error `pages` is as it was and nothing is lost:
  // the next collection tells it.
  virtual Result<> collect_writes(std::span<u64> pages) = 0;
};

// The deterministic engine of our own: guest time is 1 ns per instruction.
std::unique_ptr<Engine> make_soft_engine(const CpuBoard& board);

}  // namespace stasis
