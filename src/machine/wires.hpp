// The board's interrupt wiring: which devices drive which 8259 input and which I/O APIC pin.
//
// Wires have no state: they are the OR of what their drivers say. While muted (reset, restore) drivers only
// note their level; unmute() then tells the receivers each final level once, so that nobody sees an edge
// that is only the order in which parts were settled.
#pragma once

#include <functional>
#include <vector>

#include "bus/irq_line.hpp"

namespace stasis {

class Wires {
 public:
  using Pin = std::function<void(unsigned pin, bool level)>;
  static constexpr unsigned kPins = 24;     // of the I/O APIC
  static constexpr unsigned kIsaPins = 16;  // of the 8259 pair

  // HPET legacy replacement cuts the 8254 from IRQ 0 and the RTC from IRQ 8, and connects the HPET there.
  enum class When { always, without_legacy_replacement, with_legacy_replacement };

  // Both receivers find edges by comparing with the level they saw last.
  Wires(Pin pic, Pin ioapic) : pic_(std::move(pic)), ioapic_(std::move(ioapic)) {}

  // `line` drives ISA interrupt `irq`: that 8259 input, and the I/O APIC pin of that number (2 for IRQ 0).
  void connect_isa(IrqLine& line, unsigned irq, When when = When::always);
  void connect_pin(IrqLine& line, unsigned pin);  // an I/O APIC pin only
  void set_legacy_replacement(bool on);

  void mute() { muted_ = true; }
  void unmute();

 private:
  struct Driver {
    const IrqLine* line;
    unsigned pin;
    bool to_pic;
    When when;
  };
  void connect(IrqLine& line, const Driver& driver);
  bool connected(const Driver& driver) const;
  bool level(unsigned pin, bool for_pic) const;
  void drive(unsigned pin);

  Pin pic_, ioapic_;
  std::vector<Driver> drivers_;
  bool legacy_replacement_ = false;
  bool muted_ = false;
};

}  // namespace stasis
