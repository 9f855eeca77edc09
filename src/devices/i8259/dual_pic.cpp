// The 8259A pair: priority, initialisation and operation command words, acknowledge and poll.
#include "devices/i8259/dual_pic.hpp"

#include <bit>

namespace stasis {
namespace {

constexpr unsigned kNone = 8, kCascade = 2;
constexpr u8 kCascadeBit = 1u << kCascade;
constexpr std::array<u8, 2> kElcrBits{0xf8, 0xde};  // IRQ 0, 1, 2, 8 and 13 are always edge-triggered

u8 bit_of(unsigned line) { return static_cast<u8>(1u << (line & 7)); }

u8 request_register(const PicState& chip) {
  return static_cast<u8>((chip.requests & ~chip.level_triggered) | (chip.pins & chip.level_triggered));
}

// The place in the order of priority of the first of `lines`, 0 being the most urgent; kNone when there is none.
unsigned first_place(const PicState& chip, unsigned lines) {
  const unsigned bits = lines & 0xff, turn = (chip.lowest_priority + 1u) & 7;
  return static_cast<unsigned>(std::countr_zero(static_cast<u8>(bits >> turn | bits << (8 - turn))));
}
unsigned line_at(const PicState& chip, unsigned place) { return (chip.lowest_priority + 1u + place) & 7; }

// The line that the chip asks for with INT, or kNone.
unsigned pending(const PicState& chip, bool master) {
  if (chip.expects != PicExpects::operation) return kNone;
  const unsigned asking = first_place(chip, request_register(chip) & ~chip.mask);
  unsigned blocking = chip.in_service;
  if (chip.special_mask) blocking &= ~chip.mask;
  if (chip.special_fully_nested && master) blocking &= ~kCascadeBit;
  return asking < first_place(chip, blocking) ? line_at(chip, asking) : kNone;
}

// A request that falls again stays latched, so a device may pulse its line.
void set_pin(PicState& chip, unsigned line, bool level) {
  const u8 bit = bit_of(line);
  if (level && !(chip.pins & bit) && !(chip.level_triggered & bit)) chip.requests |= bit;
  chip.pins = level ? chip.pins | bit : chip.pins & ~bit;
}

void take(PicState& chip, unsigned line) {
  chip.requests &= static_cast<u8>(~bit_of(line));
  if (!chip.auto_eoi) chip.in_service |= bit_of(line);
  else if (chip.rotate_on_auto_eoi) chip.lowest_priority = static_cast<u8>(line);
}

void end_of_interrupt(PicState& chip, unsigned line, bool rotate) {
  chip.in_service &= static_cast<u8>(~bit_of(line));
  if (rotate) chip.lowest_priority = static_cast<u8>(line);
}

void write_icw1(PicState& chip, u8 value) {
  const PicState old = chip;
  chip = {.mask = 0,
          .pins = old.pins,
          .level_triggered = old.level_triggered,
          .vector_base = old.vector_base,
          .expects = PicExpects::icw2,
          .single = (value & 2) != 0,
          .wants_icw4 = (value & 1) != 0};
}

void write_ocw2(PicState& chip, u8 value) {
  const unsigned line = value & 7;
  const bool rotate = (value & 0x80) != 0;
  switch (value >> 5) {
    case 0: case 4: chip.rotate_on_auto_eoi = rotate; break;
    case 1: case 5: {  // non-specific: does not see what special mask mode hides
      const unsigned place = first_place(chip, chip.special_mask ? chip.in_service & ~chip.mask : chip.in_service);
      if (place != kNone) end_of_interrupt(chip, line_at(chip, place), rotate);
      break;
    }
    case 3: case 7: end_of_interrupt(chip, line, rotate); break;
    case 6: chip.lowest_priority = static_cast<u8>(line); break;
    default: break;
  }
}

void write_ocw3(PicState& chip, u8 value) {
  if (value & 0x40) chip.special_mask = (value & 0x20) != 0;
  if (value & 0x04) chip.poll = true;
  else if (value & 0x02) chip.read_in_service = (value & 1) != 0;
}

void write_even(PicState& chip, u8 value) {
  if (value & 0x10) write_icw1(chip, value);
  else if (value & 0x08) write_ocw3(chip, value);
  else write_ocw2(chip, value);
}

void write_odd(PicState& chip, u8 value) {
  const PicExpects last = chip.wants_icw4 ? PicExpects::icw4 : PicExpects::operation;
  switch (chip.expects) {
    case PicExpects::operation: chip.mask = value; break;
    case PicExpects::icw2:
      chip.vector_base = value & 0xf8;
      chip.expects = chip.single ? last : PicExpects::icw3;
      break;
    case PicExpects::icw3: chip.expects = last; break;
    case PicExpects::icw4:
      chip.auto_eoi = (value & 0x02) != 0;
      chip.special_fully_nested = (value & 0x10) != 0;
      chip.expects = PicExpects::operation;
      break;
  }
}

}  // namespace

DualPic::DualPic(IrqLine& intr) : intr_(intr) { settle(); }

void DualPic::attach(PortBus& bus) {
  bus.map(0x20, 0x21, *this);
  bus.map(0xa0, 0xa1, *this);
  bus.map(0x4d0, 0x4d1, *this);
}

void DualPic::set_irq(unsigned irq, bool level) {
  STASIS_ASSERT(irq < 16);
  if (irq == kCascade) return;
  set_pin(s_.chip[irq / 8], irq % 8, level);
  changed();
}

u8 DualPic::acknowledge() {
  auto& [master, slave] = s_.chip;
  const unsigned line = pending(master, true);
  if (line == kNone) return master.vector_base | 7;
  take(master, line);
  u8 vector = static_cast<u8>(master.vector_base | line);
  if (line == kCascade) {
    const unsigned second = pending(slave, false);
    if (second != kNone) take(slave, second);
    vector = static_cast<u8>(slave.vector_base | (second & 7) | (second == kNone ? 7 : 0));
    master.pins &= static_cast<u8>(~kCascadeBit);  // INT drops during INTA: what still waits is a new edge
  }
  changed();
  return vector;
}

u8 DualPic::poll(bool slave) {
  PicState& chip = s_.chip[slave];
  chip.poll = false;
  const unsigned line = pending(chip, !slave);
  if (line == kNone) return 0;
  take(chip, line);
  if (slave) {
    s_.chip[0].pins &= static_cast<u8>(~kCascadeBit);
    s_.chip[0].requests &= static_cast<u8>(~kCascadeBit);
  }
  changed();
  return static_cast<u8>(0x80 | line);
}

u32 DualPic::port_read(u16 port, unsigned) {
  if (port >= 0x4d0) return s_.chip[port & 1].level_triggered;
  const bool slave = port >= 0xa0;
  const PicState& chip = s_.chip[slave];
  if (chip.poll) return poll(slave);
  if (port & 1) return chip.mask;
  return chip.read_in_service ? chip.in_service : request_register(chip);
}

void DualPic::port_write(u16 port, unsigned, u32 value) {
  const u8 byte = static_cast<u8>(value);
  if (port >= 0x4d0) {
    PicState& chip = s_.chip[port & 1];
    chip.level_triggered = byte & kElcrBits[port & 1];
    chip.requests &= static_cast<u8>(~chip.level_triggered);
  } else if (port & 1) {
    write_odd(s_.chip[port >= 0xa0], byte);
  } else {
    write_even(s_.chip[port >= 0xa0], byte);
  }
  changed();
}

void DualPic::changed() {
  set_pin(s_.chip[0], kCascade, pending(s_.chip[1], false) != kNone);
  settle();
}

void DualPic::settle() { intr_.set(pending(s_.chip[0], true) != kNone); }

std::string DualPic::check(const DualPicState& staged) const {
  for (unsigned i = 0; i < 2; ++i) {
    const PicState& chip = staged.chip[i];
    if (chip.level_triggered & ~kElcrBits[i])
      return fmt::format("chip/{}/level_triggered is {:#x}, allowed are the bits {:#x}", i, chip.level_triggered, kElcrBits[i]);
    if (chip.requests & chip.level_triggered)
      return fmt::format("chip/{}/requests is {:#x}, but edges are not latched on the level-triggered lines {:#x}", i,
                         chip.requests, chip.level_triggered);
  }
  return {};
}

}  // namespace stasis
