// Where the loader puts things: fixed places in low RAM, the memory map, and room for kernel and initrd.
#pragma once

#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "memory/guest_memory.hpp"

namespace stasis::loader {

// All below 0x9'0000, which RAM of the least size has. A kernel never lies below 1 MiB.
constexpr u64 kGdtAddress = 0x6000;
constexpr u64 kStartInfoAddress = 0x6100;   // hvm_start_info
constexpr u64 kModuleListAddress = 0x6200;
constexpr u64 kMemoryMapAddress = 0x6300;   // PVH's; boot_params has its own
constexpr u64 kBootParamsAddress = 0x7000;
constexpr u64 kPageTablesAddress = 0x9000;  // PML4, page directory pointers, four page directories
constexpr u64 kCommandLineAddress = 0x2'0000;
constexpr u64 kCommandLineMost = 4095;      // without its zero
constexpr u64 kLowestKernelAddress = kMiB;

constexpr u16 kCodeSelector = 0x10, kDataSelector = 0x18;  // __BOOT_CS, __BOOT_DS

struct Extent {  // guest physical [start, end)
  u64 start = 0, end = 0;
  u64 size() const { return end - start; }
  bool operator==(const Extent&) const = default;
};

struct MemoryMapEntry {
  enum Type : u32 { ram = 1, reserved = 2 };
  u64 address, size;
  Type type;
  bool operator==(const MemoryMapEntry&) const = default;
};
// What BIOS E820h would tell: RAM, the extended BIOS data area and the BIOS area.
std::vector<MemoryMapEntry> memory_map(const GuestMemory& memory);

// End of RAM below the hole at 3 GiB.
u64 low_ram_end(const GuestMemory& memory);

// An error unless RAM below the hole reaches `end`. `what` needs it: "bzImage", "initrd behind the kernel".
Result<> check_fits(const GuestMemory& memory, u64 end, std::string_view object, std::string_view what);

// As high as possible in low RAM, page aligned, last byte at or below `last_address`, and not over the kernel.
Result<Extent> place_initrd(const GuestMemory& memory, u64 size, Extent kernel, u64 last_address);

// Writes what was checked to be RAM.
void put(GuestMemory& memory, u64 address, Bytes bytes);
void put_zeros(GuestMemory& memory, Extent extent);
template <class T>
void put_value(GuestMemory& memory, u64 address, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  put(memory, address, {reinterpret_cast<const u8*>(&value), sizeof value});
}

void put_command_line(GuestMemory& memory, std::string_view text);
// The words of the BIOS data area that say where conventional memory ends.
void put_bios_data(GuestMemory& memory);

// Little-endian value at a place already checked to be inside.
template <class T>
T value_at(Bytes bytes, u64 offset) {
  STASIS_ASSERT(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset);
  T value;
  __builtin_memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}
// [offset, offset + size) is inside `bytes`.
inline bool holds(Bytes bytes, u64 offset, u64 size) { return offset <= bytes.size() && size <= bytes.size() - offset; }

// A damaged or foreign header field, in the words every such error has.
std::unexpected<Error> bad_field(std::string_view object, std::string_view field, u64 found, std::string_view allowed,
                                 std::string_view hint);

}  // namespace stasis::loader
