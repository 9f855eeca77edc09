// The local APIC of one vCPU: xAPIC and x2APIC (Intel SDM vol. 3A, chapter 11).
#pragma once

#include <functional>

#include "bus/clock.hpp"
#include "bus/irq_line.hpp"
#include "bus/mmio_bus.hpp"
#include "cpu/local_apic_state.hpp"
#include "state/part.hpp"

namespace stasis {

// What a local APIC does to its processor.
class CpuSignals {
 public:
  virtual ~CpuSignals() = default;
  virtual void nmi() = 0;
  virtual void init() = 0;
  virtual void startup(u8 vector) = 0;  // SIPI
};

class LocalApic final : public state::Stateful<LocalApicState>, public MmioDevice, public MessageSink {
 public:
  // `tsc_hz`: rate of the guest TSC, for TSC-deadline mode. `bus_hz` of the timer is 1 GHz (CPUID 0x15 crystal).
  LocalApic(Clock& clock, u32 id, u64 tsc_hz);

  void connect(CpuSignals* signals) { signals_ = signals; }
  // The 8259's INTR, wired to LINT0; `acknowledge` runs its INTA cycle and returns the vector.
  void lint0(bool level);
  void connect_pic(std::function<u8()> acknowledge) { pic_acknowledge_ = std::move(acknowledge); }
  void lint1(bool level);
  // End of interrupt of a level-triggered vector, for I/O APICs.
  void connect_eoi(std::function<void(u8 vector)> eoi) { eoi_ = std::move(eoi); }

  // MMIO at the base of the APIC base MSR, 4 KiB, 32-bit registers at 16-byte steps.
  u64 mmio_read(u64 offset, unsigned size) override;
  void mmio_write(u64 offset, unsigned size, u64 value) override;
  u64 base_address() const { return s_.base & ~0xfffull; }
  bool mmio_enabled() const;  // globally enabled and in xAPIC mode

  // MSRs 0x1B (IA32_APIC_BASE), 0x6E0 (IA32_TSC_DEADLINE), 0x800..0x8FF. False: #GP. tsc_offset: VcpuState's.
  bool read_msr(u32 index, u64& value);
  bool write_msr(u32 index, u64 value, u64 tsc_offset);
  static bool owns_msr(u32 index) { return index == 0x1b || index == 0x6e0 || (index >= 0x800 && index <= 0x8ff); }
  void tsc_offset_changed(u64 tsc_offset);  // re-arms the deadline

  // What the processor asks. A vector is deliverable when it beats the processor priority, or comes by ExtINT.
  bool deliverable() const { return deliverable_; }
  u8 acknowledge();  // takes the interrupt: IRR to ISR, or the INTA cycle; returns the vector. deliverable() holds.
  u8 cr8() const;    // TPR bits 7:4
  void set_cr8(u8 priority);

  // Interrupt messages from the bus (MSI, I/O APIC): 0xFEExxxxx. Ignores those for other destinations.
  void deliver(u64 address, u32 data) override;

  void init();   // INIT: all but the ID and the base MSR go back to reset
  void reset() override;
  void settle() override;

 private:
  std::string check(const LocalApicState& staged) const override;
};

}  // namespace stasis
