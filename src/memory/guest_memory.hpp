// Guest RAM: one host mapping, seen by the guest below the PCI hole and again from 4 GiB up.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis {

class GuestMemory {
 public:
  static constexpr u64 kHoleStart = 3 * kGiB;  // 0xC000'0000..0xFFFF'FFFF is never RAM
  static constexpr u64 kHoleEnd = 4 * kGiB;
  static constexpr u64 kLeast = 1 * kMiB, kMost = 1024 * kGiB;

  // A run of RAM: guest physical addresses [address, address+size) are RAM offsets [offset, offset+size).
  struct Range {
    u64 address, offset, size;
  };

  // size: whole pages, kLeast..kMost. All zero; costs no host memory until touched.
  static Result<GuestMemory> create(u64 size);
  // The RAM of a saved machine: bytes [offset, offset + size) of `fd`, private and lazily read. `nonzero`
  // has one bit per page: clear means that the page is known to be zero in the file. Untouched pages stay
  // the file's; the file is never changed.
  static Result<GuestMemory> map_file(int fd, u64 offset, u64 size, std::vector<u64> nonzero);

  GuestMemory(GuestMemory&& other) noexcept;
  GuestMemory& operator=(GuestMemory&&) = delete;
  ~GuestMemory();

  u64 size() const { return size_; }
  u64 pages() const { return size_ / kPageSize; }
  std::vector<Range> ranges() const;  // one or two, ascending by address
  u8* host() const { return base_; }  // byte at RAM offset 0

  // RAM offset of a guest physical address; kNotRam outside RAM.
  static constexpr u64 kNotRam = ~0ull;
  u64 offset_of(u64 address) const {
    if (address < low_size_) return address;
    const u64 high = address - kHoleEnd;
    return address >= kHoleEnd && high < size_ - low_size_ ? low_size_ + high : kNotRam;
  }
  u64 address_of(u64 offset) const { return offset < low_size_ ? offset : kHoleEnd + (offset - low_size_); }

  // Whole copies by guest physical address; false (and nothing done) when any byte is not RAM.
  bool read(u64 address, MutableBytes out) const;
  bool write(u64 address, Bytes bytes);

  // One bit per page of RAM: set where the page may hold something else than zeros. Pages never touched
  // since create() are known to be zero without being read.
  Result<std::vector<u64>> maybe_nonzero_pages() const;

 private:
  GuestMemory() = default;
  u8* base_ = nullptr;
  u64 size_ = 0;
  u64 low_size_ = 0;
  std::vector<u64> backing_nonzero_;  // empty: no file behind
};

}  // namespace stasis
