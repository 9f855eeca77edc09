// The 64-bit Linux boot protocol: boot_params, page tables and the vCPU's first state.
// Linux Documentation/arch/x86/boot.rst "64-bit boot protocol" and zero-page.rst.
#pragma once

#include "cpu/vcpu_state.hpp"
#include "machine/config.hpp"
#include "machine/loader/guest_layout.hpp"

namespace stasis::loader {

// Offsets in boot_params; those from 0x1f1 on are also offsets in a bzImage, where its setup header lies.
namespace boot_params {
constexpr u64 kAcpiRsdp = 0x070, kE820Entries = 0x1e8, kSetupHeader = 0x1f1, kBootFlag = 0x1fe, kHeaderLength = 0x201,
              kMagic = 0x202, kVersion = 0x206, kTypeOfLoader = 0x210, kLoadFlags = 0x211, kRamdiskImage = 0x218,
              kRamdiskSize = 0x21c, kHeapEnd = 0x224, kCommandLine = 0x228, kKernelAlignment = 0x230,
              kSetupData = 0x250, kSetupHeaderMost = 0x290, kE820Table = 0x2d0, kSize = 0x1000;
constexpr u32 kMagicHdrS = 0x5372'6448;
constexpr u16 kBootFlagValue = 0xaa55;
constexpr u8 kLoadedHigh = 1;
}  // namespace boot_params

// What any kernel started this way gets. `setup_header`: bytes of the image from 0x1f1 on, or empty for an ELF
// kernel, which has none. Writes all structures, and returns the vCPU about to execute `entry`.
VcpuState prepare_linux64(GuestMemory& memory, Bytes setup_header, const std::string& cmdline, Extent initrd, u64 rsdp,
                          u64 entry);

// Power-on state with caches on, flat segments of the given code segment attributes, and memory types as firmware
// sets them: RAM write-back, the VGA window and the hole below 4 GiB uncached.
VcpuState flat_vcpu(GuestMemory& memory, u16 code_attributes);

constexpr u16 kCode64 = 0xa9b, kCode32 = 0xc9b, kData32 = 0xc93;  // accessed; VMCB form

}  // namespace stasis::loader
