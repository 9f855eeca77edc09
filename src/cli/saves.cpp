// stasis checkpoint and suspend: a save with progress on a terminal; Ctrl-C cancels it and the guest goes on.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "control/client.hpp"
#include "host/host_clock.hpp"
#include "host/signals.hpp"
#include "host/terminal.hpp"

namespace stasis::cli {
namespace {

struct SaveOptions {
  std::string verb, name, file;
  bool json = false;
};

constexpr std::chrono::milliseconds kPollTime{200};

// Until the save is done; asks on a connection of its own.
void show_progress(const control::Client& client, const std::future<Result<std::string>>& save) {
  const u64 began = host::monotonic_ns();
  bool shown = false;
  while (save.wait_for(kPollTime) != std::future_status::ready) {
    const auto report = client.info(1);
    if (!report || !report->vm.save.active) continue;
    const auto& status = report->vm.save;
    fmt::print(stderr, "\r\033[Ksaving {}", progress_line(status.bytes_done, status.bytes_total, host::monotonic_ns() - began));
    shown = true;
  }
  if (shown) std::fputs("\r\033[K", stderr);
}

Result<std::string> ask(const control::Client& client, const SaveOptions& options, const std::string& path) {
  std::atomic<bool> cancelled{false};
  STASIS_TRY_SET(const auto signals, host::SignalWatcher::start([&](int number) {
    if (cancelled.exchange(true)) ::_exit(128 + number);
    (void)client.call("DELETE", "/v1/machine/save", {}, 10);
  }));
  auto save = std::async(std::launch::async, [&] {
    return client.call("PUT", "/v1/machine/" + options.verb, control::save_request_to_json(path, ""));
  });
  if (host::is_terminal(STDERR_FILENO)) show_progress(client, save);
  return save.get();
}

Result<> run(const SaveOptions& options) {
  host::prepare_signals();
  STASIS_TRY_SET(const control::Client client, control::Client::open(options.name));
  const std::string path = absolute_path(options.file);
  STASIS_TRY_SET(const std::string answer, ask(client, options, path));
  if (options.json) return print(answer), Result<>{};
  STASIS_TRY_SET(const SaveReport report, control::save_report_from(answer, client.object()));
  print(fmt::format("{}: saved to {} ({}, {} on disk, digest {})\n", options.name, path, human_bytes(report.file_bytes),
                    human_bytes(report.stored_bytes), report.digest));
  return {};
}

void add(CLI::App& app, int& status, const char* verb, const char* help, const char* footer) {
  auto* command = app.add_subcommand(verb, help);
  const auto options = std::make_shared<SaveOptions>();
  options->verb = verb;
  command->add_option("NAME", options->name, "The machine")->required();
  command->add_option("FILE", options->file, "The snapshot; replaced as a whole when the save is complete")->required();
  command->add_flag("--json", options->json, "Sizes and digests for scripts; errors as JSON too");
  command->footer(footer);
  command->callback([options, &status] {
    const auto done = run(*options);
    if (done) return;
    print_error(done.error(), options->json);
    status = status_of(done.error());
  });
}

}  // namespace

void add_saves(CLI::App& app, int& status) {
  add(app, status, "checkpoint", "Save a machine and let it go on",
      "Ctrl-C cancels; FILE is then as it was.\nExample:\n  stasis checkpoint web web.stasis");
  add(app, status, "suspend", "Save a machine and end it",
      "Ctrl-C cancels, and the machine goes on.\nExample:\n  stasis suspend web web.stasis && stasis resume web.stasis");
}

}  // namespace stasis::cli
