// Guest RAM: mapping, address arithmetic, and which pages were never touched.
#include "memory/guest_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file_descriptor.hpp"

namespace stasis {
namespace {

Result<> check_size(u64 size) {
  if (size % kPageSize == 0 && size >= GuestMemory::kLeast && size <= GuestMemory::kMost) return {};
  return fail(ErrorCode::usage, "memory",
              fmt::format("size is {} bytes, allowed are whole 4 KiB pages from {} MiB to {} GiB", size,
                          GuestMemory::kLeast / kMiB, GuestMemory::kMost / kGiB),
              "use for example --memory 512M");
}

}  // namespace

// Aligned to huge pages, and the host is asked for them: a guest that starts touches all it has for the first time, and
// under KVM each first touch of a page is an exit.
Result<GuestMemory> GuestMemory::create(u64 size) {
  STASIS_TRY(check_size(size));
  constexpr u64 kHugePage = 2 * kMiB;
  void* at = ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    return fail_errno("memory", fmt::format("cannot reserve {} MiB of guest RAM", size / kMiB), errno, "use a smaller --memory");
  u8* const all = static_cast<u8*>(at);
  const u64 before = -reinterpret_cast<u64>(all) % kHugePage;
  if (before > 0) ::munmap(all, before);
  if (before < kHugePage) ::munmap(all + before + size, kHugePage - before);
  (void)::madvise(all + before, size, MADV_HUGEPAGE);  // a hint
  GuestMemory made;
  made.base_ = all + before;
  made.size_ = size;
  made.low_size_ = std::min(size, kHoleStart);
  return made;
}

Result<GuestMemory> GuestMemory::map_file(int fd, u64 offset, u64 size, std::vector<u64> nonzero) {
  STASIS_TRY(check_size(size));
  if (nonzero.size() != (size / kPageSize + 63) / 64)
    return fail(ErrorCode::bad_file, "memory", fmt::format("the page map has {} words for {} pages", nonzero.size(), size / kPageSize));
  void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, static_cast<off_t>(offset));
  if (at == MAP_FAILED) return fail_errno("memory", fmt::format("cannot map {} MiB of saved RAM", size / kMiB), errno);
  GuestMemory made;
  made.base_ = static_cast<u8*>(at);
  made.size_ = size;
  made.low_size_ = std::min(size, kHoleStart);
  made.backing_nonzero_ = std::move(nonzero);
  return made;
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      low_size_(other.low_size_),
      backing_nonzero_(std::move(other.backing_nonzero_)),
      written_(std::move(other.written_)) {}

GuestMemory::~GuestMemory() {
  if (base_) ::munmap(base_, size_);
}

std::vector<GuestMemory::Range> GuestMemory::ranges() const {
  std::vector<Range> out{{0, 0, low_size_}};
  if (size_ > low_size_) out.push_back({kHoleEnd, low_size_, size_ - low_size_});
  return out;
}

bool GuestMemory::read(u64 address, MutableBytes out) const {
  const u64 at = offset_of(address);
  if (out.empty()) return true;
  if (at == kNotRam || offset_of(address + out.size() - 1) != at + out.size() - 1) return false;
  std::memcpy(out.data(), base_ + at, out.size());
  return true;
}

bool GuestMemory::write(u64 address, Bytes bytes) {
  const u64 at = offset_of(address);
  if (bytes.empty()) return true;
  if (at == kNotRam || offset_of(address + bytes.size() - 1) != at + bytes.size() - 1) return false;
  std::memcpy(base_ + at, bytes.data(), bytes.size());
  mark_written(at, bytes.size());
  return true;
}

void GuestMemory::track_writes(bool on) {
  if (!on) written_.reset();
  if (!on || written_) return;
  written_.reset(static_cast<u64*>(std::calloc((pages() + 63) / 64, sizeof(u64))));
  STASIS_ASSERT(written_);
}

void GuestMemory::mark_pages(u64 first_page, std::span<const u64> bits) {
  STASIS_ASSERT(first_page % 64 == 0 && first_page / 64 + bits.size() <= (pages() + 63) / 64);
  if (!written_) return;
  for (std::size_t i = 0; i < bits.size(); ++i)
    if (bits[i]) std::atomic_ref(written_[first_page / 64 + i]).fetch_or(bits[i]);
}

void GuestMemory::take_written(std::span<u64> out) {
  STASIS_ASSERT(out.size() == (pages() + 63) / 64);
  if (!written_) return;
  for (std::size_t i = 0; i < out.size(); ++i)
    if (written_[i]) out[i] |= std::atomic_ref(written_[i]).exchange(0);
}

Result<std::vector<u64>> GuestMemory::maybe_nonzero_pages() const {
  // /proc/self/pagemap: a 64-bit entry per page; bit 63 present, bit 62 swapped (proc(5)).
  constexpr u64 kPresentOrSwapped = 3ull << 62;
  std::vector<u64> bits = backing_nonzero_;
  bits.resize((pages() + 63) / 64);
  const auto pagemap = open_file("/proc/self/pagemap", O_RDONLY);
  if (!pagemap) {  // no /proc, or not for us: then every page is looked at
    std::ranges::fill(bits, ~0ull);
    return bits;
  }
  std::vector<u64> entries(65536);
  for (u64 first = 0; first < pages(); first += entries.size()) {
    const u64 count = std::min<u64>(entries.size(), pages() - first);
    const u64 at = (reinterpret_cast<u64>(base_) / kPageSize + first) * sizeof(u64);
    STASIS_TRY(read_exactly_at(pagemap->get(), {reinterpret_cast<u8*>(entries.data()), count * sizeof(u64)}, at,
                               "/proc/self/pagemap"));
    for (u64 i = 0; i < count; ++i)
      if (entries[i] & kPresentOrSwapped) bits[(first + i) / 64] |= 1ull << ((first + i) % 64);
  }
  return bits;
}

}  // namespace stasis
