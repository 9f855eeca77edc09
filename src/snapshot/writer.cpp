// Saving: the encoder into a publication, or into a stream.
#include "snapshot/writer.hpp"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <utility>

#include "base/file_descriptor.hpp"
#include "snapshot/encoder.hpp"
#include "snapshot/file_sink.hpp"
#include "snapshot/publication.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot {
namespace {

// A reader that stalls must not keep the save from being cancelled, so a full pipe that does not block is waited for in
// short steps; of one that blocks, a signal ends the wait.
class StreamSink : public Sink {
 public:
  StreamSink(int fd, const std::string& name, std::function<bool()> goes_on) : fd_(fd), name_(name), goes_on_(std::move(goes_on)) {}

  Result<> write(Bytes bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno != EAGAIN && errno != EINTR) return fail_errno(name_, "write", errno);
      if (n < 0) STASIS_TRY(wait());
      else bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }

  Result<> skip_hole(u64 bytes) override {
    static constexpr u8 kZeros[64 * kKiB] = {};
    for (; bytes > sizeof kZeros; bytes -= sizeof kZeros) STASIS_TRY(write(kZeros));
    return write({kZeros, bytes});
  }

 private:
  Result<> wait() {
    constexpr int kLook = 50;  // ms
    if (!goes_on_()) return fail(ErrorCode::cancelled, "snapshot", "saving was cancelled");
    pollfd room{.fd = fd_, .events = POLLOUT, .revents = 0};
    if (::poll(&room, 1, kLook) < 0 && errno != EINTR) return fail_errno(name_, "wait for room in it", errno);
    return {};
  }

  int fd_;
  const std::string& name_;
  std::function<bool()> goes_on_;
};

// Whether it was opened from there, whatever is there now.
bool is_place_of(const OpenSnapshot& snapshot, const std::string& path) {
  const auto place = [](const std::string& name) {
    std::error_code unknown;
    const std::filesystem::path real = std::filesystem::weakly_canonical(name, unknown);
    return unknown ? std::filesystem::path(name) : real;
  };
  struct stat opened, there;
  if (snapshot.streamed || !snapshot.file || ::fstat(snapshot.file.get(), &opened) != 0) return false;
  return place(snapshot.path) == place(path) || (::stat(path.c_str(), &there) == 0 && there.st_dev == opened.st_dev && there.st_ino == opened.st_ino);
}

}  // namespace

Result<SaveReport> save(const std::string& path, const Image& image, const RamSource& ram, SaveProgress* progress, const SaveOptions& options) {
  STASIS_TRY_SET(Publication publication, Publication::begin(path));
  if (options.source && is_place_of(*options.source, path)) STASIS_TRY(publication.check_replaces(options.source->file.get()));
  FileSink sink(publication.fd(), path);
  STASIS_TRY_SET(SaveReport report, encode(sink, image, ram, progress, options));
  STASIS_TRY(publication.publish());
  return report;
}

Result<SaveReport> save_stream(int fd, const std::string& name, const Image& image, const RamSource& ram, SaveProgress* progress,
                               const SaveOptions& options) {
  u64 done = 0, total = 0;
  SaveProgress watched{[&](u64 now, u64 of) { return done = now, total = of, !progress || !progress->step || progress->step(now, of); }};
  StreamSink sink(fd, name, [&] { return watched.step(done, total); });
  return encode(sink, image, ram, &watched, options);
}

}  // namespace stasis::snapshot
