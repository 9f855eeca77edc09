// Finding, opening and unpacking the chunks of saved RAM.
#include "snapshot/ram_reader.hpp"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "snapshot/format.hpp"

namespace stasis::snapshot {
namespace {

unsigned lowest(u64 bits) { return static_cast<unsigned>(std::countr_zero(bits)); }

// One zstd frame, with nothing before or behind it and without a dictionary. libzstd also takes skippable frames, many, and old ones.
bool is_one_frame(Bytes bytes) {
  static constexpr std::array<u8, 4> kFrameMagic = {0x28, 0xb5, 0x2f, 0xfd};
  return bytes.size() > kFrameMagic.size() && std::equal(kFrameMagic.begin(), kFrameMagic.end(), bytes.begin()) &&
         ::ZSTD_findFrameCompressedSize(bytes.data(), bytes.size()) == bytes.size() && ::ZSTD_getDictID_fromFrame(bytes.data(), bytes.size()) == 0;
}

}  // namespace

void RamReader::Free::operator()(ZSTD_DCtx_s* context) const { ::ZSTD_freeDCtx(context); }

RamReader::RamReader(const Source& source, const Decoded& decoded, const std::string& object, const OpenSnapshot* parent)
    : source_(source), decoded_(decoded), object_(object), parent_(parent ? std::make_unique<RamReader>(*parent) : nullptr) {}

RamReader::RamReader(const OpenSnapshot& snapshot) : RamReader(*snapshot.source, snapshot, snapshot.path, snapshot.parent.get()) {}

RamReader::~RamReader() = default;

std::unexpected<Error> RamReader::damaged(u64 chunk, std::string what) const {
  return fail(ErrorCode::bad_file, object_, fmt::format("section '{}': chunk {} (RAM offset {:#x}) {}", kRam, chunk, chunk * kChunkBytes, what),
              "the file is damaged: take another copy of it");
}

Result<> RamReader::read(u64 chunk, u64 wanted, u8* out) {
  const ChunkRecord& record = decoded_.ram.chunks[chunk];
  for (u64 rest = wanted & ~record.nonzero; rest; rest &= rest - 1) std::memset(out + lowest(rest) * kPageSize, 0, kPageSize);
  STASIS_TRY(read_present(chunk, wanted & record.present, out));
  STASIS_TRY(read_same_as(chunk, wanted & record.same_as, out));
  if (!(wanted & record.in_parent)) return {};
  if (!parent_)
    return fail(ErrorCode::not_found, object_, fmt::format("is incremental, and its parent '{}' is not open", decoded_.parent_link ? decoded_.parent_link->file : ""),
                "say where the parent is: --parent FILE");
  return parent_->read(chunk, wanted & record.in_parent, out);
}

Result<> RamReader::read_present(u64 chunk, u64 wanted, u8* out) {
  if (!wanted) return {};
  return decoded_.ram.encoding == Encoding::mapped ? read_mapped(chunk, wanted, out) : read_packed(chunk, wanted, out, own_);
}

Result<> RamReader::read_mapped(u64 chunk, u64 wanted, u8* out) const {
  for (u64 rest = wanted; rest;) {
    const unsigned first = lowest(rest), count = static_cast<unsigned>(std::countr_one(rest >> first));
    STASIS_TRY(source_.read(decoded_.ram_offset + chunk * kChunkBytes + first * kPageSize, {out + first * kPageSize, count * kPageSize}));
    rest = first + count == 64 ? 0 : rest & (~0ull << (first + count));
  }
  return {};
}

Result<> RamReader::read_packed(u64 chunk, u64 wanted, u8* out, Unpacked& slot) {
  STASIS_TRY(unpack(chunk, slot));
  const u8* page = slot.bytes.data();
  for (u64 rest = decoded_.ram.chunks[chunk].present; rest; rest &= rest - 1, page += kPageSize)
    if (wanted >> lowest(rest) & 1) std::memcpy(out + lowest(rest) * kPageSize, page, kPageSize);
  return {};
}

// The index was checked: a target is present, in this file.
Result<> RamReader::read_same_as(u64 chunk, u64 wanted, u8* out) {
  for (u64 rest = wanted; rest; rest &= rest - 1) {
    const u64 target = decoded_.ram.target_of(chunk * kChunkPages + lowest(rest)), in = target / kChunkPages, bit = target % kChunkPages;
    Unpacked& slot = own_.chunk == in ? own_ : target_;
    STASIS_TRY(unpack(in, slot));
    const u64 before = static_cast<u64>(std::popcount(decoded_.ram.chunks[in].present & ((1ull << bit) - 1)));
    std::memcpy(out + lowest(rest) * kPageSize, slot.bytes.data() + before * kPageSize, kPageSize);
  }
  return {};
}

Result<> RamReader::unpack(u64 chunk, Unpacked& slot) {
  if (slot.chunk == chunk) return {};
  slot.chunk = ~0ull;
  const ChunkRecord& record = decoded_.ram.chunks[chunk];
  const u64 wanted = kPageSize * static_cast<u64>(std::popcount(record.present));
  stored_.resize(kBlockHeaderSize + record.stored_bytes);
  STASIS_TRY(source_.read(record.block, stored_));
  STASIS_TRY_SET(const BlockHeader header, block_from(stored_, decoded_.ram.chunk_count(), object_));
  MutableBytes packed = MutableBytes(stored_).subspan(kBlockHeaderSize);
  if (header.chunk != chunk || header.stored != record.stored_bytes) return damaged(chunk, "has another block than the index says");
  if (block_digest(header, packed) != header.digest) return damaged(chunk, "does not match the digest of its block");
  if (decoded_.cipher) {
    const auto clear = decoded_.cipher->open_chunk(chunk, packed);
    if (!clear) return damaged(chunk, "is not what was encrypted with this key");
    packed = *clear;
  }
  slot.bytes.resize(wanted);
  if (packed.size() == wanted) {
    std::memcpy(slot.bytes.data(), packed.data(), wanted);
  } else {
    if (!unpacker_) unpacker_.reset(::ZSTD_createDCtx());
    STASIS_ASSERT(unpacker_);
    if (packed.size() > wanted || !is_one_frame(packed)) return damaged(chunk, "is neither its pages nor one shorter zstd frame of them");
    const std::size_t size = ::ZSTD_decompressDCtx(unpacker_.get(), slot.bytes.data(), wanted, packed.data(), packed.size());
    if (::ZSTD_isError(size)) return damaged(chunk, fmt::format("cannot be unpacked ({})", ::ZSTD_getErrorName(size)));
    if (size != wanted) return damaged(chunk, fmt::format("unpacks to {} bytes, wanted are {}", size, wanted));
  }
  slot.chunk = chunk;
  return {};
}

}  // namespace stasis::snapshot
