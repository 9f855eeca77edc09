// stasis list: every machine of this user.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <memory>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "control/client.hpp"

namespace stasis::cli {
namespace {

constexpr unsigned kSeconds = 2;  // a stopped process must not hold up the list

struct Entry {
  std::string name;
  Result<control::MachineReport> report;
};

Entry ask(const std::string& name, const std::string& dir) {
  const auto client = control::Client::open(name, dir);
  if (!client) return {name, std::unexpected(client.error())};
  return {name, client->info(kSeconds)};
}

std::string why_not(const Error& error) { return error.code == ErrorCode::not_found ? "stale" : "no answer"; }

void print_table(const std::vector<Entry>& entries) {
  print(fmt::format("{:20} {:>8} {:10} {:>10} {:>4} {:>20} {:>14}\n", "NAME", "PID", "STATE", "MEMORY", "CPUS",
                    "INSTRUCTIONS", "GUEST TIME"));
  for (const auto& [name, report] : entries) {
    if (!report) {
      print(fmt::format("{:20} {:>8} {:10}\n", name, "-", why_not(report.error())));
      continue;
    }
    const VmInfo& vm = report->vm;
    print(fmt::format("{:20} {:>8} {:10} {:>10} {:>4} {:>20} {:>14}{}\n", name, report->pid, name_of(vm.state),
                      human_bytes(vm.config.memory_bytes), vm.config.cpus, human_count(vm.retired), human_seconds(vm.guest_ns),
                      vm.problem ? fmt::format("  a problem: see 'stasis info {}'", name) : ""));
  }
}

void print_json(const std::vector<Entry>& entries) {
  std::string out = "[";
  for (const auto& [name, report] : entries) {
    out += out.size() > 1 ? ",\n" : "\n";
    out += report ? control::to_json(*report) : fmt::format("{{\"name\": \"{}\", \"state\": \"{}\"}}\n", name, why_not(report.error()));
    out.pop_back();
  }
  print(out + "\n]\n");
}

}  // namespace

void add_list(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("list", "All running machines of this user");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "An array of what 'stasis info --json' prints");
  command->footer("'stale' is a socket whose process died; the next machine of that name replaces it.\n"
                  "Example:\n  stasis list --json | jq -r '.[].name'");
  command->callback([json, &status] {
    const std::string dir = control::runtime_dir();
    const auto names = control::names_in(dir);
    if (!names) {
      print_error(names.error(), *json);
      status = kFailed;
      return;
    }
    std::vector<Entry> entries;
    for (const std::string& name : *names) entries.push_back(ask(name, dir));
    *json ? print_json(entries) : print_table(entries);
  });
}

}  // namespace stasis::cli
