// One counter of an Intel 8254 (order 231164): everything follows from when its count was loaded.
//
// Ticks are those of the input clock since power-on. A count takes effect at a tick (`next_at`) or at a rising
// edge of GATE; the counting element is a function of the ticks since then, so no tick is ever simulated.
// Simplification: in mode 3 a new count waits for the end of the whole period, not of the half.
#pragma once

#include <array>

#include "base/types.hpp"
#include "state/layout.hpp"

namespace stasis {

enum class PitLoad : u8 { nothing, at_tick, at_gate };  // what the written count waits for
inline constexpr std::array<std::string_view, 3> kPitLoadNames{"nothing", "at_tick", "at_gate"};

struct PitChannel {
  static constexpr u64 kNever = ~0ull;
  static constexpr u64 kLatestTick = 1ull << 55;  // 957 years

  u8 mode = 0;         // 0-5
  u8 access = 3;       // 1: low byte, 2: high byte, 3: low then high
  bool bcd = false;
  bool loaded = false;  // the counting element holds a count
  u16 count = 0;        // that count as written; 0 is the greatest
  u64 origin = 0;       // tick at which it was loaded
  u64 held = 0;         // ticks counted when GATE fell
  PitLoad load = PitLoad::nothing;
  u16 next_count = 0;
  u64 next_at = 0;
  bool write_high = false;  // the low byte of a count has come
  u8 low_byte = 0;
  bool read_high = false;  // the low byte of a count has been read
  bool count_latched = false;
  u16 latched_count = 0;
  bool status_latched = false;
  u8 latched_status = 0;

  void control(u8 word);  // a control word that is no latch or read-back command
  void write(u8 byte, u64 tick, bool gate);
  u8 read(u64 tick, bool gate);
  void latch_count(u64 tick, bool gate);
  void latch_status(u64 tick, bool gate);
  void gate_changed(bool gate, u64 tick);

  bool output(u64 tick, bool gate) const;
  u64 next_edge(u64 tick, bool gate) const;  // the first tick after `tick` at which OUT may change, or kNever

  static constexpr auto layout() {
    using S = PitChannel;
    using state::field;
    return state::Layout(
        "intel.8254.channel", 1, field<&S::mode>("mode").range(0, 5), field<&S::access>("access").range(1, 3),
        field<&S::bcd>("bcd"), field<&S::loaded>("loaded"), field<&S::count>("count"),
        field<&S::origin>("origin").unit("ticks").range(0, kLatestTick),
        field<&S::held>("held").unit("ticks").range(0, kLatestTick), field<&S::load>("load").names(kPitLoadNames),
        field<&S::next_count>("next_count"), field<&S::next_at>("next_at").unit("ticks").range(0, kLatestTick),
        field<&S::write_high>("write_high"), field<&S::low_byte>("low_byte").hex(), field<&S::read_high>("read_high"),
        field<&S::count_latched>("count_latched"), field<&S::latched_count>("latched_count"),
        field<&S::status_latched>("status_latched"), field<&S::latched_status>("latched_status").hex());
  }

 private:
  struct View;
  View view(u64 tick, bool gate) const;
  bool gate_holds(bool gate) const { return !gate && mode != 1 && mode != 5; }  // counting stops
  bool periodic() const { return mode == 2 || mode == 3; }
  u16 counting_element(u64 tick, bool gate) const;
  u8 status(u64 tick, bool gate) const;
  void count_written(u16 value, u64 tick, bool gate);
  void take_next(u64 tick);
  void load_at(u16 value, u64 tick);
};

}  // namespace stasis
