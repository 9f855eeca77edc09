// One HTTP/1.1 connection of the control socket, from its first request to its end.
#pragma once

#include "control/target.hpp"

namespace stasis::control {

// Serves requests on `socket` (borrowed) until the peer goes, takes too long, or misbehaves; on the caller's thread.
// To end it from outside: shutdown(socket, SHUT_RD). A request that is being served is still answered.
void serve_http(int socket, Target& target) noexcept;

}  // namespace stasis::control
