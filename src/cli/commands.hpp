// The commands, one function each: adds its subcommand, which when chosen does the work and sets `status`.
#pragma once

namespace CLI {
class App;
}

namespace stasis::cli {

int run_command_line(int argc, char** argv);  // returns the exit status of the process

void add_run(CLI::App& app, int& status);
void add_resume(CLI::App& app, int& status);
void add_list(CLI::App& app, int& status);
void add_info(CLI::App& app, int& status);
void add_console(CLI::App& app, int& status);
void add_verbs(CLI::App& app, int& status);  // pause, unpause, powerdown, reset, stop
void add_saves(CLI::App& app, int& status);  // checkpoint, suspend
void add_snapshot(CLI::App& app, int& status);
// Of the group `snapshot`.
void add_snapshot_diff(CLI::App& group, int& status);
void add_snapshot_export(CLI::App& group, int& status);
void add_snapshot_map(CLI::App& group, int& status);
void add_snapshot_memory(CLI::App& group, int& status);
// Below `snapshot`:
void add_snapshot_verify(CLI::App& group, int& status);
void add_snapshot_convert(CLI::App& group, int& status);  // convert, squash, rebase
void add_snapshot_set(CLI::App& group, int& status);
void add_snapshot_note(CLI::App& group, int& status);
void add_version(CLI::App& app, int& status);

}  // namespace stasis::cli
