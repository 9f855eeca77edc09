// The PC's interval timer: an Intel 8254 at 1.193182 MHz, and port 0x61 (gate and speaker of channel 2, refresh).
#pragma once

#include <array>
#include <string>

#include "bus/clock.hpp"
#include "bus/irq_line.hpp"
#include "bus/port_bus.hpp"
#include "devices/i8254/channel.hpp"
#include "state/part.hpp"

namespace stasis {

struct PitState {
  std::array<PitChannel, 3> channel{};
  u8 port_b = 0;  // port 0x61 as written: bit 0 is channel 2's GATE, bit 1 the speaker's

  static constexpr auto layout() {
    using S = PitState;
    return state::Layout("intel.8254", 1, state::field<&S::channel>("channel"),
                         state::field<&S::port_b>("port_b").hex().allow(0x0f));
  }
};

class Pit final : public state::Stateful<PitState>, public PortDevice {
 public:
  static constexpr u64 kHz = 1'193'182;

  // `irq0` follows OUT of channel 0.
  Pit(Clock& clock, IrqLine& irq0);
  void attach(PortBus& bus);  // 0x40-0x43, 0x61

  u32 port_read(u16 port, unsigned size) override;
  void port_write(u16 port, unsigned size, u32 value) override;
  void settle() override;

 private:
  u64 tick() const { return mul_div(clock_.now(), kHz, kSecond); }
  bool gate(unsigned channel) const { return channel != 2 || (s_.port_b & 1); }
  u8 read_port_b() const;
  void write_port_b(u8 value);
  void write_control(u8 word);

  Clock& clock_;
  IrqLine& irq0_;
  Alarm alarm_;  // the next edge of channel 0; nobody but a reader sees the others
};

}  // namespace stasis
