// Work on a file, seen by a person: a line on a terminal with bytes, rate and time left, and Ctrl-C to cancel.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/error.hpp"
#include "host/signals.hpp"
#include "snapshot/image.hpp"

namespace stasis::cli {

// One per process, made before its first thread. The first signal cancels: at once while there is nothing to clean up, else at
// the next step. A second one ends the process on the spot.
class Progress {
 public:
  static Result<std::unique_ptr<Progress>> start();
  ~Progress();

  // What comes now. `doing`: "checking", "writing".
  snapshot::SaveProgress* phase(std::string doing);
  // From now on a signal must be noticed, not die of: a file is being written.
  void must_clean_up() { cleaning_ = true; }
  bool cancelled() const { return cancelled_; }

 private:
  Progress() = default;
  bool step(u64 done, u64 total);

  std::string doing_;
  bool terminal_ = false, shown_ = false;
  u64 began_ns_ = 0, told_ns_ = 0, last_done_ = 0, last_total_ = 0;
  std::atomic<bool> cancelled_{false}, cleaning_{false};
  snapshot::SaveProgress hook_;
  std::unique_ptr<host::SignalWatcher> signals_;  // last: its thread uses the others
};

}  // namespace stasis::cli
