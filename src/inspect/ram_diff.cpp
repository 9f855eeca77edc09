// Comparing pages; zero pages and chunks of equal digests are not touched.
#include "inspect/ram_diff.hpp"

#include <algorithm>
#include <cstring>

namespace stasis::inspect {
namespace {

constexpr u64 kChunkPages = 64, kDigestBytes = 16, kChunksPerStep = 16;

bool equal_by_digest(const RamSide& a, const RamSide& b, u64 chunk) {
  const u64 at = chunk * kDigestBytes;
  if (a.memory.present_word(chunk) != b.memory.present_word(chunk)) return false;
  if (a.memory.present_word(chunk) == 0) return true;
  if (a.chunk_digests.size() < at + kDigestBytes || b.chunk_digests.size() < at + kDigestBytes) return false;
  return std::memcmp(a.chunk_digests.data() + at, b.chunk_digests.data() + at, kDigestBytes) == 0;
}

u64 differing_bytes(const u8* a, const u8* b, u64 size) {
  u64 count = 0;
  for (u64 i = 0; i < size; ++i) count += a[i] != b[i];
  return count;
}

void add_page(RamDiff& out, const PhysicalMemory& memory, u64 page, u64 bytes) {
  out.differing[page / 64] |= 1ull << (page % 64);
  ++out.pages;
  out.bytes += bytes;
  const u64 address = memory.address_of(page * kPageSize);
  if (!out.ranges.empty() && out.ranges.back().address + out.ranges.back().pages * kPageSize == address) {
    ++out.ranges.back().pages;
    out.ranges.back().bytes += bytes;
  } else {
    out.ranges.push_back({address, 1, bytes});
  }
}

}  // namespace

Result<RamDiff> diff_ram(const RamSide& a, const RamSide& b, snapshot::SaveProgress* progress) {
  RamDiff out;
  const u64 pages = std::min(a.memory.pages(), b.memory.pages());
  out.differing.resize((pages + 63) / 64);
  out.only_a_bytes = a.memory.size() - pages * kPageSize;
  out.only_b_bytes = b.memory.size() - pages * kPageSize;
  for (u64 first = 0; first < pages; first += kChunkPages) {
    const u64 chunk = first / kChunkPages;
    if (progress && chunk % kChunksPerStep == 0 && !progress->step(first * kPageSize, pages * kPageSize))
      return fail(ErrorCode::cancelled, "comparing", "was cancelled");
    const u64 last = std::min(first + kChunkPages, pages);
    if (last - first == kChunkPages && equal_by_digest(a, b, chunk)) {
      ++out.chunks_skipped;
      continue;
    }
    for (u64 page = first; page < last; ++page) {
      if (!a.memory.present(page) && !b.memory.present(page)) continue;
      const u8 *at_a = a.memory.page(page), *at_b = b.memory.page(page);
      if (std::memcmp(at_a, at_b, kPageSize) != 0) add_page(out, a.memory, page, differing_bytes(at_a, at_b, kPageSize));
    }
  }
  return out;
}

Result<std::vector<SymbolChange>> changed_symbols(const Symbols& symbols, const KernelView& a, const KernelView& b, snapshot::SaveProgress* progress) {
  constexpr u64 kPagesPerStep = 1024;
  std::vector<SymbolChange> out;
  u64 number = 0, pages = 0;
  for (const Symbol& symbol : symbols.all()) {
    ++number;
    SymbolChange change{.name = symbol.name, .address = symbol.address + a.slide, .size = symbol.size};
    // A page at a time: neighbours may lie anywhere.
    for (u64 done = 0; done < symbol.size;) {
      if (progress && pages++ % kPagesPerStep == 0 && !progress->step(number, symbols.all().size()))
        return fail(ErrorCode::cancelled, "comparing symbols", "was cancelled");
      const Walk in_a = walk(a.memory, a.space, symbol.address + a.slide + done), in_b = walk(b.memory, b.space, symbol.address + b.slide + done);
      const u64 piece = std::min(symbol.size - done, kPageSize - (symbol.address + done) % kPageSize);
      if (in_a.end != Walk::End::mapped || in_b.end != Walk::End::mapped) break;
      const auto offset_a = a.memory.offset_of(in_a.physical), offset_b = b.memory.offset_of(in_b.physical);
      if (!offset_a || !offset_b) break;
      if (done == 0) change.physical = in_a.physical;
      if (a.memory.present(*offset_a / kPageSize) || b.memory.present(*offset_b / kPageSize))
        change.bytes += differing_bytes(a.memory.page(0) + *offset_a, b.memory.page(0) + *offset_b, piece);
      done += piece;
    }
    if (change.bytes) out.push_back(std::move(change));
  }
  return out;
}

std::vector<std::vector<const SymbolChange*>> by_range(const std::vector<RamRange>& ranges, const std::vector<SymbolChange>& changes) {
  std::vector<std::vector<const SymbolChange*>> out(ranges.size());
  for (const SymbolChange& change : changes) {
    const auto at = std::upper_bound(ranges.begin(), ranges.end(), change.physical,
                                     [](u64 wanted, const RamRange& range) { return wanted < range.address + range.pages * kPageSize; });
    if (at != ranges.end() && at->address < change.physical + change.size) out[static_cast<std::size_t>(at - ranges.begin())].push_back(&change);
  }
  return out;
}

}  // namespace stasis::inspect
