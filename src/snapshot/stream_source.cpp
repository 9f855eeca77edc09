// Reading ahead of nothing: exactly what is asked for is taken off the stream.
#include "snapshot/stream_source.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "snapshot/hash.hpp"

namespace stasis::snapshot {

Result<std::shared_ptr<StreamSource>> StreamSource::create(int fd, const std::string& name) {
  FileDescriptor memory(::memfd_create("snapshot", MFD_CLOEXEC));
  if (!memory) return fail_errno(name, "reserve memory for what arrives", errno);
  return std::shared_ptr<StreamSource>(new StreamSource(fd, name, std::move(memory)));
}

Result<> StreamSource::read(u64 offset, MutableBytes out) const {
  STASIS_TRY(take_until(offset + out.size()));
  return read_exactly_at(memory_.get(), out, offset, name_);
}

Result<> StreamSource::take_until(u64 offset) const {
  std::vector<u8> buffer(std::min<u64>(kMiB, offset > arrived_ ? offset - arrived_ : 0));
  while (arrived_ < offset) {
    const u64 until_page = kPageSize - arrived_ % kPageSize;  // then whole pages, so that those of zeros are seen
    const u64 wanted = std::min<u64>({buffer.size(), offset - arrived_, arrived_ % kPageSize ? until_page : kMiB});
    u64 got = 0;
    while (got < wanted) {
      const ssize_t n = ::read(fd_, buffer.data() + got, wanted - got);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(name_, "read", errno);
      if (n == 0)
        return fail(ErrorCode::bad_file, name_, fmt::format("is incomplete: it ends after {} bytes, before its commit record", arrived_ + got),
                    "its writer was interrupted; save again");
      got += static_cast<u64>(n);
    }
    for (u64 done = 0; done < got;) {
      const u64 piece = std::min(kPageSize, got - done);
      if (piece < kPageSize || !is_zero_page(buffer.data() + done))
        STASIS_TRY(write_all_at(memory_.get(), Bytes(buffer).subspan(done, piece), arrived_ + done, name_));
      done += piece;
    }
    arrived_ += got;
    if (::ftruncate(memory_.get(), static_cast<off_t>(arrived_)) != 0) return fail_errno(name_, "keep what arrived", errno);
  }
  return {};
}

}  // namespace stasis::snapshot
