// The releases of Stasis, and which version of each record kind they know: what `--compat RELEASE` may ask for.
#pragma once

#include "state/compat.hpp"

namespace stasis {

std::span<const state::Release> releases();  // oldest first
// Unknown: the error names those that there are.
Result<const state::Release*> release_named(std::string_view name);

}  // namespace stasis
