// The local APIC's interrupts: how they are accepted, prioritised, acknowledged and ended
// (Intel SDM vol. 3A, 11.5 local interrupts, 11.6 interprocessor interrupts, 11.8 handling).
#include <bit>

#include "base/error.hpp"
#include "cpu/local_apic.hpp"

namespace stasis {
namespace {

enum DeliveryMode : u8 { kFixed = 0, kLowestPriority = 1, kSmi = 2, kNmi = 4, kInit = 5, kStartup = 6, kExtInt = 7 };
constexpr u32 kPolarityLow = 1u << 13, kRemoteIrr = 1u << 14, kLevel = 1u << 15;
constexpr u32 kSendIllegalVector = 0x20, kReceivedIllegalVector = 0x40;

// The highest vector in a 256-bit register, or -1.
int highest(const std::array<u32, 8>& bits) {
  for (int word = 7; word >= 0; --word)
    if (bits[word] != 0) return word * 32 + 31 - std::countl_zero(bits[word]);
  return -1;
}
void set(std::array<u32, 8>& bits, u8 vector) { bits[vector / 32] |= 1u << vector % 32; }
void clear(std::array<u32, 8>& bits, u8 vector) { bits[vector / 32] &= ~(1u << vector % 32); }
u8 mode_of(u32 entry) { return entry >> 8 & 7; }
bool active(u32 entry, bool level) { return level != static_cast<bool>(entry & kPolarityLow); }

}  // namespace

u8 LocalApic::ppr() const {
  const int in_service = highest(s_.isr);
  const u8 service_class = in_service < 0 ? 0 : in_service & 0xf0;
  return (s_.tpr & 0xf0) >= service_class ? s_.tpr : service_class;
}

bool LocalApic::extint_waiting() const {
  if (!enabled()) return s_.lint0;  // as if there were no APIC: LINT0 is INTR
  const auto pin = [](u32 entry, bool level) {
    return !(entry & State::kMasked) && mode_of(entry) == kExtInt && active(entry, level);
  };
  return s_.extint || pin(s_.lvt_lint0, s_.lint0) || pin(s_.lvt_lint1, s_.lint1);
}

void LocalApic::settle() {
  const int requested = enabled() ? highest(s_.irr) : -1;
  deliverable_ = extint_waiting() || (requested >= 0 && (requested & 0xf0) > (ppr() & 0xf0));
  arm();
}

u8 LocalApic::acknowledge() {
  catch_up();
  u8 vector = static_cast<u8>(s_.svr);  // spurious, unless:
  if (extint_waiting()) {
    s_.extint = false;
    if (pic_acknowledge_) vector = pic_acknowledge_();
  } else if (const int requested = highest(s_.irr); requested >= 0 && (requested & 0xf0) > (ppr() & 0xf0)) {
    vector = static_cast<u8>(requested);
    clear(s_.irr, vector);
    set(s_.isr, vector);
  }
  settle();
  return vector;
}

void LocalApic::end_of_interrupt() {
  const int in_service = highest(s_.isr);
  if (in_service < 0) return;
  const u8 vector = static_cast<u8>(in_service);
  clear(s_.isr, vector);
  if (!(s_.tmr[vector / 32] >> vector % 32 & 1)) return;
  for (u32* entry : {&s_.lvt_lint0, &s_.lvt_lint1})
    if (static_cast<u8>(*entry) == vector) *entry &= ~kRemoteIrr;
  sense_level(s_.lvt_lint0, s_.lint0);
  sense_level(s_.lvt_lint1, s_.lint1);
  settle();
  if (eoi_) eoi_(vector);
}

void LocalApic::accept(u8 vector, bool level) {
  if (vector < 16) return raise_error(kReceivedIllegalVector);
  set(s_.irr, vector);
  level ? set(s_.tmr, vector) : clear(s_.tmr, vector);
}

void LocalApic::raise_error(u32 bit) {
  if (s_.esr_pending & bit) return;
  s_.esr_pending |= bit;
  local_interrupt(s_.lvt_error & ~u32{0x700});
}

void LocalApic::local_interrupt(u32 entry) {
  if (entry & State::kMasked) return;
  switch (mode_of(entry)) {
    case kFixed: return accept(static_cast<u8>(entry), false);
    case kNmi: return signals_ ? signals_->nmi() : void();
    case kInit:
      init();
      return signals_ ? signals_->init() : void();
    default: return;  // SMI: there is no SMM; ExtINT is a level, not an event
  }
}

void LocalApic::lint(bool& seen, u32& entry, bool level) {
  if (seen == level) return;
  catch_up();
  seen = level;
  if (mode_of(entry) == kFixed && entry & kLevel) sense_level(entry, level);
  else if (active(entry, level)) local_interrupt(entry);
  settle();
}

void LocalApic::sense_level(u32& entry, bool level) {
  const bool wanted = !(entry & State::kMasked) && mode_of(entry) == kFixed && entry & kLevel;
  if (!wanted || !active(entry, level) || entry & kRemoteIrr) return;
  entry |= kRemoteIrr;
  accept(static_cast<u8>(entry), true);
}

void LocalApic::lint0(bool level) { lint(s_.lint0, s_.lvt_lint0, level); }

void LocalApic::lint1(bool level) {
  if (!enabled() && level && !s_.lint1 && signals_) signals_->nmi();  // without an APIC LINT1 is NMI
  lint(s_.lint1, s_.lvt_lint1, level);
}

u32 LocalApic::logical_id() const {
  return x2apic() ? (s_.id >> 4) << 16 | 1u << (s_.id & 0xf) : s_.ldr;
}

bool LocalApic::addressed_by(const InterruptMessage& message) const {
  if (!enabled()) return false;
  if (message.broadcast) return true;
  const u32 destination = message.destination;
  if (!message.logical) return destination == (x2apic() ? s_.id : s_.id & 0xff);
  const u32 own = logical_id();
  if (x2apic()) return destination >> 16 == own >> 16 && destination & own & 0xffff;
  const bool flat = s_.dfr >> 28 == 0xf;
  return flat ? destination & own : destination >> 4 == own >> 4 && destination & own & 0xf;
}

void LocalApic::receive(const InterruptMessage& message) {
  catch_up();
  switch (message.mode) {
    case kFixed:
    case kLowestPriority:
      if (software_enabled()) accept(message.vector, message.level);
      break;
    case kNmi:
      if (signals_) signals_->nmi();
      break;
    case kInit:
      if (message.level && !message.asserted) break;  // INIT level de-assert: of old buses only
      init();
      if (signals_) signals_->init();
      break;
    case kStartup:
      if (signals_) signals_->startup(message.vector);
      break;
    case kExtInt:
      if (software_enabled()) s_.extint = true;
      break;
    default: break;  // SMI: there is no SMM
  }
  settle();
}

void LocalApic::deliver(u64 address, u32 data) {
  if (address >> 20 != 0xfee) return;
  const u32 destination = address >> 12 & 0xff;
  const InterruptMessage message{.destination = destination,
                                 .logical = static_cast<bool>(address & 4),
                                 .broadcast = destination == 0xff,
                                 .mode = static_cast<u8>(data >> 8 & 7),
                                 .vector = static_cast<u8>(data),
                                 .level = static_cast<bool>(data >> 15 & 1),
                                 .asserted = static_cast<bool>(data >> 14 & 1)};
  if (addressed_by(message)) receive(message);
}

void LocalApic::send_ipi() {
  enum Shorthand : u32 { kNone, kSelf, kAll, kOthers };
  const u32 low = static_cast<u32>(s_.icr), high = static_cast<u32>(s_.icr >> 32), shorthand = low >> 18 & 3;
  InterruptMessage message{.destination = x2apic() ? high : high >> 24,
                           .logical = static_cast<bool>(low & 0x800),
                           .broadcast = shorthand == kAll || shorthand == kOthers || high == (x2apic() ? ~0u : 0xff00'0000),
                           .mode = mode_of(low),
                           .vector = static_cast<u8>(low),
                           .level = static_cast<bool>(low & kLevel),
                           .asserted = static_cast<bool>(low & 0x4000)};
  const bool fixed = message.mode == kFixed || message.mode == kLowestPriority;
  if (fixed && message.vector < 16) return raise_error(kSendIllegalVector);
  if (message.mode != kInit) message.level = false;  // for IPIs the trigger mode means something for INIT only
  if (shorthand == kSelf) return fixed || message.mode == kNmi ? receive(message) : void();
  if (ipi_bus_) ipi_bus_(message, shorthand == kOthers);
  else if (shorthand != kOthers && addressed_by(message)) receive(message);
}

}  // namespace stasis
