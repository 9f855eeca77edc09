// What every command prints the same way: errors, sizes, times.
#pragma once

#include <string>
#include <string_view>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis::cli {

// On standard error: "stasis: object: message; hint", or as JSON.
void print_error(const Error& error, bool json);
void print(const std::string& text);  // on standard output, at once
bool output_failed();                 // whether some of it could not be written, which was said then

// Control characters but for line ends as \xNN: what comes from a file must not speak to the terminal.
std::string printable(std::string_view text);

std::string human_bytes(u64 bytes);       // "1.5 GiB"
std::string human_count(u64 count);       // "1 234 567"
std::string human_seconds(u64 ns);        // "12.345 s"
// "1.0 GiB of 2.0 GiB, 512.0 MiB/s, 2 s left": the line while a save is under way.
std::string progress_line(u64 done, u64 total, u64 elapsed_ns);

std::string absolute_path(const std::string& path);  // in this process's folder

}  // namespace stasis::cli
