// The local APIC's timer: one-shot, periodic and TSC-deadline (Intel SDM vol. 3A, 11.5.4).
//
// The bus clock is 1 GHz, so one count is `divider` nanoseconds. An expiry that would change nothing (masked, or its
// vector already waits in IRR) sets no alarm: catch_up() passes over it in one step when something else happens.
#include <algorithm>

#include "base/error.hpp"
#include "cpu/local_apic.hpp"

namespace stasis {

u32 LocalApic::current_count() const {
  if (!s_.timer_armed) return 0;
  const u64 ticks = (clock_.now() - s_.timer_origin_ns) / timer_divider();
  if (timer_mode() == kPeriodic) return static_cast<u32>(s_.timer_initial - ticks % s_.timer_initial);
  return ticks >= s_.timer_initial ? 0 : static_cast<u32>(s_.timer_initial - ticks);
}

bool LocalApic::expired() const {
  if (s_.deadline != 0) return clock_.now() >= s_.deadline_ns;
  return s_.timer_armed && clock_.now() - s_.timer_origin_ns >= timer_period();
}

bool LocalApic::expiry_shows() const {
  if (s_.lvt_timer & State::kMasked) return false;
  const u8 vector = static_cast<u8>(s_.lvt_timer);
  if (vector < 16) return !(s_.esr_pending & 0x40);
  return !(s_.irr[vector / 32] >> vector % 32 & 1);
}

void LocalApic::catch_up() {
  if (!expired()) return;
  if (s_.timer_armed && timer_mode() == kPeriodic) {
    const u64 elapsed = clock_.now() - s_.timer_origin_ns;
    s_.timer_origin_ns += elapsed - elapsed % timer_period();
  } else {
    s_.timer_armed = false;
    s_.deadline = s_.deadline_ns = 0;
  }
  local_interrupt(s_.lvt_timer);
}

void LocalApic::arm() {
  if (!expiry_shows()) alarm_.cancel();
  else if (s_.deadline != 0) alarm_.at(s_.deadline_ns);
  else if (s_.timer_armed) alarm_.at(s_.timer_origin_ns + timer_period());
  else alarm_.cancel();
}

void LocalApic::disarm() {
  s_.timer_armed = false;
  s_.timer_initial = 0;
  s_.deadline = s_.deadline_ns = 0;
}

u64 LocalApic::deadline_time(u64 deadline, u64 tsc_offset, u64 now, u64 tsc_hz) {
  const u64 ticks = mul_div(now, tsc_hz, kSecond);
  const u64 tsc = ticks + tsc_offset;
  if (deadline <= tsc) return now;
  const u128 target = static_cast<u128>(ticks) + (deadline - tsc);
  return static_cast<u64>(std::min<u128>((target * kSecond + (tsc_hz - 1)) / tsc_hz, Clock::kNever));
}

void LocalApic::set_deadline(u64 deadline, u64 tsc_offset) {
  s_.deadline = deadline;
  s_.deadline_ns = deadline == 0 ? 0 : deadline_time(deadline, tsc_offset, clock_.now(), tsc_hz_);
}

void LocalApic::tsc_offset_changed(u64 tsc_offset) {
  if (s_.deadline == 0) return;
  set_deadline(s_.deadline, tsc_offset);
  arm();
}

void LocalApic::write_timer_lvt(u32 value) {
  const u32 old_mode = timer_mode();
  s_.lvt_timer = value;
  if (old_mode != timer_mode() && (old_mode == kDeadline || timer_mode() == kDeadline)) disarm();
}

}  // namespace stasis
