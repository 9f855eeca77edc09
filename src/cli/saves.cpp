// stasis checkpoint and suspend: a save with progress on a terminal; Ctrl-C cancels it and the guest goes on.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>
#include <optional>
#include <thread>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "cli/stream_pump.hpp"
#include "control/client.hpp"
#include "host/host_clock.hpp"
#include "host/signals.hpp"
#include "host/terminal.hpp"
#include "machine/releases.hpp"

namespace stasis::cli {
namespace {

struct SaveOptions {
  std::string verb, name, file;
  std::optional<std::string> encoding, encrypt_key, incremental_from, decrypt_key, compat;
  std::vector<std::string> parents;
  std::optional<int> level;
  bool json = false;
  bool stream() const { return file == "-"; }
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

// Said here, where the words of the command line are known. What is packed by nature is packed without asking.
Result<SaveRequest> request_from(const SaveOptions& options) {
  SaveRequest out{.path = options.stream() ? "" : absolute_path(options.file), .stream = options.stream()};
  if (options.encoding && *options.encoding != "mapped" && *options.encoding != "packed")
    return fail(ErrorCode::usage, "--encoding", "'" + *options.encoding + "' is not an encoding", "write mapped or packed");
  const bool mapped = options.encoding && *options.encoding == "mapped";
  if (mapped && options.encrypt_key) return fail(ErrorCode::usage, "--encoding", "mapped cannot be encrypted", "use --encoding packed");
  if (mapped && options.level) return fail(ErrorCode::usage, "--level", "is for the packed encoding", "use --encoding packed, or leave it out");
  if (options.level && (*options.level < 0 || *options.level > snapshot::kMostLevel))
    return fail(ErrorCode::usage, "--level", fmt::format("{} is not a level", *options.level), fmt::format("write 0 (not compressed) to {}", snapshot::kMostLevel));
  if (options.decrypt_key && !options.incremental_from)
    return fail(ErrorCode::usage, "--decrypt-key", "is for the parent of an incremental snapshot", "give --incremental-from too, or leave it out");
  if (!options.parents.empty() && !options.incremental_from)
    return fail(ErrorCode::usage, "--parent", "is for the parent of an incremental snapshot", "give --incremental-from too, or leave it out");
  for (const std::string& parent : options.parents) out.parents.push_back(absolute_path(parent));
  if (!mapped && (options.encoding || options.encrypt_key || options.level || options.stream())) out.encoding = snapshot::Encoding::packed;
  out.level = options.level.value_or(1);
  if (options.encrypt_key) out.encrypt_key = absolute_path(*options.encrypt_key);
  if (options.decrypt_key) out.decrypt_key = absolute_path(*options.decrypt_key);
  if (options.incremental_from) out.incremental_from = absolute_path(*options.incremental_from);
  if (options.compat) {
    STASIS_TRY(release_named(*options.compat));
    out.compat = *options.compat;
  }
  return out;
}

constexpr unsigned kConfirmSeconds = 10;

Result<> write_through() {
  if (::fsync(STDOUT_FILENO) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP) return {};  // a pipe has nothing to write through
  return fail_errno("standard output", "write to disk", errno);
}

Result<std::string> ask(const control::Client& client, const SaveOptions& options, SaveRequest request) {
  std::optional<StreamPump> pump;
  if (options.stream()) {
    STASIS_TRY_SET(StreamPump made, StreamPump::create());
    pump.emplace(std::move(made));
    request.path = pump->path();
    request.confirm = options.verb == "suspend";
  }
  std::atomic<bool> cancelled{false}, ended{false};
  STASIS_TRY_SET(const auto signals, host::SignalWatcher::start([&](int number) {
    if (cancelled.exchange(true)) {
      if (pump) pump->remove();
      ::_exit(128 + number);
    }
    for (int tries = 0; tries < 50 && !client.call("DELETE", "/v1/machine/save", {}, 10) && !ended; ++tries)  // it may not have begun yet
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }));
  std::atomic<bool> failed{false};
  auto save = std::async(std::launch::async, [&] {
    auto answer = client.call("PUT", "/v1/machine/" + options.verb, control::save_request_to_json(request));
    failed = !answer, ended = true;
    return answer;
  });
  const auto returned = [&] { return save.wait_for(std::chrono::seconds(0)) == std::future_status::ready; };
  const auto written = [&] {
    if (returned() || !request.confirm) return returned();
    const auto report = client.info();
    return report && report->vm.save.written && report->vm.save.path == request.path;  // it may be another's
  };
  Result<> pumped;
  std::optional<Error> unconfirmed;
  if (pump) {
    pumped = pump->run(written, [&] { return failed.load(); });
    if (pumped) pumped = write_through();
    if (!pumped) {
      pump->close();  // the machine notices, and goes on
    } else if (request.confirm && !returned()) {
      const auto told = client.call("PUT", "/v1/machine/save", control::confirmation_to_json(request.path), kConfirmSeconds);
      if (!told) unconfirmed = told.error(), pump->close();  // had it come through nevertheless, that is what counts
    }
  } else if (host::is_terminal(STDERR_FILENO)) {
    show_progress(client, save);
  }
  auto answer = save.get();
  if (!pumped) return std::unexpected(std::move(pumped).error());
  if (!answer && unconfirmed && unconfirmed->code != ErrorCode::state) return std::unexpected(std::move(*unconfirmed));  // else the save's own error says more
  return answer;
}

Result<> run(const SaveOptions& options) {
  host::prepare_signals();
  STASIS_TRY_SET(const SaveRequest request, request_from(options));
  STASIS_TRY_SET(const control::Client client, control::Client::open(options.name));
  STASIS_TRY_SET(const std::string answer, ask(client, options, request));
  std::string text = answer;
  if (!options.json) {
    STASIS_TRY_SET(const SaveReport report, control::save_report_from(answer, client.object()));
    text = fmt::format("{}: saved to {} ({}, {} on disk, digest {})\n", options.name, options.stream() ? "standard output" : request.path,
                       human_bytes(report.file_bytes), human_bytes(report.stored_bytes), report.digest);
  }
  if (options.stream()) std::fputs(text.c_str(), stderr);  // standard output is the snapshot's
  else print(text);
  return {};
}

void add(CLI::App& app, int& status, const char* verb, const char* help, const char* footer) {
  auto* command = app.add_subcommand(verb, help);
  const auto options = std::make_shared<SaveOptions>();
  options->verb = verb;
  command->add_option("NAME", options->name, "The machine")->required();
  command->add_option("FILE", options->file, "The snapshot; replaced as a whole when the save is complete. -: standard output, packed")->required();
  command->add_option("--encoding", options->encoding, "mapped: resumes at once, pages come in as they are touched; packed: compressed [mapped]")->option_text("mapped|packed");
  command->add_option("--level", options->level, "Packed, which this asks for: 0 (not compressed) to 19 (slow, small) [1]")->option_text("N");
  command->add_option("--encrypt-key", options->encrypt_key, "Packed and encrypted with the key in this file: 32 bytes, or 64 hexadecimal digits")->option_text("FILE");
  command->add_option("--incremental-from", options->incremental_from, "Save only what differs from this snapshot, which resuming will need")->option_text("PARENT");
  command->add_option("--parent", options->parents, "Where the parents of an incremental PARENT are: files or folders [its own folder]")
      ->allow_extra_args(false)->option_text("FILE|FOLDER");
  command->add_option("--decrypt-key", options->decrypt_key, "Key file of PARENT, if it is encrypted")->option_text("FILE");
  command->add_option("--compat", options->compat, "Write so that this release can read it: 1.0 [this one]")->option_text("RELEASE");
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
      "Ctrl-C cancels; FILE is then as it was.\nExamples:\n"
      "  stasis checkpoint web web.stasis\n"
      "  stasis checkpoint web monday.stasis --incremental-from sunday.stasis\n"
      "  stasis checkpoint web keep.stasis --encoding packed --level 3 --encrypt-key web.key\n"
      "  stasis checkpoint web - | ssh other stasis resume - --detach");
  add(app, status, "suspend", "Save a machine and end it",
      "Ctrl-C cancels, and the machine goes on. With - it ends when all is out of this process; what reads it does not answer, so\n"
      "'checkpoint', and 'stop' once the other side has it, is the safe way over a network.\nExample:\n  stasis suspend web web.stasis && stasis resume web.stasis");
}

}  // namespace stasis::cli
