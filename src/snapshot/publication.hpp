// A file that appears under its name only when it is whole and on disk.
//
// Until publish() it lives beside the target as .NAME.XXXXXXXX.tmp (eight hexadecimal digits), locked by flock(2)
// for as long as its writer lives. One without a lock was left by a writer that died: the next one removes it.
#pragma once

#include <string>

#include "base/file_descriptor.hpp"

namespace stasis::snapshot {

class Publication {
 public:
  static Result<Publication> begin(const std::string& target);
  Publication(Publication&& other) noexcept;
  Publication& operator=(Publication&&) = delete;
  ~Publication();  // not published: the temporary goes, the target stays as it was

  int fd() const { return file_.get(); }
  // Until publish(), nobody else can begin to replace the target; this refuses (busy) when it was replaced since `fd` was opened; so
  // does publish() then.
  Result<> check_replaces(int fd);
  Result<> publish();  // fsync, rename, fsync of the directory

 private:
  Publication() = default;
  Result<> check_target();
  Result<> lock_directory();
  Result<> clear_stale();
  Result<> create();

  std::string target_, name_;
  FileDescriptor directory_, file_;
  std::string temporary_;  // its name in the directory; empty: none to remove
  FileDescriptor replaced_;  // what must still be the target; none: anything may be
};

}  // namespace stasis::snapshot
