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

// One interrupt message on its way to the local APICs of a machine.
struct InterruptMessage {
  u32 destination = 0;
  bool logical = false;    // destination is a set of logical IDs
  bool broadcast = false;  // to everybody, whatever `destination` says
  u8 mode = 0;             // delivery mode: 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 6 start-up, 7 ExtINT
  u8 vector = 0;
  bool level = false;      // trigger mode
  bool asserted = true;
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

  // Where interprocessor interrupts go when there are several processors: the receiver asks addressed_by() of each
  // (but not of the sender when `others_only`), picks one for lowest priority, and calls receive(). Without it
  // this processor is alone.
  using IpiBus = std::function<void(const InterruptMessage& message, bool others_only)>;
  void connect_ipi_bus(IpiBus bus) { ipi_bus_ = std::move(bus); }

  // MMIO at the base of the APIC base MSR, 4 KiB, 32-bit registers at 16-byte steps.
  u64 mmio_read(u64 offset, unsigned size) override;
  void mmio_write(u64 offset, unsigned size, u64 value) override;
  u64 base_address() const { return s_.base & ~0xfffull; }
  bool mmio_enabled() const { return enabled() && !x2apic(); }

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

  bool addressed_by(const InterruptMessage& message) const;
  void receive(const InterruptMessage& message);  // addressed_by() holds

  // From a state that was checked; settle() comes after it.
  void restore(const LocalApicState& state) { s_ = state; }
  // Empty when processor `id` could be in it; else what is wrong.
  static std::string check_state(const LocalApicState& state, u32 id);
  // What it is after power-on.
  static LocalApicState power_on(u32 id);
  // Guest time at which the TSC reaches `deadline`: not before `now`.
  static u64 deadline_time(u64 deadline, u64 tsc_offset, u64 now, u64 tsc_hz);

  void init();   // INIT: all but the ID and the base MSR go back to reset
  void reset() override;
  void settle() override;

 private:
  std::string check(const LocalApicState& staged) const override { return check_state(staged, id_); }
  bool enabled() const { return s_.base & State::kGlobalEnable; }
  bool x2apic() const { return s_.base & State::kX2Apic; }
  bool software_enabled() const { return s_.svr & State::kSoftwareEnable; }

  // Registers by number: MMIO offset / 16, and MSR - 0x800. False: reserved, read-only or (x2APIC) reserved bits set.
  bool read_register(u32 number, u64& value) const;
  bool write_register(u32 number, u64 value);
  bool write_base(u64 value);
  bool write_lvt(u32 number, u32 value);
  void write_svr(u32 value);
  void write_timer_lvt(u32 value);
  u64 lvt_bits(u32 number) const;
  u32* lvt(u32 number);
  u32 logical_id() const;

  void accept(u8 vector, bool level);  // a fixed interrupt into IRR
  void raise_error(u32 bit);
  void local_interrupt(u32 lvt_value);  // an unmasked LVT entry's edge
  void lint(bool& seen, u32& entry, bool level);
  void sense_level(u32& entry, bool level);  // a level-triggered fixed LINT
  bool extint_waiting() const;
  void end_of_interrupt();
  void send_ipi();
  u8 ppr() const;

  // The timer. catch_up() runs before anything changes: what expired until now has then happened.
  enum TimerMode : u32 { kOneShot = 0, kPeriodic = 1, kDeadline = 2 };
  u32 timer_mode() const { return s_.lvt_timer >> 17 & 3; }
  u64 timer_divider() const { return u64{1} << ((((s_.timer_divide >> 1 & 4) | (s_.timer_divide & 3)) + 1) & 7); }
  u64 timer_period() const { return s_.timer_initial * timer_divider(); }
  u32 current_count() const;
  bool expired() const;
  bool expiry_shows() const;  // would set a bit that is not set yet
  void catch_up();
  void arm();
  void disarm();
  void set_deadline(u64 deadline, u64 tsc_offset);

  Clock& clock_;
  const u32 id_;
  const u64 tsc_hz_;
  CpuSignals* signals_ = nullptr;
  std::function<u8()> pic_acknowledge_;
  std::function<void(u8)> eoi_;
  IpiBus ipi_bus_;
  Alarm alarm_;
  bool deliverable_ = false;
};

}  // namespace stasis
