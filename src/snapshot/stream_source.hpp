// A snapshot that arrives by a pipe or socket: what has come is kept in memory and can be read again.
#pragma once

#include "base/file_descriptor.hpp"
#include "snapshot/reader.hpp"

namespace stasis::snapshot {

class StreamSource : public Source {
 public:
  // `fd` and `name` outlive it. Its memory is a file without a name; pages of zeros cost nothing.
  static Result<std::shared_ptr<StreamSource>> create(int fd, const std::string& name);

  u64 size() const override { return arrived_; }
  bool arriving() const override { return arriving_; }
  Result<> read(u64 offset, MutableBytes out) const override;
  void stop(u64 size) { arriving_ = false, arrived_ = size; }  // all that belongs to the snapshot is here

  const FileDescriptor& memory() const { return memory_; }

 private:
  StreamSource(int fd, std::string name, FileDescriptor memory) : fd_(fd), name_(std::move(name)), memory_(std::move(memory)) {}
  Result<> take_until(u64 offset) const;

  int fd_;
  std::string name_;
  FileDescriptor memory_;
  bool arriving_ = true;
  mutable u64 arrived_ = 0;  // reading waits for what has not come yet
};

}  // namespace stasis::snapshot
