// stasis console: the terminal or the pipes of this process become a machine's COM1.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "control/client.hpp"
#include "host/signals.hpp"
#include "host/terminal.hpp"

namespace stasis::cli {
namespace {

enum class Left { by_key, by_signal, machine_ended, reader_gone };

class Attachment {
 public:
  Attachment(int socket, int leave, bool terminal) : socket_(socket), leave_(leave), terminal_(terminal) {}
  Left run() {
    while (!left_) {
      pollfd fds[3] = {{leave_, POLLIN, 0}, {socket_, POLLIN, 0}, {input_open_ ? STDIN_FILENO : -1, POLLIN, 0}};
      if (::poll(fds, 3, -1) < 0 && errno != EINTR) return Left::by_signal;
      if (fds[0].revents) return Left::by_signal;
      if (fds[1].revents) take_output();
      if (fds[2].revents && !left_) take_input();
    }
    return *left_;
  }

 private:
  void take_output() {
    const ssize_t got = ::read(socket_, chunk_.data(), chunk_.size());
    if (got < 0 && errno == EINTR) return;
    if (got <= 0) left_ = Left::machine_ended;
    else if (!write_all(STDOUT_FILENO, Bytes(chunk_.data(), static_cast<std::size_t>(got)), "standard output")) left_ = Left::reader_gone;
  }
  void take_input() {
    const ssize_t got = ::read(STDIN_FILENO, chunk_.data(), chunk_.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got <= 0) {
      input_open_ = false;
      return;
    }
    host::TypedBytes typed{Bytes(chunk_.data(), static_cast<std::size_t>(got)), false};
    if (terminal_) typed = host::split_at_leave_key(typed.bytes);
    // A failed write shows as the end of the output next.
    if (!typed.bytes.empty() && !write_all(socket_, typed.bytes, "console")) input_open_ = false;
    if (typed.leave) left_ = Left::by_key;
  }

  int socket_, leave_;
  bool terminal_;
  bool input_open_ = true;
  std::optional<Left> left_;
  std::array<u8, 16384> chunk_;
};

Result<> attach(const std::string& name) {
  host::prepare_signals();
  STASIS_TRY_SET(const control::Client client, control::Client::open(name));
  STASIS_TRY_SET(auto stream, client.console());
  const FileDescriptor leave(::eventfd(0, EFD_CLOEXEC));
  STASIS_TRY_SET(const auto signals, host::SignalWatcher::start([&](int) { ::eventfd_write(leave.get(), 1); }));
  const bool terminal = host::is_terminal(STDIN_FILENO);
  std::optional<host::RawTerminal> raw;
  if (terminal) {
    fmt::print(stderr, "[console of {}; Ctrl-] leaves]\n", name);
    STASIS_TRY_SET(host::RawTerminal entered, host::RawTerminal::enter(STDIN_FILENO));
    raw.emplace(std::move(entered));
  }
  STASIS_TRY(write_all(STDOUT_FILENO, stream.early, "standard output"));
  // Blocking from here on: every byte is written before the next is read.
  const Left left = Attachment(stream.socket.get(), leave.get(), terminal).run();
  raw.reset();
  if (terminal) fmt::print(stderr, "\n[{}]\n", left == Left::machine_ended ? "the machine has ended" : "left; the machine goes on");
  return {};
}

}  // namespace

void add_console(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("console", "Talk to a machine's serial console");
  const auto name = std::make_shared<std::string>();
  command->add_option("NAME", *name, "The machine")->required();
  command->footer(
      "On a terminal Ctrl-] leaves; the machine goes on. With pipes it is a plain byte stream, which ends when the\n"
      "machine does; the end of the input ends nothing.\n"
      "Examples:\n"
      "  stasis console web\n"
      "  echo 'uname -a' | timeout 2 stasis console web");
  command->callback([name, &status] {
    const auto done = attach(*name);
    if (done) return;
    print_error(done.error(), false);
    status = status_of(done.error());
  });
}

}  // namespace stasis::cli
