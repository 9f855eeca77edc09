// Snapshots in, snapshots out.
#include "cli/rewriting.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "control/messages.hpp"
#include "host/terminal.hpp"
#include "machine/releases.hpp"

namespace stasis::cli {

void add_input_options(CLI::App& command, InputOptions& options) {
  add_open_options(command, options);
  command.add_flag("--json", options.json, "For scripts; errors as JSON too");
}

void add_output_options(CLI::App& command, OutputOptions& options) {
  command.add_option("--encoding", options.encoding, "mapped: wakes at once, in place; packed: compressed, for keeping and sending; default: as it was")
      ->option_text("mapped|packed");
  command.add_option("--level", options.level, "Packed: 0 (not compressed) to 19 (smallest, slowest); default 3")->option_text("N");
  command.add_option("--encrypt-key", options.encrypt_key, "Encrypts OUT, which is packed then; without it OUT is not encrypted")->option_text("FILE");
  command.add_option("--compat", options.compat, "So that the Stasis of this release reads it: 1.0")->option_text("RELEASE");
}

Result<snapshot::SaveOptions> save_options(const OutputOptions& options, const snapshot::OpenSnapshot& input) {
  using snapshot::Encoding;
  snapshot::SaveOptions out{.encoding = input.ram.encoding, .level = options.level.value_or(kKeepingLevel)};
  if (!options.encrypt_key.empty()) {
    out.encoding = Encoding::packed;
    STASIS_TRY_SET(const snapshot::Key key, snapshot::Key::from_file(options.encrypt_key));
    out.key.emplace(key);
  }
  if (options.encoding == "mapped") out.encoding = Encoding::mapped;
  else if (options.encoding == "packed") out.encoding = Encoding::packed;
  else if (!options.encoding.empty())
    return fail(ErrorCode::usage, "--encoding", fmt::format("'{}' is no encoding", printable(options.encoding)), "write mapped or packed");
  if (out.level < 0 || out.level > snapshot::kMostLevel)
    return fail(ErrorCode::usage, "--level", fmt::format("is {}, allowed are 0 (not compressed) to {}", out.level, snapshot::kMostLevel), "use 3, or 19 for the smallest file");
  if (options.level && out.encoding == Encoding::mapped)
    return fail(ErrorCode::usage, "--level", "the mapped encoding is not compressed", "add --encoding packed, or leave --level out");
  if (out.key && out.encoding == Encoding::mapped)
    return fail(ErrorCode::usage, "--encrypt-key", "the mapped encoding cannot be encrypted", "leave --encoding out, or write --encoding packed");
  return out;
}

Result<> write_again(Rewriting rewriting, const OutputOptions& output, bool json, Progress& progress, const std::string& done) {
  if (!output.compat.empty()) STASIS_TRY(fit_to_release(rewriting.image, output.compat));
  STASIS_TRY_SET(snapshot::SaveOptions options, save_options(output, rewriting.from));
  options.parent = rewriting.parent;
  const bool stream = rewriting.out == "-";
  if (stream && host::is_terminal(STDOUT_FILENO))
    return fail(ErrorCode::usage, "standard output", "is a terminal, and a snapshot is no text", "pipe it on, or name a file");
  const snapshot::Destination to{.name = stream ? "standard output" : absolute_path(rewriting.out), .fd = stream ? STDOUT_FILENO : -1};
  progress.must_clean_up();
  STASIS_TRY_SET(const snapshot::SaveReport report,
                 snapshot::rewrite(rewriting.from, rewriting.image, to, options, progress.phase("writing")));
  if (const std::string text = control::to_json(report, to.name); json && !stream) return print(text), Result<>{};
  else if (json) return std::fputs(text.c_str(), stderr), Result<>{};
  if (!stream)
    print(printable(fmt::format("{}: {} {} ({}, {} on disk, digest {})\n", rewriting.from.path, done, rewriting.out, human_bytes(report.file_bytes),
                                human_bytes(report.stored_bytes), report.digest)));
  return {};
}

void finish_command(const Result<>& result, bool json, int& status) {
  if (result) return;
  print_error(result.error(), json);
  status = status_of(result.error());
}

}  // namespace stasis::cli
