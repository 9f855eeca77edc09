// CLI STI CLAC STAC PUSHF POPF.
#include "cpu/soft/system.hpp"

namespace stasis::soft {
namespace {

unsigned iopl(const Cpu& cpu) { return cpu.rflags_rest >> 12 & 3; }
bool may_change_if(const Cpu& cpu) { return !(cpu.sys.cr0 & kCr0Pe) || cpu.cpl <= iopl(cpu); }

void clear_interrupts(Cpu& cpu, const Op* op) {
  if (!may_change_if(cpu)) return cpu.raise(op, kGp, 0);
  cpu.rflags_rest &= ~kIf;
  STASIS_NEXT(cpu, op);
}

void set_interrupts(Cpu& cpu, const Op* op) {
  if (!may_change_if(cpu)) return cpu.raise(op, kGp, 0);
  if (!(cpu.rflags_rest & kIf)) {
    cpu.rflags_rest |= kIf;
    cpu.sys.shadow = InterruptShadow::sti;
    cpu.shadow_at = cpu.retired_before(op) + 1;
    if (event_waits(cpu)) return cpu.leave_after(op);
  }
  STASIS_NEXT(cpu, op);
}

template <bool kOn>
void set_access(Cpu& cpu, const Op* op) {
  if (cpu.cpl != 0) return cpu.raise(op, kUd);
  cpu.rflags_rest = kOn ? cpu.rflags_rest | kAc : cpu.rflags_rest & ~kAc;
  cpu.mmu->select_data();
  STASIS_NEXT(cpu, op);
}

void push_flags_long(Cpu& cpu, const Op* op) {
  const u64 rsp = cpu.r[kRsp] - 8;
  if (!cpu.write<u64>(rsp, cpu.rflags() & ~(kRf | kVm), op)) return;
  cpu.r[kRsp] = rsp;
  STASIS_NEXT(cpu, op);
}

void push_flags_any(Cpu& cpu, const Op* op) {
  Stack stack(cpu, op);
  if (!stack.push(cpu.rflags() & ~(kRf | kVm), op->extra)) return;
  stack.commit();
  STASIS_NEXT(cpu, op);
}

// True: nothing for the run loop to look at.
bool take_flags(Cpu& cpu, u64 popped, unsigned bytes) {
  u64 mask = kStatusFlags | kTf | kDf | kNt | (bytes > 2 ? kAc | kId : 0);
  if (cpu.cpl == 0) mask |= kIopl;
  if (may_change_if(cpu)) mask |= kIf;
  const u64 old = cpu.rflags_rest;
  cpu.set_rflags_raw((cpu.rflags() & ~mask & ~kRf) | (popped & mask));
  const u64 changed = old ^ cpu.rflags_rest;
  if (changed & kAc) cpu.mmu->select_data();
  if (changed & kTf) return false;
  return !(changed & cpu.rflags_rest & kIf) || !event_waits(cpu);
}

void pop_flags_long(Cpu& cpu, const Op* op) {
  const Loaded popped = cpu.read<u64>(cpu.r[kRsp], op);
  if (!popped.ok) return;
  cpu.r[kRsp] += 8;
  if (!take_flags(cpu, popped.value, 8)) return cpu.leave_after(op);
  STASIS_NEXT(cpu, op);
}

bool pop_any(Cpu& cpu, const Op* op, u64& popped) {
  Stack stack(cpu, op);
  if (!stack.pop(popped, op->extra)) return false;
  stack.commit();
  return true;
}

void pop_flags_any(Cpu& cpu, const Op* op) {
  u64 popped;
  if (!pop_any(cpu, op, popped)) return;
  if (!take_flags(cpu, popped, op->extra)) return cpu.leave_after(op);
  STASIS_NEXT(cpu, op);
}

}  // namespace

Bound bind_interrupt_flags(const Decoded& in, Op& op) {
  op.extra = static_cast<u8>(in.instruction.operand_width / 8);
  const bool whole = in.long_mode && op.extra == 8;
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_CLI: op.fn = clear_interrupts; break;
    case ZYDIS_MNEMONIC_STI: op.fn = set_interrupts; break;
    case ZYDIS_MNEMONIC_CLAC: op.fn = set_access<false>; break;
    case ZYDIS_MNEMONIC_STAC: op.fn = set_access<true>; break;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ: op.segment = kSs, op.fn = whole ? push_flags_long : push_flags_any; break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: op.segment = kSs, op.fn = whole ? pop_flags_long : pop_flags_any; break;
    default: op.extra = 0; return Bound::no;
  }
  return Bound::goes_on;
}

}  // namespace stasis::soft
