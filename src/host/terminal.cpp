// Raw mode, and the way back from it. tcsetattr and sigaction may be called in signal handlers (POSIX.1-2017 2.4.3).
#include "host/terminal.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>

namespace stasis::host {
namespace {

// The one terminal of the process: signal handlers and exit() can reach nothing else.
struct Held {
  std::atomic<bool> active{false};
  int fd = -1;
  termios before{};
  termios raw{};
};
Held held;

constexpr int kFatalSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

// SA_RESETHAND has put the default action back: raising the signal again ends the process as it would have.
void die_with_terminal_restored(int signal_number) {
  give_terminal_back();
  ::raise(signal_number);
}

void watch_fatal_signals() {
  for (int number : kFatalSignals) {
    struct sigaction now {};
    if (::sigaction(number, nullptr, &now) != 0 || now.sa_handler != SIG_DFL) continue;
    struct sigaction action {};
    action.sa_handler = die_with_terminal_restored;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
    ::sigemptyset(&action.sa_mask);
    ::sigaction(number, &action, nullptr);
  }
}

void unwatch_fatal_signals() {
  for (int number : kFatalSignals) {
    struct sigaction now {};
    if (::sigaction(number, nullptr, &now) != 0 || now.sa_handler != die_with_terminal_restored) continue;
    ::signal(number, SIG_DFL);
  }
}

void set_settings(int fd, const termios& settings) {
  const int error = errno;
  while (::tcsetattr(fd, TCSANOW, &settings) != 0 && errno == EINTR) {
  }
  errno = error;
}

}  // namespace

termios raw_settings(termios before) {
  before.c_iflag &= static_cast<tcflag_t>(~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON));
  before.c_oflag &= static_cast<tcflag_t>(~OPOST);
  before.c_lflag &= static_cast<tcflag_t>(~(ECHO | ECHONL | ICANON | ISIG | IEXTEN));
  before.c_cflag &= static_cast<tcflag_t>(~(CSIZE | PARENB));
  before.c_cflag |= CS8;
  before.c_cc[VMIN] = 1;
  before.c_cc[VTIME] = 0;
  return before;
}

TypedBytes split_at_leave_key(Bytes typed) {
  const auto key = std::find(typed.begin(), typed.end(), kLeaveKey);
  return {typed.first(static_cast<std::size_t>(key - typed.begin())), key != typed.end()};
}

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

Result<RawTerminal> RawTerminal::enter(int fd) {
  if (held.active) return fail(ErrorCode::busy, "terminal", "is in use by another console of this process");
  if (::tcgetattr(fd, &held.before) != 0) return fail_errno("terminal", "read its settings", errno);
  held.fd = fd;
  held.raw = raw_settings(held.before);
  static const int registered = std::atexit(give_terminal_back);
  (void)registered;
  watch_fatal_signals();
  held.active = true;
  if (::tcsetattr(fd, TCSADRAIN, &held.raw) != 0) {
    const int error = errno;
    held.active = false;
    unwatch_fatal_signals();
    return fail_errno("terminal", "set raw mode", error);
  }
  return RawTerminal();
}

RawTerminal::~RawTerminal() {
  if (!owns_) return;
  give_terminal_back();
  held.active = false;
  unwatch_fatal_signals();
}

void give_terminal_back() {
  if (held.active) set_settings(held.fd, held.before);
}

void take_terminal_again() {
  if (held.active) set_settings(held.fd, held.raw);
}

}  // namespace stasis::host
