// The console's thread: poll, then at most one read and one write that do not block.
#include "host/console_line.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.hpp"

namespace stasis::host {
namespace {

constexpr std::size_t kChunk = 4096;   // PIPE_BUF: a pipe that polls as writable takes it at once
constexpr int kOfferAgainMs = 10;

}  // namespace

Console::Line::~Line() {
  if (listener) ::unlink(spec.path.c_str());
}

void Console::Line::wake() const { ::eventfd_write(wake_event.get(), 1); }

void Console::Line::run() {
  for (;;) {
    const bool has_output = output.size() > 0;
    if (closing && !has_output) break;
    if (closing && out < 0) break;
    const bool wants_input = in >= 0 && offered_.empty() && started && !closing;
    pollfd fds[4] = {{wake_event.get(), POLLIN, 0},
                     {in, static_cast<short>(wants_input ? POLLIN : 0), 0},
                     {has_output ? out : -1, POLLOUT, 0},
                     {owned || closing ? -1 : listener.get(), POLLIN, 0}};
    if (!wants_input && spec.kind != ConsoleKind::unix_socket) fds[1].fd = -1;
    if (::poll(fds, 4, offered_.empty() ? -1 : kOfferAgainMs) < 0 && errno != EINTR) break;
    eventfd_t count;
    if (fds[0].revents) ::eventfd_read(wake_event.get(), &count);
    if (!offered_.empty()) offer_input();
    if (fds[3].revents) take_client();
    if (fds[1].revents && wants_input) read_input();
    else if (fds[1].revents & (POLLHUP | POLLERR) && owned && listener) drop_client();
    if (fds[2].revents && out >= 0) write_output();
  }
  output.abandon();
  finished = true;
}

void Console::Line::take_client() {
  const int client = ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (client < 0) return;
  owned.reset(client);
  in = out = client;
  has_reader = true;
}

void Console::Line::drop_client() {
  has_reader = false;
  owned.reset();
  in = out = -1;
  offered_.clear();
  output.consume(output.size());  // was meant for the client that left
}

void Console::Line::read_input() {
  std::array<u8, kChunk> chunk;
  const ssize_t got = ::read(in, chunk.data(), chunk.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (got <= 0) {  // the end of the input is not the end of the guest
    if (listener) drop_client();
    else in = -1;
    return;
  }
  Bytes bytes(chunk.data(), static_cast<std::size_t>(got));
  if (terminal) {
    const TypedBytes typed = split_at_leave_key(bytes);
    bytes = typed.bytes;
    if (typed.leave) {
      in = -1;
      leave();
    }
  }
  offered_.assign(bytes.begin(), bytes.end());
  if (!offered_.empty()) offer_input();
}

void Console::Line::offer_input() {
  const std::size_t taken = input(offered_);
  offered_.erase(offered_.begin(), offered_.begin() + static_cast<std::ptrdiff_t>(std::min(taken, offered_.size())));
}

void Console::Line::write_output() {
  std::array<u8, kChunk> chunk;
  const std::size_t count = output.peek(chunk);
  const ssize_t done = ::write(out, chunk.data(), count);
  if (done >= 0) return output.consume(static_cast<std::size_t>(done));
  if (errno == EINTR || errno == EAGAIN) return;
  if (listener) return drop_client();
  if (errno != EPIPE && !told_of_loss_)
    log::warning("console: write: {}; the guest goes on, and what it prints is lost", std::strerror(errno));
  told_of_loss_ = true;
  if (spec.kind == ConsoleKind::file && (errno == ENOSPC || errno == EDQUOT)) return output.consume(count);  // may get better
  out = -1;
  output.abandon();
}

}  // namespace stasis::host
