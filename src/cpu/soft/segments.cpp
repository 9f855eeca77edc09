// Segment registers and descriptors (Intel SDM vol. 3A, chapters 3 and 5).
#include "cpu/soft/segments.hpp"

#include <algorithm>

namespace stasis::soft {

SegmentState segment_of(u16 selector, u64 descriptor) {
  SegmentState s;
  s.selector = selector;
  s.attributes = static_cast<u16>((descriptor >> 40 & 0xff) | (descriptor >> 44 & 0xf00));
  s.limit = static_cast<u32>((descriptor & 0xffff) | (descriptor >> 32 & 0xf'0000));
  if (s.attributes & 0x800) s.limit = s.limit << 12 | 0xfff;
  s.base = (descriptor >> 16 & 0xff'ffff) | (descriptor >> 32 & 0xff00'0000);
  return s;
}

bool AnyAddress::check_segment(Cpu& cpu, const Op* op, u64 offset, unsigned size, bool write) {
  return linear_of(cpu, op, static_cast<Segment>(op->segment), offset, size, write).ok;
}

Linear linear_of(Cpu& cpu, const Op* op, Segment segment, u64 offset, unsigned size, bool write) {
  if (cpu.long_mode) return {segment >= kFs ? offset + cpu.segment_base[segment] : offset, true};
  const SegmentState& s = cpu.seg[segment];
  const u64 last = offset + size - 1;
  const bool code = s.type() & 8;
  bool ok = s.present() && (write ? !code && (s.type() & 2) : !code || (s.type() & 2));
  if ((s.type() & 0xc) == 4) ok = ok && offset > s.limit && last <= (s.big() ? 0xffff'ffffull : 0xffffull);
  else ok = ok && last <= s.limit;
  if (!ok) cpu.raise(op, segment == kSs ? kSsFault : kGp, 0);
  return {static_cast<u32>(offset + s.base), ok};
}

bool read_descriptor(Cpu& cpu, const Op* op, u16 selector, u8 vector, unsigned ext, u64& descriptor) {
  const bool local = selector & 4;
  const u64 base = local ? cpu.ldtr.base : cpu.gdtr.base;
  const u64 limit = local ? cpu.ldtr.limit : cpu.gdtr.limit;
  const unsigned at = selector & ~7u;
  if (at + 7 > limit || (local && (!cpu.ldtr.present() || is_null(cpu.ldtr.selector)))) {
    cpu.raise(op, vector, (selector & ~3u) | ext);
    return false;
  }
  const Loaded loaded = cpu.mmu->load(base + at, 8, kSupervisor, op);
  descriptor = loaded.value;
  return loaded.ok;
}

bool read_upper_descriptor(Cpu& cpu, const Op* op, u16 selector, u64& upper) {
  const unsigned at = (selector & ~7u) + 8;
  if (at + 7 > cpu.gdtr.limit) {
    cpu.raise(op, kGp, selector & ~3u);
    return false;
  }
  const Loaded loaded = cpu.mmu->load(cpu.gdtr.base + at, 8, kSupervisor, op);
  upper = loaded.value;
  if (loaded.ok && (upper >> 40 & 0x1f) != 0) {
    cpu.raise(op, kGp, selector & ~3u);
    return false;
  }
  return loaded.ok;
}

bool mark_accessed(Cpu& cpu, const Op* op, u16 selector, u64 descriptor) {
  if (descriptor >> 40 & 1) return true;
  const u64 base = selector & 4 ? cpu.ldtr.base : cpu.gdtr.base;
  return cpu.mmu->store(base + (selector & ~7u) + 5, (descriptor >> 40 & 0xff) | 1, 1, kSupervisor, op);
}

void set_segment(Cpu& cpu, Segment segment, const SegmentState& value) {
  cpu.seg[segment] = value;
  cpu.segment_base[segment] = value.base;
  if (segment == kCs || segment == kSs) cpu.mmu->select();
}

void set_cpl(Cpu& cpu, u8 cpl) {
  cpu.cpl = cpl;
  cpu.mmu->select();
}

static bool load_null(Cpu& cpu, const Op* op, Segment segment, u16 selector) {
  if (segment == kSs && (!cpu.long_mode || cpu.cpl == 3 || (selector & 3) != cpu.cpl)) {
    cpu.raise(op, kGp, 0);
    return false;
  }
  const u16 attributes = segment == kSs ? static_cast<u16>(cpu.cpl << 5) : 0;
  set_segment(cpu, segment, {.selector = selector, .attributes = attributes, .limit = 0, .base = 0});
  return true;
}

bool load_segment(Cpu& cpu, const Op* op, Segment segment, u16 selector) {
  if (!in_protected_mode(cpu)) {
    SegmentState s = cpu.seg[segment];
    s.selector = selector;
    s.base = static_cast<u64>(selector) << 4;
    if (cpu.rflags_rest & kVm) s.attributes = 0xf3, s.limit = 0xffff;
    set_segment(cpu, segment, s);
    return true;
  }
  if (is_null(selector)) return load_null(cpu, op, segment, selector);
  u64 descriptor;
  if (!read_descriptor(cpu, op, selector, kGp, 0, descriptor)) return false;
  SegmentState s = segment_of(selector, descriptor);
  const unsigned rpl = selector & 3;
  bool ok;
  if (segment == kSs) {
    ok = s.code_or_data() && (s.type() & 0xa) == 2 && rpl == cpu.cpl && s.dpl() == cpu.cpl;
  } else {
    ok = s.code_or_data() && (!(s.type() & 8) || (s.type() & 2));
    if (!is_conforming(s)) ok = ok && s.dpl() >= std::max<unsigned>(rpl, cpu.cpl);
  }
  if (!ok) {
    cpu.raise(op, kGp, selector & ~3u);
    return false;
  }
  if (!s.present()) {
    cpu.raise(op, segment == kSs ? kSsFault : kNp, selector & ~3u);
    return false;
  }
  if (!mark_accessed(cpu, op, selector, descriptor)) return false;
  s.attributes |= 1;
  set_segment(cpu, segment, s);
  return true;
}

void forget_inner_segments(Cpu& cpu) {
  for (const Segment segment : {kEs, kDs, kFs, kGs}) {
    const SegmentState& s = cpu.seg[segment];
    const bool reachable = is_null(s.selector) || is_conforming(s) || s.dpl() >= cpu.cpl;
    if (!reachable || (is_null(s.selector) && s.attributes == 0 && segment < kFs))
      set_segment(cpu, segment, {.selector = 0, .attributes = 0, .limit = 0, .base = reachable ? s.base : 0});
  }
}

}  // namespace stasis::soft
