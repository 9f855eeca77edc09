// What every fuzz target shares: its entry, and the way in which it says that a law of the format was broken.
#pragma once

#include <cstddef>

#include "base/error.hpp"
#include "base/types.hpp"

extern "C" int LLVMFuzzerTestOneInput(const stasis::u8* data, std::size_t size);

// Stays on in every build: a fuzzer looks for this abort.
#define FUZZ_LAW(expression) STASIS_ASSERT(expression)
