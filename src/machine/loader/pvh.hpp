// Direct boot by the PVH note: hvm_start_info and the vCPU in flat 32-bit protected mode.
// Xen docs/misc/pvh.pandoc; structures of xen/include/public/arch-x86/hvm/start_info.h.
#pragma once

#include "cpu/vcpu_state.hpp"
#include "machine/loader/guest_layout.hpp"

namespace stasis::loader {

// Writes all structures, and returns the vCPU about to execute `entry`.
VcpuState prepare_pvh(GuestMemory& memory, const std::string& cmdline, Extent initrd, u64 rsdp, u32 entry);

}  // namespace stasis::loader
