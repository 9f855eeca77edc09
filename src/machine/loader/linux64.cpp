// The 64-bit Linux boot protocol: what lies in low RAM, and how the vCPU starts.
#include "machine/loader/linux64.hpp"

#include "machine/loader/loader.hpp"

#include <algorithm>
#include <array>

namespace stasis::loader {
namespace {

constexpr u64 kCr0Pe = 1, kCr0Et = 1 << 4, kCr0Pg = 1ull << 31, kCr4Pae = 1 << 5, kEferLme = 1 << 8, kEferLma = 1 << 10;

// A flat descriptor as the GDT has it, from the VMCB form of its attributes.
constexpr u64 flat_descriptor(u16 attributes) {
  return 0x000f'0000'0000'ffff | u64(attributes & 0xffu) << 40 | u64(attributes >> 8 & 0xfu) << 52;
}
static_assert(flat_descriptor(kCode64) == 0x00af'9b00'0000'ffff && flat_descriptor(kData32) == 0x00cf'9300'0000'ffff);

// Virtual = physical for the low 4 GiB, by 2 MiB pages.
void put_page_tables(GuestMemory& memory) {
  constexpr u64 kPresentWritable = 3, kLarge = 1 << 7, kDirectories = 4;
  std::array<u64, 512> table{};
  table[0] = (kPageTablesAddress + kPageSize) | kPresentWritable;
  put_value(memory, kPageTablesAddress, table);
  table = {};
  for (u64 i = 0; i < kDirectories; ++i) table[i] = (kPageTablesAddress + (2 + i) * kPageSize) | kPresentWritable;
  put_value(memory, kPageTablesAddress + kPageSize, table);
  for (u64 i = 0; i < kDirectories; ++i) {
    for (u64 j = 0; j < 512; ++j) table[j] = (i * kGiB + j * 2 * kMiB) | kPresentWritable | kLarge;
    put_value(memory, kPageTablesAddress + (2 + i) * kPageSize, table);
  }
}

void put_boot_params(GuestMemory& memory, Bytes setup_header, Extent initrd, u64 rsdp) {
  namespace bp = boot_params;
  std::array<u8, bp::kSize> page{};
  const auto set = [&](u64 offset, auto value) { __builtin_memcpy(page.data() + offset, &value, sizeof value); };
  if (setup_header.empty()) {
    set(bp::kBootFlag, bp::kBootFlagValue);
    set(bp::kMagic, bp::kMagicHdrS);
    set(bp::kVersion, u16{0x20f});
    set(bp::kKernelAlignment, u32{16 * kMiB});
  }
  const u64 length = std::min<u64>(setup_header.size(), bp::kSetupHeaderMost - bp::kSetupHeader);
  std::copy_n(setup_header.begin(), length, page.begin() + bp::kSetupHeader);
  set(bp::kTypeOfLoader, u8{0xff});
  set(bp::kLoadFlags, bp::kLoadedHigh);
  set(bp::kRamdiskImage, static_cast<u32>(initrd.start));
  set(bp::kRamdiskSize, static_cast<u32>(initrd.size()));
  set(bp::kHeapEnd, u16{0});
  set(bp::kCommandLine, static_cast<u32>(kCommandLineAddress));
  set(bp::kSetupData, u64{0});
  set(bp::kAcpiRsdp, rsdp);
  const std::vector<MemoryMapEntry> map = memory_map(memory);
  set(bp::kE820Entries, static_cast<u8>(map.size()));
  u64 at = bp::kE820Table;
  for (const MemoryMapEntry& entry : map) {
    set(at, entry.address);
    set(at + 8, entry.size);
    set(at + 16, static_cast<u32>(entry.type));
    at += 20;
  }
  put_value(memory, kBootParamsAddress, page);
}

}  // namespace

VcpuState flat_vcpu(GuestMemory& memory, u16 code_attributes) {
  const std::array<u64, 4> gdt{0, 0, flat_descriptor(code_attributes), flat_descriptor(kData32)};
  put_value(memory, kGdtAddress, gdt);
  VcpuState v;
  v.gpr = {};
  v.cs = {.selector = kCodeSelector, .attributes = code_attributes, .limit = 0xffff'ffff, .base = 0};
  v.ds = v.es = v.fs = v.gs = v.ss = {.selector = kDataSelector, .attributes = kData32, .limit = 0xffff'ffff, .base = 0};
  v.tr = {.selector = 0, .attributes = 0x8b, .limit = 0x67, .base = 0};
  v.gdtr = {.base = kGdtAddress, .limit = sizeof gdt - 1};
  v.idtr = {.base = 0, .limit = 0};
  v.cr0 = kCr0Pe | kCr0Et;
  // SDM vol. 3A, 12.11. Fixed ranges: 512 KiB and 128 KiB of RAM, the VGA window, then 4 KiB steps to 1 MiB.
  // The one variable range is the hole; its mask is for 40 address bits, beyond which no guest has RAM.
  constexpr u64 kWriteBack = 0x0606'0606'0606'0606, kVariableValid = 1 << 11, kFixedAndAllOn = 0xc00, kDefaultWriteBack = 6;
  v.mtrr.def_type = kFixedAndAllOn | kDefaultWriteBack;
  v.mtrr.fixed.fill(kWriteBack);
  v.mtrr.fixed[2] = 0;  // 0xa0000..0xbffff
  v.mtrr.base[0] = GuestMemory::kHoleStart;
  v.mtrr.mask[0] = ((1ull << kLeastPhysicalBits) - (GuestMemory::kHoleEnd - GuestMemory::kHoleStart)) | kVariableValid;
  return v;
}

VcpuState prepare_linux64(GuestMemory& memory, Bytes setup_header, const std::string& cmdline, Extent initrd, u64 rsdp,
                          u64 entry) {
  put_bios_data(memory);
  put_boot_params(memory, setup_header, initrd, rsdp);
  put_command_line(memory, cmdline);
  put_page_tables(memory);
  VcpuState v = flat_vcpu(memory, kCode64);
  v.cr0 |= kCr0Pg;
  v.cr3 = kPageTablesAddress;
  v.cr4 = kCr4Pae;
  v.efer = kEferLme | kEferLma;
  v.gpr[kRsi] = kBootParamsAddress;
  v.rip = entry;
  return v;
}

}  // namespace stasis::loader
