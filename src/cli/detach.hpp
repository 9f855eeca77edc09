// --detach: the command returns when its machine runs in the background.
#pragma once

#include <optional>

#include "base/error.hpp"
#include "base/file_descriptor.hpp"

namespace stasis::cli {

// Before any thread starts. In the parent it returns the exit status to leave with, once the child is ready or
// dead; in the child (a session of its own) nothing. The child prints errors as usual until it is ready.
class Detached {
 public:
  Result<std::optional<int>> detach();
  // In the child: lets go of the terminal and releases the parent, which prints `name`.
  Result<> ready(const std::string& name);
  bool active() const { return static_cast<bool>(report_); }

 private:
  FileDescriptor report_;
};

}  // namespace stasis::cli
