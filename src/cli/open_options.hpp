// How a command opens a snapshot: the options that all of them share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "snapshot/reader.hpp"

namespace CLI {
class App;
}

namespace stasis::cli {

struct OpenWords {  // as given on the command line
  std::optional<std::string> decrypt_key;
  std::vector<std::string> parents;
};
void add_open_options(CLI::App& command, OpenWords& words);
Result<snapshot::OpenOptions> open_options(const OpenWords& words);
// file: a path, or "-" for standard input, which must be no terminal.
Result<snapshot::OpenSnapshot> open_snapshot(const std::string& file, const snapshot::OpenOptions& options);

// bulk: see OpenOptions.
Result<snapshot::OpenSnapshot> open_snapshot(const std::string& file, const OpenWords& words, bool bulk = true);

}  // namespace stasis::cli
