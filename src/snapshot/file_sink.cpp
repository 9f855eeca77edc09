// Writing a snapshot to disk, and saying what is missing when the disk is full.
#include "snapshot/file_sink.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace stasis::snapshot {
namespace {
constexpr u64 kWriteBackStep = 16 * kMiB;
constexpr u64 kShortestDirect = 128 * kKiB;
constexpr u64 kGathered = 4 * kMiB;
}

Result<> FileSink::announce(u64, u64 most_stored) {
  needed_ = most_stored;
  return {};
}

// Switches the descriptor to what suits `bytes`; true: directly.
bool FileSink::go_direct(Bytes bytes) {
  const u64 bits = reinterpret_cast<u64>(bytes.data()) | bytes.size() | position_;
  const bool wanted = direct_possible_ && bytes.size() >= kShortestDirect && bits % kPageSize == 0;
  if (wanted == direct_) return direct_;
  const int flags = ::fcntl(fd_, F_GETFL);
  if (flags >= 0 && ::fcntl(fd_, F_SETFL, wanted ? flags | O_DIRECT : flags & ~O_DIRECT) == 0) direct_ = wanted;
  else direct_possible_ = false;
  return direct_;
}

Result<> FileSink::put(Bytes bytes) {
  while (!bytes.empty()) {
    const bool direct = go_direct(bytes);
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(position_));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EINVAL && direct) {
      direct_possible_ = false;
      continue;
    }
    if (n < 0) return refused("write", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    position_ += static_cast<u64>(n);
  }
  if (position_ - written_back_ >= kWriteBackStep) {  // a hint: its failure is fdatasync's to report
    (void)::sync_file_range(fd_, static_cast<off_t>(written_back_), static_cast<off_t>(position_ - written_back_), SYNC_FILE_RANGE_WRITE);
    written_back_ = position_;
  }
  return {};
}

Result<> FileSink::write(Bytes bytes) {
  const u64 place = position_ + (end_ - begin_), bits = reinterpret_cast<u64>(bytes.data()) | bytes.size() | place;
  if (bits % kPageSize == 0 && bytes.size() >= kShortestDirect) {
    STASIS_TRY(flush());
    return put(bytes);
  }
  if (!gathered_) {
    gathered_.reset(static_cast<u8*>(std::aligned_alloc(kPageSize, kGathered)));
    STASIS_ASSERT(gathered_);
  }
  while (!bytes.empty()) {
    if (begin_ == end_) begin_ = end_ = position_ % kPageSize;
    const u64 fits = std::min<u64>(bytes.size(), kGathered - end_);
    std::memcpy(gathered_.get() + end_, bytes.data(), fits);
    end_ += fits;
    bytes = bytes.subspan(fits);
    if (end_ == kGathered) STASIS_TRY(flush());
  }
  return {};
}

// Whole pages in the middle by themselves: they can go directly.
Result<> FileSink::flush() {
  const u64 pages_begin = std::min(align_up(begin_, kPageSize), end_), pages_end = std::max(end_ / kPageSize * kPageSize, pages_begin);
  const Bytes all(gathered_.get(), end_);
  const u64 begin = begin_;
  begin_ = end_ = 0;
  if (pages_end - pages_begin < kShortestDirect) return put(all.subspan(begin));
  STASIS_TRY(put(all.subspan(begin, pages_begin - begin)));
  STASIS_TRY(put(all.subspan(pages_begin, pages_end - pages_begin)));
  return put(all.subspan(pages_end));
}

Result<> FileSink::skip_hole(u64 bytes) {
  STASIS_TRY(flush());
  position_ += bytes;
  return {};
}

Result<> FileSink::settle() {
  STASIS_TRY(flush());
  if (::fdatasync(fd_) != 0) return refused("write to disk", errno);
  return {};
}

std::unexpected<Error> FileSink::refused(const char* what, int error) const {
  if (error != ENOSPC && error != EDQUOT) return fail_errno(name_, what, error);
  struct statvfs space;
  struct stat taken;
  u64 free = 0;  // without the file that is being given up
  if (::fstatvfs(fd_, &space) == 0) free += space.f_bavail * space.f_frsize;
  if (::fstat(fd_, &taken) == 0) free += static_cast<u64>(taken.st_blocks) * 512;
  const char* full = error == EDQUOT ? "the disk quota is used up" : "the disk is full";
  return fail(ErrorCode::host, name_,
              fmt::format("{}: the snapshot needs up to {} bytes ({} MiB), {} bytes ({} MiB) are free", full, needed_,
                          (needed_ + kMiB - 1) / kMiB, free, free / kMiB),
              "free some space or save to another disk");
}

}  // namespace stasis::snapshot
