// The releases of Stasis, and which version of each record kind they know: what `--compat RELEASE` may ask for.
#pragma once

#include "snapshot/image.hpp"
#include "state/compat.hpp"

namespace stasis {

std::span<const state::Release> releases();  // oldest first
// Unknown: the error names those that there are.
Result<const state::Release*> release_named(std::string_view name);

// Makes `image` one that the Stasis of that release reads. Errors: usage (no such release), unsupported (each field that it
// could not hold, with its value). Records whose shape changed since need the live machine (Machine::save).
Result<> fit_to_release(snapshot::Image& image, std::string_view release);
// One error for the problems of writing for a release.
std::unexpected<Error> refuse_release(std::string_view release, const state::Problems& problems);

}  // namespace stasis
