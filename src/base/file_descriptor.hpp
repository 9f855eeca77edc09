// An owned file descriptor, and reads and writes that finish or say why not.
#pragma once

#include <string>
#include <utility>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~FileDescriptor() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// `name` is the object of the error text. O_CLOEXEC is added.
Result<FileDescriptor> open_file(const std::string& name, int flags, unsigned mode = 0600);
Result<> write_all(int fd, Bytes bytes, const std::string& name);             // at the file position
Result<> write_all_at(int fd, Bytes bytes, u64 offset, const std::string& name);
Result<> read_exactly_at(int fd, MutableBytes out, u64 offset, const std::string& name);  // short file: bad_file
Result<std::string> read_whole_file(const std::string& name, u64 most_bytes);  // larger: usage error

}  // namespace stasis
