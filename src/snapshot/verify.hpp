// Everything that can be found out about the wholeness of a snapshot file without a machine: frame, digests, blocks, values,
// RAM with its parents, content digest.
#pragma once

#include "snapshot/examine.hpp"

namespace stasis::snapshot {

struct Verification {
  ExaminedFile file;                   // its problems are all that is wrong
  std::vector<std::string> unchecked;  // what could not be looked at, and why
  std::string digest;                  // verified content digest; empty: there is none to be had
};
// Errors: only when nothing could be looked at (no such file), or cancelled.
Result<Verification> verify(const std::string& path, const OpenOptions& options = {}, SaveProgress* progress = nullptr);

// The blocks of a packed region from `offset` to `end`: one after the other, with zero padding, and a block that ends them.
// `index`: where each must be; null: not known, and then the stored bytes are checked too.
std::vector<Error> block_problems(const Source& source, const std::string& object, u64 offset, u64 end, const RamIndex* index);

}  // namespace stasis::snapshot
