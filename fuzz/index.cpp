// Fuzz: the index of the RAM. What is accepted keeps every rule that a reader relies on, and comes back from its own bytes.
//   Input: a byte of which bit 0 is "has a parent", the number of pages less one (2 bytes), the body.
#include <bit>

#include "snapshot/bodies.hpp"
#include "snapshot/ram_index.hpp"
#include "target.hpp"

using namespace stasis;
using namespace stasis::snapshot;

namespace {

void check_chunk(const RamIndex& index, u64 chunk) {
  const ChunkRecord& record = index.chunks[chunk];
  const u64 pages = index.pages_in(chunk);
  FUZZ_LAW(pages == 64 || (record.nonzero | record.present | record.same_as | record.in_parent) >> pages == 0);
  FUZZ_LAW((record.present & record.same_as) == 0 && (record.present & record.in_parent) == 0 && (record.same_as & record.in_parent) == 0);
  FUZZ_LAW(record.nonzero == (record.present | record.same_as | record.in_parent));
  FUZZ_LAW(record.stored_bytes <= kChunkBytes + kMostCipherBytes);
  for (u64 rest = record.same_as; rest; rest &= rest - 1) {
    const u64 page = chunk * kChunkPages + static_cast<u64>(std::countr_zero(rest)), target = index.target_of(page);
    FUZZ_LAW(target < page && index.chunks[target / kChunkPages].present >> (target % kChunkPages) & 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 3) return 0;
  const std::string object = "fuzz";
  const bool incremental = data[0] & 1;
  const u64 pages = 1 + (data[1] | static_cast<u64>(data[2]) << 8);
  const auto value = decode_body({data + 3, size - 3}, object);
  if (!value) return 0;
  const auto index = ram_index_from(*value, pages, incremental, object);
  if (!index) {
    FUZZ_LAW(!index.error().message.empty());
    return 0;
  }
  FUZZ_LAW(index->chunks.size() == index->chunk_count());
  for (u64 chunk = 0; chunk < index->chunks.size(); ++chunk) check_chunk(*index, chunk);
  // Every byte of the records means something: they are written again as they were.
  const cbor::Value again = to_value(*index);
  for (const char* field : {"chunks", "same_as"}) {
    const cbor::Value* before = value->as<cbor::Map>()->find(field);
    const cbor::Value* after = again.as<cbor::Map>()->find(field);
    FUZZ_LAW((!before && !after) || (before && after && *before == *after) ||
             (before && !after && before->as<cbor::ByteString>() && before->as<cbor::ByteString>()->empty()));
  }
  return 0;
}
