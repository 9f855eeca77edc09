// stasis snapshot note: what people write onto a snapshot.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>

#include "base/version.hpp"
#include "cli/commands.hpp"
#include "cli/output.hpp"
#include "cli/rewriting.hpp"
#include "host/host_clock.hpp"
#include "snapshot/annotate.hpp"

namespace stasis::cli {
namespace {

struct Options {
  InputOptions input;
  std::string file, text, by;
  bool list = false;
  int level = kKeepingLevel;
};

std::string listed(const std::vector<snapshot::Note>& notes, bool json) {
  std::string out;
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const auto& [at, by, text] : notes) {
    all.push_back({{"at", at}, {"by", by}, {"text", text}});
    out += fmt::format("{}  {}: {}\n", at, by, text);
  }
  return json ? nlohmann::ordered_json{{"notes", all}}.dump() + "\n" : printable(out);
}

Result<> note(const Options& options) {
  if (options.list != options.text.empty())
    return fail(ErrorCode::usage, "snapshot note", options.list ? "has both a text and --list" : "has no text", "write stasis snapshot note FILE TEXT, or --list");
  STASIS_TRY_SET(const auto progress, Progress::start());
  STASIS_TRY_SET(auto open, open_options(options.input));
  const auto identity = snapshot::identify(options.file);
  open.ancestors = !options.list && identity && identity->encrypted;  // others are copied as they are
  STASIS_TRY_SET(const auto snapshot, snapshot::open(absolute_path(options.file), open));
  if (options.list) return print(listed(snapshot.image.notes, options.input.json)), Result<>{};
  const snapshot::Note note{.at = host::wall_clock_text(), .by = options.by.empty() ? fmt::format("stasis {}", version()) : options.by, .text = options.text};
  progress->must_clean_up();
  STASIS_TRY(snapshot::annotate(snapshot, note, open.key, options.level, progress->phase("writing")));
  if (!options.input.json) return {};
  auto notes = snapshot.image.notes;
  notes.push_back(note);
  return print(listed(notes, true)), Result<>{};
}

}  // namespace

void add_snapshot_note(CLI::App& group, int& status) {
  auto* command = group.add_subcommand("note", "Writes a line onto a snapshot, or lists what is there");
  const auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "The snapshot; replaced as a whole, only its notes change")->required();
  command->add_option("TEXT", options->text, "The note, one line");
  command->add_flag("--list", options->list, "Shows the notes");
  command->add_option("--by", options->by, "Who says it; default: this program")->option_text("NAME");
  command->add_option("--level", options->level, "Of an encrypted snapshot, which is packed again: 0 to 19; default 3")->option_text("N");
  add_input_options(*command, options->input);
  command->footer("The content digest stays the same, and so does a parent for its children.\n"
                  "Examples:\n"
                  "  stasis snapshot note web.stasis 'before the upgrade' --by ada\n"
                  "  stasis snapshot note web.stasis --list");
  command->callback([options, &status] { finish_command(note(*options), options->input.json, status); });
}

}  // namespace stasis::cli
