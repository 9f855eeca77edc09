// The runtime folder. A lock file with flock() decides who owns a name: it goes with its process, whatever
// happens to that, so a socket file without its lock held is stale.
#include "control/runtime_dir.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/unix_address.hpp"

namespace stasis::control {
namespace {

constexpr std::size_t kLongestName = 64;
constexpr std::string_view kSocketSuffix = ".sock";

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  if (!value || !*value) return std::nullopt;
  return value;
}

Result<> make_folders(const std::string& dir) {
  for (std::size_t at = dir.find('/', 1);; at = dir.find('/', at + 1)) {
    const std::string part = dir.substr(0, at);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST)
      return fail_errno("runtime folder " + dir, "create " + part, errno, "set STASIS_RUNTIME_DIR to a folder you may write to");
    if (at == std::string::npos) return {};
  }
}

Result<> check_folder(const std::string& dir) {
  struct stat info {};
  if (::stat(dir.c_str(), &info) != 0) return fail_errno("runtime folder " + dir, "stat", errno);
  if (!S_ISDIR(info.st_mode))
    return fail(ErrorCode::host, "runtime folder " + dir, "is not a folder", "set STASIS_RUNTIME_DIR to another path");
  if ((info.st_uid != ::geteuid() && info.st_uid != 0) || (info.st_mode & 022) != 0)
    return fail(ErrorCode::permission, "runtime folder " + dir,
                fmt::format("belongs to user {} with mode {:04o}, so that others could replace its sockets", info.st_uid,
                            info.st_mode & 07777u),
                "make it yours and run chmod 0700, or set STASIS_RUNTIME_DIR to another path");
  return {};
}

std::string lock_path_of(const std::string& dir, std::string_view name) { return fmt::format("{}/{}.lock", dir, name); }

std::string holder_of(int lock) {
  char text[24] = {};
  const ssize_t got = ::pread(lock, text, sizeof text - 1, 0);
  const std::string_view digits(text, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return std::string(digits.substr(0, digits.find_first_not_of("0123456789")));
}

// The file behind `fd` is still the one at `path` (its last owner removes it).
bool is_current(int fd, const std::string& path) {
  struct stat held {}, there {};
  return ::fstat(fd, &held) == 0 && ::stat(path.c_str(), &there) == 0 && held.st_ino == there.st_ino &&
         held.st_dev == there.st_dev;
}

std::unexpected<Error> in_use(std::string_view name, int lock) {
  const std::string pid = holder_of(lock);
  return fail(ErrorCode::exists, fmt::format("machine {}", name), pid.empty() ? "is running already" : fmt::format("is running already as process {}", pid),
              "choose another --name, or stop that machine first");
}

Result<FileDescriptor> take_lock(const std::string& path, std::string_view name) {
  for (;;) {
    STASIS_TRY_SET(FileDescriptor lock, open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return fail_errno(fmt::format("machine {}", name), "lock " + path, errno);
      return in_use(name, lock.get());
    }
    if (is_current(lock.get(), path)) return lock;
  }
}

Result<sockaddr_un> address_of(const std::string& socket) {
  return unix_address(socket, "set STASIS_RUNTIME_DIR to a shorter path, or use a shorter --name");
}

}  // namespace

Result<> check_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  const char* hint = "use 1 to 64 letters, digits, dots, underscores and hyphens, not beginning with a dot or hyphen";
  if (name.empty()) return fail(ErrorCode::usage, "machine name", "is empty", hint);
  if (name.size() > kLongestName)
    return fail(ErrorCode::usage, "machine name", fmt::format("is {} bytes long, and at most {} are allowed", name.size(), kLongestName), hint);
  if (!std::all_of(name.begin(), name.end(), allowed) || name.front() == '.' || name.front() == '-')
    return fail(ErrorCode::usage, "machine name", fmt::format("'{}' is not allowed", name), hint);
  return {};
}

Environment Environment::of_process() {
  return {variable("STASIS_RUNTIME_DIR"), variable("XDG_RUNTIME_DIR"), ::geteuid()};
}

std::string runtime_dir(const Environment& environment) {
  if (environment.stasis_runtime_dir && !environment.stasis_runtime_dir->empty()) return *environment.stasis_runtime_dir;
  if (environment.uid == 0) return "/run/stasis";
  if (environment.xdg_runtime_dir && !environment.xdg_runtime_dir->empty()) return *environment.xdg_runtime_dir + "/stasis";
  return fmt::format("/tmp/stasis-{}", environment.uid);
}

std::string socket_path(const std::string& dir, std::string_view name) { return fmt::format("{}/{}{}", dir, name, kSocketSuffix); }

Result<std::vector<std::string>> names_in(const std::string& dir) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(dir.c_str()), ::closedir);
  if (!folder && errno == ENOENT) return names;
  if (!folder) return fail_errno("runtime folder " + dir, "open", errno, "set STASIS_RUNTIME_DIR to a folder you may read");
  while (const dirent* entry = ::readdir(folder.get())) {
    std::string_view file = entry->d_name;
    if (!file.ends_with(kSocketSuffix)) continue;
    file.remove_suffix(kSocketSuffix.size());
    if (check_name(file)) names.emplace_back(file);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<ClaimedName> ClaimedName::claim(std::string_view name, const std::string& dir) {
  STASIS_TRY(check_name(name));
  STASIS_TRY(address_of(socket_path(dir, name)));
  STASIS_TRY(make_folders(dir));
  STASIS_TRY(check_folder(dir));
  ClaimedName claimed;
  claimed.name_ = name;
  claimed.socket_ = socket_path(dir, name);
  const std::string lock_path = lock_path_of(dir, name);
  STASIS_TRY_SET(claimed.lock_, take_lock(lock_path, name));
  claimed.lock_path_ = lock_path;
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(claimed.lock_.get(), 0) != 0) return fail_errno(lock_path, "truncate", errno);
  STASIS_TRY(write_all_at(claimed.lock_.get(), Bytes(reinterpret_cast<const u8*>(pid.data()), pid.size()), 0, lock_path));
  ::unlink(claimed.socket_.c_str());
  return claimed;
}

Result<> ClaimedName::check(std::string_view name, const std::string& dir) {
  STASIS_TRY(check_name(name));
  const std::string socket = socket_path(dir, name);
  STASIS_TRY_SET(const sockaddr_un address, address_of(socket));
  if (::access(dir.c_str(), F_OK) != 0) return {};
  STASIS_TRY(check_folder(dir));
  const FileDescriptor caller(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!caller) return fail_errno(socket, "create a socket", errno);
  const bool served = ::connect(caller.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN;
  if (!served) return {};
  const FileDescriptor lock(::open(lock_path_of(dir, name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return in_use(name, lock.get());
}

ClaimedName::~ClaimedName() {
  if (!lock_) return;
  ::unlink(socket_.c_str());
  if (!lock_path_.empty()) ::unlink(lock_path_.c_str());
}

Result<FileDescriptor> ClaimedName::listen() const {
  STASIS_TRY_SET(const sockaddr_un address, address_of(socket_));
  FileDescriptor listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return fail_errno(socket_, "create a socket", errno);
  ::fchmod(listener.get(), 0600);  // before bind: the file never has another mode
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(socket_, "create the socket file", errno);
  if (::listen(listener.get(), 16) != 0) return fail_errno(socket_, "listen", errno);
  return listener;
}

}  // namespace stasis::control
