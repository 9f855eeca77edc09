// The binary's first function.
#include "cli/commands.hpp"

int main(int argc, char** argv) { return stasis::cli::run_command_line(argc, argv); }
