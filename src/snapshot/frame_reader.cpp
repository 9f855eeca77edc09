// Reading the frame; never trusts a length.
#include "snapshot/frame_reader.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "snapshot/bodies.hpp"

namespace stasis::snapshot {

Result<FileHeader> FrameReader::header() const {
  std::vector<u8> bytes(source_.arriving() ? kHeaderSize : std::min(source_.size(), kHeaderSize));
  STASIS_TRY(source_.read(0, bytes));
  return header_from(bytes, object_);
}

Result<CommitRecord> FrameReader::commit_at_end(const FileHeader& header) const {
  const u64 size = source_.size();
  if (header.length && size < header.length)
    return bad(fmt::format("the file is incomplete: it has {} of {} bytes", size, header.length),
               "its writer was interrupted, or the copy was cut short; use another snapshot or copy");
  if (header.length && size > header.length)
    return bad(fmt::format("{} bytes follow the end of the snapshot, which is {} bytes long", size - header.length, header.length));
  if (size < kHeaderSize + kCommitSize || size % 8) return bad("the file is incomplete: it has no commit record at its end");
  return commit_at(size - kCommitSize, header);
}

Result<CommitRecord> FrameReader::commit_at(u64 at, const FileHeader& header) const {
  std::array<u8, kCommitSize> bytes;
  STASIS_TRY(source_.read(at, bytes));
  STASIS_TRY_SET(const CommitRecord commit, commit_from(bytes, object_));
  if (commit.length != at + kCommitSize) return bad(fmt::format("the file has {} bytes, its commit record says {}", at + kCommitSize, commit.length));
  if (header.length && header.length != commit.length)
    return bad(fmt::format("the file has {} bytes, its header says {}", commit.length, header.length));
  return commit;
}

Result<bool> FrameReader::is_commit_at(u64 at) const {
  std::array<u8, kCommitMagic.size()> bytes;
  STASIS_TRY(source_.read(at, bytes));
  return is_commit(bytes);
}

Result<Producer> FrameReader::producer() const {
  STASIS_TRY_SET(const Frame found, frame(kHeaderSize, source_.size(), "", 0));
  if (found.header.name != kProducer || found.header.flags & kRegion || found.header.length > kMostOtherBytes) return bad("section 'producer' is not the first");
  std::vector<u8> body(found.header.length);
  STASIS_TRY(source_.read(found.body, body));
  if (digest_of(body) != found.header.digest) return bad("section 'producer' does not match its digest");
  const std::string where = object_ + ": section 'producer'";
  STASIS_TRY_SET(const cbor::Value value, decode_body(body, where));
  return producer_from(value, where);
}

Result<Frame> FrameReader::frame(u64 at, u64 most, const std::string& previous, u64 index_at) const {
  const std::string here = fmt::format("{}: header of the section after {} at byte {}", object_,
                                       previous.empty() ? "the file header" : "'" + previous + "'", at);
  if (most < at || most - at < kSectionHeaderSize) return fail(ErrorCode::bad_file, here, "there is no room for it", kDamaged);
  Frame out{.at = at};
  out.bytes.resize(kSectionHeaderSize);
  STASIS_TRY(source_.read(at, out.bytes));
  STASIS_TRY_SET(out.header, section_header_from(out.bytes, here));
  const u64 name_bytes = align_up(out.header.name.size(), 8);
  if (most - at - kSectionHeaderSize < name_bytes) return fail(ErrorCode::bad_file, here, "there is no room for its name", kDamaged);
  out.bytes.resize(kSectionHeaderSize + name_bytes);
  const MutableBytes name = MutableBytes(out.bytes).subspan(kSectionHeaderSize);
  STASIS_TRY(source_.read(at + kSectionHeaderSize, name));
  STASIS_TRY(check_section_name(out.header, Bytes(out.bytes).first(kSectionHeaderSize), name, here));
  out.body = out.header.body_offset(at);
  const auto no_room = [&] {
    return fail(ErrorCode::bad_file, here, fmt::format("section '{}' of {} bytes does not fit into the file", out.header.name, out.header.length), kDamaged);
  };
  if (out.body > most) return no_room();
  if (out.header.flags & kBlocks) {
    if (out.header.length != kUnknownLength)
      return fail(ErrorCode::bad_file, here, fmt::format("section '{}' is made of blocks and has a length of {}", out.header.name, out.header.length), kDamaged);
    if (index_at && out.header.name == kRam) {  // its index comes next
      if (index_at % 8 || index_at < out.body || index_at > most)
        return fail(ErrorCode::bad_file, here, fmt::format("the commit record says that the index is at byte {}, which is not behind its region", index_at), kDamaged);
      out.end = index_at;
    } else {
      STASIS_TRY_SET(out.end, end_of_blocks(out.body, most));
    }
    out.next = out.end;
    return out;
  }
  if (out.header.length > most - out.body || align_up(out.header.length, 8) > most - out.body) return no_room();
  out.end = out.body + out.header.length;
  out.next = align_up(out.end, 8);
  return out;
}

Result<u64> FrameReader::end_of_blocks(u64 at, u64 most) const {
  std::array<u8, kBlockHeaderSize> bytes;
  for (u64 last = BlockHeader::kEnd;;) {
    const std::string here = fmt::format("{}: section '{}': block at byte {}", object_, kRam, at);
    if (most < at || most - at < kBlockHeaderSize) return fail(ErrorCode::bad_file, here, "there is no room for it", kDamaged);
    if (++blocks_ > 2 * (kMostRam / kChunkBytes)) return fail(ErrorCode::bad_file, here, "too many blocks come before it", kDamaged);
    STASIS_TRY(source_.read(at, bytes));
    STASIS_TRY_SET(const BlockHeader block, block_from(bytes, kMostRam / kChunkBytes, here));
    at += kBlockHeaderSize + align_up(block.stored, 8);
    if (block.chunk == BlockHeader::kEnd) {
      if (block.digest != block_digest(block, {})) return fail(ErrorCode::bad_file, here, "does not match its digest", kDamaged);
      return at;
    }
    if (last != BlockHeader::kEnd && block.chunk <= last)
      return fail(ErrorCode::bad_file, here, fmt::format("chunk {} comes after chunk {}", block.chunk, last), kDamaged);
    last = block.chunk;
  }
}

Result<bool> FrameReader::is_zero(u64 from, u64 to) const {
  std::vector<u8> bytes(to - from);
  if (bytes.empty()) return true;
  STASIS_TRY(source_.read(from, bytes));
  return std::ranges::all_of(bytes, [](u8 byte) { return byte == 0; });
}

}  // namespace stasis::snapshot
