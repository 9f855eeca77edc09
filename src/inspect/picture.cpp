// Cells, the SVG form, and the PNG form.
#include "inspect/picture.hpp"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <cstring>

#include "inspect/glyphs.hpp"

namespace stasis::inspect {
namespace {

constexpr u64 kCell = 3, kMargin = 16, kLabelWidth = 156, kLine = 20, kSwatch = 14;
constexpr Color kPaper{255, 255, 255}, kInk{32, 36, 40}, kFrame{150, 156, 164};

// Where things stand, in pixels; both forms use it.
struct Frame {
  u64 left = kMargin + kLabelWidth, top = 0, width = 0, height = 0;  // of the cells
  u64 full_width = 0, full_height = 0;
  explicit Frame(const Picture& picture) {
    top = kMargin + 2 * kLine + 8;
    width = picture.columns * kCell;
    height = (picture.cells.size() + picture.columns - 1) / picture.columns * kCell;
    full_width = left + width + kMargin;
    full_height = legend_top() + picture.legend.size() * kLine + kMargin;
  }
  u64 legend_top() const { return top + height + kMargin; }
};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') out += "&lt;";
    else if (c == '&') out += "&amp;";
    else if (c == '>') out += "&gt;";
    else if (static_cast<u8>(c) >= 0x20 && c != 0x7f) out += c;
  }
  return out;
}

std::string hex_color(Color color) { return fmt::format("#{:02x}{:02x}{:02x}", color.red, color.green, color.blue); }

class Canvas {
 public:
  Canvas(u64 width, u64 height) : width_(width), height_(height), pixels_(width * height, kPaper) {}
  u64 width() const { return width_; }
  u64 height() const { return height_; }
  const void* data() const { return pixels_.data(); }

  void fill(u64 x, u64 y, u64 width, u64 height, Color color) {
    for (u64 row = y; row < std::min(y + height, height_); ++row)
      for (u64 column = x; column < std::min(x + width, width_); ++column) pixels_[row * width_ + column] = color;
  }
  // Each dot of a glyph is two pixels wide and two high.
  void text(u64 x, u64 y, std::string_view text) {
    for (const char c : text) {
      const auto& rows = glyph_of(c);
      for (u64 row = 0; row < kGlyphHeight; ++row)
        for (u64 column = 0; column < kGlyphWidth; ++column)
          if (rows[row] >> (kGlyphWidth - 1 - column) & 1) fill(x + column * 2, y + row * 2, 2, 2, kInk);
      x += (kGlyphWidth + 1) * 2;
    }
  }

 private:
  u64 width_, height_;
  std::vector<Color> pixels_;
};

}  // namespace

static_assert(sizeof(Color) == 3, "pixels go to libpng as they are");

u64 pages_per_cell(u64 pages) {
  u64 per_cell = 1;
  while ((pages + per_cell - 1) / per_cell > kColumns * kMostRows) per_cell *= 2;
  return per_cell;
}

std::vector<Color> cells_of(const std::vector<u8>& classes, std::span<const Color> colors, u64 per_cell) {
  std::vector<Color> out;
  for (u64 first = 0; first < classes.size(); first += per_cell) {
    const u64 last = std::min<u64>(first + per_cell, classes.size());
    u64 red = 0, green = 0, blue = 0;
    for (u64 page = first; page < last; ++page) {
      const Color& color = colors[classes[page]];
      red += color.red, green += color.green, blue += color.blue;
    }
    const u64 count = last - first;
    out.push_back({static_cast<u8>(red / count), static_cast<u8>(green / count), static_cast<u8>(blue / count)});
  }
  return out;
}

std::string to_svg(const Picture& picture) {
  const Frame frame(picture);
  std::string out = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"monospace\" font-size=\"14\" fill=\"{}\">\n"
                                "<rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n",
                                frame.full_width, frame.full_height, hex_color(kInk), hex_color(kPaper));
  const auto text = [&](u64 x, u64 y, const std::string& words) { out += fmt::format("<text x=\"{}\" y=\"{}\">{}</text>\n", x, y + 13, escaped(words)); };
  text(kMargin, kMargin, picture.title);
  text(kMargin, kMargin + kLine, picture.subtitle);
  for (const auto& [row, label] : picture.labels) text(kMargin, frame.top + row * kCell, label);
  out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"{}\"/>\n", frame.left - 1, frame.top - 1, frame.width + 2,
                     frame.height + 2, hex_color(kFrame));
  out += "<g shape-rendering=\"crispEdges\">\n";
  // Neighbours of one colour in a row are one rectangle.
  for (u64 at = 0; at < picture.cells.size();) {
    const u64 row_end = std::min<u64>((at / picture.columns + 1) * picture.columns, picture.cells.size());
    u64 end = at + 1;
    while (end < row_end && picture.cells[end] == picture.cells[at]) ++end;
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>\n", frame.left + at % picture.columns * kCell,
                       frame.top + at / picture.columns * kCell, (end - at) * kCell, kCell, hex_color(picture.cells[at]));
    at = end;
  }
  out += "</g>\n";
  for (std::size_t i = 0; i < picture.legend.size(); ++i) {
    const u64 y = frame.legend_top() + i * kLine;
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" stroke=\"{}\"/>\n", frame.left, y, kSwatch, kSwatch,
                       hex_color(picture.legend[i].color), hex_color(kFrame));
    text(frame.left + kSwatch + 10, y, picture.legend[i].text);
  }
  return out + "</svg>\n";
}

Result<std::vector<u8>> to_png(const Picture& picture, const std::string& object) {
  const Frame frame(picture);
  Canvas canvas(frame.full_width, frame.full_height);
  canvas.text(kMargin, kMargin, picture.title);
  canvas.text(kMargin, kMargin + kLine, picture.subtitle);
  for (const auto& [row, label] : picture.labels) canvas.text(kMargin, frame.top + row * kCell, label);
  canvas.fill(frame.left - 1, frame.top - 1, frame.width + 2, frame.height + 2, kFrame);
  canvas.fill(frame.left, frame.top, frame.width, frame.height, kPaper);
  for (u64 at = 0; at < picture.cells.size(); ++at)
    canvas.fill(frame.left + at % picture.columns * kCell, frame.top + at / picture.columns * kCell, kCell, kCell, picture.cells[at]);
  for (std::size_t i = 0; i < picture.legend.size(); ++i) {
    const u64 y = frame.legend_top() + i * kLine;
    canvas.fill(frame.left - 1, y - 1, kSwatch + 2, kSwatch + 2, kFrame);
    canvas.fill(frame.left, y, kSwatch, kSwatch, picture.legend[i].color);
    canvas.text(frame.left + kSwatch + 10, y, picture.legend[i].text);
  }
  png_image image;
  std::memset(&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(canvas.width());
  image.height = static_cast<png_uint_32>(canvas.height());
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::vector<u8> out(size);
  if (!png_image_write_to_memory(&image, out.data(), &size, 0, canvas.data(), 0, nullptr))
    return fail(ErrorCode::host, object, fmt::format("libpng cannot write it: {}", image.message), "try SVG");
  out.resize(size);
  return out;
}

}  // namespace stasis::inspect
