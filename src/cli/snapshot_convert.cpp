// stasis snapshot convert, squash and rebase: the same snapshot in another form.
#include <CLI/CLI.hpp>

#include <memory>

#include "cli/commands.hpp"
#include "cli/rewriting.hpp"

namespace stasis::cli {
namespace {

struct Options {
  InputOptions input;
  OutputOptions output;
  std::string in, out, onto;
  bool whole = false;
};

Result<> convert(const Options& options) {
  STASIS_TRY_SET(const auto progress, Progress::start());
  STASIS_TRY_SET(const auto open, open_options(options.input));
  STASIS_TRY_SET(const auto from, open_snapshot(options.in, open));
  return write_again({.from = from, .image = from.image, .out = options.out, .parent = options.whole ? nullptr : from.parent.get()}, options.output,
                     options.input.json, *progress, "converted to");
}

Result<> squash(const Options& options) {
  STASIS_TRY_SET(const auto progress, Progress::start());
  STASIS_TRY_SET(const auto open, open_options(options.input));
  STASIS_TRY_SET(const auto from, open_snapshot(options.in, open));
  return write_again({.from = from, .image = from.image, .out = options.out}, options.output, options.input.json, *progress, "squashed to");
}

Result<> rebase(const Options& options) {
  STASIS_TRY_SET(const auto progress, Progress::start());
  STASIS_TRY_SET(auto open, open_options(options.input));
  STASIS_TRY_SET(const auto from, open_snapshot(options.in, open));
  open.bulk = false;
  STASIS_TRY_SET(const auto parent, snapshot::open(options.onto, open));
  return write_again({.from = from, .image = from.image, .out = options.out, .parent = &parent}, options.output, options.input.json, *progress,
                     "rebased to");
}

CLI::App& add(CLI::App& group, int& status, const char* name, const char* help, Result<> (*action)(const Options&)) {
  auto* command = group.add_subcommand(name, help);
  const auto options = std::make_shared<Options>();
  command->add_option(action == convert ? "IN" : "CHILD", options->in, "The snapshot; - is standard input")->required();
  command->add_option("OUT", options->out, "Where to write; a file is replaced as a whole at the end; - is standard output")->required();
  if (action == rebase) command->add_option("--onto", options->onto, "The parent of OUT")->required()->option_text("PARENT");
  if (action == convert) command->add_flag("--whole", options->whole, "OUT needs no parent, even if IN does");
  add_output_options(*command, options->output);
  add_input_options(*command, options->input);
  command->callback([options, action, &status] { finish_command(action(*options), options->input.json, status); });
  return *command;
}

}  // namespace

void add_snapshot_convert(CLI::App& group, int& status) {
  add(group, status, "convert", "The same snapshot in another encoding; nothing is lost", convert)
      .footer("The content digest, the UUID, notes and unknown sections stay; an incremental snapshot stays one.\n"
              "Examples:\n"
              "  stasis snapshot convert web.stasis small.stasis --encoding packed --level 19\n"
              "  stasis snapshot convert web.stasis - --encoding packed | ssh host 'cat > web.stasis'\n"
              "  stasis snapshot convert web.stasis secret.stasis --encrypt-key web.key\n"
              "  stasis snapshot convert secret.stasis web.stasis --decrypt-key web.key --encoding mapped");
  add(group, status, "squash", "One whole snapshot from an incremental one and its parents", squash)
      .footer("Example:\n"
              "  stasis snapshot squash monday.stasis whole.stasis --parent /srv/parents");
  add(group, status, "rebase", "The same content as a child of another parent", rebase)
      .footer("Pages are compared by content, so any snapshot with as much RAM can be the parent.\n"
              "Example:\n"
              "  stasis snapshot rebase monday.stasis --onto base.stasis monday-on-base.stasis");
}

}  // namespace stasis::cli
