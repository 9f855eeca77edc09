// Guest RAM: one host mapping, seen by the guest below the PCI hole and again from 4 GiB up.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <span>
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
  u8* host() const { return base_; }  // byte at RAM offset 0; who writes through it calls mark_written()

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

  // ---- which pages were written: a mark per page, when somebody wants to know ----
  // Off at first; nothing is marked at either switch. Not while another thread writes.
  void track_writes(bool on);
  // New bytes are at [offset, offset + size) of RAM. After they are there, so that whoever takes the mark sees them.
  // From any thread. write() does it by itself.
  void mark_written(u64 offset, u64 size);
  // The same by bits: 64 pages a word, from `first_page` on, which is a multiple of 64.
  void mark_pages(u64 first_page, std::span<const u64> bits);
  // mark_written() would change something: a quick look for a writer that never runs beside take_written().
  bool unmarked(u64 page) const {
    return written_ && !(std::atomic_ref(written_[page / 64]).load(std::memory_order_relaxed) >> page % 64 & 1);
  }
  // Adds the marks to `pages`, one bit per page, 64 a word, and takes them away here.
  void take_written(std::span<u64> pages);

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  GuestMemory() = default;
  u8* base_ = nullptr;
  u64 size_ = 0;
  u64 low_size_ = 0;
  std::vector<u64> backing_nonzero_;  // empty: no file behind
  std::unique_ptr<u64[], Free> written_;  // null: nobody wants to know
};

inline void GuestMemory::mark_written(u64 offset, u64 size) {
  if (!written_ || size == 0) return;
  for (u64 page = offset / kPageSize; page <= (offset + size - 1) / kPageSize; ++page)
    std::atomic_ref(written_[page / 64]).fetch_or(u64{1} << page % 64);
}

}  // namespace stasis
