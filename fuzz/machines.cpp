// The machines.
#include "machines.hpp"

#include <algorithm>

namespace stasis::fuzz {

using namespace snapshot;

Key key() {
  std::array<u8, Key::kBytes> bytes{};
  bytes[0] = 7;
  return Key::from_bytes(bytes);
}

testing::Ram ram() {
  testing::Ram out(70);
  const auto fill = [&](u64 page, u8 value) {
    std::fill_n(out.bytes.begin() + static_cast<std::ptrdiff_t>(page * kPageSize), kPageSize, value);
    out.bits[page / 64] |= 1ull << (page % 64);
  };
  fill(1, 0x11);
  fill(2, 0x22);
  fill(65, 0x11);
  fill(66, 0x33);
  return out;
}

Image image(const testing::Ram& ram) {
  Image out = testing::image_of(ram);
  out.parts.resize(1);
  return out;
}

std::shared_ptr<const OpenSnapshot> parent() {
  const testing::Ram held = ram();
  auto opened = testing::open_memory(testing::encoded(image(held), held, {.encoding = Encoding::packed, .threads = 1}));
  STASIS_ASSERT(opened);
  return std::make_shared<const OpenSnapshot>(std::move(*opened));
}

}  // namespace stasis::fuzz
