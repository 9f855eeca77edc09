// Direct boot by the PVH note: what lies in low RAM, and how the vCPU starts.
#include "machine/loader/pvh.hpp"

#include "machine/loader/linux64.hpp"

namespace stasis::loader {
namespace {

struct StartInfo {
  u32 magic = 0x336e'c578;
  u32 version = 1;
  u32 flags = 0;
  u32 nr_modules = 0;
  u64 modlist_paddr = 0;
  u64 cmdline_paddr = kCommandLineAddress;
  u64 rsdp_paddr = 0;
  u64 memmap_paddr = kMemoryMapAddress;
  u32 memmap_entries = 0;
  u32 reserved = 0;
};
struct ModuleEntry {
  u64 paddr = 0, size = 0, cmdline_paddr = 0, reserved = 0;
};
struct MapEntry {
  u64 address = 0, size = 0;
  u32 type = 0, reserved = 0;
};
static_assert(sizeof(StartInfo) == 56 && sizeof(ModuleEntry) == 32 && sizeof(MapEntry) == 24);
static_assert(kStartInfoAddress + sizeof(StartInfo) <= kModuleListAddress);
static_assert(kModuleListAddress + sizeof(ModuleEntry) <= kMemoryMapAddress);

}  // namespace

VcpuState prepare_pvh(GuestMemory& memory, const std::string& cmdline, Extent initrd, u64 rsdp, u32 entry) {
  put_bios_data(memory);
  put_command_line(memory, cmdline);
  StartInfo info{.rsdp_paddr = rsdp};
  u64 at = kMemoryMapAddress;
  for (const MemoryMapEntry& range : memory_map(memory)) {
    put_value(memory, at, MapEntry{range.address, range.size, range.type});
    at += sizeof(MapEntry);
    ++info.memmap_entries;
  }
  if (initrd.size() != 0) {
    info.nr_modules = 1;
    info.modlist_paddr = kModuleListAddress;
    put_value(memory, kModuleListAddress, ModuleEntry{.paddr = initrd.start, .size = initrd.size()});
  }
  put_value(memory, kStartInfoAddress, info);
  VcpuState v = flat_vcpu(memory, kCode32);
  v.gpr[kRbx] = kStartInfoAddress;
  v.rip = entry;
  return v;
}

}  // namespace stasis::loader
