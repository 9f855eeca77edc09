// Pictures of memory: one cell for one or more pages, addresses at the left, a legend below; as PNG or SVG.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis::inspect {

struct Color {
  u8 red = 0, green = 0, blue = 0;
  bool operator==(const Color&) const = default;
};

struct LegendEntry {
  Color color;
  std::string text;
};

struct Picture {
  std::string title, subtitle;
  std::vector<LegendEntry> legend;
  u64 columns = 1;
  std::vector<Color> cells;             // row by row; the last row may be short
  std::vector<std::pair<u64, std::string>> labels;  // row, and what stands at its left
};

// Chooses how many pages one cell is for, so that there are at most kMostRows rows of kColumns cells, and mixes their colours.
inline constexpr u64 kColumns = 256, kMostRows = 256;
u64 pages_per_cell(u64 pages);
std::vector<Color> cells_of(const std::vector<u8>& classes, std::span<const Color> colors, u64 per_cell);

Result<std::vector<u8>> to_png(const Picture& picture, const std::string& object);
std::string to_svg(const Picture& picture);

}  // namespace stasis::inspect
