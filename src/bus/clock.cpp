// The guest clock: alarms are few (tens), so a linear scan is the whole queue.
#include "bus/clock.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace stasis {

void Clock::advance_to(u64 time) {
  STASIS_ASSERT(time >= now_);
  while (next_ <= time) {
    Alarm* due = nullptr;
    for (Alarm* alarm : alarms_)
      if (alarm->time_ == next_) {
        due = alarm;
        break;
      }
    now_ = std::max(now_, next_);
    due->time_ = kNever;
    changed();
    due->action_();
  }
  now_ = time;
}

void Clock::restore(u64 time) {
  now_ = time;
  for (Alarm* alarm : alarms_) alarm->time_ = kNever;
  next_ = kNever;
}

void Clock::changed() {
  next_ = kNever;
  for (const Alarm* alarm : alarms_) next_ = std::min(next_, alarm->time_);
}

Alarm::Alarm(Clock& clock, std::function<void()> action) : clock_(clock), action_(std::move(action)) {
  clock_.alarms_.push_back(this);
}

Alarm::~Alarm() {
  std::erase(clock_.alarms_, this);
  clock_.changed();
}

void Alarm::at(u64 time) {
  if (time == time_) return;
  const u64 old = time_;
  time_ = time;
  if (time < clock_.next_) clock_.next_ = time;
  else if (old == clock_.next_) clock_.changed();
}

}  // namespace stasis
