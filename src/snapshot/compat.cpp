// The releases that a snapshot can be written for.
#include "snapshot/compat.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/text.hpp"

namespace stasis::snapshot {
namespace {

constexpr std::array<std::string_view, 1> kReleases{"1.0"};

}  // namespace

Result<> fit_to_release(Image& image, const std::string& release) {
  if (std::ranges::find(kReleases, release) == kReleases.end())
    return fail(ErrorCode::usage, "--compat", fmt::format("'{}' is no release that can be written for", printable(release)),
                fmt::format("known are: {}", fmt::join(kReleases, ", ")));
  return (void)image, Result<>{};  // 1.0 is what is written anyway
}

}  // namespace stasis::snapshot
