// The options that run and resume have in common.
#pragma once

#include <optional>
#include <string>

#include "cli/session.hpp"

namespace CLI {
class App;
}

namespace stasis::cli {

struct MachineOptions {  // as given on the command line; absent: not given
  std::optional<std::string> name, console, debugcon, pace, suspend_to, engine;
  std::optional<u64> stop_at;
  bool detach = false, no_reboot = false, paused = false, json = false;
};
void add_machine_options(CLI::App& command, MachineOptions& options);

// The engine that is asked for. Counting instructions and skipping idle time are the soft engine's: they decide `auto`.
Result<EngineOptions> engine_options(const MachineOptions& options);

// Checks them together. continue_files: a console file is continued instead of begun anew.
Result<SessionOptions> session_options(const MachineOptions& options, bool continue_files);

}  // namespace stasis::cli
