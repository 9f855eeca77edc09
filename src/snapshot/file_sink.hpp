// A regular file as a sink: holes are left out, what is long goes to disk past the page cache.
//
// Direct writes spare the host's page cache, which a large guest would push out, and the disk takes them faster. Long runs
// of pages go from where they are; the rest is gathered until there is enough of it. What remains, and all on file systems
// that know no O_DIRECT, goes through the cache, and its writing back starts early.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "snapshot/sink.hpp"

namespace stasis::snapshot {

class FileSink : public Sink {
 public:
  FileSink(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  Result<> announce(u64 length, u64 most_stored) override;
  Result<> write(Bytes bytes) override;
  Result<> skip_hole(u64 bytes) override;
  Result<> flush() override;
  Result<> settle() override;

 private:
  struct Free {
    void operator()(u8* memory) const { std::free(memory); }
  };
  std::unexpected<Error> refused(const char* what, int error) const;
  bool go_direct(Bytes bytes);
  Result<> put(Bytes bytes);

  int fd_;
  std::string name_;
  std::unique_ptr<u8, Free> gathered_;  // its byte 0 is for a file offset that is a multiple of a page
  u64 begin_ = 0, end_ = 0;             // of what was gathered, in there
  bool direct_ = false;                 // the descriptor has O_DIRECT now
  bool direct_possible_ = true;         // until the file system says no
  u64 position_ = 0;                    // in the file, of what is put next
  u64 written_back_ = 0;                // up to here the kernel was told to write to disk
  u64 needed_ = 0;
};

}  // namespace stasis::snapshot
