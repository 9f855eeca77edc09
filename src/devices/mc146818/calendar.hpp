// The ten time, date and alarm bytes of an MC146818 and the century byte, as a calendar.
#pragma once

#include <array>

#include "base/types.hpp"

namespace stasis::rtc {

inline constexpr u8 kBinary = 0x04, k24Hours = 0x02;  // bits of register B

// By index: seconds, its alarm, minutes, its alarm, hours, its alarm, day of the week (Sunday is 1), day, month, year.
using TimeBytes = std::array<u8, 10>;
inline constexpr u32 kSecondsPerDay = 86'400;

// Writes the moment (seconds since 1970) in the format of register B; leaves the alarm bytes.
void set_time(TimeBytes& bytes, u8& century, u8 register_b, u64 unix_seconds);
// Counts on, as the chip does; bytes that are no time are taken for the nearest one. Constant time for any `seconds`.
void count_on(TimeBytes& bytes, u8& century, u8 register_b, u64 seconds);
// Seconds until the alarm bytes (0xC0 and above: any) first match, 1 to kSecondsPerDay; 0 when they never do.
u32 seconds_to_alarm(const TimeBytes& bytes, u8 register_b);

}  // namespace stasis::rtc
