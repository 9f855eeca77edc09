// A control connection that became the console: bytes both ways until either side ends.
#pragma once

#include "control/target.hpp"

namespace stasis::control {

// Pumps between `socket` and the machine's COM1. `early`: bytes that came with the request.
// Ends when the peer goes, or when the socket is shut down for reading; then sends what is left first.
void pump_console(int socket, Target& target, Bytes early);

}  // namespace stasis::control
