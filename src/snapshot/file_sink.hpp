// A regular file as a sink: holes are left out, long runs of pages go to disk past the page cache.
//
// Direct writes spare a copy and the host's whole page cache, which a large guest would push out. Short ones and
// file systems that know no O_DIRECT go through the cache, and their writing back starts early.
#pragma once

#include <string>

#include "snapshot/sink.hpp"

namespace stasis::snapshot {

class FileSink : public Sink {
 public:
  FileSink(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  Result<> announce(u64 length, u64 most_stored) override;
  Result<> write(Bytes bytes) override;
  Result<> skip_hole(u64 bytes) override;
  Result<> settle() override;

 private:
  std::unexpected<Error> refused(const char* what, int error) const;
  bool go_direct(Bytes bytes);

  int fd_;
  std::string name_;
  bool direct_ = false;           // the descriptor has O_DIRECT now
  bool direct_possible_ = true;   // until the file system says no
  u64 position_ = 0;
  u64 written_back_ = 0;  // up to here the kernel was told to write to disk
  u64 needed_ = 0;
};

}  // namespace stasis::snapshot
