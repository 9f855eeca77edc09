// What each page of a saved guest's RAM is, and what became of it in another snapshot.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "inspect/ram_diff.hpp"

namespace stasis::inspect {

// What a page holds; present ones by how far zstd at level 1 packs them.
enum class Content : u8 { zero, packs_well, packs_half, packs_little, kernel_code, in_parent };
inline constexpr std::size_t kContents = 6;
inline constexpr std::array<std::string_view, kContents> kContentNames{"zero", "packs to a quarter or less", "packs to a half or less", "packs little or not",
                                                                      "kernel code", "shared with the parent"};
// From this snapshot to the other.
enum class Change : u8 { same_zero, same, changed, appeared, vanished };
inline constexpr std::size_t kChanges = 5;
inline constexpr std::array<std::string_view, kChanges> kChangeNames{"zero in both", "the same in both", "changed", "was zero, is not any more", "became zero"};

// A class for each page, with the sums.
struct PageMap {
  std::vector<u8> classes;           // Content or Change
  std::array<u64, kContents> pages{};  // of each class
  u64 packed_bytes = 0;              // of all pages together; contents only
};

// `mappings` of a vCPU in 64-bit mode tell which pages are the kernel's code; without them none are. `in_parent`: a bit per page,
// 64 to a word, or empty: what an incremental snapshot leaves to its parent, whatever is in it.
Result<PageMap> map_contents(const PhysicalMemory& memory, const Mappings& mappings, const std::vector<u64>& in_parent,
                             snapshot::SaveProgress* progress = nullptr);
// Pages beyond the smaller of the two compare with zeros.
Result<PageMap> map_changes(const RamSide& a, const RamSide& b, snapshot::SaveProgress* progress = nullptr);

}  // namespace stasis::inspect
