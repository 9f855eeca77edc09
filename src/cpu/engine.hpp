// What runs a vCPU. An engine only gets and sets the architectural state and executes;
// saving, comparing and printing are written once, elsewhere.
#pragma once

#include <memory>
#include <string_view>

#include "bus/clock.hpp"
#include "bus/mmio_bus.hpp"
#include "bus/port_bus.hpp"
#include "cpu/contract.hpp"
#include "cpu/local_apic.hpp"
#include "cpu/vcpu_state.hpp"
#include "memory/guest_memory.hpp"

namespace stasis {

// What a vCPU is plugged into. Outlives the engine.
struct CpuBoard {
  GuestMemory& memory;
  PortBus& ports;
  MmioBus& mmio;     // without the local APIC: the engine decodes that itself, before mmio and RAM
  Clock& clock;
  LocalApic& apic;
  const CpuContract& contract;
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

  // Between runs only.
  virtual VcpuState get() const = 0;
  virtual void set(const VcpuState& state) = 0;  // state was checked; drops every cached derivation
  virtual u64 retired() const = 0;

  // Executes until retired() == until_retired exactly, or an earlier reason. Fires the clock's alarms on
  // the way; on return the clock stands where the vCPU stands. Idle with an alarm ahead returns idle: who
  // calls decides whether to jump or to wait, and advances the clock itself.
  virtual StopReason run(u64 until_retired) = 0;
  virtual std::string failure() const = 0;

  // From any thread: run() returns `attention` soon (within some 100,000 instructions).
  virtual void kick() = 0;
  // From a device, inside run(): run() returns `attention` right after the current instruction.
  virtual void attention() = 0;
  virtual void set_a20(bool open) = 0;
  // Guest RAM was written by someone else than this vCPU (DMA, a loader): drop what was derived from it.
  virtual void memory_written(u64 address, u64 size) = 0;
};

// The deterministic engine of our own: guest time is 1 ns per instruction.
std::unique_ptr<Engine> make_soft_engine(const CpuBoard& board);

}  // namespace stasis
