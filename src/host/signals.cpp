// Signals through signalfd: no handler, so no rules about what may be called.
#include "host/signals.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "host/terminal.hpp"

namespace stasis::host {
namespace {

sigset_t watched() {
  sigset_t set;
  ::sigemptyset(&set);
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT}) ::sigaddset(&set, number);
  return set;
}

void handle(int number, const std::function<void(int)>& terminate) {
  switch (number) {
    case SIGTSTP:
      give_terminal_back();
      ::kill(::getpid(), SIGSTOP);  // may return before this thread stops: SIGCONT says when the process goes on
      break;
    case SIGCONT:  // also after a SIGSTOP, when the shell has put its own settings there
      take_terminal_again();
      break;
    default: terminate(number);
  }
}

}  // namespace

void prepare_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  const sigset_t set = watched();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void unblock_signals() {
  const sigset_t set = watched();
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

Result<std::unique_ptr<SignalWatcher>> SignalWatcher::start(std::function<void(int)> terminate) {
  std::unique_ptr<SignalWatcher> watcher(new SignalWatcher);
  const sigset_t set = watched();
  watcher->terminate_ = std::move(terminate);
  watcher->signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  watcher->stop_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!watcher->signals_ || !watcher->stop_) return fail_errno("signals", "watch", errno);
  watcher->thread_ = std::thread([raw = watcher.get()] { raw->run(); });
  return watcher;
}

SignalWatcher::~SignalWatcher() {
  if (!thread_.joinable()) return;
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void SignalWatcher::run() {
  for (;;) {
    pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if (fds[1].revents) return;
    signalfd_siginfo info;
    while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
      handle(static_cast<int>(info.ssi_signo), terminate_);
  }
}

}  // namespace stasis::host
