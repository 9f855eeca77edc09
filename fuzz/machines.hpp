// The small machine that fuzzed snapshots begin with, and the parent that fuzzed children have.
#pragma once

#include "snapshot_memory.hpp"

namespace stasis::fuzz {

snapshot::Key key();
// 70 pages, of which few are not zero: two chunks, equal pages, one that a packer can shorten.
snapshot::testing::Ram ram();
snapshot::Image image(const snapshot::testing::Ram& ram);
// A packed snapshot of that machine.
std::shared_ptr<const snapshot::OpenSnapshot> parent();

}  // namespace stasis::fuzz
