// stasis snapshot set: fields of a snapshot get other values; the result is a snapshot of its own.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "base/version.hpp"
#include "cli/commands.hpp"
#include "cli/output.hpp"
#include "cli/rewriting.hpp"
#include "host/host_clock.hpp"
#include "machine/resume_check.hpp"
#include "state/assign.hpp"

namespace stasis::cli {
namespace {

struct Options {
  InputOptions input;
  OutputOptions output;
  std::vector<std::string> words;  // FILE PATH=VALUE… OUT
};

constexpr std::size_t kMostShown = 200;

struct Change {
  std::string path, value;
};

Result<Change> change_from(const std::string& word) {
  const std::size_t equals = word.find('=');
  if (equals == word.npos || equals == 0)
    return fail(ErrorCode::usage, "snapshot set", fmt::format("'{}' is not PATH=VALUE", printable(word)), "write, for example, device/isa/uart0/lcr=0x03");
  return Change{word.substr(0, equals), word.substr(equals + 1)};
}

// The record whose path begins this one, the longest.
Result<snapshot::PartRecord*> record_of(snapshot::Image& image, const std::string& path) {
  snapshot::PartRecord* found = path.starts_with("machine/") ? &image.machine : nullptr;
  for (snapshot::PartRecord& part : image.parts)
    if (path.starts_with(part.path + "/") && (!found || part.path.size() > found->path.size())) found = &part;
  if (found) return found;
  return fail(ErrorCode::not_found, path, "is no field of a record in this snapshot", "'stasis snapshot show FILE' lists the records, with PATH one's fields");
}

std::string shown(const snapshot::PartRecord& record, const std::string& field) {
  const auto found = state::find(record.schema, record.state, field);
  std::string text = found.value && found.schema ? state::show(*found.value, *found.schema) : "";
  if (text.size() > kMostShown) text = text.substr(0, kMostShown) + "…";
  return printable(text);
}

// Changes the image; returns what was done, for the notes.
Result<std::string> apply(snapshot::Image& image, const Change& change) {
  STASIS_TRY_SET(snapshot::PartRecord* const record, record_of(image, change.path));
  const std::string field = change.path.substr(record->path.size() + 1);
  const std::string from = shown(*record, field);
  STASIS_TRY(state::assign(record->schema, record->state, field, change.value, record->path));
  const std::string to = shown(*record, field);
  return from.empty() || to.empty() ? "set " + change.path : fmt::format("set {} from {} to {}", change.path, from, to);
}

// What one field's range cannot say: the parts' own checks. What was wrong before is not held against the change.
Result<> check_machine(const snapshot::Image& before, const snapshot::Image& after) {
  const auto known = check_resume(before).damage;
  for (const Error& problem : check_resume(after).damage)
    if (std::ranges::find(known, problem.text(), &Error::text) == known.end())
      return fail(ErrorCode::usage, problem.object, problem.message + ", so no Stasis could resume the result", "choose values that agree with each other");
  return {};
}

Result<> set(const Options& options) {
  if (options.words.size() < 3)
    return fail(ErrorCode::usage, "snapshot set", fmt::format("has {} words, wanted are FILE, at least one PATH=VALUE, and OUT", options.words.size()),
                "for example: stasis snapshot set a.stasis clock/now_ns=0 b.stasis");
  STASIS_TRY_SET(const auto progress, Progress::start());
  STASIS_TRY_SET(const auto open, open_options(options.input));
  STASIS_TRY_SET(const auto from, open_snapshot(options.words.front(), open));
  snapshot::Image image = from.image;
  const std::string now = host::wall_clock_text(), program = fmt::format("stasis {}", version());
  for (std::size_t i = 1; i + 1 < options.words.size(); ++i) {
    STASIS_TRY_SET(const Change change, change_from(options.words[i]));
    STASIS_TRY_SET(std::string done, apply(image, change));
    image.notes.push_back({.at = now, .by = program, .text = std::move(done)});
  }
  STASIS_TRY(check_machine(from.image, image));
  image.producer = {.program = "stasis", .version = std::string(version()), .created_at = now, .uuid = snapshot::random_uuid()};
  return write_again({.from = from, .image = std::move(image), .out = options.words.back(), .parent = from.parent.get()}, options.output,
                     options.input.json, *progress, "set in");
}

}  // namespace

void add_snapshot_set(CLI::App& group, int& status) {
  auto* command = group.add_subcommand("set", "Gives fields other values, in a new snapshot");
  const auto options = std::make_shared<Options>();
  command->add_option("WORDS", options->words, "FILE, then PATH=VALUE once or more, then OUT; - is standard input and output")
      ->option_text("FILE PATH=VALUE... OUT");
  add_output_options(*command, options->output);
  add_input_options(*command, options->input);
  command->footer("Integers: decimal, 0x…, or the name of the value. Byte strings: hexadecimal digits. Lists: commas. Elements: PATH/3.\n"
                  "What a field may hold is checked; OUT has a UUID of its own and notes that say what was set.\n"
                  "Examples:\n"
                  "  stasis snapshot set web.stasis device/isa/uart0/lcr=0x03 other.stasis\n"
                  "  stasis snapshot set web.stasis cpu/0/rip=0x100000 cpu/0/rflags=2 moved.stasis");
  command->callback([options, &status] { finish_command(set(*options), options->input.json, status); });
}

}  // namespace stasis::cli
