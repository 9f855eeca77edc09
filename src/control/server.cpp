// Accepting, turning away, and the end of all connections.
#include "control/server.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "control/http_session.hpp"

namespace stasis::control {
namespace {

bool may_connect(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == ::geteuid() || peer.uid == 0);
}

// A short answer without HTTP's machinery; the peer's request is not read.
void turn_away(int socket, std::string_view status, std::string_view code, std::string_view message) {
  const std::string body = fmt::format(R"({{"error": {{"code": "{}", "object": "control socket", "message": "{}", "hint": ""}}}})"
                                       "\n", code, message);
  const std::string text = fmt::format("HTTP/1.1 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
                                       "Connection: close\r\n\r\n{}", status, body.size(), body);
  (void)::send(socket, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

struct Server::Connection {
  FileDescriptor socket;
  std::thread thread;
  std::atomic<bool> finished{false};
};

Server::Server(ClaimedName name, Target& target) : name_(std::move(name)), target_(target) {}

Result<std::unique_ptr<Server>> Server::start(ClaimedName name, Target& target) {
  std::unique_ptr<Server> server(new Server(std::move(name), target));
  STASIS_TRY_SET(server->listener_, server->name_.listen());
  server->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!server->wake_) return fail_errno("control socket", "eventfd", errno);
  server->thread_ = std::thread([raw = server.get()] { raw->run(); });
  return server;
}

Server::~Server() { stop(); }

void Server::stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  ::eventfd_write(wake_.get(), 1);
  thread_.join();
}

void Server::run() {
  while (!stopping_) {
    pollfd fds[2] = {{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) break;
    eventfd_t count;
    if (fds[1].revents) ::eventfd_read(wake_.get(), &count);
    reap(false);
    if (fds[0].revents && !stopping_) accept_one();
  }
  ::unlink(name_.socket().c_str());
  listener_.reset();
  // Readers see the end of their input; an answer under way still goes out.
  for (auto& connection : connections_) ::shutdown(connection->socket.get(), SHUT_RD);
  reap(true);
}

void Server::accept_one() {
  FileDescriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) {
    // Out of descriptors: the peer waits, and so do we, instead of spinning.
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) ::poll(nullptr, 0, 100);
    return;
  }
  if (!may_connect(socket.get()))
    return turn_away(socket.get(), "403 Forbidden", "permission", "only the machine's user and root may connect");
  if (connections_.size() >= kMostConnections)
    return turn_away(socket.get(), "503 Service Unavailable", "busy", "has as many connections as it takes");
  auto connection = std::make_unique<Connection>();
  connection->socket = std::move(socket);
  const auto serve = [this, raw = connection.get()] {
    serve_http(raw->socket.get(), target_);
    ::shutdown(raw->socket.get(), SHUT_RDWR);
    raw->finished = true;
    ::eventfd_write(wake_.get(), 1);
  };
  try {
    connection->thread = std::thread(serve);
  } catch (const std::system_error&) {
    return turn_away(connection->socket.get(), "503 Service Unavailable", "busy", "the host gives no more threads");
  }
  connections_.push_back(std::move(connection));
}

void Server::reap(bool all) {
  connections_.remove_if([all](const auto& connection) {
    if (!all && !connection->finished) return false;
    connection->thread.join();
    return true;
  });
}

}  // namespace stasis::control
