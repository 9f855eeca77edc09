// Real-time clock with CMOS memory: Motorola MC146818A, the century in byte 0x32 as PC chipsets keep it.
//
// The time bytes hold the time as of `seen_ns`; what guest time has added since is counted on when somebody looks,
// or when an enabled interrupt is due. Updates end at the guest times that are `phase_ns` beyond a whole second.
#pragma once

#include <array>
#include <string>

#include "bus/clock.hpp"
#include "bus/irq_line.hpp"
#include "bus/port_bus.hpp"
#include "devices/mc146818/calendar.hpp"
#include "state/part.hpp"

namespace stasis {

struct RtcState {
  static constexpr u64 kLatestStart = 253'402'300'799;  // the last second of 9999
  static constexpr unsigned kFirstNvram = 0x0e;

  u64 start_seconds = 0;  // date at guest time zero, from the machine's configuration
  u64 seen_ns = 0;
  u32 phase_ns = 0;
  u8 index = 0;  // port 0x70; bit 7 masks NMI
  u8 a = 0x26;   // 32.768 kHz, 1024 Hz
  u8 b = rtc::k24Hours;
  u8 c = 0;  // PF, AF and UF; IRQF follows
  rtc::TimeBytes time{};
  std::array<u8, 128 - kFirstNvram> nvram{};

  static constexpr auto layout() {
    using S = RtcState;
    using state::field;
    return state::Layout("motorola.mc146818", 1,
                         field<&S::start_seconds>("start_seconds").unit("s").range(0, kLatestStart),
                         field<&S::seen_ns>("seen_ns").unit("ns").range(0, 1ull << 63),
                         field<&S::phase_ns>("phase_ns").unit("ns").range(0, kSecond - 1),
                         field<&S::index>("index").hex(), field<&S::a>("a").hex().allow(0x7f), field<&S::b>("b").hex(),
                         field<&S::c>("c").hex().allow(0x70), field<&S::time>("time").help("bytes 0x00-0x09"),
                         field<&S::nvram>("nvram").help("bytes 0x0e-0x7f"));
  }
};

class Rtc final : public state::Stateful<RtcState>, public PortDevice {
 public:
  // `start_seconds`: the date at guest time zero, seconds since 1970.
  Rtc(Clock& clock, IrqLine& irq8, u64 start_seconds);
  void attach(PortBus& bus);  // 0x70-0x71

  // The board's own bytes (0x0E-0x7F but the century): written at once and at every reset().
  void set_cmos(u8 index, u8 value);

  u32 port_read(u16 port, unsigned size) override;
  void port_write(u16 port, unsigned size, u32 value) override;
  // Power-on of a new machine: the board's CMOS, and the start date plus the guest time since.
  void reset() override;
  void reset_pin();  // a reset of the machine: time and CMOS stay, interrupts are disabled and forgotten
  void settle() override;

 private:
  bool running() const { return (s_.a & 0x70) == 0x20; }
  u64 position(u64 time) const { return time + kSecond - s_.phase_ns; }  // on the divider chain, in ns
  u64 periods(u64 time) const;  // of the periodic interrupt, whole ones up to `time`
  u8& century() { return s_.nvram[0x32 - RtcState::kFirstNvram]; }
  bool updating() const;
  void catch_up();
  u64 next_event() const;
  u8 read_register();
  void write_register(u8 value);
  void write_a(u8 value);
  void write_b(u8 value);

  Clock& clock_;
  IrqLine& irq8_;
  Alarm alarm_;
  std::array<u8, 128 - RtcState::kFirstNvram> board_{};
};

}  // namespace stasis
