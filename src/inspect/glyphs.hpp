// Letters for pictures: five dots wide, seven high.
#pragma once

#include <array>

#include "base/types.hpp"

namespace stasis::inspect {

inline constexpr u64 kGlyphWidth = 5, kGlyphHeight = 7;
using Glyph = std::array<u8, kGlyphHeight>;  // rows from the top; bit 4 is the leftmost dot

// Small letters look like capitals, but for the x of hexadecimal numbers; what has no glyph is a box.
const Glyph& glyph_of(char c);

}  // namespace stasis::inspect
