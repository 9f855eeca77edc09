// Where running machines are found: one folder a user, one socket and one lock a machine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/file_descriptor.hpp"

namespace stasis::control {

// 1 to 64 of A-Z a-z 0-9 . _ -, not beginning with a dot or hyphen.
Result<> check_name(std::string_view name);

struct Environment {  // what the choice depends on; absent or empty: not set
  std::optional<std::string> stasis_runtime_dir, xdg_runtime_dir;
  unsigned uid = 0;
  static Environment of_process();
};
// $STASIS_RUNTIME_DIR, else /run/stasis for root, $XDG_RUNTIME_DIR/stasis, /tmp/stasis-UID.
std::string runtime_dir(const Environment& environment = Environment::of_process());

std::string socket_path(const std::string& dir, std::string_view name);
// The names of all socket files in `dir`, sorted; none when there is no such folder.
Result<std::vector<std::string>> names_in(const std::string& dir);

// A name that is ours while this lives: nobody else can serve it. Removes the socket and the lock at its end.
class ClaimedName {
 public:
  // Creates the folder (0700) when it is missing. A socket whose process is gone is removed.
  // A name in use: `exists`, with the process id.
  static Result<ClaimedName> claim(std::string_view name, const std::string& dir = runtime_dir());
  // What claim() would say, as far as can be seen without creating or taking anything: of a machine that is still starting nothing.
  static Result<> check(std::string_view name, const std::string& dir = runtime_dir());
  ClaimedName(ClaimedName&&) = default;
  ~ClaimedName();

  const std::string& socket() const { return socket_; }
  Result<FileDescriptor> listen() const;  // mode 0600

 private:
  ClaimedName() = default;
  std::string name_, socket_, lock_path_;
  FileDescriptor lock_;
};

}  // namespace stasis::control
