// What the parts of bind_system share.
#pragma once

#include "cpu/local_apic.hpp"
#include "cpu/soft/bind.hpp"
#include "cpu/soft/segments.hpp"

namespace stasis::soft {

Bound bind_control(const Decoded& in, Op& op);      // CR, DR, HLT, cache and TLB instructions, SWAPGS
Bound bind_interrupt_flags(const Decoded& in, Op& op);        // CLI STI CLAC STAC PUSHF POPF
Bound bind_descriptors(const Decoded& in, Op& op);  // descriptor tables, selectors, segment registers
Bound bind_model(const Decoded& in, Op& op);        // CPUID, MSRs, TSC
Bound bind_io(const Decoded& in, Op& op);           // IN OUT

// Raises #GP(0) and says no unless CPL is 0.
inline bool privileged(Cpu& cpu, const Op* op) {
  if (cpu.cpl == 0) [[likely]] return true;
  cpu.raise(op, kGp, 0);
  return false;
}
// An event that the run loop would deliver now, were interrupts on.
inline bool event_waits(const Cpu& cpu) { return cpu.apic->deliverable() || cpu.sys.nmi_pending; }

// Storing to a register or memory operand: `extra` has kToMemory.
inline constexpr u8 kToMemory = 0x80;
bool store_operand(Cpu& cpu, const Op* op, u64 value, unsigned memory_bytes, unsigned register_bytes);
Loaded load_operand(Cpu& cpu, const Op* op, unsigned bytes);  // register or memory
void fill_operand(const Decoded& in, const ZydisDecodedOperand& operand, Op& op);

}  // namespace stasis::soft
