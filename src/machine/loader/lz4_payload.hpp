// The kernel inside a bzImage, when it is packed as Debian packs it (LZ4 legacy frame).
#pragma once

#include <vector>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis::loader {

bool looks_like_lz4(Bytes payload);
// `payload` ends with the size of what it holds (32 bits), as Linux's build appends it.
Result<std::vector<u8>> unpack_lz4(Bytes payload);

}  // namespace stasis::loader
