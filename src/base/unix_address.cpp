// A path into a sockaddr_un, with its zero byte.
#include "base/unix_address.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

namespace stasis {

Result<sockaddr_un> unix_address(const std::string& path, const std::string& hint) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(ErrorCode::usage, path, fmt::format("is {} bytes long, and a socket's path has at most {}", path.size(), sizeof address.sun_path - 1), hint);
  path.copy(address.sun_path, path.size());
  return address;
}

}  // namespace stasis
