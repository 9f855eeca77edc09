// The index of a RAM region: the state of every page, digests, and where packed chunks are (docs/format.md, "RAM").
#pragma once

#include <string_view>
#include <vector>

#include "snapshot/format.hpp"
#include "snapshot/hash.hpp"
#include "state/cbor.hpp"

namespace stasis::snapshot {

enum class Encoding : u8 { mapped, packed };
std::string_view name_of(Encoding encoding);

// 64 pages. A bit per page in each mask; the last three exclude each other and are within `nonzero`.
struct ChunkRecord {
  u64 nonzero = 0;     // pages of the guest that are not zero, wherever they are held
  u64 present = 0;     // held in this file
  u64 same_as = 0;     // equal to a present page of this file with a lower number
  u64 in_parent = 0;   // as in the parent
  Digest content{};    // of the page digests of `nonzero`, ascending; zero when there are none
  Digest stored{};     // the same of `present`
  u64 block = 0;       // packed: file offset of its block header; 0 when nothing is present
  u32 stored_bytes = 0;  // packed: of that block
  bool operator==(const ChunkRecord&) const = default;
};

struct RamIndex {
  Encoding encoding = Encoding::mapped;
  bool incremental = false;       // the file has a parent
  u64 pages = 0;
  std::vector<ChunkRecord> chunks;
  std::vector<u64> same_as;       // the targets of all same-as pages, ascending by page
  std::vector<u64> same_as_before;  // per chunk: how many of them belong to earlier chunks; for_lookup() fills it
  Digest content{};               // the content digest of the machine

  u64 chunk_count() const { return (pages + kChunkPages - 1) / kChunkPages; }
  u64 pages_in(u64 chunk) const { return pages - chunk * kChunkPages < kChunkPages ? pages - chunk * kChunkPages : kChunkPages; }
  void for_lookup();
  u64 target_of(u64 page) const;  // of a same-as page
};

// The digest of a chunk from those of its pages.
Digest chunk_digest(std::span<const Digest> pages);

cbor::Value to_value(const RamIndex& index);
// Checks every rule of the format but those that need the region's place in the file. Format 0.1 has no content digest.
Result<RamIndex> ram_index_from(const cbor::Value& body, u64 pages, bool incremental, const std::string& object);

}  // namespace stasis::snapshot
