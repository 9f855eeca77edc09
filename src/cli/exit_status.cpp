// From endings and errors to exit statuses.
#include "cli/exit_status.hpp"

namespace stasis::cli {

int status_of(const Ending& ending) {
  switch (ending.outcome) {
    case Outcome::powered_off: return kPoweredOff;
    case Outcome::rebooted: return kRebooted;
    case Outcome::suspended: return kSuspended;
    case Outcome::stopped: return kStopped;
    case Outcome::crashed: return kCrashed;
    case Outcome::debug_exit: return static_cast<int>(((ending.debug_status << 1) | 1) & 0xff);
    case Outcome::failed: return run_status_of(ending.error);
  }
  return kOurError;
}

int run_status_of(const Error& error) { return error.code == ErrorCode::usage ? kUsage : kOurError; }
int status_of(const Error& error) { return error.code == ErrorCode::usage ? kUsage : kFailed; }

}  // namespace stasis::cli
