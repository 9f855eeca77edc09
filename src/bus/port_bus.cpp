// Port decoding: splits an access into pieces that one device takes whole.
#include "bus/port_bus.hpp"

#include "base/error.hpp"

namespace stasis {

void PortBus::map(u16 first, u16 last, PortDevice& device, unsigned widest) {
  STASIS_ASSERT(first <= last && (widest == 1 || widest == 2 || widest == 4));
  for (const Range& range : ranges_) STASIS_ASSERT(last < range.first || range.last < first);
  ranges_.push_back({first, last, widest, &device});
}

void PortBus::unmap(u16 first) {
  std::erase_if(ranges_, [&](const Range& range) { return range.first == first; });
}

const PortBus::Range* PortBus::find(u32 port) const {
  for (const Range& range : ranges_)
    if (port >= range.first && port <= range.last) return &range;
  return nullptr;
}

unsigned PortBus::piece(const Range* range, u32 port, unsigned left) const {
  if (!range) return 1;
  unsigned size = 4;
  while (size > left || size > range->widest || port + size - 1 > range->last) size /= 2;
  return size;
}

u32 PortBus::read(u16 port, unsigned size) {
  u32 value = 0;
  for (unsigned done = 0; done < size;) {
    const u32 at = (port + done) & 0xffff;
    const Range* range = find(at);
    const unsigned bytes = piece(range, at, size - done);
    const u32 mask = bytes == 4 ? ~0u : (1u << (8 * bytes)) - 1;
    const u32 part = range ? range->device->port_read(static_cast<u16>(at), bytes) & mask : mask;
    value |= part << (8 * done);
    done += bytes;
  }
  return value;
}

void PortBus::write(u16 port, unsigned size, u32 value) {
  for (unsigned done = 0; done < size;) {
    const u32 at = (port + done) & 0xffff;
    const Range* range = find(at);
    const unsigned bytes = piece(range, at, size - done);
    const u32 mask = bytes == 4 ? ~0u : (1u << (8 * bytes)) - 1;
    if (range) range->device->port_write(static_cast<u16>(at), bytes, (value >> (8 * done)) & mask);
    done += bytes;
  }
}

}  // namespace stasis
