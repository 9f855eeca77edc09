// File descriptors: closing, whole reads and whole writes.
#include "base/file_descriptor.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace stasis {

void FileDescriptor::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<FileDescriptor> open_file(const std::string& name, int flags, unsigned mode) {
  int fd;
  do {
    fd = ::open(name.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    const int error = errno;
    if (error == ENOENT) return fail(ErrorCode::not_found, name, "no such file or directory", "check the path");
    if (error == EACCES || error == EPERM)
      return fail(ErrorCode::permission, name, "may not be opened (permission denied)", "check the owner and mode of the path");
    return fail_errno(name, "open", error);
  }
  return FileDescriptor(fd);
}

Result<> write_all(int fd, Bytes bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return fail_errno(name, "write", errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<> write_all_at(int fd, Bytes bytes, u64 offset, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return fail_errno(name, "write", errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<u64>(n);
  }
  return {};
}

Result<> read_exactly_at(int fd, MutableBytes out, u64 offset, const std::string& name) {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return fail_errno(name, "read", errno);
    }
    if (n == 0)
      return fail(ErrorCode::bad_file, name, fmt::format("ends {} bytes too early, at offset {}", out.size(), offset));
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<u64>(n);
  }
  return {};
}

Result<std::string> read_whole_file(const std::string& name, u64 most_bytes) {
  STASIS_TRY_SET(FileDescriptor file, open_file(name, O_RDONLY));
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return fail_errno(name, "stat", errno);
  if (S_ISDIR(info.st_mode)) return fail(ErrorCode::usage, name, "is a directory, not a file", "name a file");
  std::string out;
  char chunk[65536];
  for (;;) {
    const ssize_t n = ::read(file.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(name, "read", errno);
    if (n == 0) return out;
    if (out.size() + static_cast<u64>(n) > most_bytes)
      return fail(ErrorCode::usage, name, fmt::format("is larger than the {} bytes allowed here", most_bytes));
    out.append(chunk, static_cast<std::size_t>(n));
  }
}

}  // namespace stasis
