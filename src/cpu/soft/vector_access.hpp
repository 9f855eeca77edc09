// How x87, MMX and SSE handlers reach registers and memory, and what they check first.
#pragma once

#include <emmintrin.h>

#include "cpu/soft/bind.hpp"
#include "cpu/soft/integer_access.hpp"
#include "cpu/soft/mmu.hpp"
#include "cpu/soft/thunk.hpp"

namespace stasis::soft {

// The parts of bind_vector(), in this order.
Bound bind_vector_move(const Decoded& in, Op& op);  // data movement in C++
Bound bind_sse(const Decoded& in, Op& op);          // everything else on XMM registers
Bound bind_mmx(const Decoded& in, Op& op);
Bound bind_x87(const Decoded& in, Op& op);
Bound bind_fpu_state(const Decoded& in, Op& op);    // environment, FXSAVE, LDMXCSR

// ---- checks ---------------------------------------------------------------------------------------------
// CR0.EM, CR4.OSFXSR, CR0.TS: false when one of them raised.
[[gnu::noinline, gnu::cold]] bool refuse_sse(Cpu& cpu, const Op* op);
[[gnu::noinline, gnu::cold]] bool refuse_mmx(Cpu& cpu, const Op* op);
[[gnu::noinline, gnu::cold]] bool refuse_x87(Cpu& cpu, const Op* op);
inline bool sse_allowed(Cpu& cpu, const Op* op) {
  if (!(cpu.sys.cr0 & (kCr0Em | kCr0Ts)) && cpu.sys.cr4 & kCr4Osfxsr) [[likely]] return true;
  return refuse_sse(cpu, op);
}
inline constexpr u16 kFswEs = 0x80, kFswB = 0x8000, kFswTop = 0x3800, kFswC1 = 0x200;
// A pending x87 exception is reported by #MF whatever CR0.NE says: no board of ours wires FERR#.
inline bool mmx_allowed(Cpu& cpu, const Op* op) {
  if (!(cpu.sys.cr0 & (kCr0Em | kCr0Ts)) && !(cpu.fpu.fsw & kFswEs)) [[likely]] return true;
  return refuse_mmx(cpu, op);
}
inline bool x87_allowed(Cpu& cpu, const Op* op) {
  if (!(cpu.sys.cr0 & (kCr0Em | kCr0Ts)) && !(cpu.fpu.fsw & kFswEs)) [[likely]] return true;
  return refuse_x87(cpu, op);
}

// ---- XMM registers, named by byte offset ------------------------------------------------------------------
inline u8 xmm_offset(ZydisRegister reg) { return static_cast<u8>((reg - ZYDIS_REGISTER_XMM0) * 16); }
inline bool is_xmm(const ZydisDecodedOperand& o) {
  return o.type == ZYDIS_OPERAND_TYPE_REGISTER && o.reg.value >= ZYDIS_REGISTER_XMM0 && o.reg.value <= ZYDIS_REGISTER_XMM15;
}
inline bool is_mmx(const ZydisDecodedOperand& o) {
  return o.type == ZYDIS_OPERAND_TYPE_REGISTER && o.reg.value >= ZYDIS_REGISTER_MM0 && o.reg.value <= ZYDIS_REGISTER_MM7;
}
inline bool is_memory(const ZydisDecodedOperand& o) { return o.type == ZYDIS_OPERAND_TYPE_MEMORY; }
inline u8* xmm_bytes(Cpu& cpu, u8 offset) { return reinterpret_cast<u8*>(cpu.fpu.xmm.data()) + offset; }
inline __m128i xmm(Cpu& cpu, u8 offset) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(xmm_bytes(cpu, offset))); }
inline void set_xmm(Cpu& cpu, u8 offset, __m128i value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(xmm_bytes(cpu, offset)), value);
}
inline __m128i scratch_vector(const Cpu& cpu, unsigned index) {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(cpu.scratch) + index);
}
inline void set_scratch_vector(Cpu& cpu, unsigned index, __m128i value) {
  _mm_store_si128(reinterpret_cast<__m128i*>(cpu.scratch) + index, value);
}

// ---- memory operands -----------------------------------------------------------------------------------------
// 128-bit operands of legacy SSE must be aligned, but for a few moves.
inline constexpr u8 kMustAlign = 0x80;  // in Op::extra, beside the operand's size in bytes

template <class Address, unsigned kSize, bool kAligned>
[[gnu::always_inline]] inline bool load_vector(Cpu& cpu, const Op* op, __m128i& out) {
  const u64 linear = Address::linear(cpu, op);
  if (!Address::check(cpu, op, linear, kSize, false)) return false;
  if constexpr (kAligned) {
    if (linear & (kSize - 1)) [[unlikely]] return cpu.raise(op, kGp, 0), false;
  }
  if constexpr (kSize == 16) {
    if (const u8* const at = readable<u128>(cpu, linear)) [[likely]] {
      out = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
      return true;
    }
    if (!cpu.read_bytes(linear, cpu.scratch, 16, op)) return false;
    out = scratch_vector(cpu, 0);
    return true;
  } else {
    using T = std::conditional_t<kSize == 8, u64, std::conditional_t<kSize == 4, u32, std::conditional_t<kSize == 2, u16, u8>>>;
    const Loaded loaded = cpu.read<T>(linear, op);
    out = _mm_cvtsi64_si128(static_cast<i64>(loaded.value));
    return loaded.ok;
  }
}
template <class Address, unsigned kSize, bool kAligned>
[[gnu::always_inline]] inline bool store_vector(Cpu& cpu, const Op* op, __m128i value) {
  const u64 linear = Address::linear(cpu, op);
  if (!Address::check(cpu, op, linear, kSize, true)) return false;
  if constexpr (kAligned) {
    if (linear & (kSize - 1)) [[unlikely]] return cpu.raise(op, kGp, 0), false;
  }
  if constexpr (kSize == 16) {
    if (u8* const at = writable<u128>(cpu, linear)) [[likely]] {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), value);
      return true;
    }
    set_scratch_vector(cpu, 0, value);
    return cpu.write_bytes(linear, cpu.scratch, 16, op);
  } else {
    using T = std::conditional_t<kSize == 8, u64, std::conditional_t<kSize == 4, u32, std::conditional_t<kSize == 2, u16, u8>>>;
    return cpu.write<T>(linear, static_cast<T>(_mm_cvtsi128_si64(value)), op);
  }
}
// Any size (op->extra), any address: for what is rare. Passes through scratch vector 3.
bool fetch_operand(Cpu& cpu, const Op* op);
[[gnu::always_inline]] inline bool load_operand(Cpu& cpu, const Op* op, __m128i& out) {
  if (!fetch_operand(cpu, op)) return false;
  out = scratch_vector(cpu, 3);
  return true;
}
// At most 8 bytes, size in op->extra.
Loaded load_small(Cpu& cpu, const Op* op);
bool store_small(Cpu& cpu, const Op* op, u64 value);
inline constexpr u8 kSizeBits = 0x7f;

// Before the bytes of `mask` are stored one by one at `linear`: every quadword with such a byte may be written, so no
// store can fail half way.
bool masked_writable(Cpu& cpu, const Op* op, u64 linear, unsigned mask);

// ---- MMX registers: the low 64 bits of the physical x87 registers ------------------------------------------------
inline u8* mmx_bytes(Cpu& cpu, unsigned index) {
  return cpu.fpu.st[(index - (cpu.fpu.fsw >> 11)) & 7].data();
}
inline u64 mmx(Cpu& cpu, unsigned index) {
  u64 value;
  std::memcpy(&value, mmx_bytes(cpu, index), 8);
  return value;
}
// Makes TOP 0; register contents stay.
void rotate_to_zero(FpuState& fpu);
// What every MMX instruction does but EMMS: TOP becomes 0, all registers valid.
inline void enter_mmx(Cpu& cpu) {
  if (cpu.fpu.fsw & kFswTop) [[unlikely]] rotate_to_zero(cpu.fpu);
  cpu.fpu.ftw = 0xff;
}
inline void set_mmx(Cpu& cpu, unsigned index, u64 value) {  // after enter_mmx()
  std::memcpy(cpu.fpu.st[index].data(), &value, 8);
  cpu.fpu.st[index][8] = cpu.fpu.st[index][9] = 0xff;
}

// ---- native code ---------------------------------------------------------------------------------------------------
// A thunk that reads or changes MXCSR must give exactly the guest's flags. `invoke` takes operands from
// cpu.scratch and leaves its result there. False: #XM (or #UD) was raised; nothing but MXCSR's flags changed.
bool run_with_guest_mxcsr(Cpu& cpu, const Op* op, void (*invoke)(Cpu&, const Op*));
// True when the host's MXCSR, after a thunk ran under it, is the guest's: same control, and no flag that the guest
// has not had yet. Then the thunk computed as the guest would have it, whatever flags the host had before.
inline bool mxcsr_agrees(const Cpu& cpu) { return _mm_getcsr() == cpu.fpu.mxcsr; }

// The instruction rewritten to ModRM registers `reg` and `rm`; `wide` keeps REX.W.
NormalForm normal_form(const Decoded& in, u8 reg, u8 rm, bool wide);

}  // namespace stasis::soft
