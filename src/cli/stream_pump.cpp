// Making the FIFO, and copying from it.
#include "cli/stream_pump.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <vector>

#include "host/terminal.hpp"

namespace stasis::cli {

namespace {

constexpr int kLook = 50, kPause = 5;  // ms

// To standard output, which may be anybody's and so stays blocking: no more at once than there is room for when poll() says that there is.
Result<> put(Bytes bytes, const std::function<bool()>& failed) {
  while (!bytes.empty()) {
    pollfd room{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
    const int ready = ::poll(&room, 1, kLook);
    if (ready < 0 && errno != EINTR) return fail_errno("standard output", "wait for room in it", errno);
    if (ready <= 0 && failed()) return fail(ErrorCode::cancelled, "standard output", "the save into it was cancelled");
    if (ready <= 0) continue;
    const Bytes piece = bytes.first(std::min<std::size_t>(bytes.size(), PIPE_BUF));
    STASIS_TRY(write_all(STDOUT_FILENO, piece, "standard output"));
    bytes = bytes.subspan(piece.size());
  }
  return {};
}

}  // namespace

Result<StreamPump> StreamPump::create() {
  if (host::is_terminal(STDOUT_FILENO))
    return fail(ErrorCode::usage, "standard output", "is a terminal, and a snapshot is no text", "pipe it on: … | stasis resume -, or name a file");
  const char* where = std::getenv("TMPDIR");
  std::string folder = std::string(where && *where ? where : "/tmp") + "/stasis-stream-XXXXXX";
  if (!::mkdtemp(folder.data())) return fail_errno(folder, "make a folder", errno);
  StreamPump made(std::move(folder), {});
  if (::mkfifo(made.path().c_str(), 0600) != 0) return fail_errno(made.path(), "make a FIFO", errno);
  STASIS_TRY_SET(made.fifo_, open_file(made.path(), O_RDONLY | O_NONBLOCK));
  return made;
}

StreamPump::~StreamPump() { remove(); }

void StreamPump::remove() {
  if (removed_.exchange(true)) return;
  ::unlink(path().c_str());
  ::rmdir(folder_.c_str());
}

Result<> StreamPump::run(const std::function<bool()>& done, const std::function<bool()>& failed) {
  auto pumped = copy(done, failed);
  if (!pumped) close();  // or the writer would wait for a reader that has gone
  return pumped;
}

void StreamPump::close() { fifo_.reset(); }

Result<> StreamPump::copy(const std::function<bool()>& done, const std::function<bool()>& failed) {
  std::vector<u8> buffer(256 * kKiB);
  for (bool last = false;;) {
    pollfd waiting{.fd = fifo_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, last ? 0 : kLook) < 0 && errno != EINTR) return fail_errno(path(), "wait", errno);
    const ssize_t got = ::read(fifo_.get(), buffer.data(), buffer.size());
    if (got > 0) {
      remove();
      STASIS_TRY(put(Bytes(buffer).first(static_cast<std::size_t>(got)), failed));
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno != EAGAIN) return fail_errno(path(), "read", errno);
    if (last) return {};
    last = done();  // what was written by then is read once more
    if (got == 0 && !last) ::poll(nullptr, 0, kPause);  // no writer yet, or no longer: poll() does not wait for one
  }
}

}  // namespace stasis::cli
