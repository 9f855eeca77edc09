// stasis snapshot show and digest: files only, no machine.
#include <CLI/CLI.hpp>

#include <memory>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "cli/snapshot_file.hpp"
#include "cli/snapshot_view.hpp"

namespace stasis::cli {
namespace {

struct SnapshotOptions {
  OpenWords open;
  std::string file, path;
  bool json = false;
};

// A kernel is read only where `path` asks for it: it takes longer than all else.
Result<snapshot::OpenSnapshot> open_for(const SnapshotOptions& options) {
  const bool stream = options.file == "-";  // which is read once
  auto out = open_snapshot(options.file, options.open, stream && !options.path.empty());
  if (!out || options.path.empty() || !lacks(*out, options.path)) return out;
  return open_snapshot(options.file, options.open);
}

Result<> show(const SnapshotOptions& options) {
  auto snapshot = open_for(options);
  if (!snapshot && options.path.empty() && options.file != "-") {  // perhaps it is only a parent that is missing or damaged
    STASIS_TRY_SET(snapshot::OpenOptions alone, open_options(options.open));
    alone.ancestors = alone.bulk = false;
    if (auto found = open_snapshot(options.file, alone)) snapshot = std::move(found);
  }
  if (!snapshot) {
    // What cannot be read can often still be named.
    if (const auto identity = snapshot::identify(options.file))
      print(options.json ? show_identity_json(options.file, *identity) : printable(show_identity(options.file, *identity)));
    return std::unexpected(std::move(snapshot).error());
  }
  if (options.path.empty()) return print(options.json ? show_whole_json(*snapshot) : printable(show_whole(*snapshot))), Result<>{};
  STASIS_TRY_SET(const std::string text, options.json ? show_path_json(*snapshot, options.path) : show_path(*snapshot, options.path));
  return print(options.json ? text : printable(text)), Result<>{};
}

Result<> digest(const SnapshotOptions& options) {
  STASIS_TRY_SET(const auto snapshot, open_snapshot(options.file, options.open));
  STASIS_TRY_SET(const std::string digest, snapshot::digest(snapshot));
  return print(options.json ? "{\"digest\": \"" + digest + "\"}\n" : digest + "\n"), Result<>{};
}

CLI::App* add(CLI::App& group, int& status, const char* name, const char* help, Result<> (*action)(const SnapshotOptions&)) {
  auto* command = group.add_subcommand(name, help);
  const auto options = std::make_shared<SnapshotOptions>();
  command->add_option("FILE", options->file, "The snapshot; -: standard input")->required();
  if (action == show) command->add_option("PATH", options->path, "One record or field: cpu/0, cpu/0/rip, device/isa/uart0/lcr");
  add_open_options(*command, options->open);
  command->add_flag("--json", options->json, "For scripts");
  command->callback([options, action, &status] {
    const auto done = action(*options);
    if (done) return;
    print_error(done.error(), options->json);
    status = status_of(done.error());
  });
  return command;
}

}  // namespace

void add_snapshot(CLI::App& app, int& status) {
  auto* group = app.add_subcommand("snapshot", "Look into snapshot files and make others from them; needs no running machine");
  group->require_subcommand(1);
  add(*group, status, "show", "What is in a snapshot: all in short, or one record or field", show)
      ->footer("Examples:\n"
               "  stasis snapshot show web.stasis\n"
               "  stasis snapshot show web.stasis cpu/0\n"
               "  stasis snapshot show web.stasis device/isa/uart0/lcr --json");
  add(*group, status, "digest", "One digest of all guest-visible state; checks the whole file on the way", digest)
      ->footer("It does not depend on how the file was made: RAM, processor, devices and guest time alone.\n"
               "Example:\n"
               "  test \"$(stasis snapshot digest a.stasis)\" = \"$(stasis snapshot digest b.stasis)\"");
  add_snapshot_diff(*group, status);
  add_snapshot_export(*group, status);
  add_snapshot_map(*group, status);
  add_snapshot_memory(*group, status);
  add_snapshot_verify(*group, status);
  add_snapshot_convert(*group, status);
  add_snapshot_set(*group, status);
  add_snapshot_note(*group, status);
}

}  // namespace stasis::cli
