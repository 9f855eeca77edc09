// What must be equal after a case, and what is left undefined.
#pragma once

#include <string>

#include "instructions.hpp"

namespace stasis::differential {

// One line per register that differs; empty when all agree.
std::string compare(const Instruction& in, const Start& start, const Outcome& native, const Outcome& soft);
// The registers that a case starts from.
std::string describe(const Start& start);

}  // namespace stasis::differential
