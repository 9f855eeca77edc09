// The index of a RAM region as CBOR, both ways.
#include "snapshot/ram_index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "snapshot/bodies.hpp"

namespace stasis::snapshot {
namespace {

constexpr u64 kBaseRecord = 32, kParentRecord = 24, kPackedRecord = 16;

u64 record_bytes(const RamIndex& index) {
  return kBaseRecord + (index.incremental ? kParentRecord : 0) + (index.encoding == Encoding::packed ? kPackedRecord : 0);
}

void put(std::vector<u8>& out, u64 value, unsigned bytes = 8) {
  for (unsigned i = 0; i < bytes; ++i) out.push_back(static_cast<u8>(value >> (8 * i)));
}

// The host is little-endian, as the file is.
template <class T = u64>
T get(const u8* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

Digest digest_at(const u8* at) {
  Digest out;
  std::copy_n(at, out.size(), out.begin());
  return out;
}

ChunkRecord record_at(const RamIndex& index, const u8* at) {
  const u64 first_plane = get(at), second_plane = get(at + 8);
  ChunkRecord out{.present = first_plane & ~second_plane, .same_as = second_plane & ~first_plane, .in_parent = first_plane & second_plane,
                  .content = digest_at(at + 16)};
  out.nonzero = out.present | out.same_as;
  at += kBaseRecord;
  if (index.incremental) {
    out.nonzero = get(at);
    out.stored = digest_at(at + 8);
    at += kParentRecord;
  } else if (!out.same_as) {
    out.stored = out.content;
  }
  if (index.encoding == Encoding::packed) {
    out.block = get(at);
    out.stored_bytes = get<u32>(at + 8);
  }
  return out;
}

// What is wrong with one record; none when nothing is.
std::optional<std::string> wrong_with(const RamIndex& index, const ChunkRecord& record, u64 chunk) {
  const u64 in_chunk = index.pages_in(chunk), allowed = in_chunk == 64 ? ~0ull : (1ull << in_chunk) - 1;
  const u64 held = record.present | record.same_as | record.in_parent;
  if ((held | record.nonzero) & ~allowed) return fmt::format("has states for pages after the last one, {}", index.pages - 1);
  if (record.in_parent && !index.incremental) return "has pages that are in a parent, but the snapshot has none";
  if (index.incremental && record.nonzero != held) return "has pages whose state and whether they are zero disagree";
  if (record.same_as && index.encoding != Encoding::packed) return "has same-as pages, which only the packed encoding has";
  if ((record.nonzero == 0) != (record.content == Digest{})) return "has a digest for pages of zeros, or none for others";
  if (index.incremental && (record.present == 0) != (record.stored == Digest{})) return "has a digest for no pages of its own, or none for some";
  if (index.encoding == Encoding::packed) {
    if ((record.present == 0) != (record.block == 0) || (record.present == 0) != (record.stored_bytes == 0)) return "has pages without a block, or a block without pages";
    if (record.stored_bytes > kChunkBytes + kMostCipherBytes) return fmt::format("has a block of {} bytes, allowed are {}", record.stored_bytes, kChunkBytes + kMostCipherBytes);
  }
  return {};
}

Result<> take_same_as(RamIndex& index, const cbor::ByteString* bytes, const std::string& object) {
  u64 wanted = 0;
  for (const ChunkRecord& record : index.chunks) wanted += static_cast<u64>(std::popcount(record.same_as));
  const u64 found = bytes ? bytes->size() : 0;
  if (found != wanted * 8)
    return fail(ErrorCode::bad_file, object, fmt::format("field 'same_as' has {} bytes, wanted are {}", found, wanted * 8), kDamagedOrForeign);
  index.same_as.reserve(wanted);
  for (u64 i = 0; i < wanted; ++i) index.same_as.push_back(get(bytes->data() + 8 * i));
  index.for_lookup();
  for (u64 chunk = 0; chunk < index.chunks.size(); ++chunk)
    for (u64 rest = index.chunks[chunk].same_as; rest; rest &= rest - 1) {
      const u64 page = chunk * kChunkPages + static_cast<u64>(std::countr_zero(rest)), target = index.target_of(page);
      if (target >= page || !(index.chunks[target / kChunkPages].present >> (target % kChunkPages) & 1))
        return fail(ErrorCode::bad_file, object, fmt::format("page {} is the same as page {}, which is not an earlier present one", page, target), kDamagedOrForeign);
    }
  return {};
}

}  // namespace

std::string_view name_of(Encoding encoding) { return encoding == Encoding::mapped ? "mapped" : "packed"; }

Digest chunk_digest(std::span<const Digest> pages) {
  if (pages.empty()) return {};
  return digest_of({pages.front().data(), pages.size_bytes()});
}

void RamIndex::for_lookup() {
  same_as_before.resize(chunks.size());
  u64 before = 0;
  for (u64 i = 0; i < chunks.size(); ++i) {
    same_as_before[i] = before;
    before += static_cast<u64>(std::popcount(chunks[i].same_as));
  }
}

u64 RamIndex::target_of(u64 page) const {
  const u64 chunk = page / kChunkPages, bit = page % kChunkPages;
  return same_as[same_as_before[chunk] + static_cast<u64>(std::popcount(chunks[chunk].same_as & ((1ull << bit) - 1)))];
}

cbor::Value to_value(const RamIndex& index) {
  std::vector<u8> records;
  records.reserve(index.chunks.size() * record_bytes(index));
  for (const ChunkRecord& record : index.chunks) {
    put(records, record.present | record.in_parent);
    put(records, record.same_as | record.in_parent);
    records.insert(records.end(), record.content.begin(), record.content.end());
    if (index.incremental) {
      put(records, record.nonzero);
      records.insert(records.end(), record.stored.begin(), record.stored.end());
    }
    if (index.encoding == Encoding::packed) {
      put(records, record.block);
      put(records, record.stored_bytes, 4);
      put(records, 0, 4);
    }
  }
  cbor::Map out;
  out.set("encoding", name_of(index.encoding));
  out.set("page_size", kPageSize);
  out.set("pages", index.pages);
  out.set("chunk_pages", kChunkPages);
  out.set("chunks", std::move(records));
  out.set("content", cbor::ByteString(index.content.begin(), index.content.end()));
  if (!index.same_as.empty()) {
    std::vector<u8> targets;
    targets.reserve(index.same_as.size() * 8);
    for (const u64 target : index.same_as) put(targets, target);
    out.set("same_as", std::move(targets));
  }
  return out;
}

Result<RamIndex> ram_index_from(const cbor::Value& body, u64 pages, bool incremental, const std::string& object) {
  const BodyMap map(body, object);
  STASIS_TRY_SET(const std::string encoding, map.text("encoding"));
  if (encoding != "mapped" && encoding != "packed")
    return fail(ErrorCode::unsupported, object, fmt::format("field 'encoding' is '{}', known are 'mapped' and 'packed'", encoding), "it needs a newer Stasis");
  STASIS_TRY(map.number_is("page_size", kPageSize));
  STASIS_TRY(map.number_is("pages", pages));
  STASIS_TRY(map.number_is("chunk_pages", kChunkPages));
  STASIS_TRY_SET(const cbor::ByteString* records, map.bytes("chunks"));
  RamIndex out{.encoding = encoding == "packed" ? Encoding::packed : Encoding::mapped, .incremental = incremental, .pages = pages};
  const u64 count = out.chunk_count(), size = record_bytes(out);
  if (records->size() != count * size)
    return fail(ErrorCode::bad_file, object, fmt::format("field 'chunks' has {} bytes, wanted are {}", records->size(), count * size), kDamagedOrForeign);
  out.chunks.reserve(count);
  for (u64 i = 0; i < count; ++i) {
    out.chunks.push_back(record_at(out, records->data() + i * size));
    if (out.encoding == Encoding::packed && get<u32>(records->data() + (i + 1) * size - 4))
      return fail(ErrorCode::bad_file, object, fmt::format("chunk {} has reserved bytes that are not zero", i), kDamagedOrForeign);
    if (const auto wrong = wrong_with(out, out.chunks.back(), i))
      return fail(ErrorCode::bad_file, object, fmt::format("chunk {} {}", i, *wrong), kDamagedOrForeign);
  }
  if (const cbor::ByteString* content = map.find<cbor::ByteString>("content")) {
    if (content->size() != sizeof(Digest))
      return fail(ErrorCode::bad_file, object, fmt::format("field 'content' has {} bytes, wanted are 16", content->size()), kDamagedOrForeign);
    out.content = digest_at(content->data());
  }
  const cbor::ByteString* targets = map.find<cbor::ByteString>("same_as");
  if (map.has("same_as") && (!targets || targets->empty()))
    return fail(ErrorCode::bad_file, object, "field 'same_as' is there, but no targets are in it", kDamagedOrForeign);
  STASIS_TRY(take_same_as(out, targets, object));
  return out;
}

}  // namespace stasis::snapshot
