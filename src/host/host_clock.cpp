// The host's clocks.
#include "host/host_clock.hpp"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace stasis::host {

u64 monotonic_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

u64 wall_clock_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<u64>(std::max<time_t>(t.tv_sec, 0));
}

std::string wall_clock_text() {
  const time_t when = static_cast<time_t>(wall_clock_seconds());
  std::tm parts{};
  ::gmtime_r(&when, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

bool SystemHostClock::sleep_until(u64 deadline_ns) {
  std::unique_lock lock(mutex_);
  while (!woken_) {
    const u64 now = monotonic_ns();
    if (now >= deadline_ns) break;
    // In steps of an hour at most: a deadline of "never" must not overflow the library's arithmetic.
    const u64 step = std::min<u64>(deadline_ns - now, 3600ull * 1'000'000'000);
    signal_.wait_for(lock, std::chrono::nanoseconds(step));
  }
  return !std::exchange(woken_, false);
}

void SystemHostClock::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  signal_.notify_all();
}

bool FakeHostClock::sleep_until(u64 deadline_ns) {
  if (std::exchange(woken_, false)) return false;
  now_ = std::max(now_, deadline_ns);
  return true;
}

}  // namespace stasis::host
