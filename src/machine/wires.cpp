// Interrupt wiring: OR of the drivers, told to both interrupt controllers.
#include "machine/wires.hpp"

namespace stasis {
namespace {

// MADT: interrupt source override of IRQ 0 to GSI 2; the rest is the identity. No wire ends at GSI 0.
constexpr unsigned gsi_of_irq(unsigned irq) { return irq == 0 ? 2 : irq; }
constexpr unsigned irq_of_gsi(unsigned gsi) { return gsi == 2 ? 0 : gsi; }

}  // namespace

Wires::Wires(Pin pic, Pin ioapic) : pic_(std::move(pic)), ioapic_(std::move(ioapic)) {
  connect(pit_, gsi_of_irq(0), true);
  connect(rtc_, 8, true);
  connect(hpet_legacy_[0], gsi_of_irq(0), true);
  connect(hpet_legacy_[1], 8, true);
}

IrqLine& Wires::isa(unsigned irq) {
  lines_.push_back(std::make_unique<IrqLine>());
  connect(*lines_.back(), gsi_of_irq(irq), true);
  return *lines_.back();
}

IrqLine& Wires::pin(unsigned gsi) {
  lines_.push_back(std::make_unique<IrqLine>());
  connect(*lines_.back(), gsi, false);
  return *lines_.back();
}

void Wires::connect(IrqLine& line, unsigned gsi, bool to_pic) {
  drivers_.push_back({&line, gsi, to_pic});
  line.connect([this, gsi](bool) {
    if (!muted_) drive(gsi);
  });
}

bool Wires::connected(const Driver& driver) const {
  if (driver.line == &pit_ || driver.line == &rtc_) return !legacy_replacement_;
  if (driver.line == &hpet_legacy_[0] || driver.line == &hpet_legacy_[1]) return legacy_replacement_;
  return true;
}

bool Wires::level(unsigned gsi, bool for_pic) const {
  bool high = false;
  for (const Driver& driver : drivers_)
    if (driver.gsi == gsi && connected(driver) && (driver.to_pic || !for_pic)) high |= driver.line->level();
  return high;
}

void Wires::drive(unsigned gsi) {
  if (irq_of_gsi(gsi) < kIsaPins) pic_(irq_of_gsi(gsi), level(gsi, true));
  ioapic_(gsi, level(gsi, false));
}

void Wires::set_legacy_replacement(bool on) {
  if (std::exchange(legacy_replacement_, on) == on || muted_) return;
  drive(gsi_of_irq(0));
  drive(8);
}

void Wires::unmute() {
  muted_ = false;
  for (unsigned gsi = 1; gsi < kPins; ++gsi) drive(gsi);
}

}  // namespace stasis
