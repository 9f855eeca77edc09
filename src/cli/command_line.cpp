// Finds the command, says what is wrong with a command line.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/log.hpp"
#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "control/runtime_dir.hpp"

namespace stasis::cli {
namespace {

// The command that a bad line meant, for the hint: "stasis snapshot show".
std::string meant_command(const CLI::App& app) {
  std::string words = app.get_name();
  for (const CLI::App* chosen : app.get_subcommands()) words += " " + meant_command(*chosen);
  return words;
}

int explain(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);  // --help
  std::string message = error.what();
  // "A subcommand is required" is true of a mistyped one too, but no help.
  if (const auto extras = app.remaining(true); !extras.empty() && error.get_name() == "RequiredError")
    message = fmt::format("there is no '{}'", extras.front());
  print_error({ErrorCode::usage, "command line", message, fmt::format("see '{} --help'", meant_command(app))}, false);
  return kUsage;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app("Stasis: virtual machines that can be put to sleep and woken anywhere.", "stasis");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  bool verbose = false;
  app.add_flag("-v,--verbose", verbose, "Notices about what the guest and the host do, on standard error");
  app.footer("Each machine listens in " + control::runtime_dir() + " (set STASIS_RUNTIME_DIR to change it).\n"
             "Documentation: docs/cli.md; for other languages: docs/control.yaml.");
  app.parse_complete_callback([&] {
    if (verbose) log::set_level(log::Level::info);
  });
  int status = 0;
  add_run(app, status);
  add_resume(app, status);
  add_list(app, status);
  add_info(app, status);
  add_verbs(app, status);
  add_console(app, status);
  add_saves(app, status);
  add_snapshot(app, status);
  add_version(app, status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return explain(app, error);
  }
  return status == 0 && output_failed() ? kFailed : status;
}

}  // namespace stasis::cli
