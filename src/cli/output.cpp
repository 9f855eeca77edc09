// Errors, sizes and times in words.
#include "cli/output.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <utility>

#include "control/messages.hpp"

namespace stasis::cli {
namespace {
bool unwritten = false;
}

void print_error(const Error& error, bool json) {
  const std::string text = json ? control::to_json(error) : fmt::format("stasis: {}\n", printable(error.text()));
  std::fputs(text.c_str(), stderr);
}

void print(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written && !std::exchange(unwritten, true)) print_error({ErrorCode::host, "standard output", "could not be written to", "free some space, or look at what reads it"}, false);
}

bool output_failed() { return unwritten; }

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<u8>(c);
    if ((byte < 0x20 && c != '\n') || byte == 0x7f) out += fmt::format("\\x{:02x}", byte);
    else out += c;
  }
  return out;
}

std::string human_bytes(u64 bytes) {
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < kKiB) return fmt::format("{} bytes", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) value /= 1024, ++unit;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_count(u64 count) {
  std::string digits = fmt::format("{}", count);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ' ');
  return digits;
}

std::string human_seconds(u64 ns) { return fmt::format("{}.{:03} s", ns / kSecond, ns % kSecond / kMillisecond); }

std::string progress_line(u64 done, u64 total, u64 elapsed_ns) {
  if (total == 0) return "preparing";
  std::string line = fmt::format("{} of {}", human_bytes(done), human_bytes(total));
  if (done == 0 || elapsed_ns == 0) return line;
  const u64 rate = mul_div(done, kSecond, elapsed_ns);
  line += fmt::format(", {}/s", human_bytes(rate));
  if (done <= total && rate > 0) line += fmt::format(", {} s left", (total - done + rate - 1) / rate);
  return line;
}

std::string absolute_path(const std::string& path) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(path, error);
  return error || path.empty() ? path : absolute.string();
}

}  // namespace stasis::cli
