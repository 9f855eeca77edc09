// Looking at every byte of a snapshot.
#include "snapshot/verify.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "snapshot/format.hpp"
#include "snapshot/frame_reader.hpp"
#include "state/schema_check.hpp"

namespace stasis::snapshot {
namespace {

constexpr std::size_t kMostTold = 200;  // of blocks; a hostile file can hold millions of mistakes

class Blocks {
 public:
  Blocks(const Source& source, const std::string& object, u64 offset, u64 end) : source_(source), object_(object), at_(offset), end_(end) {}

  // Each block is where the index says, and these places are one after the other.
  void follow(const RamIndex& index) {
    for (u64 i = 0; i < index.chunks.size(); ++i) {
      const ChunkRecord& chunk = index.chunks[i];
      if (!chunk.present) continue;
      if (chunk.block != at_) tell(fmt::format("the index says that the block of chunk {} is at byte {}, the one before it ends at byte {}", i, chunk.block, at_));
      at_ = chunk.block;
      const auto block = header(index.chunk_count());
      if (block && (block->chunk != i || block->stored != chunk.stored_bytes))
        tell(fmt::format("the block at byte {} is of chunk {} with {} bytes, the index says chunk {} with {} bytes", at_, block->chunk, block->stored, i, chunk.stored_bytes));
      pass(chunk.stored_bytes);
    }
    last();
  }

  void walk() {
    for (u64 previous = BlockHeader::kEnd; at_ < end_;) {
      const auto block = header(kMostRam / kChunkBytes);
      if (!block) return tell("the blocks after that one cannot be followed");
      if (block->chunk == BlockHeader::kEnd) return last();
      if (previous != BlockHeader::kEnd && block->chunk <= previous) tell(fmt::format("the block at byte {} is of chunk {}, which comes after chunk {}", at_, block->chunk, previous));
      previous = block->chunk;
      std::vector<u8> stored(block->stored);
      if (end_ - at_ - kBlockHeaderSize < block->stored) return tell(fmt::format("the block at byte {} does not fit into the region", at_));
      if (!source_.read(at_ + kBlockHeaderSize, stored) || block_digest(*block, stored) != block->digest)
        tell(fmt::format("the block at byte {} (chunk {}) does not match its digest", at_, block->chunk));
      pass(block->stored);
    }
    tell("no block ends the region");
  }

  std::vector<Error> problems() && {
    if (untold_) problems_.push_back({ErrorCode::bad_file, object_, fmt::format("section '{}': and {} more of these", kRam, untold_), kDamaged});
    return std::move(problems_);
  }

 private:
  void tell(std::string message) {
    if (problems_.size() >= kMostTold) return void(++untold_);
    problems_.push_back({ErrorCode::bad_file, object_, fmt::format("section '{}': {}", kRam, std::move(message)), kDamaged});
  }

  std::optional<BlockHeader> header(u64 chunks) {
    std::array<u8, kBlockHeaderSize> bytes;
    if (at_ > end_ || end_ - at_ < kBlockHeaderSize || !source_.read(at_, bytes)) return tell(fmt::format("there is no room for a block at byte {}", at_)), std::nullopt;
    auto block = block_from(bytes, chunks, fmt::format("block at byte {}", at_));
    if (!block) return tell(fmt::format("{}: {}", block.error().object, block.error().message)), std::nullopt;
    return *block;
  }

  // Behind a block of so many stored bytes, whose padding is looked at.
  void pass(u64 stored) {
    const u64 from = at_ + kBlockHeaderSize + stored;
    at_ = align_up(from, 8);
    if (at_ > end_) return;
    const auto zero = FrameReader(source_, object_).is_zero(from, at_);
    if (!zero || !*zero) tell(fmt::format("the padding at byte {} is not zero", from));
  }

  void last() {
    const auto block = header(kMostRam / kChunkBytes);
    if (!block) return;
    if (block->chunk != BlockHeader::kEnd || block->stored || block->digest != block_digest(*block, {})) tell(fmt::format("the block at byte {} does not end the region", at_));
    if (at_ + kBlockHeaderSize != end_) tell(fmt::format("the block that ends the region is at byte {}, the region goes on to byte {}", at_, end_));
  }

  const Source& source_;
  const std::string& object_;
  u64 at_, end_;
  std::vector<Error> problems_;
  u64 untold_ = 0;
};

void check_values(const OpenSnapshot& snapshot, std::vector<Error>& problems) {
  const auto check = [&](const PartRecord& record) {
    if (record.path.empty() || record.left_out) return;
    state::check_record(record.schema, record.state, {.object = record.path, .version = record.schema.version, .problems = problems});
  };
  check(snapshot.image.machine);
  for (const PartRecord& part : snapshot.image.parts) check(part);
}

void take(std::vector<Error> more, std::vector<Error>& problems) { std::ranges::move(more, std::back_inserter(problems)); }

}  // namespace

std::vector<Error> block_problems(const Source& source, const std::string& object, u64 offset, u64 end, const RamIndex* index) {
  Blocks blocks(source, object, offset, end);
  if (index) blocks.follow(*index);
  else blocks.walk();
  return std::move(blocks).problems();
}

Result<Verification> verify(const std::string& path, const OpenOptions& options, SaveProgress* progress) {
  STASIS_TRY_SET(ExaminedFile examined, examine(path, options));
  Verification out{.file = std::move(examined), .unchecked = {}, .digest = {}};
  const OpenSnapshot& snapshot = out.file.snapshot;
  std::vector<Error>& problems = out.file.problems;
  if (out.file.blocks)
    take(block_problems(*snapshot.source, path, snapshot.ram_offset, snapshot.ram_end, out.file.index_read ? &snapshot.ram : nullptr), problems);
  if (snapshot.sections.empty()) return out;
  if (out.file.locked)
    out.unchecked.push_back("what is encrypted: records, values, pages and the content digest; only that stored bytes match their digests (give --decrypt-key FILE)");
  else if (!out.file.parts_read)
    out.unchecked.push_back("the values of records that cannot be read");
  if (!out.file.locked && !out.file.index_read) out.unchecked.push_back("the RAM, because its index cannot be read");
  if (out.file.locked) return out;
  check_values(snapshot, problems);
  if (!out.file.index_read) return out;
  STASIS_TRY_SET(std::vector<Error> damage, ram_problems(snapshot, progress));
  const bool whole_ram = damage.empty() && (!snapshot.parent_link || snapshot.parent);
  take(std::move(damage), problems);
  if (snapshot.parent_link && !snapshot.parent) out.unchecked.push_back("pages that are in the parent, and the content digest, because the parent cannot be read");
  if (whole_ram && out.file.parts_read && problems.empty()) out.digest = hex(snapshot.ram.content);
  return out;
}

}  // namespace stasis::snapshot
