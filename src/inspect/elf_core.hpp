// A saved guest as an ELF core: every vCPU a thread, its memory by virtual and by physical address.
//
// One copy of RAM is in the file. Program headers point into it: those of the address space of one vCPU, ascending by
// virtual address, and those of physical memory (p_paddr), whose virtual addresses begin at kPhysicalWindow, where no
// canonical address can be.
#pragma once

#include <vector>

#include "inspect/page_walk.hpp"

namespace stasis::inspect {

inline constexpr u64 kPhysicalWindow = 1ull << 60;

struct CorePlan {
  std::vector<u8> head;   // everything before RAM
  u64 ram_offset = 0;     // of RAM in the file; page-aligned
  u64 file_bytes = 0;
  u64 segments = 0;       // PT_LOADs
  u64 left_out = 0;       // mappings that a limit kept away
};
// `space`: of the vCPU whose memory a debugger shall see.
CorePlan plan_core(const std::vector<Vcpu>& vcpus, const PhysicalMemory& memory, const AddressSpace& space, const WalkLimits& limits = {});

// The PT_NOTE segment: for each vCPU NT_PRSTATUS, NT_FPREGSET, with AVX and more NT_X86_XSTATE, and QEMU's note of
// control and descriptor registers, which tools for kernel cores know.
std::vector<u8> core_notes(const std::vector<Vcpu>& vcpus);

// RAM at `offset` of a file, zero pages as holes. The file gets its length, offset + RAM.
Result<> write_ram(int fd, u64 offset, const PhysicalMemory& memory, const std::string& object, snapshot::SaveProgress* progress = nullptr);

}  // namespace stasis::inspect
