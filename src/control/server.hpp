// The control socket of one machine: accepts connections of its owner and of root, a thread each.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <thread>

#include "control/runtime_dir.hpp"
#include "control/target.hpp"

namespace stasis::control {

class Server {
 public:
  static constexpr std::size_t kMostConnections = 32;

  // Listens under the claimed name. `target` outlives the server.
  static Result<std::unique_ptr<Server>> start(ClaimedName name, Target& target);
  ~Server();  // stop()
  Server(const Server&) = delete;

  // No new connections; requests under way are answered; then the socket is gone. The machine should have
  // ended before, so that no request waits for it.
  void stop();

 private:
  struct Connection;
  Server(ClaimedName name, Target& target);
  void run();
  void accept_one();
  void reap(bool all);

  ClaimedName name_;
  Target& target_;
  FileDescriptor listener_, wake_;
  std::list<std::unique_ptr<Connection>> connections_;  // the accepting thread's
  std::thread thread_;
  std::atomic<bool> stopping_{false};
};

}  // namespace stasis::control
