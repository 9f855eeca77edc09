// Checks, operands and the guest's MXCSR for x87, MMX and SSE handlers.
#include "cpu/soft/vector_access.hpp"

#include <algorithm>

namespace stasis::soft {

bool refuse_sse(Cpu& cpu, const Op* op) {
  cpu.raise(op, cpu.sys.cr0 & kCr0Em || !(cpu.sys.cr4 & kCr4Osfxsr) ? kUd : kNm);
  return false;
}
bool refuse_mmx(Cpu& cpu, const Op* op) {
  cpu.raise(op, cpu.sys.cr0 & kCr0Em ? kUd : cpu.sys.cr0 & kCr0Ts ? kNm : kMf);
  return false;
}
bool refuse_x87(Cpu& cpu, const Op* op) {
  cpu.raise(op, cpu.sys.cr0 & (kCr0Em | kCr0Ts) ? kNm : kMf);
  return false;
}

bool fetch_operand(Cpu& cpu, const Op* op) {
  __m128i value;
  if ((op->extra & kSizeBits) < 16) {
    const Loaded loaded = load_small(cpu, op);
    if (!loaded.ok) return false;
    value = _mm_cvtsi64_si128(static_cast<i64>(loaded.value));
  } else if (!(op->extra & kMustAlign ? load_vector<AnyAddress, 16, true>(cpu, op, value) : load_vector<AnyAddress, 16, false>(cpu, op, value))) {
    return false;
  }
  set_scratch_vector(cpu, 3, value);
  return true;
}
Loaded load_small(Cpu& cpu, const Op* op) {
  const unsigned size = op->extra & kSizeBits;
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, size, false)) return {0, false};
  return size == 8 ? cpu.read<u64>(linear, op) : size == 4 ? cpu.read<u32>(linear, op) : size == 2 ? cpu.read<u16>(linear, op) : cpu.read<u8>(linear, op);
}
bool store_small(Cpu& cpu, const Op* op, u64 value) {
  const unsigned size = op->extra & kSizeBits;
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, size, true)) return false;
  return size == 8   ? cpu.write<u64>(linear, value, op)
         : size == 4 ? cpu.write<u32>(linear, static_cast<u32>(value), op)
         : size == 2 ? cpu.write<u16>(linear, static_cast<u16>(value), op)
                     : cpu.write<u8>(linear, static_cast<u8>(value), op);
}

bool masked_writable(Cpu& cpu, const Op* op, u64 linear, unsigned mask) {
  for (unsigned half = 0; half < 2; ++half) {
    if (mask >> 8 * half & 0xff && !cpu.read_for_write(linear + 8 * half, 8, op).ok) return false;
  }
  return true;
}

void rotate_to_zero(FpuState& fpu) {
  const unsigned top = fpu.fsw >> 11 & 7;
  std::rotate(fpu.st.begin(), fpu.st.begin() + ((8 - top) & 7), fpu.st.end());
  fpu.fsw &= static_cast<u16>(~kFswTop);
}

bool run_with_guest_mxcsr(Cpu& cpu, const Op* op, void (*invoke)(Cpu&, const Op*)) {
  constexpr u32 kFlags = 0x3f, kMasks = 0x1f80, kUnderflow = 0x10, kFlush = 0x8000, kBefore = 7, kDefault = 0x1f80;
  const u32 guest = cpu.fpu.mxcsr;
  const u32 unmasked = ~(guest >> 7) & kFlags;
  u32 control = (guest | kMasks) & ~kFlags, flags = 0;
  if (unmasked & kUnderflow) {
    // Unmasked, a tiny result counts even when it is exact, and flushing is off. The flush mode tells what is tiny.
    _mm_setcsr(control | kFlush);
    invoke(cpu, op);
    flags = _mm_getcsr() & kUnderflow;
    control &= ~kFlush;
  }
  _mm_setcsr(control);
  invoke(cpu, op);
  flags |= _mm_getcsr() & kFlags;
  // Invalid, denormal and divide-by-zero come before the computation, which then does not take place.
  if (flags & unmasked & kBefore) flags &= kBefore;
  cpu.fpu.mxcsr = guest | flags;
  const bool raised = flags & unmasked;
  // Left as the guest's when that is the host's own control word: the next thunk then finds them in agreement.
  _mm_setcsr((guest & ~kFlags) == kDefault ? cpu.fpu.mxcsr : kDefault);
  if (raised) cpu.raise(op, cpu.sys.cr4 & kCr4Osxmmexcpt ? kXm : kUd);
  return !raised;
}

NormalForm normal_form(const Decoded& in, u8 reg, u8 rm, bool wide) {
  const ZydisDecodedInstruction& i = in.instruction;
  NormalForm form;
  for (unsigned p = 0; p < i.raw.prefix_count; ++p) {
    if (i.raw.prefixes[p].type == ZYDIS_PREFIX_TYPE_MANDATORY) form.add(i.raw.prefixes[p].value);
  }
  if (wide && i.attributes & ZYDIS_ATTRIB_HAS_REX && i.raw.rex.W) form.add(0x48);
  if (i.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) form.add(0x0f);
  if (i.opcode_map == ZYDIS_OPCODE_MAP_0F38) form.add(0x38);
  if (i.opcode_map == ZYDIS_OPCODE_MAP_0F3A) form.add(0x3a);
  form.add(i.opcode);
  form.add(static_cast<u8>(0xc0 | reg << 3 | rm));
  if (i.raw.imm[0].size) form.add(static_cast<u8>(i.raw.imm[0].value.u));
  return form;
}

Bound bind_vector(const Decoded& in, Op& op) {
  const auto encoding = in.instruction.encoding;
  if (encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return Bound::no;  // VEX, EVEX, XOP, 3DNow!: not offered
  for (const auto bind : {bind_vector_move, bind_fpu_state, bind_x87, bind_sse, bind_mmx}) {
    if (const Bound bound = bind(in, op); bound != Bound::no) return bound;
  }
  return Bound::no;
}

}  // namespace stasis::soft
