// The RAM of two snapshots compared page by page, and the kernel's symbols in what differs.
#pragma once

#include <string>
#include <vector>

#include "inspect/page_walk.hpp"
#include "inspect/symbols.hpp"

namespace stasis::inspect {

// `chunk_digests`: 16 bytes for each 64 pages, or empty; equal chunks by digest are not read.
struct RamSide {
  PhysicalMemory memory;
  Bytes chunk_digests{};
};

struct RamRange {
  u64 address = 0;  // guest-physical
  u64 pages = 0;
  u64 bytes = 0;    // of them that differ
};

struct RamDiff {
  std::vector<RamRange> ranges;   // of pages that differ, ascending, none across the PCI hole
  std::vector<u64> differing;     // one bit per page that both have
  u64 pages = 0, bytes = 0;       // sums over the ranges
  u64 chunks_skipped = 0;         // equal by digest
  u64 only_a_bytes = 0, only_b_bytes = 0;  // where one has more RAM
  bool equal() const { return pages == 0 && only_a_bytes == 0 && only_b_bytes == 0; }
};
Result<RamDiff> diff_ram(const RamSide& a, const RamSide& b, snapshot::SaveProgress* progress = nullptr);

// A guest's memory as its kernel sees it.
struct KernelView {
  const PhysicalMemory& memory;
  AddressSpace space;
  u64 slide = 0;  // added to the addresses of symbols
};

struct SymbolChange {
  std::string name;
  u64 address = 0;   // in A
  u64 physical = 0;  // of its first byte in A
  u64 size = 0;
  u64 bytes = 0;     // of them that differ
};
// Symbols whose bytes are not the same, ascending by address. Those that are mapped in one only are not told.
// Error: cancelled.
Result<std::vector<SymbolChange>> changed_symbols(const Symbols& symbols, const KernelView& a, const KernelView& b, snapshot::SaveProgress* progress = nullptr);
// For each range the changes that begin in it, or before it and in no other.
std::vector<std::vector<const SymbolChange*>> by_range(const std::vector<RamRange>& ranges, const std::vector<SymbolChange>& changes);

}  // namespace stasis::inspect
