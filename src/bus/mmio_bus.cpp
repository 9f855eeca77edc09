// MMIO decoding: splits an access into pieces that one device takes whole.
#include "bus/mmio_bus.hpp"

#include "base/error.hpp"

namespace stasis {

void MmioBus::map(u64 base, u64 size, MmioDevice& device, unsigned widest) {
  STASIS_ASSERT(size > 0 && widest >= 1 && widest <= 8 && (widest & (widest - 1)) == 0);
  for (const Range& range : ranges_) STASIS_ASSERT(base + size <= range.base || range.base + range.size <= base);
  ranges_.push_back({base, size, widest, &device});
}

void MmioBus::unmap(u64 base) {
  std::erase_if(ranges_, [&](const Range& range) { return range.base == base; });
}

const MmioBus::Range* MmioBus::find(u64 address) const {
  for (const Range& range : ranges_)
    if (address - range.base < range.size) return &range;
  return nullptr;
}

unsigned MmioBus::piece(const Range* range, u64 address, unsigned left) const {
  if (!range) return 1;
  unsigned size = 8;
  while (size > left || size > range->widest || address - range->base + size > range->size) size /= 2;
  return size;
}

u64 MmioBus::read(u64 address, unsigned size) {
  u64 value = 0;
  for (unsigned done = 0; done < size;) {
    const u64 at = address + done;
    const Range* range = find(at);
    const unsigned bytes = piece(range, at, size - done);
    const u64 mask = bytes == 8 ? ~0ull : (1ull << (8 * bytes)) - 1;
    const u64 part = range ? range->device->mmio_read(at - range->base, bytes) & mask : mask;
    value |= part << (8 * done);
    done += bytes;
  }
  return value;
}

void MmioBus::write(u64 address, unsigned size, u64 value) {
  for (unsigned done = 0; done < size;) {
    const u64 at = address + done;
    const Range* range = find(at);
    const unsigned bytes = piece(range, at, size - done);
    const u64 mask = bytes == 8 ? ~0ull : (1ull << (8 * bytes)) - 1;
    if (range) range->device->mmio_write(at - range->base, bytes, (value >> (8 * done)) & mask);
    done += bytes;
  }
}

}  // namespace stasis
