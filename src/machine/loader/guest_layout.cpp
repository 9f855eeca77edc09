// The memory map, and the placing of kernel and initrd. BIOS data area: IBM PS/2 BIOS reference, segment 40h.
#include "machine/loader/guest_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace stasis::loader {
namespace {

constexpr u64 kExtendedBiosData = 0x9'fc00;  // 1 KiB up to 0xa0000
constexpr u64 kVideoMemory = 0xa'0000, kBiosArea = 0xe'0000;

}  // namespace

std::vector<MemoryMapEntry> memory_map(const GuestMemory& memory) {
  using E = MemoryMapEntry;
  std::vector<E> map{{0, kExtendedBiosData, E::ram},
                     {kExtendedBiosData, kVideoMemory - kExtendedBiosData, E::reserved},
                     {kBiosArea, kMiB - kBiosArea, E::reserved}};
  for (const GuestMemory::Range& range : memory.ranges()) {
    const u64 start = std::max(range.address, kMiB), end = range.address + range.size;
    if (start < end) map.push_back({start, end - start, E::ram});
  }
  return map;
}

u64 low_ram_end(const GuestMemory& memory) { return std::min(memory.size(), GuestMemory::kHoleStart); }

Result<> check_fits(const GuestMemory& memory, u64 end, std::string_view object, std::string_view what) {
  if (end <= low_ram_end(memory)) return {};
  if (end > GuestMemory::kHoleStart)
    return fail(ErrorCode::bad_file, std::string(object),
                fmt::format("{} needs RAM up to {:#x}, allowed is up to {:#x}", what, end, GuestMemory::kHoleStart),
                "the file is damaged or not for this machine");
  return fail(ErrorCode::usage, std::string(object),
              fmt::format("{} needs at least {} MiB of memory, the machine has {} MiB", what, align_up(end, kMiB) / kMiB,
                          memory.size() / kMiB),
              fmt::format("use --memory {}M or more", align_up(end, kMiB) / kMiB));
}

Result<Extent> place_initrd(const GuestMemory& memory, u64 size, Extent kernel, u64 last_address) {
  if (size == 0) return Extent{};
  // last_address + 1 would wrap for the largest.
  const u64 top = std::min(low_ram_end(memory) - 1, last_address) + 1;
  for (const Extent room : {Extent{kernel.end, top}, Extent{kLowestKernelAddress, std::min(kernel.start, top)}}) {
    if (room.end < size) continue;
    const u64 start = align_down(room.end - size, kPageSize);
    if (start >= room.start) return Extent{start, start + size};
  }
  const u64 end = align_up(kernel.end, kPageSize) + align_up(std::min(size, GuestMemory::kHoleEnd), kPageSize);
  if (end > GuestMemory::kHoleStart || end - 1 > last_address)
    return fail(ErrorCode::usage, "initrd",
                fmt::format("{} bytes do not fit behind the kernel, which ends at {:#x} and takes an initrd up to {:#x}", size,
                            kernel.end, std::min(last_address, GuestMemory::kHoleStart - 1)),
                "use a smaller initrd");
  Result<> fits = check_fits(memory, end, "initrd", "the kernel with this initrd");
  STASIS_ASSERT(!fits);  // else the first room had taken it
  return std::unexpected(std::move(fits).error());
}

void put(GuestMemory& memory, u64 address, Bytes bytes) { STASIS_ASSERT(memory.write(address, bytes)); }

void put_zeros(GuestMemory& memory, Extent extent) {
  if (extent.start >= extent.end) return;
  const u64 offset = memory.offset_of(extent.start);
  STASIS_ASSERT(offset != GuestMemory::kNotRam && memory.offset_of(extent.end - 1) == offset + extent.size() - 1);
  std::memset(memory.host() + offset, 0, extent.size());
  memory.mark_written(offset, extent.size());
}

void put_command_line(GuestMemory& memory, std::string_view text) {
  STASIS_ASSERT(text.size() <= kCommandLineMost);
  put_zeros(memory, {kCommandLineAddress, kCommandLineAddress + kCommandLineMost + 1});
  put(memory, kCommandLineAddress, {reinterpret_cast<const u8*>(text.data()), text.size()});
}

void put_bios_data(GuestMemory& memory) {
  constexpr u64 kEbdaSegment = 0x40e, kConventionalKiB = 0x413;
  put_value<u16>(memory, kEbdaSegment, kExtendedBiosData >> 4);
  put_value<u16>(memory, kConventionalKiB, kExtendedBiosData / kKiB);
}

std::unexpected<Error> bad_field(std::string_view object, std::string_view field, u64 found, std::string_view allowed,
                                 std::string_view hint) {
  return fail(ErrorCode::bad_file, std::string(object), fmt::format("{} is {:#x}, allowed is {}", field, found, allowed),
              std::string(hint));
}

}  // namespace stasis::loader
