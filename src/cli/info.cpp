// stasis info: one machine.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <memory>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "control/client.hpp"

namespace stasis::cli {
namespace {

struct InfoOptions {
  std::string name;
  bool json = false;
};

void print_report(const control::MachineReport& report) {
  const VmInfo& vm = report.vm;
  std::string out = fmt::format("{}: {}\n", vm.name, name_of(vm.state));
  const auto line = [&](const char* what, const std::string& value) { out += fmt::format("  {:14} {}\n", what, value); };
  line("process", fmt::format("{} (stasis {})", report.pid, report.version));
  line("engine", fmt::format("{} ({})", vm.engine, vm.engine_reason));
  line("memory", human_bytes(vm.config.memory_bytes));
  line("cpus", fmt::format("{}", vm.config.cpus));
  line("instructions", human_count(vm.retired));
  line("guest time", human_seconds(vm.guest_ns));
  line("pace", vm.pace == Pace::fast ? "fast" : "host");
  if (!vm.restored_from.empty()) line("restored from", vm.restored_from);
  if (vm.save.active)
    line("saving to", fmt::format("{} ({} of {})", vm.save.path, human_bytes(vm.save.bytes_done), human_bytes(vm.save.bytes_total)));
  if (vm.problem) line("problem", printable(vm.problem->text()));
  print(out);
}

Result<> info(const InfoOptions& options) {
  STASIS_TRY_SET(const control::Client client, control::Client::open(options.name));
  STASIS_TRY_SET(const control::MachineReport report, client.info());
  if (options.json) print(control::to_json(report));
  else print_report(report);
  return {};
}

}  // namespace

void add_info(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("info", "What a machine is and does");
  const auto options = std::make_shared<InfoOptions>();
  command->add_option("NAME", options->name, "The machine")->required();
  command->add_flag("--json", options->json, "For scripts");
  command->footer("Example:\n  stasis info web --json | jq .state");
  command->callback([options, &status] {
    const auto done = info(*options);
    if (done) return;
    print_error(done.error(), options->json);
    status = status_of(done.error());
  });
}

}  // namespace stasis::cli
