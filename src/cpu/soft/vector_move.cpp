// Data movement on XMM registers, and the few operations that libc's string functions live on, in C++.
//
// A fast shape looks at the TLB only and hands everything else, by a sibling call, to its twin with all
// checks; so it needs no stack frame.
#include "cpu/soft/vector_access.hpp"

namespace stasis::soft {
namespace {

// ---- whole loads and stores: op->dst is the XMM register --------------------------------------------------
template <unsigned kSize>
using Piece = std::conditional_t<kSize == 16, u128, std::conditional_t<kSize == 8, u64, u32>>;

template <unsigned kSize>
__m128i extended(const u8* at) {
  if constexpr (kSize == 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  else return _mm_cvtsi64_si128(static_cast<i64>(peek<Piece<kSize>>(at)));
}
inline bool sse_on(const Cpu& cpu) { return !(cpu.sys.cr0 & (kCr0Em | kCr0Ts)) && cpu.sys.cr4 & kCr4Osfxsr; }

template <unsigned kSize, bool kAligned>
struct Load {
  [[gnu::noinline]] static void checked(Cpu& cpu, const Op* op) {
    __m128i value;
    if (!sse_allowed(cpu, op) || !load_vector<AnyAddress, kSize, kAligned>(cpu, op, value)) return;
    set_xmm(cpu, op->dst, value);
    STASIS_NEXT(cpu, op);
  }
  static void flat(Cpu& cpu, const Op* op) {
    const u64 linear = FlatAddress::linear(cpu, op);
    const u8* const at = readable<Piece<kSize>>(cpu, linear);
    if (!at || !sse_on(cpu) || (kAligned && linear & 15)) [[unlikely]] return checked(cpu, op);
    set_xmm(cpu, op->dst, extended<kSize>(at));
    STASIS_NEXT(cpu, op);
  }
};
template <unsigned kSize, bool kAligned>
struct Store {
  [[gnu::noinline]] static void checked(Cpu& cpu, const Op* op) {
    if (!sse_allowed(cpu, op) || !store_vector<AnyAddress, kSize, kAligned>(cpu, op, xmm(cpu, op->dst))) return;
    STASIS_NEXT(cpu, op);
  }
  static void flat(Cpu& cpu, const Op* op) {
    const u64 linear = FlatAddress::linear(cpu, op);
    u8* const at = writable<Piece<kSize>>(cpu, linear);
    if (!at || !sse_on(cpu) || (kAligned && linear & 15)) [[unlikely]] return checked(cpu, op);
    std::memcpy(at, xmm_bytes(cpu, op->dst), kSize);
    STASIS_NEXT(cpu, op);
  }
};

// ---- halves ---------------------------------------------------------------------------------------------------
template <unsigned kAt>
struct LoadHalf {
  [[gnu::noinline]] static void checked(Cpu& cpu, const Op* op) {
    if (!sse_allowed(cpu, op)) return;
    const Loaded loaded = load_any<u64>(cpu, op);
    if (!loaded.ok) return;
    poke<u64>(xmm_bytes(cpu, op->dst) + kAt, loaded.value);
    STASIS_NEXT(cpu, op);
  }
  static void flat(Cpu& cpu, const Op* op) { return checked(cpu, op); }
};
struct StoreHigh {
  [[gnu::noinline]] static void checked(Cpu& cpu, const Op* op) {
    if (!sse_allowed(cpu, op) || !store_any<u64>(cpu, op, peek<u64>(xmm_bytes(cpu, op->dst) + 8))) return;
    STASIS_NEXT(cpu, op);
  }
  static void flat(Cpu& cpu, const Op* op) { return checked(cpu, op); }
};

// ---- register to register: F::run(dst, src) --------------------------------------------------------------------
template <class F>
void on_registers(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  set_xmm(cpu, op->dst, F::run(xmm(cpu, op->dst), xmm(cpu, op->src)));
  STASIS_NEXT(cpu, op);
}
struct Copy { static __m128i run(__m128i, __m128i b) { return b; } };
struct Low32 {
  static __m128i run(__m128i a, __m128i b) { return _mm_castps_si128(_mm_move_ss(_mm_castsi128_ps(a), _mm_castsi128_ps(b))); }
};
struct Low64 {
  static __m128i run(__m128i a, __m128i b) { return _mm_castpd_si128(_mm_move_sd(_mm_castsi128_pd(a), _mm_castsi128_pd(b))); }
};
struct Low64Zero { static __m128i run(__m128i, __m128i b) { return _mm_move_epi64(b); } };
struct HighToLow { static __m128i run(__m128i a, __m128i b) { return _mm_unpackhi_epi64(b, a); } };
struct LowToHigh { static __m128i run(__m128i a, __m128i b) { return _mm_unpacklo_epi64(a, b); } };

// ---- frequent operations, source a register or aligned memory -----------------------------------------------------
template <class F>
struct Operate {
  [[gnu::noinline]] static void checked(Cpu& cpu, const Op* op) {
    __m128i value;
    if (!sse_allowed(cpu, op) || !load_vector<AnyAddress, 16, true>(cpu, op, value)) return;
    set_xmm(cpu, op->dst, F::run(xmm(cpu, op->dst), value));
    STASIS_NEXT(cpu, op);
  }
  static void flat(Cpu& cpu, const Op* op) {
    const u64 linear = FlatAddress::linear(cpu, op);
    const u8* const at = readable<u128>(cpu, linear);
    if (!at || !sse_on(cpu) || linear & 15) [[unlikely]] return checked(cpu, op);
    set_xmm(cpu, op->dst, F::run(xmm(cpu, op->dst), extended<16>(at)));
    STASIS_NEXT(cpu, op);
  }
};
#define STASIS_VECTOR_OPERATION(Name, intrinsic) \
  struct Name { static __m128i run(__m128i a, __m128i b) { return intrinsic(a, b); } }
STASIS_VECTOR_OPERATION(And, _mm_and_si128);
STASIS_VECTOR_OPERATION(AndNot, _mm_andnot_si128);
STASIS_VECTOR_OPERATION(Or, _mm_or_si128);
STASIS_VECTOR_OPERATION(Xor, _mm_xor_si128);
STASIS_VECTOR_OPERATION(EqualBytes, _mm_cmpeq_epi8);
STASIS_VECTOR_OPERATION(EqualWords, _mm_cmpeq_epi32);
STASIS_VECTOR_OPERATION(SubtractBytes, _mm_sub_epi8);
STASIS_VECTOR_OPERATION(MinimumBytes, _mm_min_epu8);
STASIS_VECTOR_OPERATION(AddDoublewords, _mm_add_epi32);
STASIS_VECTOR_OPERATION(AddQuadwords, _mm_add_epi64);
STASIS_VECTOR_OPERATION(UnpackLowBytes, _mm_unpacklo_epi8);
STASIS_VECTOR_OPERATION(UnpackLowQuadwords, _mm_unpacklo_epi64);
#undef STASIS_VECTOR_OPERATION

// ---- general registers -----------------------------------------------------------------------------------------------
template <class T>
void from_general(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  set_xmm(cpu, op->dst, _mm_cvtsi64_si128(static_cast<i64>(static_cast<u64>(cpu.reg<T>(op->src)))));
  STASIS_NEXT(cpu, op);
}
template <class T>
void to_general(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  cpu.set_reg<T>(op->dst, peek<T>(xmm_bytes(cpu, op->src)));
  STASIS_NEXT(cpu, op);
}
enum class Mask { bytes, singles, doubles };
template <Mask kMask>
void mask_to_general(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  const __m128i value = xmm(cpu, op->src);
  const int mask = kMask == Mask::bytes     ? _mm_movemask_epi8(value)
                   : kMask == Mask::singles ? _mm_movemask_ps(_mm_castsi128_ps(value))
                                            : _mm_movemask_pd(_mm_castsi128_pd(value));
  cpu.set_reg<u32>(op->dst, static_cast<u32>(mask));
  STASIS_NEXT(cpu, op);
}
// PEXTRx, EXTRACTPS: XMM register in src, element in imm (as a byte offset).
template <class T>
void extract(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  const T value = peek<T>(xmm_bytes(cpu, op->src) + op->imm);
  if constexpr (sizeof(T) == 8) cpu.set_reg<u64>(op->dst, value);
  else cpu.set_reg<u32>(op->dst, value);
  STASIS_NEXT(cpu, op);
}
template <class T>
void extract_to_memory(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op) || !store_any<T>(cpu, op, peek<T>(xmm_bytes(cpu, op->src) + op->imm))) return;
  STASIS_NEXT(cpu, op);
}
template <class T>
void insert(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  poke<T>(xmm_bytes(cpu, op->dst) + op->imm, cpu.reg<T>(op->src));
  STASIS_NEXT(cpu, op);
}
template <class T>
void insert_from_memory(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  const Loaded loaded = load_any<T>(cpu, op);
  if (!loaded.ok) return;
  poke<T>(xmm_bytes(cpu, op->dst) + op->imm, static_cast<T>(loaded.value));
  STASIS_NEXT(cpu, op);
}

// ---- without XMM registers: MOVNTI, fences, hints ----------------------------------------------------------------------
template <class T>
void store_general(Cpu& cpu, const Op* op) {
  if (!store_any<T>(cpu, op, cpu.reg<T>(op->src))) return;
  STASIS_NEXT(cpu, op);
}
void nothing(Cpu& cpu, const Op* op) { STASIS_NEXT(cpu, op); }
void flush_line(Cpu& cpu, const Op* op) {  // CLFLUSH faults as a load does
  if (!load_any<u8>(cpu, op).ok) return;
  STASIS_NEXT(cpu, op);
}

// ---- binding -------------------------------------------------------------------------------------------------------------
Bound bound(Op& op, Handler fn) {
  op.fn = fn;
  return Bound::goes_on;
}
template <class Shape>
Bound memory(const Decoded& in, Op& op, unsigned which) {
  return bound(op, fill_memory(in, in.operands[which], op) ? Shape::flat : Shape::checked);
}
template <class Shape, class Other, class OnRegisters>
Bound move(const Decoded& in, Op& op) {  // load, store or copy by the shape of the operands
  const auto* o = in.operands;
  if (is_xmm(o[0])) op.dst = xmm_offset(o[0].reg.value);
  if (is_memory(o[1])) return memory<Shape>(in, op, 1);
  if (is_memory(o[0])) {
    op.dst = xmm_offset(o[1].reg.value);
    return memory<Other>(in, op, 0);
  }
  op.src = xmm_offset(o[1].reg.value);
  return bound(op, on_registers<OnRegisters>);
}
template <class F>
Bound operate(const Decoded& in, Op& op) {
  const auto* o = in.operands;
  if (!is_xmm(o[0])) return Bound::no;
  op.dst = xmm_offset(o[0].reg.value);
  if (is_memory(o[1])) return memory<Operate<F>>(in, op, 1);
  op.src = xmm_offset(o[1].reg.value);
  return bound(op, on_registers<F>);
}

template <class T>
Bound move_general(const Decoded& in, Op& op) {  // MOVD, MOVQ
  const auto* o = in.operands;
  if (is_mmx(o[0]) || is_mmx(o[1])) return Bound::no;
  if (is_general(o[0])) {
    op.dst = register_offset(o[0].reg.value);
    op.src = xmm_offset(o[1].reg.value);
    return bound(op, to_general<T>);
  }
  if (is_general(o[1])) {
    op.dst = xmm_offset(o[0].reg.value);
    op.src = register_offset(o[1].reg.value);
    return bound(op, from_general<T>);
  }
  return move<Load<sizeof(T), false>, Store<sizeof(T), false>, Low64Zero>(in, op);
}

Bound mask(const Decoded& in, Op& op, Handler fn) {
  if (!is_xmm(in.operands[1])) return Bound::no;
  op.dst = register_offset(in.operands[0].reg.value);
  op.src = xmm_offset(in.operands[1].reg.value);
  return bound(op, fn);
}
template <class T>
Bound extract_element(const Decoded& in, Op& op) {
  const auto* o = in.operands;
  if (!is_xmm(o[1])) return Bound::no;
  op.src = xmm_offset(o[1].reg.value);
  op.imm = (o[2].imm.value.u & (16 / sizeof(T) - 1)) * sizeof(T);
  if (is_memory(o[0])) {
    fill_memory(in, o[0], op);
    return bound(op, extract_to_memory<T>);
  }
  op.dst = register_offset(o[0].reg.value);
  return bound(op, extract<T>);
}
template <class T>
Bound insert_element(const Decoded& in, Op& op) {
  const auto* o = in.operands;
  if (!is_xmm(o[0])) return Bound::no;
  op.dst = xmm_offset(o[0].reg.value);
  op.imm = (o[2].imm.value.u & (16 / sizeof(T) - 1)) * sizeof(T);
  if (is_memory(o[1])) {
    fill_memory(in, o[1], op);
    return bound(op, insert_from_memory<T>);
  }
  op.src = register_offset(o[1].reg.value);
  return bound(op, insert<T>);
}
Bound store_non_temporal(const Decoded& in, Op& op) {
  fill_memory(in, in.operands[0], op);
  op.src = register_offset(in.operands[1].reg.value);
  return bound(op, in.operands[1].size == 64 ? store_general<u64> : store_general<u32>);
}

Bound bind_operation(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_PAND: case ZYDIS_MNEMONIC_ANDPS: case ZYDIS_MNEMONIC_ANDPD: return operate<And>(in, op);
    case ZYDIS_MNEMONIC_PANDN: case ZYDIS_MNEMONIC_ANDNPS: case ZYDIS_MNEMONIC_ANDNPD: return operate<AndNot>(in, op);
    case ZYDIS_MNEMONIC_POR: case ZYDIS_MNEMONIC_ORPS: case ZYDIS_MNEMONIC_ORPD: return operate<Or>(in, op);
    case ZYDIS_MNEMONIC_PXOR: case ZYDIS_MNEMONIC_XORPS: case ZYDIS_MNEMONIC_XORPD: return operate<Xor>(in, op);
    case ZYDIS_MNEMONIC_PCMPEQB: return operate<EqualBytes>(in, op);
    case ZYDIS_MNEMONIC_PCMPEQD: return operate<EqualWords>(in, op);
    case ZYDIS_MNEMONIC_PSUBB: return operate<SubtractBytes>(in, op);
    case ZYDIS_MNEMONIC_PMINUB: return operate<MinimumBytes>(in, op);
    case ZYDIS_MNEMONIC_PADDD: return operate<AddDoublewords>(in, op);
    case ZYDIS_MNEMONIC_PADDQ: return operate<AddQuadwords>(in, op);
    case ZYDIS_MNEMONIC_PUNPCKLBW: return operate<UnpackLowBytes>(in, op);
    case ZYDIS_MNEMONIC_PUNPCKLQDQ: case ZYDIS_MNEMONIC_UNPCKLPD: return operate<UnpackLowQuadwords>(in, op);
    default: return Bound::no;
  }
}

Bound bind_element(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_PMOVMSKB: return mask(in, op, mask_to_general<Mask::bytes>);
    case ZYDIS_MNEMONIC_MOVMSKPS: return mask(in, op, mask_to_general<Mask::singles>);
    case ZYDIS_MNEMONIC_MOVMSKPD: return mask(in, op, mask_to_general<Mask::doubles>);
    case ZYDIS_MNEMONIC_PEXTRB: return extract_element<u8>(in, op);
    case ZYDIS_MNEMONIC_PEXTRW: return extract_element<u16>(in, op);
    case ZYDIS_MNEMONIC_PEXTRD: case ZYDIS_MNEMONIC_EXTRACTPS: return extract_element<u32>(in, op);
    case ZYDIS_MNEMONIC_PEXTRQ: return extract_element<u64>(in, op);
    case ZYDIS_MNEMONIC_PINSRB: return insert_element<u8>(in, op);
    case ZYDIS_MNEMONIC_PINSRW: return insert_element<u16>(in, op);
    case ZYDIS_MNEMONIC_PINSRD: return insert_element<u32>(in, op);
    case ZYDIS_MNEMONIC_PINSRQ: return insert_element<u64>(in, op);
    case ZYDIS_MNEMONIC_MOVNTI: return store_non_temporal(in, op);
    case ZYDIS_MNEMONIC_LFENCE: case ZYDIS_MNEMONIC_MFENCE: case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_PREFETCHNTA: case ZYDIS_MNEMONIC_PREFETCHT0: case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2: case ZYDIS_MNEMONIC_PREFETCH: case ZYDIS_MNEMONIC_PREFETCHW: return bound(op, nothing);
    case ZYDIS_MNEMONIC_CLFLUSH: fill_memory(in, in.operands[0], op); return bound(op, flush_line);
    default: return bind_operation(in, op);
  }
}

}  // namespace

Bound bind_vector_move(const Decoded& in, Op& op) {
  const bool vector = is_xmm(in.operands[0]) || is_xmm(in.operands[1]);
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS: case ZYDIS_MNEMONIC_MOVUPD: case ZYDIS_MNEMONIC_MOVDQU: case ZYDIS_MNEMONIC_LDDQU:
      return move<Load<16, false>, Store<16, false>, Copy>(in, op);
    case ZYDIS_MNEMONIC_MOVAPS: case ZYDIS_MNEMONIC_MOVAPD: case ZYDIS_MNEMONIC_MOVDQA: case ZYDIS_MNEMONIC_MOVNTDQA:
    case ZYDIS_MNEMONIC_MOVNTPS: case ZYDIS_MNEMONIC_MOVNTPD: case ZYDIS_MNEMONIC_MOVNTDQ:
      return move<Load<16, true>, Store<16, true>, Copy>(in, op);
    case ZYDIS_MNEMONIC_MOVSS: return move<Load<4, false>, Store<4, false>, Low32>(in, op);
    case ZYDIS_MNEMONIC_MOVSD: return vector ? move<Load<8, false>, Store<8, false>, Low64>(in, op) : Bound::no;
    case ZYDIS_MNEMONIC_MOVLPS: case ZYDIS_MNEMONIC_MOVLPD: return move<LoadHalf<0>, Store<8, false>, Copy>(in, op);
    case ZYDIS_MNEMONIC_MOVHPS: case ZYDIS_MNEMONIC_MOVHPD: return move<LoadHalf<8>, StoreHigh, Copy>(in, op);
    case ZYDIS_MNEMONIC_MOVHLPS: return operate<HighToLow>(in, op);
    case ZYDIS_MNEMONIC_MOVLHPS: return operate<LowToHigh>(in, op);
    case ZYDIS_MNEMONIC_MOVD: return move_general<u32>(in, op);
    case ZYDIS_MNEMONIC_MOVQ: return move_general<u64>(in, op);
    default: return bind_element(in, op);
  }
}

}  // namespace stasis::soft
