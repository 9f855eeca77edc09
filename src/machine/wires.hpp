// The board's interrupt wiring: which devices drive which ISA interrupt and which I/O APIC pin.
//
// Wires have no state: they are the OR of what their drivers say. While muted (reset, restore) drivers only
// note their level; unmute() then tells the receivers each final level once, so that nobody sees an edge
// that is only the order in which parts were settled.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "bus/irq_line.hpp"

namespace stasis {

class Wires {
 public:
  // Inputs 0..15 of the 8259 pair, 0..23 of the I/O APIC.
  using Pin = std::function<void(unsigned pin, bool level)>;
  static constexpr unsigned kPins = 24;
  static constexpr unsigned kIsaPins = 16;

  Wires(Pin pic, Pin ioapic);

  // A driver's wire to ISA interrupt `irq` (I/O APIC pin: 2 for IRQ 0, else the same), or to a pin only.
  IrqLine& isa(unsigned irq);
  IrqLine& pin(unsigned gsi);
  // HPET legacy replacement: the 8254's wire is cut from IRQ 0 and the RTC's from IRQ 8.
  IrqLine& pit() { return pit_; }
  IrqLine& rtc() { return rtc_; }
  IrqLine& hpet_legacy(unsigned timer) { return hpet_legacy_[timer]; }
  void set_legacy_replacement(bool on);

  void mute() { muted_ = true; }
  void unmute();

 private:
  void connect(IrqLine& line, unsigned gsi, bool to_pic);
  void drive(unsigned gsi);

  struct Driver {
    const IrqLine* line;
    unsigned gsi;
    bool to_pic;
  };
  bool level(unsigned gsi, bool for_pic) const;
  bool connected(const Driver& driver) const;

  Pin pic_, ioapic_;
  std::vector<std::unique_ptr<IrqLine>> lines_;
  std::vector<Driver> drivers_;
  IrqLine pit_, rtc_, hpet_legacy_[2];
  bool legacy_replacement_ = false;
  bool muted_ = false;
};

}  // namespace stasis
