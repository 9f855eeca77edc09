// Port access with all that the CPU checks before the bus is asked (system_io.cpp).
#pragma once

#include "cpu/soft/cpu.hpp"

namespace stasis::soft {

// `size` is 1, 2 or 4. Checks IOPL and the I/O permission bitmap, and leaves to run alone when the op does
// not yet. false: leave the handler at once, nothing was done.
Loaded port_in(Cpu& cpu, const Op* op, u16 port, unsigned size);
bool port_out(Cpu& cpu, const Op* op, u16 port, unsigned size, u32 value);

}  // namespace stasis::soft
