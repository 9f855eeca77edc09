// Fork, wait for the child's word, let go.
#include "cli/detach.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "host/signals.hpp"

namespace stasis::cli {
namespace {

// The parent's part: the machine's name when the child has it running, else the status the child ended with.
Result<std::optional<int>> wait_for_child(pid_t child, int report) {
  host::unblock_signals();
  std::string name;
  std::array<char, 128> chunk;
  for (;;) {
    const ssize_t got = ::read(report, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    name.append(chunk.data(), static_cast<std::size_t>(got));
  }
  if (name.ends_with('\n')) {
    print(name);
    return 0;
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  return fail(ErrorCode::host, "machine", fmt::format("its process died of signal {} before the machine ran", WTERMSIG(status)),
              "run it without --detach to see more");
}

}  // namespace

Result<std::optional<int>> Detached::detach() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("--detach", "pipe", errno);
  FileDescriptor read_end(ends[0]), write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail_errno("--detach", "fork", errno);
  if (child > 0) {
    write_end.reset();
    return wait_for_child(child, read_end.get());
  }
  ::setsid();
  report_ = std::move(write_end);
  return std::nullopt;
}

Result<> Detached::ready(const std::string& name) {
  STASIS_TRY_SET(const FileDescriptor nothing, open_file("/dev/null", O_RDWR));
  if (::chdir("/") != 0) return fail_errno("--detach", "chdir /", errno);
  const std::string line = name + "\n";
  // A parent that was interrupted takes no word: then nobody knows of this machine, and it ends too.
  STASIS_TRY(write_all(report_.get(), Bytes(reinterpret_cast<const u8*>(line.data()), line.size()), "--detach"));
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(nothing.get(), fd);
  report_.reset();
  return {};
}

}  // namespace stasis::cli
