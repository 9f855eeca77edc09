// One 8254 counter: output, count and status as functions of the tick.
#include "devices/i8254/channel.hpp"

#include <algorithm>

namespace stasis {
namespace {

constexpr u64 modulus(bool bcd) { return bcd ? 10'000 : 65'536; }

// What a written count stands for: 1 to modulus.
u64 value_of(u16 raw, bool bcd) {
  const u64 digits = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
  const u64 value = bcd ? digits % modulus(bcd) : raw;
  return value ? value : modulus(bcd);
}

u16 raw_of(u64 value, bool bcd) {
  value %= modulus(bcd);
  if (!bcd) return static_cast<u16>(value);
  return static_cast<u16>((value / 1000) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | value % 10);
}

u64 since(u64 tick, u64 origin) { return tick > origin ? tick - origin : 0; }

}  // namespace

struct PitChannel::View {
  bool loaded, waiting;  // a count is in the counting element; a written one is not yet
  u64 period, elapsed;
};

PitChannel::View PitChannel::view(u64 tick, bool gate) const {
  if (load == PitLoad::at_tick && tick >= next_at)
    return {true, false, value_of(next_count, bcd), gate_holds(gate) ? 0 : tick - next_at};
  return {loaded, load != PitLoad::nothing, value_of(count, bcd), gate_holds(gate) ? held : since(tick, origin)};
}

bool PitChannel::output(u64 tick, bool gate) const {
  const View v = view(tick, gate);
  if (!v.loaded) return mode != 0;
  switch (mode) {
    case 0: case 1: return v.elapsed >= v.period;
    case 2: return !gate || v.elapsed % v.period != v.period - 1;
    case 3: return !gate || v.elapsed % v.period < (v.period + 1) / 2;
    default: return v.elapsed != v.period;
  }
}

u64 PitChannel::next_edge(u64 tick, bool gate) const {
  const View v = view(tick, gate);
  u64 edge = kNever;
  if (v.loaded && !gate_holds(gate)) {
    const u64 place = v.elapsed % v.period, low_from = mode == 2 ? v.period - 1 : (v.period + 1) / 2;
    if (periodic()) {
      if (v.period > 1) edge = tick + (place < low_from ? low_from : v.period) - place;
    } else if (v.elapsed < v.period) {
      edge = tick + v.period - v.elapsed;
    } else if (v.elapsed == v.period && mode >= 4) {
      edge = tick + 1;
    }
  }
  return load == PitLoad::at_tick && next_at > tick ? std::min(edge, next_at) : edge;
}

u16 PitChannel::counting_element(u64 tick, bool gate) const {
  const View v = view(tick, gate);
  if (!v.loaded) return 0;
  const u64 place = v.elapsed % v.period, high = (v.period + 1) / 2;
  if (mode == 2) return raw_of(v.period - place, bcd);
  if (mode == 3) return raw_of((v.period & ~1ull) - 2 * (place < high ? place : place - high), bcd);
  return raw_of(v.period + modulus(bcd) - v.elapsed % modulus(bcd), bcd);  // runs on through zero
}

u8 PitChannel::status(u64 tick, bool gate) const {
  const View v = view(tick, gate);
  const bool null_count = !v.loaded || v.waiting;
  return static_cast<u8>(output(tick, gate) << 7 | null_count << 6 | access << 4 | mode << 1 | bcd);
}

void PitChannel::control(u8 word) {
  const u8 m = word >> 1 & 7;
  *this = {.mode = static_cast<u8>(m > 5 ? m - 4 : m), .access = static_cast<u8>(word >> 4 & 3), .bcd = (word & 1) != 0};
}

void PitChannel::write(u8 byte, u64 tick, bool gate) {
  if (access == 1) return count_written(byte, tick, gate);
  if (access == 2) return count_written(static_cast<u16>(byte << 8), tick, gate);
  if (write_high) {
    const u16 value = static_cast<u16>(byte << 8 | low_byte);
    write_high = false;
    low_byte = 0;
    return count_written(value, tick, gate);
  }
  write_high = true;
  low_byte = byte;
  if (mode == 0) {  // the first byte stops the count and lowers OUT
    take_next(tick);
    loaded = false;
    load = PitLoad::nothing;
    next_count = 0;
    next_at = 0;
  }
}

void PitChannel::count_written(u16 value, u64 tick, bool gate) {
  take_next(tick);
  if (mode == 0) loaded = false;
  const bool waits_for_gate = mode == 1 || mode == 5 || (periodic() && !gate);
  if (waits_for_gate) {
    if (load != PitLoad::at_tick) load = PitLoad::at_gate;  // else: triggered in this very tick
    next_count = value;
  } else if (periodic() && loaded) {
    const u64 period = value_of(count, bcd);
    load_at(value, origin + (since(tick, origin) / period + 1) * period);
  } else {
    load_at(value, tick + 1);
  }
}

void PitChannel::load_at(u16 value, u64 tick) {
  load = PitLoad::at_tick;
  next_count = value;
  next_at = tick;
}

// What the tick has made of a waiting count becomes the present one.
void PitChannel::take_next(u64 tick) {
  if (load != PitLoad::at_tick || tick < next_at) return;
  loaded = true;
  count = next_count;
  origin = next_at;
  held = 0;
  load = PitLoad::nothing;
  next_count = 0;
  next_at = 0;
}

void PitChannel::gate_changed(bool gate, u64 tick) {
  take_next(tick);
  if (!gate) {
    if (!gate_holds(gate)) return;
    held = since(tick, origin);
    if (periodic() && load == PitLoad::at_tick) {  // now the next trigger loads it
      load = PitLoad::at_gate;
      next_at = 0;
    }
    return;
  }
  if (mode != 1 && mode != 5) {
    origin = since(tick, held);
    held = 0;
  }
  if (mode == 0 || mode == 4) return;
  if (load != PitLoad::nothing) load_at(next_count, tick + 1);
  else if (loaded) load_at(count, tick + 1);
}

void PitChannel::latch_count(u64 tick, bool gate) {
  if (count_latched) return;
  count_latched = true;
  latched_count = counting_element(tick, gate);
}

void PitChannel::latch_status(u64 tick, bool gate) {
  if (status_latched) return;
  status_latched = true;
  latched_status = status(tick, gate);
}

u8 PitChannel::read(u64 tick, bool gate) {
  if (status_latched) {
    const u8 value = latched_status;
    status_latched = false;
    latched_status = 0;
    return value;
  }
  const u16 value = count_latched ? latched_count : counting_element(tick, gate);
  const bool high = access == 2 || (access == 3 && read_high);
  if (access == 3) read_high = !read_high;
  if (high || access == 1) {  // the last byte of the latched count
    count_latched = false;
    latched_count = 0;
  }
  return static_cast<u8>(high ? value >> 8 : value);
}

}  // namespace stasis
