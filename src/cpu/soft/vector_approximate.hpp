// RCPSS and RSQRTSS in software: processors agree on the error bound (1.5 * 2^-12) but not on the bits.
#pragma once

#include "base/types.hpp"

namespace stasis::soft {

// Single-precision bits in and out. The exact value rounded to nearest with 12 bits of fraction. Denormals count as
// zeros of their sign, results too small for a normal number become such zeros; no exceptions.
u32 approximate_reciprocal(u32 x);
u32 approximate_reciprocal_root(u32 x);

}  // namespace stasis::soft
