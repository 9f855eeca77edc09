// The host's clocks, and a clock that can be slept on; the only place where the outside's time comes in.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>

#include "base/types.hpp"

namespace stasis::host {

u64 monotonic_ns();        // never steps; its zero means nothing
u64 wall_clock_seconds();  // since 1970-01-01 UTC
std::string wall_clock_text();  // the same as "2025-01-31T12:00:00Z"

// A monotonic clock with a sleep that another thread can end early.
class HostClock {
 public:
  virtual ~HostClock() = default;
  virtual u64 now_ns() const = 0;
  // Returns at `deadline_ns`, or at once when wake() is or was called since the last sleep ended.
  // True: the deadline was reached. False: woken.
  virtual bool sleep_until(u64 deadline_ns) = 0;
  virtual void wake() = 0;  // from any thread
};

class SystemHostClock final : public HostClock {
 public:
  u64 now_ns() const override { return monotonic_ns(); }
  bool sleep_until(u64 deadline_ns) override;
  void wake() override;

 private:
  std::mutex mutex_;
  std::condition_variable signal_;
  bool woken_ = false;
};

// For tests, single-threaded: time passes only by advance() and by sleeping, which takes no time at all.
class FakeHostClock final : public HostClock {
 public:
  u64 now_ns() const override { return now_; }
  bool sleep_until(u64 deadline_ns) override;
  void wake() override { woken_ = true; }
  void advance(u64 ns) { now_ += ns; }

 private:
  u64 now_ = 0;
  bool woken_ = false;
};

}  // namespace stasis::host
