// Sizes as people write them: "512M", "6G", "1048576".
#pragma once

#include <string>
#include <string_view>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis {

// A whole number of bytes, or of binary units by a suffix K, M, G or T (either case): "1K" is 1024. No sign, no
// fraction, no spaces. `object` is who asks, for the error: `--memory`.
Result<u64> parse_size(std::string_view text, std::string object = "size");

// The shortest form that parse_size() reads back to the same number: "512M", "1000".
std::string format_size(u64 bytes);

}  // namespace stasis
