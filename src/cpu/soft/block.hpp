// A decoded run of instructions, and going from one to the next without the run loop.
#pragma once

#include "cpu/soft/cpu.hpp"

namespace stasis::soft {

// Lies within one page of RAM, except that a single instruction may reach into a second one.
// ops[count] is a stub that finishes the block when the last instruction does not do so itself.
struct Block {
  u16 count = 0;         // instructions
  u16 bytes = 0;
  bool alone = false;    // Bound::alone: entered by the run loop only
  bool crosses = false;  // one instruction over a page end
  bool dropped = false;  // out of the cache, freed at the next safe point
  u32 mode = 0;          // CodeCache::Mode it was decoded for
  u64 physical = 0;      // of the first byte
  u64 second_page = 0;   // of a crossing instruction: physical address of the second page
  JumpEntry links[2];    // direct branches: not taken or unconditional, taken
  Block* next_in_bucket = nullptr;
  Op ops[1];             // count + 1 of them
};

inline void Cpu::leave_after(const Op* op) {
  rip = next_rip_of(op);
  budget += block->count - op->position - 1;
}
inline u64 Cpu::retired_before(const Op* op) const {
  return slice_end - static_cast<u64>(budget + block->count - op->position);
}

// Enters the block behind `entry` when it belongs to `to` and the budget covers it all.
#ifdef STASIS_THREADED
#define STASIS_ENTER(cpu, first) return (first)->fn(cpu, first)
#else
#define STASIS_ENTER(cpu, first) \
  do {                           \
    (cpu).next_op = (first);     \
    return;                      \
  } while (false)
#endif
#define STASIS_TRY_ENTRY(cpu, to, entry)                                     \
  do {                                                                       \
    if ((entry).tag == ((to) ^ (cpu).salt)) [[likely]] {                     \
      Block* const stasis_block_ = (entry).block;                            \
      if ((cpu).budget >= stasis_block_->count) [[likely]] {                 \
        (cpu).budget -= stasis_block_->count;                                \
        (cpu).block = stasis_block_;                                         \
        (cpu).r[kRipSlot] = (to);                                            \
        STASIS_ENTER(cpu, stasis_block_->ops);                               \
      }                                                                      \
    }                                                                        \
  } while (false)
// Finishes the block and goes on at `to`, wherever that is.
#define STASIS_GO(cpu, to)                                                   \
  do {                                                                       \
    STASIS_TRY_ENTRY(cpu, to, (cpu).jump[jump_index(to)]);                   \
    (cpu).rip = (to);                                                        \
    return;                                                                  \
  } while (false)
// The same for a target that is always the same: remembered in the block itself.
#define STASIS_GO_LINK(cpu, to, which)                                       \
  do {                                                                       \
    STASIS_TRY_ENTRY(cpu, to, (cpu).block->links[which]);                    \
    STASIS_TRY_ENTRY(cpu, to, (cpu).jump[jump_index(to)]);                   \
    (cpu).open_link = &(cpu).block->links[which];                            \
    (cpu).rip = (to);                                                        \
    return;                                                                  \
  } while (false)

}  // namespace stasis::soft
