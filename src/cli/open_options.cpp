// Keys and parents on the command line.
#include "cli/open_options.hpp"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/output.hpp"
#include "host/terminal.hpp"

namespace stasis::cli {

void add_open_options(CLI::App& command, OpenWords& words) {
  command.add_option("--decrypt-key", words.decrypt_key, "Key file of an encrypted snapshot")->option_text("FILE");
  command.add_option("--parent", words.parents, "Where an incremental snapshot's parents are: files or folders [its own folder]")
      ->allow_extra_args(false)->option_text("FILE|FOLDER");
}

Result<snapshot::OpenOptions> open_options(const OpenWords& words) {
  snapshot::OpenOptions out;
  if (words.decrypt_key) {
    STASIS_TRY_SET(out.key, snapshot::Key::from_file(*words.decrypt_key));
  }
  for (const std::string& parent : words.parents) out.parents.push_back(absolute_path(parent));
  return out;
}

Result<snapshot::OpenSnapshot> open_snapshot(const std::string& file, const snapshot::OpenOptions& options) {
  if (file != "-") return snapshot::open(file, options);
  if (host::is_terminal(STDIN_FILENO))
    return fail(ErrorCode::usage, "standard input", "is a terminal, not a snapshot", "pipe one in, or name a file");
  return snapshot::open_stream(STDIN_FILENO, "standard input", options);
}

Result<snapshot::OpenSnapshot> open_snapshot(const std::string& file, const OpenWords& words, bool bulk) {
  STASIS_TRY_SET(snapshot::OpenOptions options, open_options(words));
  options.bulk = bulk;
  return open_snapshot(file, options);
}

}  // namespace stasis::cli
