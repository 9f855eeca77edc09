// stasis resume: the machine in a file goes on.
#include <CLI/CLI.hpp>

#include <memory>

#include "cli/commands.hpp"
#include "cli/machine_options.hpp"
#include "cli/output.hpp"

namespace stasis::cli {
namespace {

struct ResumeOptions {
  MachineOptions machine;
  std::string file;
};

Result<int> resume(const ResumeOptions& options) {
  STASIS_TRY_SET(const SessionOptions session, session_options(options.machine, true));
  STASIS_TRY_SET(const EngineOptions engine, engine_options(options.machine));
  const std::string file = absolute_path(options.file);
  return run_session(session, [&](const MachineSinks& sinks) { return Machine::restore(file, sinks, engine); });
}

}  // namespace

void add_resume(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("resume", "Wake the machine in a snapshot; the file is not changed");
  const auto options = std::make_shared<ResumeOptions>();
  command->add_option("FILE", options->file, "The snapshot; it holds the whole machine")->required();
  add_machine_options(*command, options->machine);
  command->footer(
      "Exit status: as of 'stasis run'. A console file is continued, not begun anew.\n"
      "Examples:\n"
      "  stasis resume web.stasis\n"
      "  for i in 1 2 3; do stasis resume web.stasis --name web$i --detach; done\n"
      "  stasis resume web.stasis --console none --stop-at 5000000000 --suspend-to later.stasis");
  command->callback([options, &status] {
    const auto result = resume(*options);
    status = result ? *result : refuse_run(result.error(), options->machine.json);
  });
}

}  // namespace stasis::cli
