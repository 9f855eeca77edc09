// Segments, descriptors and event delivery: what far transfers, system instructions and faults share.
#pragma once

#include "cpu/soft/mmu.hpp"

namespace stasis::soft {

// A descriptor's hidden part (SDM vol. 3A, 3.4.5).
SegmentState segment_of(u16 selector, u64 descriptor);
inline bool is_code(const SegmentState& s) { return s.code_or_data() && (s.type() & 8); }
inline bool is_conforming(const SegmentState& s) { return (s.type() & 0xc) == 0xc; }
inline bool is_null(u16 selector) { return (selector & ~3) == 0; }
inline bool in_protected_mode(const Cpu& cpu) { return (cpu.sys.cr0 & kCr0Pe) && !(cpu.rflags_rest & kVm); }
inline bool in_ia32e(const Cpu& cpu) { return cpu.sys.efer & kEferLma; }

// The eight bytes at `selector` in the GDT or LDT. False: raised `vector`(selector + ext).
bool read_descriptor(Cpu& cpu, const Op* op, u16 selector, u8 vector, unsigned ext, u64& descriptor);
// The upper half of a 16-byte system descriptor.
bool read_upper_descriptor(Cpu& cpu, const Op* op, u16 selector, u64& upper);
bool mark_accessed(Cpu& cpu, const Op* op, u16 selector, u64 descriptor);

// MOV, POP and L*S to a segment register other than CS, with all checks.
bool load_segment(Cpu& cpu, const Op* op, Segment segment, u16 selector);
void set_segment(Cpu& cpu, Segment segment, const SegmentState& value);  // and everything derived from it
void set_cpl(Cpu& cpu, u8 cpl);
// RET and IRET to an outer level: data segments that the outer level may not use become null.
void forget_inner_segments(Cpu& cpu);

struct Event {
  enum class Kind : u8 { exception, interrupt, software } kind = Kind::exception;
  u8 vector = 0;
  bool has_error = false;
  u32 error = 0;
};
// Delivers through the IDT; `return_rip` goes on the stack. False: a fault was raised instead (cpu.fault) and the
// registers are as before.
bool deliver_event(Cpu& cpu, const Op* op, const Event& event, u64 return_rip);
enum class Delivered { yes, shutdown };
// The same with nested faults up to the double fault; no op runs.
Delivered deliver_through(Cpu& cpu, Event event, u64 return_rip);

// RSP or ESP or SP of the current stack, and setting it.
inline u64 stack_mask(const Cpu& cpu) { return cpu.long_mode ? ~0ull : cpu.seg[kSs].big() ? 0xffff'ffffull : 0xffffull; }
inline void set_stack_pointer(Cpu& cpu, u64 value) {
  const u64 mask = stack_mask(cpu);
  if (mask == 0xffff) cpu.r[kRsp] = (cpu.r[kRsp] & ~mask) | (value & mask);
  else cpu.r[kRsp] = value & mask;
}

// Pushes or pops on the current stack without moving the stack pointer until commit().
class Stack {
 public:
  Stack(Cpu& cpu, const Op* op) : cpu_(cpu), op_(op), at_(cpu.r[kRsp]), mask_(stack_mask(cpu)) {}
  bool push(u64 value, unsigned bytes) {
    at_ = at_ - bytes;
    const Linear to = linear_of(cpu_, op_, kSs, at_ & mask_, bytes, true);
    return to.ok && cpu_.mmu->store(to.address, value, bytes, cpu_.mmu->view(), op_);
  }
  bool pop(u64& value, unsigned bytes) {
    const Linear from = linear_of(cpu_, op_, kSs, at_ & mask_, bytes, false);
    if (!from.ok) return false;
    const Loaded loaded = cpu_.mmu->load(from.address, bytes, cpu_.mmu->view(), op_);
    value = loaded.value;
    at_ += bytes;
    return loaded.ok;
  }
  void skip(u64 bytes) { at_ += bytes; }
  void commit() { set_stack_pointer(cpu_, at_); }

 private:
  Cpu& cpu_;
  const Op* op_;
  u64 at_, mask_;
};

}  // namespace stasis::soft
