// Interrupt wiring: OR of the drivers, told to both interrupt controllers.
#include "machine/wires.hpp"

#include <utility>

namespace stasis {
namespace {

// MADT: interrupt source override of IRQ 0 to pin 2; the rest is the identity. No wire ends at pin 0.
constexpr unsigned pin_of_irq(unsigned irq) { return irq == 0 ? 2 : irq; }
constexpr unsigned irq_of_pin(unsigned pin) { return pin == 2 ? 0 : pin; }

}  // namespace

void Wires::connect_isa(IrqLine& line, unsigned irq, When when) { connect(line, {&line, pin_of_irq(irq), true, when}); }
void Wires::connect_pin(IrqLine& line, unsigned pin) { connect(line, {&line, pin, false, When::always}); }

void Wires::connect(IrqLine& line, const Driver& driver) {
  drivers_.push_back(driver);
  line.connect([this, pin = driver.pin](bool) {
    if (!muted_) drive(pin);
  });
}

bool Wires::connected(const Driver& driver) const {
  return driver.when == When::always || (driver.when == When::with_legacy_replacement) == legacy_replacement_;
}

bool Wires::level(unsigned pin, bool for_pic) const {
  bool high = false;
  for (const Driver& driver : drivers_)
    if (driver.pin == pin && connected(driver) && (driver.to_pic || !for_pic)) high |= driver.line->level();
  return high;
}

void Wires::drive(unsigned pin) {
  if (irq_of_pin(pin) < kIsaPins) pic_(irq_of_pin(pin), level(pin, true));
  ioapic_(pin, level(pin, false));
}

void Wires::set_legacy_replacement(bool on) {
  if (std::exchange(legacy_replacement_, on) == on || muted_) return;
  drive(pin_of_irq(0));
  drive(8);
}

void Wires::unmute() {
  muted_ = false;
  for (unsigned pin = 1; pin < kPins; ++pin) drive(pin);
}

}  // namespace stasis
