// The 8254's ports, its clock and the interrupt of channel 0.
#include "devices/i8254/pit.hpp"

namespace stasis {
namespace {

constexpr u64 kRefreshTicks = 18;  // port 0x61 bit 4 toggles with each DRAM refresh, 15 us

// The first nanosecond of a tick.
u64 time_of(u64 tick) {
  const u128 time = (static_cast<u128>(tick) * kSecond + (Pit::kHz - 1)) / Pit::kHz;
  return time < Clock::kNever ? static_cast<u64>(time) : Clock::kNever;
}

}  // namespace

Pit::Pit(Clock& clock, IrqLine& irq0) : clock_(clock), irq0_(irq0), alarm_(clock, [this] { settle(); }) { settle(); }

void Pit::attach(PortBus& bus) {
  bus.map(0x40, 0x43, *this);
  bus.map(0x61, 0x61, *this);
}

u32 Pit::port_read(u16 port, unsigned) {
  if (port == 0x61) return read_port_b();
  const unsigned index = port & 3;
  if (index == 3) return 0xff;  // the control word cannot be read
  return s_.channel[index].read(tick(), gate(index));
}

void Pit::port_write(u16 port, unsigned, u32 value) {
  const u8 byte = static_cast<u8>(value);
  const unsigned index = port & 3;
  if (port == 0x61) write_port_b(byte);
  else if (index == 3) write_control(byte);
  else s_.channel[index].write(byte, tick(), gate(index));
  settle();
}

void Pit::write_control(u8 word) {
  const unsigned select = word >> 6;
  if (select == 3) {  // read-back: bits 5 and 4 are active low
    for (unsigned i = 0; i < 3; ++i) {
      if (!(word & 2u << i)) continue;
      if (!(word & 0x20)) s_.channel[i].latch_count(tick(), gate(i));
      if (!(word & 0x10)) s_.channel[i].latch_status(tick(), gate(i));
    }
  } else if ((word & 0x30) == 0) {
    s_.channel[select].latch_count(tick(), gate(select));
  } else {
    s_.channel[select].control(word);
  }
}

u8 Pit::read_port_b() const {
  const bool refresh = (tick() / kRefreshTicks) & 1;
  return static_cast<u8>(s_.port_b | refresh << 4 | s_.channel[2].output(tick(), gate(2)) << 5);
}

void Pit::write_port_b(u8 value) {
  const bool was = gate(2);
  s_.port_b = value & 0x0f;
  if (gate(2) != was) s_.channel[2].gate_changed(gate(2), tick());
}

void Pit::settle() {
  const u64 now = tick();
  irq0_.set(s_.channel[0].output(now, true));
  const u64 edge = s_.channel[0].next_edge(now, true);
  alarm_.at(edge == PitChannel::kNever ? Clock::kNever : time_of(edge));
}

}  // namespace stasis
