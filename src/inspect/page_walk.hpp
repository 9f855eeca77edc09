// The page tables of a saved guest: one address translated, or all that is mapped.
//
// 4-level and 5-level paging (Intel SDM vol. 3A, 4.5), and paging off. Tables are guest memory, so nothing in them is
// trusted: walks are bounded in depth and number whatever the tables say.
#pragma once

#include <optional>
#include <vector>

#include "inspect/physical_memory.hpp"
#include "inspect/vcpu.hpp"

namespace stasis::inspect {

struct AddressSpace {
  unsigned levels = 0;                   // 4 or 5; 0: paging is off, a virtual address is a physical one
  u64 user_root = 0, kernel_root = 0;    // physical addresses of the top tables for the lower and the upper half
};

// 32-bit and PAE paging: `unsupported`.
Result<AddressSpace> address_space_of(const Vcpu& vcpu, const PhysicalMemory& memory, const std::string& object);

// Who ends a walk, and where.
struct Walk {
  enum class End : u8 { mapped, not_canonical, not_present, reserved_bit, table_outside_ram };
  End end = End::mapped;
  unsigned level = 0;     // 5..1 of the entry that ended it
  u64 entry_address = 0, entry = 0;
  u64 physical = 0;       // mapped: of the byte asked for; it may lie outside RAM
  u64 page_bytes = 0;     // mapped: 4 KiB, 2 MiB, 1 GiB
  bool writable = true, user = true, executable = true;
};
Walk walk(const PhysicalMemory& memory, const AddressSpace& space, u64 address);
// "PML4 entry 0x1ff at 0x2a10ff8 is 0x0: not present".
std::string reason(const Walk& walk);

// Copies by virtual address. Not mapped: `not_found`, naming the address and the level that failed.
Result<> read_virtual(const PhysicalMemory& memory, const AddressSpace& space, u64 address, MutableBytes out, const std::string& object);

// A stretch of RAM seen at a stretch of virtual addresses.
struct Run {
  u64 address, physical, size;
  bool writable, user, executable;
};
struct WalkLimits {
  u64 tables = 1 << 22;  // tables read, those read again too
  u64 runs = 1 << 20;
  u8 visits = 4;         // of one table: kernels repeat a table of shadow memory thousands of times
};
struct Mappings {
  std::vector<Run> runs;       // ascending by address; RAM only
  u64 left_out = 0;            // tables and runs that a limit kept away
};
Mappings mappings_of(const PhysicalMemory& memory, const AddressSpace& space, const WalkLimits& limits = {});

}  // namespace stasis::inspect
