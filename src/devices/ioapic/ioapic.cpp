// I/O APIC: registers, and pins into messages.
#include "devices/ioapic/ioapic.hpp"

#include "base/error.hpp"

namespace stasis {
namespace {

constexpr u64 kIoRegSel = 0x00, kIoWin = 0x10, kEoi = 0x40;
constexpr u8 kId = 0, kVersion = 1, kArbitration = 2, kTable = 0x10;

// Fixed and lowest priority only: every other delivery mode is an edge, whatever the trigger bit says.
bool level_triggered(u64 entry) { return entry & IoApicState::kLevel && (entry >> 8 & 7) <= 1; }

}  // namespace

std::string IoApic::check(const IoApicState& s) const {
  for (unsigned pin = 0; pin < kPins; ++pin)
    if (s.redirection[pin] & State::kRemoteIrr && !(s.redirection[pin] & State::kLevel))
      return fmt::format("redirection/{} has remote IRR, but is edge-triggered ({:#x})", pin, s.redirection[pin]);
  return {};
}

void IoApic::set_irq(unsigned pin, bool level) {
  STASIS_ASSERT(pin < kPins);
  const bool before = s_.pins >> pin & 1;
  if (level == before) return;
  s_.pins ^= 1u << pin;
  const u64 entry = s_.redirection[pin];
  if (level_triggered(entry)) sense(pin);
  else if (level && !(entry & State::kMasked)) send(entry);
}

void IoApic::sense(unsigned pin) {
  u64& entry = s_.redirection[pin];
  if (!level_triggered(entry) || entry & (State::kMasked | State::kRemoteIrr) || !(s_.pins >> pin & 1)) return;
  entry |= State::kRemoteIrr;
  send(entry);
}

// The entry as a message: SDM vol. 3A, 11.11.
void IoApic::send(u64 entry) {
  const u64 destination = entry >> 56, logical = entry >> 11 & 1;
  const u32 trigger = level_triggered(entry) ? 0x8000 : 0, asserted = 0x4000;
  messages_.deliver(0xfee0'0000 | destination << 12 | logical << 2, static_cast<u32>(entry & 0x7ff) | trigger | asserted);
}

void IoApic::end_of_interrupt(u8 vector) {
  for (unsigned pin = 0; pin < kPins; ++pin) {
    u64& entry = s_.redirection[pin];
    if (static_cast<u8>(entry) != vector || !(entry & State::kRemoteIrr)) continue;
    entry &= ~State::kRemoteIrr;
    sense(pin);
  }
}

u32 IoApic::read_register() const {
  const u8 index = s_.ioregsel;
  if (index == kId || index == kArbitration) return u32{s_.id} << 24;
  if (index == kVersion) return (kPins - 1) << 16 | 0x20;
  if (index < kTable || index >= kTable + 2 * kPins) return 0;
  return static_cast<u32>(s_.redirection[(index - kTable) / 2] >> (index & 1 ? 32 : 0));
}

void IoApic::write_register(u32 value) {
  const u8 index = s_.ioregsel;
  if (index == kId) s_.id = value >> 24 & 0xf;
  if (index < kTable || index >= kTable + 2 * kPins) return;
  const unsigned pin = (index - kTable) / 2u;
  u64& entry = s_.redirection[pin];
  const u64 remote_irr = entry & State::kRemoteIrr;
  entry = index & 1 ? (entry & 0xffff'ffff) | u64{value} << 32 : (entry & ~u64{0xffff'ffff}) | value;
  entry &= State::kSoftwareBits;
  if (level_triggered(entry)) entry |= remote_irr;  // becoming edge-triggered forgets it
  tell();
  sense(pin);
}

u64 IoApic::mmio_read(u64 offset, unsigned size) {
  const u64 word = offset & ~u64{3};
  const u32 value = word == kIoRegSel ? s_.ioregsel : word == kIoWin ? read_register() : 0;
  const u64 shifted = value >> 8 * (offset & 3);
  return size >= 4 ? shifted : shifted & ((u64{1} << 8 * size) - 1);
}

void IoApic::mmio_write(u64 offset, unsigned size, u64 value) {
  if (offset == kIoRegSel) s_.ioregsel = static_cast<u8>(value);
  else if (offset == kIoWin && size == 4) write_register(static_cast<u32>(value));
  else if (offset == kEoi) end_of_interrupt(static_cast<u8>(value));
}

}  // namespace stasis
