// Bringing the RAM of a snapshot into memory.
#include "snapshot/ram_image.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

namespace stasis::snapshot {

Result<RamImage> RamImage::load(const OpenSnapshot& snapshot, SaveProgress* progress) {
  const u64 size = snapshot.image.ram_size;
  const OpenSnapshot& root = root_of(snapshot);
  const bool mapped = root.ram.encoding == Encoding::mapped;
  const int flags = MAP_PRIVATE | MAP_NORESERVE | (mapped ? 0 : MAP_ANONYMOUS);
  void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, mapped ? root.file.get() : -1, mapped ? static_cast<off_t>(root.ram_offset) : 0);
  if (at == MAP_FAILED) return fail_errno(snapshot.path, "mapping the saved RAM", errno);
  RamImage out;
  out.base_ = static_cast<u8*>(at);
  out.size_ = size;
  out.nonzero_ = snapshot.nonzero;
  if (!mapped || snapshot.parent) STASIS_TRY(load_ram(snapshot, out.base_, mapped, progress));
  return out;
}

RamImage::RamImage(RamImage&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), size_(std::exchange(other.size_, 0)), nonzero_(std::move(other.nonzero_)) {}

RamImage::~RamImage() {
  if (base_) ::munmap(base_, size_);
}

}  // namespace stasis::snapshot
