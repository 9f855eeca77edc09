// Direct kernel boot: puts a Linux kernel into guest RAM and says how the vCPU starts.
#pragma once

#include "cpu/vcpu_state.hpp"
#include "machine/config.hpp"
#include "memory/guest_memory.hpp"

namespace stasis {

// Boot protocols: Linux Documentation/arch/x86/boot.rst (64-bit protocol), the PVH note of ELF
// (XEN_ELFNOTE_PHYS32_ENTRY, entry in flat 32-bit protected mode with hvm_start_info in EBX).
enum class BootProtocol { linux64, pvh };

// The MTRR masks of LoadedKernel::vcpu cover this many physical address bits; a processor with more extends them.
constexpr unsigned kLeastPhysicalBits = 39;

struct LoadedKernel {
  BootProtocol protocol;
  std::string banner;  // kernel version if the image tells it, else empty
  VcpuState vcpu;      // ready to run: power-on state with what the protocol asks for
};

// Refuses (usage / bad_file): what is no kernel, truncated or malicious headers, kernel or initrd that do not fit
// in RAM (says how much memory it takes). rsdp: guest physical address of the ACPI RSDP.
Result<LoadedKernel> load_kernel(const BootImages& images, GuestMemory& memory, u64 rsdp);

}  // namespace stasis
