// Digests made good again, so that a mutated snapshot is looked at beyond the first of them.
#pragma once

#include <vector>

#include "base/types.hpp"

namespace stasis::fuzz {

// Walks the frame of `file` as far as it can be followed and sets what only tells of damage: the magic and digests of the
// header, of every section header, body and block, the whole commit record, and the digests of states and content. Lengths,
// names, flags and the rest of the bodies stay as they are.
void repair(std::vector<u8>& file);

}  // namespace stasis::fuzz
