// A decoded instruction, ready to run: the handler and its operands.
#pragma once

#include "base/types.hpp"

namespace stasis::soft {

class Cpu;
struct Op;

// Runs one instruction and ends in STASIS_NEXT, in leaving (a fault, see Cpu), or, for the last
// instruction of a block, in finishing the block. Before it returns with a failed access it must have
// changed nothing that the guest can see.
using Handler = void (*)(Cpu&, const Op*);

// Register slots: 0-15 are the general registers in encoding order.
inline constexpr u8 kZeroSlot = 16;  // always reads zero: "no base", "no index"
inline constexpr u8 kRipSlot = 17;   // RIP of the running block's first instruction
inline constexpr u8 kSlots = 18;

struct Op {
  Handler fn = nullptr;
  u64 imm = 0;        // immediate (sign-extended to 64 bits), branch target relative to the block's RIP, or a pointer
  i64 disp = 0;       // displacement; of a RIP-relative operand: relative to the block's RIP
  u8 base = kZeroSlot, index = kZeroSlot, scale = 0;  // memory operand: r[base] + (r[index] << scale) + disp
  u8 segment = 3;     // ES CS SS DS FS GS = 0..5, after overrides and defaults
  u8 dst = 0, src = 0;  // byte offsets into the register file (slot * 8, + 1 for AH CH DH BH)
  u8 address_bytes = 8;  // 2, 4 or 8: effective addresses are cut to this width
  u8 length = 0;      // of the instruction in bytes
  u16 at = 0;         // offset of the instruction from the block's first byte
  u8 position = 0;    // index in the block
  u8 extra = 0;       // whatever a handler wants to keep
};

}  // namespace stasis::soft

// Going on with the next instruction of the block. With STASIS_THREADED (release builds) every handler
// ends in a sibling call, so handlers must not keep locals whose address escapes; without, a loop runs them.
#ifdef STASIS_THREADED
#define STASIS_NEXT(cpu, op) return (op)[1].fn(cpu, (op) + 1)
#else
#define STASIS_NEXT(cpu, op) \
  do {                       \
    (cpu).next_op = (op) + 1; \
    return;                  \
  } while (false)
#endif
