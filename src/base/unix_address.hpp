// The address of a socket file (unix(7)).
#pragma once

#include <sys/un.h>

#include <string>

#include "base/error.hpp"

namespace stasis {

// `usage` for a path that is longer than an address can hold (107 bytes); `hint` says what to do then.
Result<sockaddr_un> unix_address(const std::string& path, const std::string& hint);

}  // namespace stasis
