// A Linux bzImage: its setup header, read and checked (Linux Documentation/arch/x86/boot.rst).
#pragma once

#include <string>

#include "machine/loader/guest_layout.hpp"

namespace stasis::loader {

struct BzImage {
  Bytes setup_header;         // what boot_params takes over, from 0x1f1 on
  Bytes kernel;               // protected-mode part
  Bytes payload;              // the compressed ELF kernel inside; may be empty
  u64 load_address = 0;       // where the kernel runs and likes to be loaded
  u64 init_size = 0;          // RAM it needs from there before it reads the memory map
  u64 initrd_last_address = 0;
  u64 command_line_most = 0;  // without the final zero
  std::string banner;

  u64 entry() const { return load_address + 0x200; }  // of the 64-bit protocol
  Extent extent() const { return {load_address, load_address + init_size}; }
};

bool looks_like_bzimage(Bytes file);
// Views into `file`.
Result<BzImage> parse_bzimage(Bytes file);

}  // namespace stasis::loader
