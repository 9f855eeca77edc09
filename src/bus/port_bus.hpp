// The 64 KiB I/O port space.
#pragma once

#include <string>
#include <vector>

#include "base/types.hpp"

namespace stasis {

// What a device offers behind its ports. `size` is 1, 2 or 4 and never wider than the device mapped itself;
// accesses that are wider or that cross the end of the range arrive split, low address first.
class PortDevice {
 public:
  virtual ~PortDevice() = default;
  virtual u32 port_read(u16 port, unsigned size) = 0;
  virtual void port_write(u16 port, unsigned size, u32 value) = 0;
};

class PortBus {
 public:
  // Ports first..last belong to `device`; ranges do not overlap (assertion). widest: 1, 2 or 4 bytes.
  void map(u16 first, u16 last, PortDevice& device, unsigned widest = 1);
  void unmap(u16 first);

  u32 read(u16 port, unsigned size);  // unmapped bytes read as 0xff
  void write(u16 port, unsigned size, u32 value);  // to unmapped ports: dropped

  // In words, for tests: one-byte and sized access.
  u32 in(u16 port, unsigned size = 1) { return read(port, size); }
  void out(u16 port, u32 value, unsigned size = 1) { write(port, size, value); }

 private:
  struct Range {
    u16 first, last;
    unsigned widest;
    PortDevice* device;
  };
  const Range* find(u32 port) const;
  unsigned piece(const Range* range, u32 port, unsigned left) const;
  std::vector<Range> ranges_;
};

}  // namespace stasis
