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
  return fail(ErrorCode::usage, "--compat", fmt::format("'{}' is no release of Stasis, known are: {}", printable(name), known), "name one of them");
}

std::unexpected<Error> refuse_release(std::string_view release, const state::Problems& problems) {
  std::string all;
  for (const Error& problem : problems) all += fmt::format("{}{}: {}", all.empty() ? "" : "; ", problem.object, problem.message);
  return fail(ErrorCode::unsupported, "--compat", fmt::format("Stasis {} could not hold this machine: {}", release, all), "save without --compat");
}

Result<> fit_to_release(snapshot::Image& image, std::string_view release) {
  STASIS_TRY_SET(const state::Release* wanted, release_named(release));
  state::Problems problems;
  const auto fit = [&](snapshot::PartRecord& record) {
    state::ForRelease out = state::write_for_release(*wanted, record.path, record.schema, record.state, problems);
    if (out.outcome == state::ForRelease::written) record.schema = std::move(out.record.schema), record.state = std::move(out.record.value);
    return out.outcome;
  };
  fit(image.machine);
  std::erase_if(image.parts, [&](snapshot::PartRecord& record) { return fit(record) == state::ForRelease::left_out; });
  if (!problems.empty()) return refuse_release(release, problems);
  return {};
}

}  // namespace stasis
