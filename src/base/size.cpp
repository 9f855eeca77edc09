// Sizes as people write them, read and printed.
#include "base/size.hpp"

#include <fmt/format.h>

#include <charconv>

namespace stasis {
namespace {

constexpr std::string_view kSuffixes = "KMGT";
constexpr const char* kAllowed = "allowed are whole numbers of bytes or with a suffix K, M, G or T";
constexpr const char* kHint = "write for example 512M or 6G";

}  // namespace

Result<u64> parse_size(std::string_view text, std::string object) {
  u64 number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, problem] = std::from_chars(text.data(), end, number);
  const auto wrong = [&](std::string_view why) {
    return fail(ErrorCode::usage, object, fmt::format("`{}` {}; {}", text.substr(0, 64), why, kAllowed), kHint);
  };
  if (problem == std::errc::result_out_of_range) return wrong("is more than 64 bits hold");
  if (problem != std::errc{}) return wrong("is no size");
  if (rest == end) return number;
  const char upper = *rest >= 'a' && *rest <= 'z' ? static_cast<char>(*rest - 'a' + 'A') : *rest;
  const auto unit = kSuffixes.find(upper);
  if (rest + 1 != end || unit == std::string_view::npos) return wrong("does not end in a known unit");
  const unsigned shift = 10 * (static_cast<unsigned>(unit) + 1);
  if (number > (~0ull >> shift)) return wrong("is more than 64 bits hold");
  return number << shift;
}

std::string format_size(u64 bytes) {
  for (unsigned unit = 4; unit > 0; --unit) {
    const unsigned shift = 10 * unit;
    if (bytes != 0 && bytes % (1ull << shift) == 0) return fmt::format("{}{}", bytes >> shift, kSuffixes[unit - 1]);
  }
  return fmt::format("{}", bytes);
}

}  // namespace stasis
