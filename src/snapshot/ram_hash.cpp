// Hashing RAM chunk by chunk.
#include "snapshot/ram_hash.hpp"

#include <bit>

#include "snapshot/ram_index.hpp"

namespace stasis::snapshot {

HashedChunk hash_chunk(const u8* chunk, u64 maybe) {
  HashedChunk out;
  for (u64 rest = maybe; rest; rest &= rest - 1) {
    const unsigned i = static_cast<unsigned>(std::countr_zero(rest));
    const u8* page = chunk + i * kPageSize;
    if (is_zero_page(page)) continue;
    out.nonzero |= 1ull << i;
    out.pages[i] = digest_of({page, kPageSize});
  }
  out.content = digest_over(out, out.nonzero);
  return out;
}

Digest digest_over(const HashedChunk& chunk, u64 pages) {
  std::array<Digest, kChunkPages> digests;
  std::size_t count = 0;
  for (u64 rest = pages; rest; rest &= rest - 1) digests[count++] = chunk.pages[static_cast<unsigned>(std::countr_zero(rest))];
  return chunk_digest(std::span(digests).first(count));
}

}  // namespace stasis::snapshot
