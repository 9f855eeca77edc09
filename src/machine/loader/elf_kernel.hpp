// An ELF kernel (vmlinux): what to load where, and its entries (System V ABI, chapter 5; xen/interface/elfnote.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "machine/loader/guest_layout.hpp"

namespace stasis::loader {

struct ElfSegment {
  u64 address = 0;  // guest physical
  u64 memory_size = 0;
  Bytes data;       // at most memory_size; the rest is zeros
};

struct ElfKernel {
  std::vector<ElfSegment> segments;
  Extent extent;                 // around all segments
  u64 entry = 0;                 // physical, of the 64-bit protocol
  std::optional<u32> pvh_entry;  // by the note XEN_ELFNOTE_PHYS32_ENTRY
  std::string banner;
};

bool looks_like_elf(Bytes file);
// Views into `file`.
Result<ElfKernel> parse_elf_kernel(Bytes file);

}  // namespace stasis::loader
