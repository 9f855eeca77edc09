// Following a damaged frame with no help from the reader that is being fuzzed; what the bodies say of each other, with its help.
#include "repair.hpp"

#include <algorithm>

#include "snapshot/bodies.hpp"
#include "snapshot/examine.hpp"
#include "snapshot/format.hpp"
#include "snapshot_memory.hpp"

namespace stasis::fuzz {
namespace {

using namespace snapshot;

u64 get(Bytes bytes, u64 at, unsigned size) {
  u64 value = 0;
  for (unsigned i = size; i-- > 0;) value = value << 8 | bytes[at + i];
  return value;
}

void put(MutableBytes bytes, u64 at, const Digest& digest) { std::ranges::copy(digest, bytes.begin() + static_cast<std::ptrdiff_t>(at)); }

struct Walk {
  MutableBytes file;
  u64 end;  // of the sections
  Hasher root{};
  u32 sections = 0;
  u64 index = 0;

  // The end of a region of blocks; `end` when it has none.
  u64 blocks(u64 at) {
    while (at <= end && end - at >= kBlockHeaderSize) {
      std::ranges::copy(kBlockMagic, file.begin() + static_cast<std::ptrdiff_t>(at));
      const u64 stored = get(file, at + 4, 4);
      if (stored > end - at - kBlockHeaderSize) return end;
      const BlockHeader block{.chunk = get(file, at + 8, 8), .stored = static_cast<u32>(stored)};
      put(file, at + 16, block_digest(block, file.subspan(at + kBlockHeaderSize, stored)));
      at = std::min(end, align_up(at + kBlockHeaderSize + stored, 8));
      if (stored == 0) return at;
    }
    return end;
  }

  // The place of the next section; `end` when there is none to be found.
  u64 section(u64 at) {
    if (end - at < kSectionHeaderSize) return end;
    std::ranges::copy(kSectionMagic, file.begin() + static_cast<std::ptrdiff_t>(at));
    SectionHeader header{.name = {}, .flags = static_cast<u32>(get(file, at + 8, 4)), .alignment = static_cast<u32>(get(file, at + 12, 4)),
                         .length = get(file, at + 16, 8)};
    const u64 name = get(file, at + 4, 2);
    if (name == 0 || name > kLongestName || end - at - kSectionHeaderSize < align_up(name, 8)) return end;
    header.name.assign(reinterpret_cast<const char*>(file.data() + at + kSectionHeaderSize), name);
    if (header.alignment == 0 || header.alignment > kMostAlignment || (header.alignment & (header.alignment - 1))) header.alignment = kLeastAlignment;
    const u64 body = header.body_offset(at);
    u64 next = end;
    if (body <= end && header.flags & kBlocks) next = blocks(body);
    else if (body <= end && header.length <= end - body) {
      next = std::min(end, align_up(body + header.length, 8));
      if (!(header.flags & kRegion)) put(file, at + 32, digest_of(file.subspan(body, header.length)));
    }
    Hasher hasher;
    hasher.add(file.subspan(at, 48));
    hasher.add(file.subspan(at + kSectionHeaderSize, name));
    put(file, at + 48, hasher.result());
    root.add(file.subspan(at, header.header_bytes()));
    ++sections;
    if (header.name == kRamIndex) index = at;
    return next;
  }
};

void repair_frame(std::vector<u8>& file) {
  file.resize(file.size() & ~u64{7});
  if (file.size() < kHeaderSize + kCommitSize) return;
  const MutableBytes bytes(file);
  std::ranges::copy(kMagic, file.begin());
  if (get(bytes, 32, 8))
    for (unsigned i = 0; i < 8; ++i) file[32 + i] = static_cast<u8>(file.size() >> (8 * i));
  put(bytes, 48, digest_of(bytes.first(48)));
  Walk walk{.file = bytes, .end = file.size() - kCommitSize};
  walk.root.add(bytes.first(kHeaderSize));
  for (u64 at = kHeaderSize; at < walk.end && walk.sections <= kMostSections;) at = walk.section(at);
  const auto commit = to_bytes(CommitRecord{.length = file.size(), .index_offset = walk.index, .sections = walk.sections, .root = walk.root.result()});
  std::ranges::copy(commit, file.begin() + static_cast<std::ptrdiff_t>(walk.end));
}

void replace(MutableBytes body, const Digest& claimed, const Digest& right) {
  if (const auto found = std::ranges::search(body, claimed); !found.empty()) std::ranges::copy(right, found.begin());
}

// What the bodies say of each other: digests of states, and of the whole content.
void repair_content(std::vector<u8>& file) {
  const std::string object = "fuzz";
  Examination found = examine(testing::MemorySource(file), object);
  if (!found.index_read || !found.parts_read) return;
  const auto body = [&](std::string_view name) -> MutableBytes {
    const auto section = std::ranges::find(found.decoded.sections, name, &SectionInfo::name);
    return section == found.decoded.sections.end() ? MutableBytes{} : MutableBytes(file).subspan(section->offset, section->length);
  };
  for (ListedPart& part : found.decoded.listed) {
    const auto value = decode_body(body(part.path), object);
    if (part.inherited || !value) continue;
    const Digest right = state_digest(body(part.path), *value);
    replace(body(kParts), part.state, right);
    part.state = right;
  }
  const RamIndex& ram = found.decoded.ram;
  replace(body(kRamIndex), ram.content, content_digest(found.decoded.image.ram_size, ram, found.decoded.listed));
}

}  // namespace

void repair(std::vector<u8>& file) {
  repair_frame(file);
  repair_content(file);
  repair_frame(file);
}

}  // namespace stasis::fuzz
