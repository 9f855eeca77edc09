// HPET: a 64-bit counter at 100 MHz and three comparators. IA-PC HPET Specification 1.0a, chapter 2.
#pragma once

#include <functional>

#include "bus/clock.hpp"
#include "bus/irq_line.hpp"
#include "bus/mmio_bus.hpp"
#include "state/part.hpp"

namespace stasis {

struct HpetTimerState {
  u16 config = 0;
  u64 comparator = ~u64{0};
  u64 period = 0;
  bool set_value = false;      // Tn_VAL_SET_CNF: the next write of the comparator sets it, not only the period
  u64 fsb = 0;                 // address in the high, data in the low half
  u64 due_ns = Clock::kNever;  // guest time of the next match not yet accounted for

  static constexpr u16 kLevel = 1 << 1, kInterrupt = 1 << 2, kPeriodic = 1 << 3, kMode32 = 1 << 8, kRoute = 0x3e00,
                       kFsb = 1 << 14, kWritable = kLevel | kInterrupt | kPeriodic | kMode32 | kRoute | kFsb;
  static constexpr auto layout() {
    using S = HpetTimerState;
    return state::Layout("ia_pc.hpet_timer", 1, state::field<&S::config>("config").hex().allow(kWritable),
                         state::field<&S::comparator>("comparator").unit("ticks"),
                         state::field<&S::period>("period").unit("ticks"), state::field<&S::set_value>("set_value"),
                         state::field<&S::fsb>("fsb").hex(),
                         state::field<&S::due_ns>("due_ns").unit("ns").help("next match; all ones: never"));
  }
  bool is(u16 bits) const { return config & bits; }
  unsigned route() const { return config >> 9 & 0x1f; }
  u64 wrap_mask() const { return is(kMode32) ? 0xffff'ffff : ~u64{0}; }
};

struct HpetState {
  u8 config = 0;
  u8 status = 0;      // level-triggered timers that are active
  u64 counter = 0;    // at origin_ns, or as halted
  u64 origin_ns = 0;
  std::array<HpetTimerState, 3> timer{};

  static constexpr u8 kEnable = 1, kLegacy = 2;
  static constexpr auto layout() {
    using S = HpetState;
    return state::Layout("ia_pc.hpet", 1, state::field<&S::config>("config").hex().allow(kEnable | kLegacy),
                         state::field<&S::status>("status").hex().allow(7),
                         state::field<&S::counter>("counter").unit("ticks"),
                         state::field<&S::origin_ns>("origin_ns").unit("ns"), state::field<&S::timer>("timer"));
  }
};

// Its outputs. The board wires irq0 to the 8259's input 0 and I/O APIC pin 2, irq8 to input and pin 8, and pins[] to
// I/O APIC pins 20 to 23; irq0 and irq8 move only during legacy replacement, when the board mutes the 8254 and the RTC.
struct HpetWires {
  IrqLine irq0, irq8;
  std::array<IrqLine, 4> pins;
};

class Hpet final : public state::Stateful<HpetState>, public MmioDevice {
 public:
  static constexpr u64 kBase = 0xfed0'0000, kSize = 0x400, kTickNs = 10;
  static constexpr unsigned kFirstPin = 20;

  Hpet(Clock& clock, HpetWires& wires, MessageSink& messages);
  void attach(MmioBus& bus) { bus.map(kBase, kSize, *this); }
  bool legacy_active() const { return s_.config & State::kLegacy; }
  void connect_legacy(std::function<void(bool active)> legacy) { legacy_ = std::move(legacy); }  // told in every settle()

  u64 mmio_read(u64 offset, unsigned size) override;
  void mmio_write(u64 offset, unsigned size, u64 value) override;
  void settle() override;

 private:
  using Timer = HpetTimerState;
  std::string check(const HpetState& staged) const override;
  bool running() const { return s_.config & State::kEnable; }
  u64 counter() const;
  u64 status() const;
  u64 read_register(u64 offset) const;
  void write_register(u64 offset, u64 value, u64 written);
  void write_config(u8 value);
  void write_timer_config(unsigned n, u64 value);
  void write_comparator(unsigned n, u64 value, u64 written);

  void find_next_match(Timer& timer) const;   // from where the counter stands now
  bool pass_matches(Timer& timer) const;      // until now; true when there were any
  void catch_up();                            // runs before anything changes
  IrqLine* wire(unsigned n) const;            // where timer n interrupts, or null
  bool level(unsigned n) const { return s_.timer[n].is(Timer::kLevel) && !s_.timer[n].is(Timer::kFsb); }
  bool match_shows(unsigned n) const;
  void interrupt(unsigned n);
  void drive_levels();

  Clock& clock_;
  HpetWires& wires_;
  MessageSink& messages_;
  std::function<void(bool)> legacy_;
  Alarm alarm_;
};

}  // namespace stasis
