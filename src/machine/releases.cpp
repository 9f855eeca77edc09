// The table of releases. Its rows are data, written by `./dev golden` until the release is out and never after.
#include "machine/releases.hpp"

#include <fmt/format.h>

#include "base/text.hpp"

namespace stasis {
namespace {

constexpr state::KindVersion kKindsOf1_0[] = {
#include "machine/releases/1.0.inc"
};
constexpr state::Release kReleases[] = {{"1.0", kKindsOf1_0}};

}  // namespace

std::span<const state::Release> releases() { return kReleases; }

Result<const state::Release*> release_named(std::string_view name) {
  std::string known;
  for (const state::Release& release : kReleases) {
    if (release.name == name) return &release;
    known += (known.empty() ? "" : ", ") + std::string(release.name);
  }
  return fail(ErrorCode::usage, "compat", fmt::format("'{}' is no release of Stasis, known are: {}", printable(name), known), "name one of them");
}

}  // namespace stasis
