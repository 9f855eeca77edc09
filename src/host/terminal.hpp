// The person's terminal: raw while a guest owns it, and given back in every case.
#pragma once

#include <termios.h>

#include <utility>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis::host {

constexpr u8 kLeaveKey = 0x1d;  // Ctrl-]

// What raw means here: every key goes to the guest as it is, and nothing is changed on the way out.
termios raw_settings(termios before);

// The bytes before the leave key, and whether it was there; what follows it is dropped.
struct TypedBytes {
  Bytes bytes;
  bool leave = false;
};
TypedBytes split_at_leave_key(Bytes typed);

bool is_terminal(int fd);

// Raw mode while it lives. A process has one terminal, so one of these at a time.
// Gives the terminal back on destruction, exit(), and before the process dies of SIGSEGV, SIGBUS, SIGILL, SIGFPE or
// SIGABRT (unless somebody handles these already). Signals that ask to end or stop are for SignalWatcher's owner.
class RawTerminal {
 public:
  static Result<RawTerminal> enter(int fd);
  RawTerminal(RawTerminal&& other) noexcept : owns_(std::exchange(other.owns_, false)) {}
  RawTerminal& operator=(RawTerminal&&) = delete;
  ~RawTerminal();

 private:
  RawTerminal() = default;
  bool owns_ = true;
};

// From any thread and from signal handlers; nothing happens when no RawTerminal lives.
void give_terminal_back();   // before the process stops or dies
void take_terminal_again();  // after it goes on

}  // namespace stasis::host
