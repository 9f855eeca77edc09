// The console as a byte stream. A peer that does not read loses output; it never slows the guest.
#include "control/console_stream.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file_descriptor.hpp"
#include "host/byte_queue.hpp"

namespace stasis::control {
namespace {

constexpr std::size_t kMostQueued = kMiB;
constexpr int kLastWordsMs = 1000;  // how long a peer may take for the rest once the machine has ended
constexpr int kOfferAgainMs = 10;

// False: the peer is gone. Sends what the socket takes at once.
bool send_some(int socket, host::ByteQueue& output) {
  std::array<u8, 16384> chunk;
  for (;;) {
    const std::size_t count = output.peek(chunk);
    if (count == 0) return true;
    const ssize_t sent = ::send(socket, chunk.data(), count, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    output.consume(static_cast<std::size_t>(sent));
  }
}

void send_last_words(int socket, host::ByteQueue& output) {
  while (send_some(socket, output) && output.size() > 0) {
    pollfd fd{socket, POLLOUT, 0};
    if (::poll(&fd, 1, kLastWordsMs) <= 0) return;
  }
}

}  // namespace

void pump_console(int socket, Target& target, Bytes early) {
  const FileDescriptor ready(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!ready) return;
  host::ByteQueue output(kMostQueued, 0);
  const u64 listener = target.add_console_listener([&](Bytes bytes) {
    output.push(bytes);
    ::eventfd_write(ready.get(), 1);
  });
  std::vector<u8> offered(early.begin(), early.end());  // from the peer, and not yet taken
  for (;;) {
    if (!offered.empty()) {
      const std::size_t taken = std::min(target.console_input(offered), offered.size());
      offered.erase(offered.begin(), offered.begin() + static_cast<std::ptrdiff_t>(taken));
    }
    const int events = (offered.empty() ? POLLIN : 0) | (output.size() > 0 ? POLLOUT : 0);
    pollfd fds[2] = {{ready.get(), POLLIN, 0}, {socket, static_cast<short>(events), 0}};
    if (::poll(fds, 2, offered.empty() ? -1 : kOfferAgainMs) < 0 && errno != EINTR) break;
    eventfd_t count;
    if (fds[0].revents) ::eventfd_read(ready.get(), &count);
    if (!send_some(socket, output)) break;
    if (fds[1].revents & POLLERR) break;
    if (fds[1].revents & POLLIN) {
      std::array<u8, 4096> chunk;
      const ssize_t got = ::recv(socket, chunk.data(), chunk.size(), MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) break;
      if (got > 0) offered.assign(chunk.begin(), chunk.begin() + got);
    } else if (fds[1].revents & POLLHUP) {
      if (offered.empty()) break;
      ::poll(nullptr, 0, kOfferAgainMs);  // the peer has gone, but what it sent is the guest's
    }
  }
  target.remove_console_listener(listener);
  send_last_words(socket, output);
}

}  // namespace stasis::control
