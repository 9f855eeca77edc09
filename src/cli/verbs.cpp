// stasis pause, unpause, powerdown, reset, stop: one request, nothing to print.
#include <CLI/CLI.hpp>

#include <memory>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "control/client.hpp"

namespace stasis::cli {
namespace {

struct Verb {
  const char* name;
  const char* help;
  const char* footer;
};
constexpr Verb kVerbs[] = {
    {"pause", "Hold a machine still; its time stands still too", "Example:\n  stasis pause web && stasis info web"},
    {"unpause", "Let a paused machine go on", "Example:\n  stasis unpause web"},
    {"powerdown", "Press a machine's power button; its system decides what follows", "Example:\n  stasis powerdown web"},
    {"reset", "Press a machine's reset button: power-on state, the kernel boots again", "Example:\n  stasis reset web"},
    {"stop", "End a machine at once, like pulling its plug", "What is not saved is lost; see 'stasis suspend'.\nExample:\n  stasis stop web"},
};

struct VerbOptions {
  std::string name;
  bool json = false;
};

Result<> ask(const VerbOptions& options, const std::string& verb) {
  STASIS_TRY_SET(const control::Client client, control::Client::open(options.name));
  STASIS_TRY_SET(const std::string answer, client.call("PUT", "/v1/machine/" + verb));
  if (options.json) print(answer);
  return {};
}

}  // namespace

void add_verbs(CLI::App& app, int& status) {
  for (const Verb& verb : kVerbs) {
    auto* command = app.add_subcommand(verb.name, verb.help);
    const auto options = std::make_shared<VerbOptions>();
    command->add_option("NAME", options->name, "The machine")->required();
    command->add_flag("--json", options->json, "The machine as it is afterwards; errors as JSON too");
    command->footer(verb.footer);
    command->callback([options, name = std::string(verb.name), &status] {
      const auto done = ask(*options, name);
      if (done) return;
      print_error(done.error(), options->json);
      status = status_of(done.error());
    });
  }
}

}  // namespace stasis::cli
