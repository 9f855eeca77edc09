// Signals that ask the process to end or to stop, as calls on a thread of their own.
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "base/error.hpp"
#include "base/file_descriptor.hpp"

namespace stasis::host {

// Call once, before the first thread starts: these signals then wait for a SignalWatcher, and a
// reader that went away is an error of write() and not the end of the process.
void prepare_signals();
void unblock_signals();  // the default manner again, for commands with nothing to clean up

// SIGINT, SIGTERM, SIGHUP, SIGQUIT: `terminate(number)`. SIGTSTP and SIGCONT: the terminal is given back while the
// process is stopped and taken again afterwards.
class SignalWatcher {
 public:
  static Result<std::unique_ptr<SignalWatcher>> start(std::function<void(int)> terminate);
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;

 private:
  SignalWatcher() = default;
  void run();

  std::function<void(int)> terminate_;
  FileDescriptor signals_, stop_;
  std::thread thread_;
};

}  // namespace stasis::host
