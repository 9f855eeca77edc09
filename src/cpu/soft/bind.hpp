// Binding: from Zydis's view of an instruction to an Op. One function per family, each in its own file.
#pragma once

#include <Zydis/Zydis.h>

#include "cpu/soft/cpu.hpp"

namespace stasis::soft {

class ThunkCache;

struct Decoded {
  ZydisDecodedInstruction instruction;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  const u8* bytes;        // the instruction's bytes
  bool long_mode;         // 64-bit code
  unsigned stack_bytes;   // 2, 4 or 8: width of the stack pointer
  ThunkCache& thunks;     // native code for x87, MMX and SSE
};

enum class Bound {
  no,        // not of this family
  goes_on,   // fn falls through to the next instruction
  ends,      // fn finishes the block (branches, and all that may change mode, interrupts, time or devices)
  alone,     // must run in a block of its own, and may touch devices
};

// Each fills op.fn and the operands it needs. op.at, op.position and op.length are filled already.
Bound bind_integer(const Decoded& in, Op& op);       // moves, ALU, shifts, multiply/divide, bits, stack data, CMOV/SETcc, BSWAP, XCHG, LOCK
Bound bind_string(const Decoded& in, Op& op);        // MOVS CMPS SCAS LODS STOS INS OUTS with REP
Bound bind_control_flow(const Decoded& in, Op& op);  // JMP Jcc CALL RET LOOP JCXZ, far forms, INT, IRET, SYSCALL, SYSENTER …
Bound bind_far(const Decoded& in, Op& op);           // the far half of bind_control_flow
Bound bind_system(const Decoded& in, Op& op);        // CR DR MSR, descriptor tables, IN OUT, HLT, CLI STI, POPF, CPUID, INVLPG, …
Bound bind_vector(const Decoded& in, Op& op);        // x87, MMX, SSE to 4.2, FXSAVE, LDMXCSR; checks CR0.EM/TS, CR4.OSFXSR

// Operand helpers.
u8 register_offset(ZydisRegister reg);  // byte offset into Cpu::r of a general register of any size
bool is_general(const ZydisDecodedOperand& operand);
// Fills base, index, scale, disp, segment, address_bytes from a memory operand; true: FlatAddress will do.
bool fill_memory(const Decoded& in, const ZydisDecodedOperand& operand, Op& op);

}  // namespace stasis::soft
