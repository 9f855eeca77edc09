// Descriptor tables, LDTR, TR, selector checks and segment registers.
#include <algorithm>

#include "cpu/soft/system.hpp"

namespace stasis::soft {
namespace {

bool user_may_look(Cpu& cpu, const Op* op) {
  if (cpu.cpl == 0 || !(cpu.sys.cr4 & kCr4Umip)) return true;
  cpu.raise(op, kGp, 0);
  return false;
}
bool protected_only(Cpu& cpu, const Op* op) {
  if (in_protected_mode(cpu)) return true;
  cpu.raise(op, kUd);
  return false;
}

// extra: 0 GDT, 1 IDT.
void store_table(Cpu& cpu, const Op* op) {
  if (!user_may_look(cpu, op)) return;
  const DescriptorTableState& table = (op->extra & 1) ? cpu.idtr : cpu.gdtr;
  const unsigned bytes = cpu.long_mode ? 10 : 6;
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, bytes, true)) return;
  u8 image[10];
  std::memcpy(image, &table.limit, 2);
  std::memcpy(image + 2, &table.base, 8);
  if (cpu.write_bytes(linear, image, bytes, op)) cpu.rip = cpu.next_rip_of(op);
}

void load_table(Cpu& cpu, const Op* op) {  // src: operand bytes
  if (!privileged(cpu, op)) return;
  const unsigned bytes = cpu.long_mode ? 10 : 6;
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, bytes, false)) return;
  u8 image[10] = {};
  if (!cpu.read_bytes(linear, image, bytes, op)) return;
  DescriptorTableState table;
  std::memcpy(&table.limit, image, 2);
  std::memcpy(&table.base, image + 2, 8);
  if (!cpu.long_mode && op->src == 2) table.base &= 0xff'ffff;
  if (cpu.long_mode && !is_canonical(table.base)) return cpu.raise(op, kGp, 0);
  ((op->extra & 1) ? cpu.idtr : cpu.gdtr) = table;
  cpu.rip = cpu.next_rip_of(op);
}

void store_selector(Cpu& cpu, const Op* op) {  // extra: 0 LDTR, 1 TR; src: register width
  if (!protected_only(cpu, op) || !user_may_look(cpu, op)) return;
  if (store_operand(cpu, op, (op->extra & 1) ? cpu.tr.selector : cpu.ldtr.selector, 2, op->src)) cpu.rip = cpu.next_rip_of(op);
}

void load_system_segment(Cpu& cpu, const Op* op) {  // extra: 0 LDTR, 1 TR
  if (!protected_only(cpu, op) || !privileged(cpu, op)) return;
  const bool task = op->extra & 1;
  const Loaded loaded = load_operand(cpu, op, 2);
  if (!loaded.ok) return;
  const u16 selector = static_cast<u16>(loaded.value);
  const u32 error = selector & ~3u;
  if (is_null(selector)) {
    if (task) return cpu.raise(op, kGp, 0);
    cpu.ldtr = {.selector = selector, .attributes = 0, .limit = 0, .base = 0};
    cpu.rip = cpu.next_rip_of(op);
    return;
  }
  if (selector & 4) return cpu.raise(op, kGp, error);
  u64 descriptor, upper = 0;
  if (!read_descriptor(cpu, op, selector, kGp, 0, descriptor)) return;
  SegmentState s = segment_of(selector, descriptor);
  const bool available = task ? s.type() == 9 || (s.type() == 1 && !in_ia32e(cpu)) : s.type() == 2;
  if (s.code_or_data() || !available) return cpu.raise(op, kGp, error);
  if (!s.present()) return cpu.raise(op, kNp, error);
  if (in_ia32e(cpu) && !read_upper_descriptor(cpu, op, selector, upper)) return;
  s.base |= upper << 32;
  if (in_ia32e(cpu) && !is_canonical(s.base)) return cpu.raise(op, kGp, error);
  if (task) {
    s.attributes |= 2;  // busy
    if (!cpu.mmu->store(cpu.gdtr.base + (selector & ~7u) + 5, (descriptor >> 40 & 0xff) | 2, 1, kSupervisor, op)) return;
  }
  (task ? cpu.tr : cpu.ldtr) = s;
  cpu.rip = cpu.next_rip_of(op);
}

// Descriptor of a selector for LAR, LSL, VERR and VERW: `found` is false where those clear ZF.
bool look_up(Cpu& cpu, const Op* op, u16 selector, bool& found, u64& descriptor) {
  const u64 limit = (selector & 4) ? cpu.ldtr.limit : cpu.gdtr.limit;
  found = !is_null(selector) && (selector & ~7u) + 7 <= limit && !((selector & 4) && (!cpu.ldtr.present() || is_null(cpu.ldtr.selector)));
  return !found || read_descriptor(cpu, op, selector, kGp, 0, descriptor);
}
bool visible(const Cpu& cpu, const SegmentState& s, u16 selector) {
  return (is_code(s) && is_conforming(s)) || s.dpl() >= std::max<unsigned>(cpu.cpl, selector & 3);
}
void set_zero_flag(Cpu& cpu, bool on) { cpu.status = static_cast<u16>(on ? cpu.status | kStatusZf : cpu.status & ~kStatusZf); }

void verify(Cpu& cpu, const Op* op) {  // extra: 0 VERR, 1 VERW
  if (!protected_only(cpu, op)) return;
  const Loaded selector = load_operand(cpu, op, 2);
  bool found;
  u64 descriptor = 0;
  if (!selector.ok || !look_up(cpu, op, static_cast<u16>(selector.value), found, descriptor)) return;
  const SegmentState s = segment_of(static_cast<u16>(selector.value), descriptor);
  bool ok = found && s.code_or_data() && visible(cpu, s, s.selector);
  if (op->extra & 1) ok = ok && !(s.type() & 8) && (s.type() & 2);
  else ok = ok && (!(s.type() & 8) || (s.type() & 2));
  set_zero_flag(cpu, ok);
  cpu.rip = cpu.next_rip_of(op);
}

// extra: 0 LAR, 1 LSL; src: result bytes; imm: byte offset of the result register
void look_at(Cpu& cpu, const Op* op) {
  if (!protected_only(cpu, op)) return;
  const Loaded selector = load_operand(cpu, op, 2);
  bool found;
  u64 descriptor = 0;
  if (!selector.ok || !look_up(cpu, op, static_cast<u16>(selector.value), found, descriptor)) return;
  const SegmentState s = segment_of(static_cast<u16>(selector.value), descriptor);
  const bool limits = op->extra & 1;
  bool ok = found && visible(cpu, s, s.selector);
  if (!s.code_or_data()) {
    constexpr u16 kLong = 1 << 2 | 1 << 9 | 1 << 11, kLegacy = kLong | 1 << 1 | 1 << 3;
    u16 types = in_ia32e(cpu) ? kLong : kLegacy;
    if (!limits) types |= in_ia32e(cpu) ? 1 << 12 : 1 << 4 | 1 << 5 | 1 << 12;
    ok = ok && (types >> s.type() & 1);
  }
  set_zero_flag(cpu, ok);
  if (ok) {
    const u64 value = limits ? s.limit : (descriptor >> 32 & 0x00f0'ff00);
    const u8 to = static_cast<u8>(op->imm);
    if (op->src == 2) cpu.set_reg<u16>(to, static_cast<u16>(value));
    else cpu.set_reg<u32>(to, static_cast<u32>(value));
  }
  cpu.rip = cpu.next_rip_of(op);
}

// ---- segment registers; `imm` is the segment ------------------------------------------------------------------

void store_segment(Cpu& cpu, const Op* op) {  // src: register width
  if (!store_operand(cpu, op, cpu.seg[op->imm].selector, 2, op->src)) return;
  STASIS_NEXT(cpu, op);
}

// After MOV SS and POP SS no interrupt and no debug trap until the next instruction is done.
bool loaded_stack(Cpu& cpu, const Op* op) {
  if (op->imm != kSs) return false;
  cpu.sys.shadow = InterruptShadow::mov_ss;
  cpu.shadow_at = cpu.retired_before(op) + 1;
  cpu.leave_after(op);
  return true;
}

void move_to_segment(Cpu& cpu, const Op* op) {
  const Loaded selector = load_operand(cpu, op, 2);
  if (!selector.ok || !load_segment(cpu, op, static_cast<Segment>(op->imm), static_cast<u16>(selector.value))) return;
  if (loaded_stack(cpu, op)) return;
  STASIS_NEXT(cpu, op);
}

bool push_selector(Cpu& cpu, const Op* op) {
  Stack stack(cpu, op);
  if (!stack.push(cpu.seg[op->imm].selector, op->src)) return false;
  stack.commit();
  return true;
}
void push_segment(Cpu& cpu, const Op* op) {
  if (!push_selector(cpu, op)) return;
  STASIS_NEXT(cpu, op);
}

bool pop_selector(Cpu& cpu, const Op* op) {
  Stack stack(cpu, op);
  u64 selector;
  if (!stack.pop(selector, op->src)) return false;
  const u64 wide = stack_mask(cpu);
  if (!load_segment(cpu, op, static_cast<Segment>(op->imm), static_cast<u16>(selector))) return false;
  const u64 rsp = cpu.r[kRsp] + op->src;  // by the old stack's width
  cpu.r[kRsp] = wide == 0xffff ? (cpu.r[kRsp] & ~wide) | (rsp & wide) : rsp & wide;
  return true;
}
void pop_segment(Cpu& cpu, const Op* op) {
  if (!pop_selector(cpu, op) || loaded_stack(cpu, op)) return;
  STASIS_NEXT(cpu, op);
}

void load_far_pointer(Cpu& cpu, const Op* op) {  // src: offset bytes
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, op->src + 2u, false)) return;
  u8 image[10];
  if (!cpu.read_bytes(linear, image, op->src + 2u, op)) return;
  u64 offset = 0;
  u16 selector;
  std::memcpy(&offset, image, op->src);
  std::memcpy(&selector, image + op->src, 2);
  if (!load_segment(cpu, op, static_cast<Segment>(op->imm), selector)) return;
  if (op->src == 2) cpu.set_reg<u16>(op->dst, static_cast<u16>(offset));
  else cpu.set_reg<u64>(op->dst, offset);
  cpu.rip = cpu.next_rip_of(op);
}

// ES CS SS DS FS GS, or 6.
unsigned segment_number(const ZydisDecodedOperand& operand) {
  if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) return 6;
  switch (operand.reg.value) {
    case ZYDIS_REGISTER_ES: return kEs;
    case ZYDIS_REGISTER_CS: return kCs;
    case ZYDIS_REGISTER_SS: return kSs;
    case ZYDIS_REGISTER_DS: return kDs;
    case ZYDIS_REGISTER_FS: return kFs;
    case ZYDIS_REGISTER_GS: return kGs;
    default: return 6;
  }
}

Bound bind_segment_move(const Decoded& in, Op& op) {
  const u8 bytes = static_cast<u8>(in.instruction.operand_width / 8);
  const unsigned to = segment_number(in.operands[0]), from = segment_number(in.operands[1]);
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
      if (to == kCs) return Bound::no;
      if (to < 6) return fill_operand(in, in.operands[1], op), op.imm = to, op.fn = move_to_segment, Bound::goes_on;
      if (from == 6) return Bound::no;
      fill_operand(in, in.operands[0], op);
      op.imm = from, op.src = bytes, op.fn = store_segment;
      return Bound::goes_on;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
      if (to == 6) return Bound::no;
      op.imm = to, op.src = bytes, op.segment = kSs;
      op.fn = in.instruction.mnemonic == ZYDIS_MNEMONIC_PUSH ? push_segment : pop_segment;
      return Bound::goes_on;
    case ZYDIS_MNEMONIC_LES: op.imm = kEs; break;
    case ZYDIS_MNEMONIC_LSS: op.imm = kSs; break;
    case ZYDIS_MNEMONIC_LDS: op.imm = kDs; break;
    case ZYDIS_MNEMONIC_LFS: op.imm = kFs; break;
    case ZYDIS_MNEMONIC_LGS: op.imm = kGs; break;
    default: return Bound::no;
  }
  op.dst = register_offset(in.operands[0].reg.value);
  op.src = bytes;
  fill_memory(in, in.operands[1], op);
  op.fn = load_far_pointer;
  return Bound::ends;
}

}  // namespace

Bound bind_descriptors(const Decoded& in, Op& op) {
  const ZydisMnemonic mnemonic = in.instruction.mnemonic;
  const auto with = [&](Handler fn, u8 which) {
    op.extra = which;
    op.src = static_cast<u8>(in.instruction.operand_width / 8);
    fill_operand(in, in.operands[0], op);
    op.fn = fn;
    return Bound::ends;
  };
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_SGDT: return with(store_table, 0);
    case ZYDIS_MNEMONIC_SIDT: return with(store_table, 1);
    case ZYDIS_MNEMONIC_LGDT: return with(load_table, 0);
    case ZYDIS_MNEMONIC_LIDT: return with(load_table, 1);
    case ZYDIS_MNEMONIC_SLDT: return with(store_selector, 0);
    case ZYDIS_MNEMONIC_STR: return with(store_selector, 1);
    case ZYDIS_MNEMONIC_LLDT: return with(load_system_segment, 0);
    case ZYDIS_MNEMONIC_LTR: return with(load_system_segment, 1);
    case ZYDIS_MNEMONIC_VERR: return with(verify, 0);
    case ZYDIS_MNEMONIC_VERW: return with(verify, 1);
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
      op.extra = mnemonic == ZYDIS_MNEMONIC_LSL;
      op.src = static_cast<u8>(in.instruction.operand_width / 8);
      op.imm = register_offset(in.operands[0].reg.value);
      fill_operand(in, in.operands[1], op);
      op.fn = look_at;
      return Bound::ends;
    default: return bind_segment_move(in, op);
  }
}

}  // namespace stasis::soft
