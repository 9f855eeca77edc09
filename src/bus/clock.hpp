// The guest clock and its alarms: the only time that devices know.
//
// The clock is passive: whoever runs the machine (an engine, a test) moves it forward before
// a device is touched. It stands still while the machine is paused or saved.
#pragma once

#include <functional>
#include <vector>

#include "base/types.hpp"

namespace stasis {

class Alarm;

class Clock {
 public:
  static constexpr u64 kNever = ~0ull;

  u64 now() const { return now_; }  // ns of guest time since power-on
  // Moves to `time` (not before now()). Alarms due on the way fire in order of time, then of
  // creation, each with now() equal to its own time.
  void advance_to(u64 time);
  void advance(u64 nanoseconds) { advance_to(now_ + nanoseconds); }
  u64 next_alarm() const { return next_; }  // kNever when none is set
  // Restoring: sets the time without firing anything, and forgets all alarms (settle() sets them again).
  void restore(u64 time);

 private:
  friend class Alarm;
  void changed();
  std::vector<Alarm*> alarms_;  // in order of creation
  u64 now_ = 0;
  u64 next_ = kNever;
};

// Calls back once when guest time reaches at(). Not state: a device sets it again in settle().
class Alarm {
 public:
  Alarm(Clock& clock, std::function<void()> action);
  ~Alarm();
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  // A time in the past fires at the next advance. Setting the same time again changes nothing.
  void at(u64 time);
  void cancel() { at(Clock::kNever); }
  u64 time() const { return time_; }

 private:
  friend class Clock;
  Clock& clock_;
  std::function<void()> action_;
  u64 time_ = Clock::kNever;
};

}  // namespace stasis
