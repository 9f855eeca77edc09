// Calendar arithmetic on the chip's bytes: BCD or binary, 12 or 24 hours.
#include "devices/mc146818/calendar.hpp"

#include <algorithm>
#include <chrono>

namespace stasis::rtc {
namespace {

namespace chrono = std::chrono;

u32 decode(u8 byte, u8 b) { return b & kBinary ? byte : (byte >> 4) * 10u + (byte & 15); }
u8 encode(u32 value, u8 b) { return static_cast<u8>(b & kBinary ? value : value / 10 << 4 | value % 10); }

u32 decode_hours(u8 byte, u8 b) {
  if (b & k24Hours) return decode(byte, b);
  const u32 hours = decode(byte & 0x7f, b);  // bit 7: afternoon
  return (hours == 12 ? 0 : hours) + (byte & 0x80 ? 12 : 0);
}

u8 encode_hours(u32 hours, u8 b) {
  if (b & k24Hours) return encode(hours, b);
  return static_cast<u8>(encode(hours % 12 ? hours % 12 : 12, b) | (hours >= 12 ? 0x80 : 0));
}

u32 second_of_day(const TimeBytes& t, u8 b) {
  return std::min(decode_hours(t[4], b), 23u) * 3600 + std::min(decode(t[2], b), 59u) * 60 + std::min(decode(t[0], b), 59u);
}

void set_second_of_day(TimeBytes& t, u8 b, u32 second) {
  t[0] = encode(second % 60, b);
  t[2] = encode(second / 60 % 60, b);
  t[4] = encode_hours(second / 3600, b);
}

void set_date(TimeBytes& t, u8& century, u8 b, chrono::sys_days day) {
  const chrono::year_month_day date(day);
  const u32 year = static_cast<u32>(static_cast<int>(date.year())) % 10'000;
  t[7] = encode(static_cast<unsigned>(date.day()), b);
  t[8] = encode(static_cast<unsigned>(date.month()), b);
  t[9] = encode(year % 100, b);
  century = encode(year / 100, b);
}

chrono::sys_days date_of(const TimeBytes& t, u8 century, u8 b) {
  const chrono::year year(static_cast<int>((decode(century, b) * 100 + decode(t[9], b)) % 10'000));
  const chrono::month month(std::clamp(decode(t[8], b), 1u, 12u));
  const u32 last = static_cast<unsigned>((year / month / chrono::last).day());
  return chrono::sys_days(year / month / chrono::day(std::clamp(decode(t[7], b), 1u, last)));
}

}  // namespace

void set_time(TimeBytes& t, u8& century, u8 b, u64 unix_seconds) {
  const u64 days = unix_seconds / kSecondsPerDay;
  set_second_of_day(t, b, static_cast<u32>(unix_seconds % kSecondsPerDay));
  t[6] = encode(static_cast<u32>((days + 4) % 7) + 1, b);  // 1970 began on a Thursday
  set_date(t, century, b, chrono::sys_days(chrono::days(days)));
}

void count_on(TimeBytes& t, u8& century, u8 b, u64 seconds) {
  const u64 second = second_of_day(t, b) + seconds;
  const u64 days = second / kSecondsPerDay;
  set_second_of_day(t, b, static_cast<u32>(second % kSecondsPerDay));
  if (!days) return;
  t[6] = encode(static_cast<u32>((decode(t[6], b) + 6 + days) % 7) + 1, b);
  set_date(t, century, b, date_of(t, century, b) + chrono::days(days));
}

u32 seconds_to_alarm(const TimeBytes& t, u8 b) {
  constexpr u8 kAny = 0xc0;
  const auto matches = [](u8 alarm, u32 wanted, u32 now) { return (alarm & kAny) == kAny || wanted == now; };
  const u32 hour = decode_hours(t[5], b), minute = decode(t[3], b), second = decode(t[1], b);
  const u32 now = second_of_day(t, b);
  // Skips a whole hour or minute that cannot match: some 24 + 2 * 60 steps at the most.
  for (u32 at = now + 1; at <= now + kSecondsPerDay;) {
    if (!matches(t[5], hour, at / 3600 % 24)) at = (at / 3600 + 1) * 3600;
    else if (!matches(t[3], minute, at / 60 % 60)) at = (at / 60 + 1) * 60;
    else if (!matches(t[1], second, at % 60)) ++at;
    else return at - now;
  }
  return 0;
}

}  // namespace stasis::rtc
