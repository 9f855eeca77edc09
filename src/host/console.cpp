// Opening and closing of consoles; the moving of bytes is in console_line.cpp.
#include "host/console.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/log.hpp"
#include "base/unix_address.hpp"
#include "host/console_line.hpp"

namespace stasis::host {
namespace {

constexpr u64 kClosingPatience = 2 * kSecond;

Result<FileDescriptor> open_output(const ConsoleSpec& spec) {
  // O_NONBLOCK for the open alone: a FIFO without a reader is an error now instead of a wait for ever.
  const int flags = O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | (spec.append ? O_APPEND : O_TRUNC);
  auto file = open_file(spec.path, flags);
  if (!file && file.error().code == ErrorCode::not_found) file.error().hint = "create its folder first";
  return file;
}

// A socket file that nobody listens on is left over from a process that died: it is replaced.
bool is_stale_socket(const sockaddr_un& address) {
  struct stat info {};
  if (::stat(address.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
  const FileDescriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return probe && ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

Result<FileDescriptor> listen_at(const std::string& path) {
  STASIS_TRY_SET(const sockaddr_un address, unix_address(path, "use a shorter path"));
  FileDescriptor listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return fail_errno(path, "create a socket", errno);
  ::fchmod(listener.get(), 0600);
  const auto bind_here = [&] { return ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0; };
  if (!bind_here()) {
    if (errno != EADDRINUSE) return fail_errno(path, "create the socket file", errno);
    if (!is_stale_socket(address))
      return fail(ErrorCode::exists, path, "exists already and is in use or no socket", "choose another path, or remove it");
    ::unlink(path.c_str());
    if (!bind_here()) return fail_errno(path, "create the socket file", errno);
  }
  if (::listen(listener.get(), 4) != 0) return fail_errno(path, "listen", errno);
  return listener;
}

}  // namespace

Result<ConsoleSpec> parse_console(std::string_view text, const std::string& option) {
  if (text == "stdio") return ConsoleSpec{.kind = ConsoleKind::stdio, .path = {}};
  if (text == "none") return ConsoleSpec{};
  const std::size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (colon != std::string_view::npos && (kind == "file" || kind == "unix")) {
    if (colon + 1 == text.size())
      return fail(ErrorCode::usage, option, fmt::format("'{}' names no path", text), fmt::format("write {}:PATH", kind));
    return ConsoleSpec{.kind = kind == "file" ? ConsoleKind::file : ConsoleKind::unix_socket,
                       .path = std::string(text.substr(colon + 1))};
  }
  return fail(ErrorCode::usage, option, fmt::format("'{}' is not a console", text),
              "write stdio, file:PATH, unix:PATH or none");
}

Result<std::unique_ptr<Console>> Console::open(const ConsoleSpec& spec) {
  auto line = std::make_shared<Line>();
  line->spec = spec;
  line->wake_event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!line->wake_event) return fail_errno("console", "eventfd", errno);
  switch (spec.kind) {
    case ConsoleKind::none: break;
    case ConsoleKind::stdio:
      line->in = STDIN_FILENO;
      line->out = STDOUT_FILENO;
      break;
    case ConsoleKind::file: {
      STASIS_TRY_SET(line->owned, open_output(spec));
      line->out = line->owned.get();
      break;
    }
    case ConsoleKind::unix_socket: {
      STASIS_TRY_SET(line->listener, listen_at(spec.path));
      line->has_reader = false;
      break;
    }
  }
  std::unique_ptr<Console> console(new Console(line));
  if (spec.kind != ConsoleKind::none) console->thread_ = std::thread([line] { line->run(); });
  return console;
}

Console::~Console() { close(); }

Result<> Console::start(Input input, std::function<void()> leave) {
  STASIS_ASSERT(!line_->started);
  line_->input = std::move(input);
  line_->leave = std::move(leave);
  if (line_->spec.kind == ConsoleKind::stdio && is_terminal(STDIN_FILENO)) {
    STASIS_TRY_SET(RawTerminal terminal, RawTerminal::enter(STDIN_FILENO));
    line_->terminal.emplace(std::move(terminal));
  }
  line_->started = true;
  line_->wake();
  return {};
}

void Console::write(Bytes bytes) {
  if (line_->spec.kind == ConsoleKind::none || !line_->has_reader) return;
  const bool was_empty = line_->output.size() == 0;
  line_->output.push(bytes);
  if (was_empty) line_->wake();
}

void Console::close() {
  if (!thread_.joinable()) return;
  line_->closing = true;
  line_->wake();
  line_->output.wait_until_empty(kClosingPatience);
  line_->output.abandon();
  line_->wake();
  // The thread is at most one write away from its end, unless that write blocks: then it is left to the process's end.
  for (int i = 0; i < 50 && !line_->finished; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1 + i / 10));
  if (line_->finished) thread_.join();
  else thread_.detach();
  line_->terminal.reset();
}

}  // namespace stasis::host
