// Physical addresses that are not RAM.
#pragma once

#include <vector>

#include "base/types.hpp"

namespace stasis {

// Offsets are relative to the mapped base. `size` is 1, 2, 4 or 8; an access never crosses the range's end
// and is never wider than the device mapped itself: wider ones arrive split, low address first.
class MmioDevice {
 public:
  virtual ~MmioDevice() = default;
  virtual u64 mmio_read(u64 offset, unsigned size) = 0;
  virtual void mmio_write(u64 offset, unsigned size, u64 value) = 0;
};

class MmioBus {
 public:
  void map(u64 base, u64 size, MmioDevice& device, unsigned widest = 8);  // ranges do not overlap (assertion)
  void unmap(u64 base);
  bool mapped(u64 address) const { return find(address) != nullptr; }

  u64 read(u64 address, unsigned size);  // unmapped bytes read as 0xff
  void write(u64 address, unsigned size, u64 value);

 private:
  struct Range {
    u64 base, size;
    unsigned widest;
    MmioDevice* device;
  };
  const Range* find(u64 address) const;
  unsigned piece(const Range* range, u64 address, unsigned left) const;
  std::vector<Range> ranges_;
};

}  // namespace stasis
