// The RAM of a saved guest by guest-physical address (docs/format.md, "RAM").
#pragma once

#include <bit>
#include <cstring>
#include <optional>
#include <vector>

#include "snapshot/image.hpp"

namespace stasis::inspect {

// A view: the pages and the bits must outlive it.
class PhysicalMemory {
 public:
  static constexpr u64 kHoleStart = 3 * kGiB, kHoleEnd = 4 * kGiB;  // never RAM; what follows it continues the offsets

  // Guest-physical addresses [address, address + size) are RAM offsets [offset, offset + size).
  struct Range {
    u64 address, offset, size;
  };

  explicit PhysicalMemory(snapshot::RamSource ram) : base_(ram.base), size_(ram.size), nonzero_(&ram.maybe_nonzero) {}

  u64 size() const { return size_; }
  u64 pages() const { return size_ / kPageSize; }
  const u8* page(u64 index) const { return base_ + index * kPageSize; }
  bool present(u64 index) const {
    return index / 64 < nonzero_->size() && (*nonzero_)[index / 64] >> (index % 64) & 1;
  }
  // The bits of pages 64·chunk and on.
  u64 present_word(u64 chunk) const { return chunk < nonzero_->size() ? (*nonzero_)[chunk] : 0; }

  u64 low_size() const { return size_ < kHoleStart ? size_ : kHoleStart; }
  u64 address_of(u64 offset) const { return offset < low_size() ? offset : kHoleEnd + (offset - low_size()); }
  std::optional<u64> offset_of(u64 address) const {
    if (address < low_size()) return address;
    if (address >= kHoleEnd && address - kHoleEnd < size_ - low_size()) return low_size() + (address - kHoleEnd);
    return std::nullopt;
  }
  std::vector<Range> ranges() const {
    std::vector<Range> out{{0, 0, low_size()}};
    if (size_ > low_size()) out.push_back({kHoleEnd, low_size(), size_ - low_size()});
    return out;
  }

  // False, and nothing copied, when any byte is not RAM.
  bool read(u64 address, MutableBytes out) const {
    if (out.empty()) return true;
    const auto first = offset_of(address);
    if (!first || address + (out.size() - 1) < address) return false;
    const auto last = offset_of(address + (out.size() - 1));
    if (!last || *last - *first != out.size() - 1) return false;
    std::memcpy(out.data(), base_ + *first, out.size());
    return true;
  }
  std::optional<u64> read_u64(u64 address) const {
    u64 value = 0;
    if (!read(address, {reinterpret_cast<u8*>(&value), sizeof value})) return std::nullopt;
    return value;
  }

 private:
  const u8* base_;
  u64 size_;
  const std::vector<u64>* nonzero_;
};

}  // namespace stasis::inspect
