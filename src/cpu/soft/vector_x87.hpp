// The two ways to run an x87 instruction: exactly, on an image of all registers, and quickly, on copies of what it uses.
#pragma once

#include "cpu/soft/vector_access.hpp"

namespace stasis::soft {

enum class X87Operand { none, read, write };  // in memory
inline constexpr u64 kX87Memory = 512;        // the operand's bytes, in cpu.scratch

// The exact way, for every state and every exception.
template <X87Operand kOperand, bool kFlags>
void run_x87(Cpu& cpu, const Op* op);

// A handler that runs quickly while nothing unusual happens: all exceptions masked, registers in use where they are
// read and free where they are pushed, no flag raised that is not set already. Everything else it leaves to run_x87().
// `exact` is the instruction's form for that. False: there is no quick way.
bool bind_x87_quick(const Decoded& in, Op& op, const NormalForm& exact);

}  // namespace stasis::soft
