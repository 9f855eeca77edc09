// stasis version.
#include "base/version.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <memory>

#include "cli/commands.hpp"
#include "cli/output.hpp"
#include "snapshot/format.hpp"

namespace stasis::cli {

void add_version(CLI::App& app, int&) {
  auto* command = app.add_subcommand("version", "Which Stasis this is, and what it reads and runs");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "For scripts");
  command->footer("Example:\n  stasis version --json | jq -r .version");
  command->callback([json] {
    const std::string format = fmt::format("{}.{}", snapshot::kFormatMajor, snapshot::kFormatMinor);
    print(*json ? fmt::format(R"({{"version": "{}", "snapshot_format": "{}", "engines": ["soft", "kvm"]}})" "\n", version(), format)
                : fmt::format("stasis {} (snapshot format {}; engines: soft, kvm)\n", version(), format));
  });
}

}  // namespace stasis::cli
