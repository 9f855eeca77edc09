// Fuzz: the fixed records of the frame: file header, section header, block header, commit record. What is accepted is
// written again as the same bytes.
#include <algorithm>

#include "snapshot_memory.hpp"
#include "target.hpp"

using namespace stasis;
using namespace stasis::snapshot;

namespace {

void with_digest(std::vector<u8>& bytes, u64 over) {
  if (bytes.size() >= over + 16) std::ranges::copy(digest_of(Bytes(bytes).first(over)), bytes.begin() + static_cast<std::ptrdiff_t>(over));
}

void try_section(Bytes bytes, const std::string& object) {
  if (bytes.size() < kSectionHeaderSize) return;
  auto header = section_header_from(bytes.first(kSectionHeaderSize), object);
  if (!header) return;
  const u64 padded = align_up(header->name.size(), 8);
  if (bytes.size() < kSectionHeaderSize + padded) return;
  std::vector<u8> copy(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(kSectionHeaderSize + padded));
  Hasher hasher;
  hasher.add(Bytes(copy).first(48));
  hasher.add(Bytes(copy).subspan(kSectionHeaderSize, header->name.size()));
  std::ranges::copy(hasher.result(), copy.begin() + 48);
  if (!check_section_name(*header, Bytes(copy).first(kSectionHeaderSize), Bytes(copy).subspan(kSectionHeaderSize), object)) return;
  FUZZ_LAW(is_section_name(header->name));
  FUZZ_LAW(to_bytes(*header) == copy);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const std::string object = "fuzz";
  std::vector<u8> bytes(data, data + size);
  (void)header_from(bytes, object);
  (void)identify(testing::MemorySource(bytes), object);
  with_digest(bytes, 48);
  const Bytes fixed = Bytes(bytes).first(std::min<std::size_t>(size, kHeaderSize));
  if (const auto header = header_from(fixed, object)) FUZZ_LAW(std::ranges::equal(to_bytes(*header), fixed));
  if (size >= kCommitSize)
    if (const auto commit = commit_from(fixed, object)) FUZZ_LAW(std::ranges::equal(to_bytes(*commit), fixed));
  if (size >= kBlockHeaderSize)
    if (const auto block = block_from(fixed, 1000, object)) FUZZ_LAW(std::ranges::equal(to_bytes(*block), fixed.first(kBlockHeaderSize)));
  try_section(bytes, object);
  return 0;
}
