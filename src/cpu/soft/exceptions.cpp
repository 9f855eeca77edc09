// Delivery of exceptions and interrupts (Intel SDM vol. 3A, chapter 6).
#include "cpu/soft/segments.hpp"

namespace stasis::soft {
namespace {

struct Gate {
  u64 offset = 0;
  u16 selector = 0;
  unsigned type = 0, dpl = 0, ist = 0;
  bool present = false;
};

bool refuse(Cpu& cpu, const Op* op, u8 vector, u32 error) {
  cpu.raise(op, vector, error);
  return false;
}

bool read_gate(Cpu& cpu, const Op* op, const Event& event, unsigned ext, Gate& gate) {
  const unsigned bytes = in_ia32e(cpu) ? 16 : 8;
  const u32 error = event.vector * 8u + 2 + ext;
  if (event.vector * bytes + bytes - 1 > cpu.idtr.limit) return refuse(cpu, op, kGp, error);
  u64 words[2] = {};
  if (!cpu.mmu->load_bytes(cpu.idtr.base + event.vector * bytes, words, bytes, kSupervisor, op)) return false;
  gate.offset = (words[0] & 0xffff) | (words[0] >> 32 & 0xffff'0000);
  if (bytes == 16) gate.offset |= words[1] << 32;
  gate.selector = static_cast<u16>(words[0] >> 16);
  gate.type = words[0] >> 40 & 0x1f;
  gate.dpl = words[0] >> 45 & 3;
  gate.present = words[0] >> 47 & 1;
  gate.ist = words[0] >> 32 & 7;
  const bool wide = gate.type == 0xe || gate.type == 0xf, narrow = gate.type == 6 || gate.type == 7;
  if (!wide && (!narrow || in_ia32e(cpu))) return refuse(cpu, op, kGp, error);  // task gates are not offered
  if (event.kind == Event::Kind::software && gate.dpl < cpu.cpl) return refuse(cpu, op, kGp, error);
  if (!gate.present) return refuse(cpu, op, kNp, error);
  if (narrow) gate.offset &= 0xffff;
  return true;
}

bool read_target(Cpu& cpu, const Op* op, const Gate& gate, unsigned ext, SegmentState& cs) {
  if (is_null(gate.selector)) return refuse(cpu, op, kGp, ext);
  u64 descriptor;
  if (!read_descriptor(cpu, op, gate.selector, kGp, ext, descriptor)) return false;
  cs = segment_of(gate.selector, descriptor);
  const u32 error = (gate.selector & ~3u) | ext;
  if (!is_code(cs) || cs.dpl() > cpu.cpl) return refuse(cpu, op, kGp, error);
  if (in_ia32e(cpu) && (!cs.long_mode() || cs.big())) return refuse(cpu, op, kGp, error);
  if (!cs.present()) return refuse(cpu, op, kNp, error);
  if (!mark_accessed(cpu, op, gate.selector, descriptor)) return false;
  cs.attributes |= 1;
  return true;
}

void enter(Cpu& cpu, SegmentState cs, u8 cpl, const Gate& gate) {
  cs.selector = static_cast<u16>((cs.selector & ~3u) | cpl);
  cpu.cpl = cpl;
  cpu.rip = gate.offset;
  cpu.rflags_rest &= ~(kTf | kNt | kRf | kVm | ((gate.type & 1) ? 0 : kIf));
  set_segment(cpu, kCs, cs);
}

// The flags as pushed: a fault leaves RF set, so that an instruction breakpoint does not fire again.
u64 pushed_flags(const Cpu& cpu, const Event& event) {
  const bool fault = event.kind == Event::Kind::exception && event.vector != kDb && event.vector != kBp &&
                     event.vector != kOverflow && event.vector != kNmi && event.vector != kDf8;
  return (cpu.rflags() & ~(event.kind == Event::Kind::software ? kRf : 0)) | (fault ? kRf : 0);
}

bool deliver_long(Cpu& cpu, const Op* op, const Event& event, u64 return_rip, unsigned ext) {
  Gate gate;
  SegmentState cs;
  if (!read_gate(cpu, op, event, ext, gate) || !read_target(cpu, op, gate, ext, cs)) return false;
  const u8 cpl = is_conforming(cs) ? cpu.cpl : static_cast<u8>(cs.dpl());
  if (!is_canonical(gate.offset)) return refuse(cpu, op, kGp, ext);
  u64 rsp = cpu.r[kRsp];
  if (gate.ist || cpl != cpu.cpl) {
    const unsigned at = gate.ist ? 28 + 8 * gate.ist : 4 + 8 * cpl;
    if (at + 7 > cpu.tr.limit) return refuse(cpu, op, kTs, (cpu.tr.selector & ~3u) | ext);
    const Loaded loaded = cpu.mmu->load(cpu.tr.base + at, 8, kSupervisor, op);
    if (!loaded.ok) return false;
    rsp = loaded.value;
  }
  rsp &= ~15ull;
  u64 frame[6] = {event.error, return_rip, cpu.seg[kCs].selector, pushed_flags(cpu, event), cpu.r[kRsp], cpu.seg[kSs].selector};
  const u64* const first = frame + (event.has_error ? 0 : 1);
  const unsigned size = event.has_error ? 48 : 40;
  if (!is_canonical(rsp - size) || !is_canonical(rsp - 1)) return refuse(cpu, op, kSsFault, ext);
  if (!cpu.mmu->store_bytes(rsp - size, first, size, cpu.mmu->view_of(cpl), op)) return false;
  cpu.r[kRsp] = rsp - size;
  if (cpl != cpu.cpl) {
    cpu.seg[kSs] = {.selector = cpl, .attributes = static_cast<u16>(cpl << 5), .limit = 0, .base = 0};
    cpu.segment_base[kSs] = 0;
  }
  enter(cpu, cs, cpl, gate);
  return true;
}

// SS:ESP of an inner level from a 32-bit or 16-bit TSS.
bool inner_stack(Cpu& cpu, const Op* op, u8 cpl, unsigned ext, SegmentState& ss, u64& esp) {
  const bool wide = cpu.tr.type() & 8;
  const unsigned at = wide ? 4 + 8 * cpl : 2 + 4 * cpl, bytes = wide ? 4 : 2;
  if (at + bytes + 1 > cpu.tr.limit) return refuse(cpu, op, kTs, (cpu.tr.selector & ~3u) | ext);
  const Loaded pointer = cpu.mmu->load(cpu.tr.base + at, bytes, kSupervisor, op);
  if (!pointer.ok) return false;
  const Loaded selector = cpu.mmu->load(cpu.tr.base + at + bytes, 2, kSupervisor, op);
  if (!selector.ok) return false;
  esp = pointer.value;
  const u16 value = static_cast<u16>(selector.value);
  if (is_null(value)) return refuse(cpu, op, kTs, ext);
  u64 descriptor;
  if (!read_descriptor(cpu, op, value, kTs, ext, descriptor)) return false;
  ss = segment_of(value, descriptor);
  if ((value & 3) != cpl || ss.dpl() != cpl || !ss.code_or_data() || (ss.type() & 0xa) != 2)
    return refuse(cpu, op, kTs, (value & ~3u) | ext);
  if (!ss.present()) return refuse(cpu, op, kSsFault, (value & ~3u) | ext);
  return true;
}

bool deliver_protected(Cpu& cpu, const Op* op, const Event& event, u64 return_rip, unsigned ext) {
  Gate gate;
  SegmentState cs;
  if (!read_gate(cpu, op, event, ext, gate) || !read_target(cpu, op, gate, ext, cs)) return false;
  const u8 cpl = is_conforming(cs) ? cpu.cpl : static_cast<u8>(cs.dpl());
  const unsigned bytes = (gate.type & 8) ? 4 : 2;
  const bool inner = cpl != cpu.cpl;
  SegmentState ss = cpu.seg[kSs];
  u64 esp = cpu.r[kRsp];
  if (inner && !inner_stack(cpu, op, cpl, ext, ss, esp)) return false;
  const u64 mask = ss.big() ? 0xffff'ffffull : 0xffffull;
  u64 values[6];
  unsigned count = 0;
  if (inner) {
    values[count++] = cpu.seg[kSs].selector;
    values[count++] = cpu.r[kRsp];
  }
  values[count++] = pushed_flags(cpu, event);
  values[count++] = cpu.seg[kCs].selector;
  values[count++] = return_rip;
  if (event.has_error) values[count++] = event.error;
  const u64 room = static_cast<u64>(count) * bytes;
  const u64 low = (esp - room) & mask;
  const bool down = (ss.type() & 0xc) == 4;
  if (down ? low <= ss.limit : low + room - 1 > ss.limit) return refuse(cpu, op, kSsFault, ext);
  u8 frame[24];
  for (unsigned i = 0; i < count; ++i) std::memcpy(frame + (count - 1 - i) * bytes, &values[i], bytes);
  if (!cpu.mmu->store_bytes(static_cast<u32>(ss.base + low), frame, static_cast<unsigned>(room), cpu.mmu->view_of(cpl), op)) return false;
  cpu.seg[kSs] = ss;
  cpu.segment_base[kSs] = ss.base;
  cpu.r[kRsp] = mask == 0xffff ? (esp & ~mask) | low : low;
  enter(cpu, cs, cpl, gate);
  return true;
}

bool deliver_real(Cpu& cpu, const Op* op, const Event& event, u64 return_rip) {
  if (event.vector * 4u + 3 > cpu.idtr.limit) return refuse(cpu, op, kGp, 0);
  const Loaded vector = cpu.mmu->load(cpu.idtr.base + event.vector * 4, 4, kSupervisor, op);
  if (!vector.ok) return false;
  Stack stack(cpu, op);
  if (!stack.push(cpu.rflags() & 0xffff, 2) || !stack.push(cpu.seg[kCs].selector, 2) || !stack.push(return_rip, 2)) return false;
  stack.commit();
  cpu.rip = vector.value & 0xffff;
  cpu.rflags_rest &= ~(kIf | kTf | kAc | kRf);
  SegmentState cs = cpu.seg[kCs];
  cs.selector = static_cast<u16>(vector.value >> 16);
  cs.base = static_cast<u64>(cs.selector) << 4;
  set_segment(cpu, kCs, cs);
  return true;
}

bool is_contributory(u8 vector) { return vector == kDe || (vector >= kTs && vector <= kGp); }

}  // namespace

bool deliver_event(Cpu& cpu, const Op* op, const Event& event, u64 return_rip) {
  const unsigned ext = event.kind == Event::Kind::software ? 0 : 1;
  if (in_ia32e(cpu)) return deliver_long(cpu, op, event, return_rip, ext);
  if (in_protected_mode(cpu)) return deliver_protected(cpu, op, event, return_rip, ext);
  return deliver_real(cpu, op, event, return_rip);
}

Delivered deliver_through(Cpu& cpu, Event event, u64 return_rip) {
  for (;;) {
    cpu.leave = Leave::none;
    if (deliver_event(cpu, nullptr, event, return_rip)) return Delivered::yes;
    const Fault second = cpu.fault;
    cpu.leave = Leave::none;
    const bool exception = event.kind == Event::Kind::exception;
    if (exception && event.vector == kDf8) return Delivered::shutdown;
    const bool doubled = exception && ((is_contributory(event.vector) && is_contributory(second.vector)) ||
                                       (event.vector == kPf14 && (second.vector == kPf14 || is_contributory(second.vector))));
    if (doubled) event = {Event::Kind::exception, kDf8, true, 0};
    else event = {Event::Kind::exception, second.vector, second.has_error, second.error};
  }
}

}  // namespace stasis::soft
