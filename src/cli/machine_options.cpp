// Common options: their help, their defaults, and which exclude each other.
#include "cli/machine_options.hpp"

#include <CLI/CLI.hpp>

#include <filesystem>

#include "cli/output.hpp"
#include "control/runtime_dir.hpp"

namespace stasis::cli {
namespace {

// Paths are made absolute here: a detached machine has no working directory to speak of.
Result<host::ConsoleSpec> console_spec(const std::string& text, const std::string& option, bool detach, bool continue_file) {
  STASIS_TRY_SET(host::ConsoleSpec spec, host::parse_console(text, option));
  if (spec.kind == host::ConsoleKind::stdio && detach)
    return fail(ErrorCode::usage, option, "'stdio' does not go with --detach, which lets go of the terminal",
                "leave it out and use 'stasis console NAME', or write to file:PATH");
  if (!spec.path.empty()) spec.path = absolute_path(spec.path);
  spec.append = continue_file;
  return spec;
}

Result<Pace> pace_from(const MachineOptions& options) {
  if (!options.pace) return options.stop_at ? Pace::fast : Pace::host;
  if (*options.pace == "fast") return Pace::fast;
  if (*options.pace == "host") return Pace::host;
  return fail(ErrorCode::usage, "--pace", "'" + *options.pace + "' is not a pace", "write host or fast");
}

// Said before the work is done instead of after it.
Result<> check_target(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    return fail(ErrorCode::usage, "--suspend-to", path + " is a directory", "name a file in it");
  if (!std::filesystem::is_directory(std::filesystem::path(path).parent_path(), ignored))
    return fail(ErrorCode::usage, "--suspend-to", "there is no folder for " + path, "create it first");
  return {};
}

}  // namespace

void add_machine_options(CLI::App& command, MachineOptions& options) {
  command.add_option("--name", options.name, "What the other commands call the machine [vm-PID]")->option_text("NAME");
  command.add_option("--console", options.console, "The far end of COM1: stdio, file:PATH, unix:PATH or none [stdio; with --detach none]")->option_text("WHERE");
  command.add_option("--debugcon", options.debugcon, "Where port 0xE9 goes: stdio, file:PATH or none [none]")->option_text("WHERE");
  command.add_option("--engine", options.engine, "auto (kvm where kvm_intel or kvm_amd is loaded), soft or kvm [auto]")->option_text("auto|soft|kvm");
  command.add_flag("--detach", options.detach, "Return when the machine runs in the background; prints its name");
  command.add_option("--stop-at", options.stop_at, "Stop at exactly this count of instructions since power-on")->option_text("COUNT");
  command.add_option("--suspend-to", options.suspend_to, "With --stop-at: save there to this file")->option_text("FILE");
  command.add_option("--pace", options.pace, "host: guest time never runs ahead of host time; fast: idle time is skipped [host; with --stop-at fast]")->option_text("host|fast");
  command.add_flag("--no-reboot", options.no_reboot, "A reboot ends the machine");
  command.add_flag("--paused", options.paused, "Wait for 'stasis unpause' before the first instruction");
  command.add_flag("--json", options.json, "At the end one line of JSON on standard output; errors as JSON too");
}

Result<EngineOptions> engine_options(const MachineOptions& options) {
  EngineOptions engine{.engine = options.engine.value_or("auto")};
  if (engine.engine != "auto" && engine.engine != "soft" && engine.engine != "kvm")
    return fail(ErrorCode::usage, "--engine", "'" + engine.engine + "' is not an engine", "write auto, soft or kvm");
  const bool counts = options.stop_at.has_value(), skips = options.pace && *options.pace == "fast";
  if (counts) engine.soft_because = "--stop-at counts instructions, which only this engine does";
  else if (skips) engine.soft_because = "--pace fast skips idle time, which only this engine does";
  if (engine.engine == "kvm" && counts)
    return fail(ErrorCode::usage, "--stop-at", "needs an engine that counts instructions, and kvm does not", "leave it out, or use --engine soft");
  if (engine.engine == "kvm" && skips)
    return fail(ErrorCode::usage, "--pace", "'fast' is not possible with --engine kvm, where time is the host's", "leave it out, or use --engine soft");
  return engine;
}

Result<SessionOptions> session_options(const MachineOptions& options, bool continue_files) {
  SessionOptions session{.name = options.name.value_or(""), .console = {}, .debug_console = {}, .vm = {},
                         .detach = options.detach, .json = options.json};
  if (options.name) STASIS_TRY(control::check_name(*options.name));
  const std::string console = options.console.value_or(options.detach ? "none" : "stdio");
  STASIS_TRY_SET(session.console, console_spec(console, "--console", options.detach, continue_files));
  STASIS_TRY_SET(session.debug_console, console_spec(options.debugcon.value_or("none"), "--debugcon", options.detach, continue_files));
  if (session.debug_console.kind == host::ConsoleKind::unix_socket)
    return fail(ErrorCode::usage, "--debugcon", "'" + *options.debugcon + "' is not possible", "write stdio, file:PATH or none");
  if (options.suspend_to && !options.stop_at)
    return fail(ErrorCode::usage, "--suspend-to", "needs --stop-at, which says when",
                "give --stop-at COUNT, or use 'stasis suspend NAME FILE' at any moment");
  if (options.suspend_to && options.suspend_to->empty())
    return fail(ErrorCode::usage, "--suspend-to", "names no file", "give it a path");
  STASIS_TRY_SET(session.vm.pace, pace_from(options));
  session.vm.stop_at = options.stop_at;
  if (options.suspend_to) {
    session.vm.suspend_to = absolute_path(*options.suspend_to);
    STASIS_TRY(check_target(session.vm.suspend_to));
  }
  session.vm.no_reboot = options.no_reboot;
  session.vm.paused = options.paused;
  return session;
}

}  // namespace stasis::cli
