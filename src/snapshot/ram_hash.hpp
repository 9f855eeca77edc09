// What one chunk of RAM holds: which pages are not zero, and their digests.
#pragma once

#include <array>

#include "snapshot/format.hpp"
#include "snapshot/hash.hpp"

namespace stasis::snapshot {

struct HashedChunk {
  u64 nonzero = 0;
  std::array<Digest, kChunkPages> pages;  // by page; of `nonzero` only
  Digest content{};                       // of the chunk: zero when all pages are
};

// `maybe`: pages to look at, the others are known to be zero.
HashedChunk hash_chunk(const u8* chunk, u64 maybe);
// The digest over some of its pages, ascending.
Digest digest_over(const HashedChunk& chunk, u64 pages);

}  // namespace stasis::snapshot
