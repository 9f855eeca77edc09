// Far JMP, CALL and RET, software interrupts, IRET, SYSCALL and SYSENTER (Intel SDM vol. 2 and vol. 3A, 5.8).
#include "cpu/local_apic.hpp"
#include "cpu/soft/bind.hpp"
#include "cpu/soft/segments.hpp"

namespace stasis::soft {
namespace {

constexpr u16 kFlatCode64 = 0xa9b, kFlatCode32 = 0xc9b, kFlatData = 0xc93;
constexpr u16 kDpl3 = 0x60;

bool refuse(Cpu& cpu, const Op* op, u8 vector, u32 error) {
  cpu.raise(op, vector, error);
  return false;
}

// ---- code segments ----------------------------------------------------------------------------------------------

bool check_target(Cpu& cpu, const Op* op, const SegmentState& cs, u64 rip) {
  const bool wide = in_ia32e(cpu) && cs.long_mode();
  return (wide ? is_canonical(rip) : rip <= cs.limit) || refuse(cpu, op, kGp, 0);
}

// The code segment of a far JMP or CALL at the same privilege. Gates and tasks are not offered.
bool read_code(Cpu& cpu, const Op* op, u16 selector, SegmentState& cs) {
  if (is_null(selector)) return refuse(cpu, op, kGp, 0);
  u64 descriptor;
  if (!read_descriptor(cpu, op, selector, kGp, 0, descriptor)) return false;
  cs = segment_of(selector, descriptor);
  const u32 error = selector & ~3u;
  if (!is_code(cs) || (in_ia32e(cpu) && cs.long_mode() && cs.big())) return refuse(cpu, op, kGp, error);
  const bool allowed = is_conforming(cs) ? cs.dpl() <= cpu.cpl : (selector & 3u) <= cpu.cpl && cs.dpl() == cpu.cpl;
  if (!allowed) return refuse(cpu, op, kGp, error);
  if (!cs.present()) return refuse(cpu, op, kNp, error);
  if (!mark_accessed(cpu, op, selector, descriptor)) return false;
  cs.attributes |= 1;
  cs.selector = static_cast<u16>((selector & ~3u) | cpu.cpl);
  return true;
}

SegmentState real_code(const Cpu& cpu, u16 selector) {
  SegmentState cs = cpu.seg[kCs];
  cs.selector = selector;
  cs.base = static_cast<u64>(selector) << 4;
  return cs;
}

// extra: operand bytes; kCall pushes CS and the return address.
template <bool kCall>
void far_branch(Cpu& cpu, const Op* op, u16 selector, u64 rip) {
  SegmentState cs;
  if (!in_protected_mode(cpu)) cs = real_code(cpu, selector);
  else if (!read_code(cpu, op, selector, cs)) return;
  if (!check_target(cpu, op, cs, rip)) return;
  if constexpr (kCall) {
    Stack stack(cpu, op);
    if (!stack.push(cpu.seg[kCs].selector, op->extra) || !stack.push(cpu.next_rip_of(op), op->extra)) return;
    stack.commit();
  }
  cpu.rip = rip;
  set_segment(cpu, kCs, cs);
}

template <bool kCall>
void far_direct(Cpu& cpu, const Op* op) {  // imm: offset, selector << 32
  far_branch<kCall>(cpu, op, static_cast<u16>(op->imm >> 32), static_cast<u32>(op->imm));
}

template <bool kCall>
void far_memory(Cpu& cpu, const Op* op) {
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, op->extra + 2, false)) return;
  u64 rip = 0;
  u16 selector;
  u8 bytes[10];
  if (!cpu.read_bytes(linear, bytes, op->extra + 2u, op)) return;
  std::memcpy(&rip, bytes, op->extra);
  std::memcpy(&selector, bytes + op->extra, 2);
  far_branch<kCall>(cpu, op, selector, rip);
}

// ---- RET and IRET -------------------------------------------------------------------------------------------------

// Checks CS of a return; the new CPL is its RPL.
bool read_return_code(Cpu& cpu, const Op* op, u16 selector, SegmentState& cs) {
  if (is_null(selector)) return refuse(cpu, op, kGp, 0);
  u64 descriptor;
  if (!read_descriptor(cpu, op, selector, kGp, 0, descriptor)) return false;
  cs = segment_of(selector, descriptor);
  const u32 error = selector & ~3u;
  const unsigned rpl = selector & 3;
  if (!is_code(cs) || rpl < cpu.cpl || (is_conforming(cs) ? cs.dpl() > rpl : cs.dpl() != rpl)) return refuse(cpu, op, kGp, error);
  if (in_ia32e(cpu) && cs.long_mode() && cs.big()) return refuse(cpu, op, kGp, error);
  if (!cs.present()) return refuse(cpu, op, kNp, error);
  if (!mark_accessed(cpu, op, selector, descriptor)) return false;
  cs.attributes |= 1;
  return true;
}

bool read_return_stack(Cpu& cpu, const Op* op, u16 selector, const SegmentState& cs, SegmentState& ss) {
  const unsigned cpl = cs.selector & 3;
  if (is_null(selector)) {
    if (!in_ia32e(cpu) || !cs.long_mode() || cpl == 3 || (selector & 3u) != cpl) return refuse(cpu, op, kGp, 0);
    ss = {.selector = selector, .attributes = static_cast<u16>(cpl << 5), .limit = 0, .base = 0};
    return true;
  }
  u64 descriptor;
  if (!read_descriptor(cpu, op, selector, kGp, 0, descriptor)) return false;
  ss = segment_of(selector, descriptor);
  const u32 error = selector & ~3u;
  if ((selector & 3u) != cpl || !ss.code_or_data() || (ss.type() & 0xa) != 2 || ss.dpl() != cpl) return refuse(cpu, op, kGp, error);
  if (!ss.present()) return refuse(cpu, op, kSsFault, error);
  if (!mark_accessed(cpu, op, selector, descriptor)) return false;
  ss.attributes |= 1;
  return true;
}

void leave_to(Cpu& cpu, const SegmentState& cs, const SegmentState& ss, u64 rip, u64 rsp) {
  const u8 cpl = cs.selector & 3;
  const bool outer = cpl != cpu.cpl;
  cpu.cpl = cpl;
  cpu.rip = rip;
  cpu.seg[kSs] = ss;
  cpu.segment_base[kSs] = ss.base;
  set_segment(cpu, kCs, cs);
  const u64 mask = stack_mask(cpu);
  cpu.r[kRsp] = mask == 0xffff ? (cpu.r[kRsp] & ~mask) | (rsp & mask) : rsp & mask;
  if (outer) forget_inner_segments(cpu);
}

void return_far(Cpu& cpu, const Op* op) {  // imm: bytes to release
  Stack stack(cpu, op);
  u64 rip, selector;
  if (!stack.pop(rip, op->extra) || !stack.pop(selector, op->extra)) return;
  stack.skip(op->imm);
  SegmentState cs;
  if (!in_protected_mode(cpu)) {
    cs = real_code(cpu, static_cast<u16>(selector));
  } else {
    if (!read_return_code(cpu, op, static_cast<u16>(selector), cs)) return;
    if ((cs.selector & 3u) != cpu.cpl) {
      u64 rsp, stack_selector;
      SegmentState ss;
      if (!stack.pop(rsp, op->extra) || !stack.pop(stack_selector, op->extra)) return;
      if (!read_return_stack(cpu, op, static_cast<u16>(stack_selector), cs, ss) || !check_target(cpu, op, cs, rip)) return;
      leave_to(cpu, cs, ss, rip, rsp + op->imm);
      return;
    }
  }
  if (!check_target(cpu, op, cs, rip)) return;
  stack.commit();
  cpu.rip = rip;
  set_segment(cpu, kCs, cs);
}

void take_flags(Cpu& cpu, const Op* op, u64 popped, unsigned bytes, unsigned old_cpl) {
  u64 mask = kStatusFlags | kTf | kDf | kNt;
  if (bytes > 2) mask |= kRf | kAc | kId;
  if (old_cpl == 0) mask |= kIopl;
  if (!in_protected_mode(cpu) || old_cpl <= (cpu.rflags_rest >> 12 & 3)) mask |= kIf;
  if (old_cpl == 0 && bytes > 2) mask |= kVif | kVip;
  cpu.set_rflags_raw((cpu.rflags() & ~mask) | (popped & mask));
  cpu.rf_at = cpu.retired_before(op) + 1;
  cpu.sys.nmi_blocked = false;
}

void return_from_interrupt(Cpu& cpu, const Op* op) {
  const bool is_protected = in_protected_mode(cpu);
  if (is_protected && (cpu.rflags_rest & kNt)) return cpu.raise(op, kGp, 0);  // tasks are not offered
  Stack stack(cpu, op);
  u64 rip, selector, flags;
  if (!stack.pop(rip, op->extra) || !stack.pop(selector, op->extra) || !stack.pop(flags, op->extra)) return;
  const unsigned old_cpl = cpu.cpl;
  if (!is_protected) {
    const SegmentState cs = real_code(cpu, static_cast<u16>(selector));
    if (!check_target(cpu, op, cs, rip)) return;
    stack.commit();
    take_flags(cpu, op, flags, op->extra, 0);
    cpu.rip = rip;
    set_segment(cpu, kCs, cs);
    return;
  }
  if (op->extra > 2 && (flags & kVm) && old_cpl == 0 && !in_ia32e(cpu)) return cpu.raise(op, kGp, 0);  // nor is v86 mode
  SegmentState cs, ss;
  if (!read_return_code(cpu, op, static_cast<u16>(selector), cs)) return;
  if (cpu.long_mode || (cs.selector & 3u) != cpu.cpl) {
    u64 rsp, stack_selector;
    if (!stack.pop(rsp, op->extra) || !stack.pop(stack_selector, op->extra)) return;
    if (!read_return_stack(cpu, op, static_cast<u16>(stack_selector), cs, ss) || !check_target(cpu, op, cs, rip)) return;
    take_flags(cpu, op, flags, op->extra, old_cpl);
    leave_to(cpu, cs, ss, rip, rsp);
    return;
  }
  if (!check_target(cpu, op, cs, rip)) return;
  stack.commit();
  take_flags(cpu, op, flags, op->extra, old_cpl);
  cpu.rip = rip;
  set_segment(cpu, kCs, cs);
}

// ---- interrupts, system calls -----------------------------------------------------------------------------------

void software_interrupt(Cpu& cpu, const Op* op) {  // imm: vector
  deliver_event(cpu, op, {Event::Kind::software, static_cast<u8>(op->imm), false, 0}, cpu.next_rip_of(op));
}

void interrupt_on_overflow(Cpu& cpu, const Op* op) {
  if (cpu.status & kStatusOf) software_interrupt(cpu, op);
  else cpu.rip = cpu.next_rip_of(op);
}

void undefined(Cpu& cpu, const Op* op) { cpu.raise(op, kUd); }

void set_flat(Cpu& cpu, u16 code, u16 code_attributes, u16 stack, u8 cpl) {
  const u16 privilege = cpl == 3 ? kDpl3 : 0;
  cpu.cpl = cpl;
  cpu.seg[kSs] = {.selector = stack, .attributes = static_cast<u16>(kFlatData | privilege), .limit = ~0u, .base = 0};
  cpu.segment_base[kSs] = 0;
  set_segment(cpu, kCs, {.selector = code, .attributes = static_cast<u16>(code_attributes | privilege), .limit = ~0u, .base = 0});
}

void system_call(Cpu& cpu, const Op* op) {
  VcpuState& sys = cpu.sys;
  if (!(sys.efer & kEferSce) || !cpu.long_mode) return cpu.raise(op, kUd);
  const u64 flags = cpu.rflags() & ~kRf;
  cpu.r[kRcx] = cpu.next_rip_of(op);
  cpu.r[kR11] = flags;
  cpu.set_rflags_raw(flags & ~sys.sfmask);
  set_flat(cpu, static_cast<u16>(sys.star >> 32 & 0xfffc), kFlatCode64, static_cast<u16>((sys.star >> 32) + 8), 0);
  STASIS_GO(cpu, sys.lstar);
}

void system_return(Cpu& cpu, const Op* op) {  // extra: 8 returns to 64-bit code
  VcpuState& sys = cpu.sys;
  if (!(sys.efer & kEferSce) || !cpu.long_mode) return cpu.raise(op, kUd);
  if (cpu.cpl != 0 || (op->extra == 8 && !is_canonical(cpu.r[kRcx]))) return cpu.raise(op, kGp, 0);
  cpu.set_rflags_raw((cpu.r[kR11] & 0x3c'7fd7) | 2);
  const u16 base = static_cast<u16>(sys.star >> 48);
  const u16 code = static_cast<u16>((base + (op->extra == 8 ? 16 : 0)) | 3);
  const u64 to = op->extra == 8 ? cpu.r[kRcx] : static_cast<u32>(cpu.r[kRcx]);
  set_flat(cpu, code, op->extra == 8 ? kFlatCode64 : kFlatCode32, static_cast<u16>((base + 8) | 3), 3);
  if ((cpu.rflags_rest & kTf) || cpu.apic->deliverable() || sys.nmi_pending) {
    cpu.rip = to;
    return;
  }
  STASIS_GO(cpu, to);
}

void system_enter(Cpu& cpu, const Op* op) {
  VcpuState& sys = cpu.sys;
  if (!in_protected_mode(cpu) || is_null(static_cast<u16>(sys.sysenter_cs))) return cpu.raise(op, kGp, 0);
  const bool wide = in_ia32e(cpu);
  cpu.rflags_rest &= ~(kIf | kVm | kRf);
  cpu.r[kRsp] = wide ? sys.sysenter_esp : static_cast<u32>(sys.sysenter_esp);
  cpu.rip = wide ? sys.sysenter_eip : static_cast<u32>(sys.sysenter_eip);
  const u16 code = static_cast<u16>(sys.sysenter_cs & 0xfffc);
  set_flat(cpu, code, wide ? kFlatCode64 : kFlatCode32, static_cast<u16>(code + 8), 0);
}

void system_exit(Cpu& cpu, const Op* op) {  // extra: 8 returns to 64-bit code
  VcpuState& sys = cpu.sys;
  if (!in_protected_mode(cpu) || cpu.cpl != 0 || is_null(static_cast<u16>(sys.sysenter_cs))) return cpu.raise(op, kGp, 0);
  const bool wide = op->extra == 8;
  if (wide && (!is_canonical(cpu.r[kRcx]) || !is_canonical(cpu.r[kRdx]))) return cpu.raise(op, kGp, 0);
  cpu.r[kRsp] = wide ? cpu.r[kRcx] : static_cast<u32>(cpu.r[kRcx]);
  cpu.rip = wide ? cpu.r[kRdx] : static_cast<u32>(cpu.r[kRdx]);
  const u16 code = static_cast<u16>((sys.sysenter_cs & 0xfffc) + (wide ? 32 : 16));
  set_flat(cpu, static_cast<u16>(code | 3), wide ? kFlatCode64 : kFlatCode32, static_cast<u16>((code + 8) | 3), 3);
}

Bound bind_far_branch(const Decoded& in, Op& op, bool call) {
  const ZydisDecodedOperand& target = in.operands[0];
  if (target.type == ZYDIS_OPERAND_TYPE_POINTER) {
    op.imm = target.ptr.offset | static_cast<u64>(target.ptr.segment) << 32;
    op.fn = call ? far_direct<true> : far_direct<false>;
  } else {
    fill_memory(in, target, op);
    op.fn = call ? far_memory<true> : far_memory<false>;
  }
  return Bound::ends;
}

}  // namespace

Bound bind_far(const Decoded& in, Op& op) {
  const bool far = in.instruction.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
  op.extra = static_cast<u8>(in.instruction.operand_width / 8);
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_JMP: return far ? bind_far_branch(in, op, false) : Bound::no;
    case ZYDIS_MNEMONIC_CALL: return far ? bind_far_branch(in, op, true) : Bound::no;
    case ZYDIS_MNEMONIC_RET:
      if (!far) return Bound::no;
      op.segment = kSs;
      op.imm = in.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? in.operands[0].imm.value.u & 0xffff : 0;
      op.fn = return_far;
      return Bound::ends;
    case ZYDIS_MNEMONIC_IRET: op.extra = 2, op.fn = return_from_interrupt; break;
    case ZYDIS_MNEMONIC_IRETD: op.extra = 4, op.fn = return_from_interrupt; break;
    case ZYDIS_MNEMONIC_IRETQ: op.extra = 8, op.fn = return_from_interrupt; break;
    case ZYDIS_MNEMONIC_INT: op.imm = in.operands[0].imm.value.u & 0xff, op.fn = software_interrupt; break;
    case ZYDIS_MNEMONIC_INT3: op.imm = kBp, op.fn = software_interrupt; break;
    case ZYDIS_MNEMONIC_INT1: op.imm = kDb, op.fn = software_interrupt; break;
    case ZYDIS_MNEMONIC_INTO: op.imm = kOverflow, op.fn = interrupt_on_overflow; break;
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2: op.fn = undefined; break;
    case ZYDIS_MNEMONIC_SYSCALL: op.fn = system_call; break;
    case ZYDIS_MNEMONIC_SYSRET: op.fn = system_return; break;
    case ZYDIS_MNEMONIC_SYSENTER: op.fn = system_enter; break;
    case ZYDIS_MNEMONIC_SYSEXIT: op.fn = system_exit; break;
    default: return Bound::no;
  }
  if (op.fn == return_from_interrupt) op.segment = kSs;
  if (op.fn == system_return || op.fn == system_exit) op.extra = in.instruction.attributes & ZYDIS_ATTRIB_HAS_REX && in.instruction.raw.rex.W ? 8 : 4;
  return Bound::ends;
}

}  // namespace stasis::soft
