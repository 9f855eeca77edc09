// The exit statuses of every command; docs/cli.md tells them to people.
#pragma once

#include "machine/vm.hpp"

namespace stasis::cli {

// run and resume. All even, so that --debug-exit, whose statuses are odd, can be told from every one of them.
enum RunStatus : int {
  kPoweredOff = 0,
  kUsage = 2,       // of every command
  kSuspended = 4,
  kStopped = 6,
  kRebooted = 8,
  kCrashed = 10,
  kOurError = 12,
};
// All other commands: 0, kUsage, or
inline constexpr int kFailed = 1;
// snapshot diff, in which 1 has a meaning: 0 equal, kDifferent, kUsage, or kNotCompared.
inline constexpr int kDifferent = 1, kNotCompared = 3;

int status_of(const Ending& ending);   // debug_exit: (value << 1) | 1, of which the host keeps eight bits
int run_status_of(const Error& error);   // before there is a machine: kUsage or kOurError
int status_of(const Error& error);       // of the other commands

}  // namespace stasis::cli
