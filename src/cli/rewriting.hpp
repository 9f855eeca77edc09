// What the commands that write a snapshot from another have in common: their options, opening, writing, reporting.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/open_options.hpp"
#include "cli/progress.hpp"
#include "snapshot/reader.hpp"
#include "snapshot/rewrite.hpp"

namespace CLI {
class App;
}

namespace stasis::cli {

struct InputOptions : OpenWords {
  bool json = false;
};
void add_input_options(CLI::App& command, InputOptions& options);  // --parent, --decrypt-key, --json

struct OutputOptions {
  std::string encoding;     // empty: as the input's, or packed with a key
  std::optional<int> level; // none: kKeepingLevel
  std::string encrypt_key;  // a file; empty: clear
  std::string compat;       // empty: none asked for
};
inline constexpr int kKeepingLevel = 3;
// --encoding, --level, --encrypt-key, --compat
void add_output_options(CLI::App& command, OutputOptions& options);

// Everything but the parent.
Result<snapshot::SaveOptions> save_options(const OutputOptions& options, const snapshot::OpenSnapshot& input);

struct Rewriting {
  const snapshot::OpenSnapshot& from;
  snapshot::Image image;                           // as it is to be written
  std::string out;                                 // "-": standard output
  const snapshot::OpenSnapshot* parent = nullptr;  // of what is written
};
// Writes it and prints the report: on standard output, or, when the snapshot goes there, with --json on standard error.
// `done`: "converted to".
Result<> write_again(Rewriting rewriting, const OutputOptions& output, bool json, Progress& progress, const std::string& done);

// Runs `action` as a command's callback: prints its error and sets `status`.
void finish_command(const Result<>& result, bool json, int& status);

}  // namespace stasis::cli
