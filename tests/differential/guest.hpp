// The soft engine on a guest whose kernel does nothing but start cases in user mode and keep their outcomes.
#pragma once

#include <memory>
#include <string>

#include "bus/mmio_bus.hpp"
#include "bus/port_bus.hpp"
#include "cpu/engine.hpp"
#include "layout.hpp"

namespace stasis::differential {

class Guest {
 public:
  Guest();

  u8* memory() { return at(kMemory); }
  Start* starts() { return reinterpret_cast<Start*>(at(kStarts)); }
  const Outcome* outcomes() { return reinterpret_cast<const Outcome*>(at(kOutcomes)); }
  // Runs the first `count` cases. Empty, or what went wrong.
  std::string run(unsigned count);

 private:
  // Guest physical addresses; the kernel sees them from kKernel up.
  static constexpr u64 kTables = 0x1000, kIdt = 0x10000, kGdt = 0x11000, kTss = 0x12000, kStackTop = 0x18000, kText = 0x20000,
                       kControl = 0x30000, kStarts = 0x10'0000, kOutcomes = 0x40'0000, kMemory = 0x80'0000, kSize = 16 * kMiB;
  static constexpr u64 kKernel = 0xffff'8000'0000'0000;
  struct Control {
    u64 outcome, start, left;
  };

  u8* at(u64 physical) { return ram_->host() + physical; }
  void put(u64 physical, u64 value);
  void build_tables();
  void map(u64 linear, u64 physical, u64 size, u64 bits);
  void build_kernel();
  VcpuState at_next() const;

  std::unique_ptr<GuestMemory> ram_;
  PortBus ports_;
  MmioBus mmio_;
  Clock clock_;
  CpuContract contract_;
  std::unique_ptr<LocalApic> apic_;
  std::unique_ptr<Engine> engine_;
  u64 next_ = 0;         // linear address of the code that starts the next case
  u64 free_table_ = 0;
};

}  // namespace stasis::differential
