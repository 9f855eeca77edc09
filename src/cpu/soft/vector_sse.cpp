// SSE to SSE4.2 by native thunks: the handler fetches operands, calls, checks MXCSR where the instruction looks
// at it, and stores the result.
#include "cpu/soft/vector_access.hpp"
#include "cpu/soft/vector_approximate.hpp"

namespace stasis::soft {
namespace {

// ---- sources ------------------------------------------------------------------------------------------------
struct FromRegister {
  static bool get(Cpu& cpu, const Op* op, __m128i& out) {
    out = xmm(cpu, op->src);
    return true;
  }
};
template <unsigned kSize, bool kAligned>
struct FromFlat {
  static bool get(Cpu& cpu, const Op* op, __m128i& out) { return load_vector<FlatAddress, kSize, kAligned>(cpu, op, out); }
};
struct FromAny {
  static bool get(Cpu& cpu, const Op* op, __m128i& out) { return load_operand(cpu, op, out); }
};

// ---- xmm, xmm/m [, imm8] ----------------------------------------------------------------------------------------
template <class Source>
void integer(Cpu& cpu, const Op* op) {
  __m128i source;
  if (!sse_allowed(cpu, op) || !Source::get(cpu, op, source)) return;
  set_xmm(cpu, op->dst, reinterpret_cast<VectorCode>(op->imm)(xmm(cpu, op->dst), source));
  STASIS_NEXT(cpu, op);
}

// Operands in scratch vectors 0 and 1, the result in 2.
void invoke_vector(Cpu& cpu, const Op* op) {
  set_scratch_vector(cpu, 2, reinterpret_cast<VectorCode>(op->imm)(scratch_vector(cpu, 0), scratch_vector(cpu, 1)));
}
template <class Source>
void floating(Cpu& cpu, const Op* op) {
  __m128i source;
  if (!sse_allowed(cpu, op) || !Source::get(cpu, op, source)) return;
  const __m128i target = xmm(cpu, op->dst);
  __m128i result = reinterpret_cast<VectorCode>(op->imm)(target, source);
  if (!mxcsr_agrees(cpu)) [[unlikely]] {
    set_scratch_vector(cpu, 0, target);
    set_scratch_vector(cpu, 1, source);
    if (!run_with_guest_mxcsr(cpu, op, invoke_vector)) return;
    result = scratch_vector(cpu, 2);
  }
  set_xmm(cpu, op->dst, result);
  STASIS_NEXT(cpu, op);
}

template <class Source>
void blend(Cpu& cpu, const Op* op) {
  __m128i source;
  if (!sse_allowed(cpu, op) || !Source::get(cpu, op, source)) return;
  set_xmm(cpu, op->dst, reinterpret_cast<BlendCode>(op->imm)(xmm(cpu, 0), source, xmm(cpu, op->dst)));
  STASIS_NEXT(cpu, op);
}

// ---- results in flags ------------------------------------------------------------------------------------------------
template <class Source>
void test(Cpu& cpu, const Op* op) {  // PTEST
  __m128i source;
  if (!sse_allowed(cpu, op) || !Source::get(cpu, op, source)) return;
  reinterpret_cast<FlagsCode>(op->imm)(xmm(cpu, op->dst), source, &cpu.status);
  STASIS_NEXT(cpu, op);
}
void invoke_compare(Cpu& cpu, const Op* op) {
  reinterpret_cast<FlagsCode>(op->imm)(scratch_vector(cpu, 0), scratch_vector(cpu, 1), reinterpret_cast<u16*>(cpu.scratch + 32));
}
template <class Source>
void compare(Cpu& cpu, const Op* op) {  // COMISx, UCOMISx
  __m128i source;
  if (!sse_allowed(cpu, op) || !Source::get(cpu, op, source)) return;
  const __m128i target = xmm(cpu, op->dst);
  reinterpret_cast<FlagsCode>(op->imm)(target, source, reinterpret_cast<u16*>(cpu.scratch + 32));
  if (!mxcsr_agrees(cpu)) [[unlikely]] {
    set_scratch_vector(cpu, 0, target);
    set_scratch_vector(cpu, 1, source);
    if (!run_with_guest_mxcsr(cpu, op, invoke_compare)) return;
  }
  cpu.status = peek<u16>(cpu.scratch + 32);
  STASIS_NEXT(cpu, op);
}
template <class Source, bool kMask>
void string(Cpu& cpu, const Op* op) {  // PCMPxSTRI, PCMPxSTRM
  __m128i source;
  if (!sse_allowed(cpu, op) || !Source::get(cpu, op, source)) return;
  const __m128i result = reinterpret_cast<StringCode>(op->imm)(xmm(cpu, op->dst), source, &cpu.status, cpu.r);
  if constexpr (kMask) set_xmm(cpu, 0, result);
  STASIS_NEXT(cpu, op);
}

// ---- between XMM and general registers -----------------------------------------------------------------------------------
void invoke_to_general(Cpu& cpu, const Op* op) {
  poke<u64>(cpu.scratch + 32, reinterpret_cast<ToGeneralCode>(op->imm)(_mm_setzero_si128(), scratch_vector(cpu, 1)));
}
template <class Source>
void to_general(Cpu& cpu, const Op* op) {
  __m128i source;
  if (!sse_allowed(cpu, op) || !Source::get(cpu, op, source)) return;
  u64 result = reinterpret_cast<ToGeneralCode>(op->imm)(_mm_setzero_si128(), source);
  if (!mxcsr_agrees(cpu)) [[unlikely]] {
    set_scratch_vector(cpu, 1, source);
    if (!run_with_guest_mxcsr(cpu, op, invoke_to_general)) return;
    result = peek<u64>(cpu.scratch + 32);
  }
  cpu.reg<u64>(op->dst) = result;
  STASIS_NEXT(cpu, op);
}
void invoke_from_general(Cpu& cpu, const Op* op) {
  set_scratch_vector(cpu, 2, reinterpret_cast<FromGeneralCode>(op->imm)(scratch_vector(cpu, 0), peek<u64>(cpu.scratch + 16)));
}
template <bool kMemory>
void from_general(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  u64 source = 0;
  if constexpr (kMemory) {
    const Loaded loaded = load_small(cpu, op);
    if (!loaded.ok) return;
    source = loaded.value;
  } else {
    source = cpu.reg<u64>(op->src);
  }
  const __m128i target = xmm(cpu, op->dst);
  __m128i result = reinterpret_cast<FromGeneralCode>(op->imm)(target, source);
  if (!mxcsr_agrees(cpu)) [[unlikely]] {
    set_scratch_vector(cpu, 0, target);
    poke<u64>(cpu.scratch + 16, source);
    if (!run_with_guest_mxcsr(cpu, op, invoke_from_general)) return;
    result = scratch_vector(cpu, 2);
  }
  set_xmm(cpu, op->dst, result);
  STASIS_NEXT(cpu, op);
}

// ---- RCPxS, RSQRTxS: not the same on all processors, so in software -----------------------------------------------------------
template <class Source, u32 (*kFunction)(u32), bool kPacked>
void approximate(Cpu& cpu, const Op* op) {
  __m128i source;
  if (!sse_allowed(cpu, op) || !Source::get(cpu, op, source)) return;
  set_scratch_vector(cpu, 0, source);
  for (unsigned i = 0; i < (kPacked ? 4u : 1u); ++i) {
    poke<u32>(xmm_bytes(cpu, op->dst) + 4 * i, kFunction(peek<u32>(cpu.scratch + 4 * i)));
  }
  STASIS_NEXT(cpu, op);
}

// MASKMOVDQU: bytes of dst whose mask byte in src has its top bit set, to [DI].
void store_masked(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  const unsigned mask = static_cast<unsigned>(_mm_movemask_epi8(xmm(cpu, op->src)));
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, 16, true)) return;
  if (!masked_writable(cpu, op, linear, mask)) return;
  for (unsigned i = 0; i < 16; ++i) {
    if (mask >> i & 1 && !cpu.write<u8>(linear + i, xmm_bytes(cpu, op->dst)[i], op)) return;
  }
  STASIS_NEXT(cpu, op);
}

// ---- binding -----------------------------------------------------------------------------------------------------------------------
// One handler for each way to come by the source operand.
struct Handlers {
  Handler on_register, flat16, flat8, flat4, any;
};
template <template <class> class H>
constexpr Handlers kHandlers{H<FromRegister>::fn, H<FromFlat<16, true>>::fn, H<FromFlat<8, false>>::fn, H<FromFlat<4, false>>::fn, H<FromAny>::fn};
#define STASIS_HANDLER(Name, function) \
  template <class S>                   \
  struct Name {                        \
    static constexpr Handler fn = function; \
  }
STASIS_HANDLER(Integer, integer<S>);
STASIS_HANDLER(Floating, floating<S>);
STASIS_HANDLER(Blend, blend<S>);
STASIS_HANDLER(Test, test<S>);
STASIS_HANDLER(Compare, compare<S>);
STASIS_HANDLER(Index, (string<S, false>));
STASIS_HANDLER(IndexMask, (string<S, true>));
STASIS_HANDLER(ToGeneral, to_general<S>);
STASIS_HANDLER(ReciprocalOne, (approximate<S, approximate_reciprocal, false>));
STASIS_HANDLER(ReciprocalAll, (approximate<S, approximate_reciprocal, true>));
STASIS_HANDLER(RootOne, (approximate<S, approximate_reciprocal_root, false>));
STASIS_HANDLER(RootAll, (approximate<S, approximate_reciprocal_root, true>));
#undef STASIS_HANDLER

void bind_source(const Decoded& in, Op& op, const ZydisDecodedOperand& operand, const Handlers& handlers, bool any_alignment = false) {
  if (!is_memory(operand)) {
    op.src = xmm_offset(operand.reg.value);
    op.fn = handlers.on_register;
    return;
  }
  const bool flat = fill_memory(in, operand, op);
  const unsigned size = operand.size / 8;
  const bool aligned = size == 16 && !any_alignment;
  op.extra = static_cast<u8>(size | (aligned ? kMustAlign : 0));
  op.fn = !flat ? handlers.any : aligned ? handlers.flat16 : size == 8 ? handlers.flat8 : size == 4 ? handlers.flat4 : handlers.any;
}

bool rounds(ZydisMnemonic mnemonic) {  // typed as integers by Zydis
  return mnemonic == ZYDIS_MNEMONIC_ROUNDSS || mnemonic == ZYDIS_MNEMONIC_ROUNDSD || mnemonic == ZYDIS_MNEMONIC_ROUNDPS || mnemonic == ZYDIS_MNEMONIC_ROUNDPD;
}
bool is_float(const ZydisDecodedOperand& o) {
  return o.element_type == ZYDIS_ELEMENT_TYPE_FLOAT32 || o.element_type == ZYDIS_ELEMENT_TYPE_FLOAT64;
}
// Floating-point data that is only moved: no exception, no rounding.
bool only_moves(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_SHUFPS: case ZYDIS_MNEMONIC_SHUFPD: case ZYDIS_MNEMONIC_UNPCKHPS: case ZYDIS_MNEMONIC_UNPCKHPD:
    case ZYDIS_MNEMONIC_UNPCKLPS: case ZYDIS_MNEMONIC_UNPCKLPD: case ZYDIS_MNEMONIC_MOVDDUP: case ZYDIS_MNEMONIC_MOVSHDUP:
    case ZYDIS_MNEMONIC_MOVSLDUP: case ZYDIS_MNEMONIC_BLENDPS: case ZYDIS_MNEMONIC_BLENDPD: case ZYDIS_MNEMONIC_INSERTPS: return true;
    default: return false;
  }
}

Bound bind_approximation(const Decoded& in, Op& op, const Handlers& handlers) {
  op.dst = xmm_offset(in.operands[0].reg.value);
  bind_source(in, op, in.operands[1], handlers);
  return Bound::goes_on;
}
Bound bind_thunk(const Decoded& in, Op& op, ThunkKind kind, const Handlers& handlers, u8 reg, bool wide = false, bool any_alignment = false) {
  const auto* o = in.operands;
  op.dst = is_general(o[0]) ? register_offset(o[0].reg.value) : xmm_offset(o[0].reg.value);
  op.imm = in.thunks.get(kind, normal_form(in, reg, 1, wide));
  bind_source(in, op, o[1], handlers, any_alignment);
  return Bound::goes_on;
}
Bound bind_from_general(const Decoded& in, Op& op) {  // CVTSI2SS, CVTSI2SD
  const auto* o = in.operands;
  op.dst = xmm_offset(o[0].reg.value);
  op.imm = in.thunks.get(ThunkKind::from_general, normal_form(in, 0, 7, true));
  if (is_memory(o[1])) {
    fill_memory(in, o[1], op);
    op.extra = static_cast<u8>(o[1].size / 8);
    op.fn = from_general<true>;
  } else {
    op.src = register_offset(o[1].reg.value);
    op.fn = from_general<false>;
  }
  return Bound::goes_on;
}
Bound bind_insert_single(const Decoded& in, Op& op) {  // INSERTPS: from memory there is no element to select
  NormalForm form = normal_form(in, 0, 1, false);
  if (is_memory(in.operands[1])) form.bytes[form.size - 1] &= 0x3f;
  op.dst = xmm_offset(in.operands[0].reg.value);
  op.imm = in.thunks.get(ThunkKind::vector, form);
  bind_source(in, op, in.operands[1], kHandlers<Integer>);
  return Bound::goes_on;
}
Bound bind_masked_store(const Decoded& in, Op& op) {
  op.dst = xmm_offset(in.operands[0].reg.value);
  op.src = xmm_offset(in.operands[1].reg.value);
  for (unsigned i = 2; i < in.instruction.operand_count; ++i) {
    if (is_memory(in.operands[i])) fill_memory(in, in.operands[i], op);
  }
  op.fn = store_masked;
  return Bound::goes_on;
}

bool on_vectors(const Decoded& in) {  // XMM registers only, and memory
  const auto* o = in.operands;
  if (!is_xmm(o[0]) || in.instruction.operand_count_visible < 2) return false;
  return is_xmm(o[1]) || is_memory(o[1]) || o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}
bool offered(const Decoded& in) {
  switch (in.instruction.meta.isa_set) {
    case ZYDIS_ISA_SET_SSE: case ZYDIS_ISA_SET_SSE2: case ZYDIS_ISA_SET_SSE3: case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSE4: case ZYDIS_ISA_SET_SSE42: return true;
    default: return false;  // SSE4A, AES, PCLMULQDQ, SHA, GFNI
  }
}

}  // namespace

Bound bind_sse(const Decoded& in, Op& op) {
  const auto* o = in.operands;
  if (!offered(in)) return Bound::no;
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_CVTSI2SS: case ZYDIS_MNEMONIC_CVTSI2SD: return bind_from_general(in, op);
    case ZYDIS_MNEMONIC_CVTSS2SI: case ZYDIS_MNEMONIC_CVTTSS2SI: case ZYDIS_MNEMONIC_CVTSD2SI: case ZYDIS_MNEMONIC_CVTTSD2SI:
      return bind_thunk(in, op, ThunkKind::to_general, kHandlers<ToGeneral>, 0, true);
    case ZYDIS_MNEMONIC_CVTPI2PS: case ZYDIS_MNEMONIC_CVTPI2PD: return Bound::no;  // MMX
    case ZYDIS_MNEMONIC_MASKMOVDQU: return bind_masked_store(in, op);
    case ZYDIS_MNEMONIC_INSERTPS: return bind_insert_single(in, op);
    case ZYDIS_MNEMONIC_PBLENDVB: case ZYDIS_MNEMONIC_BLENDVPS: case ZYDIS_MNEMONIC_BLENDVPD:
      return bind_thunk(in, op, ThunkKind::blend, kHandlers<Blend>, 2);
    case ZYDIS_MNEMONIC_PTEST: return bind_thunk(in, op, ThunkKind::flags, kHandlers<Test>, 0);
    case ZYDIS_MNEMONIC_COMISS: case ZYDIS_MNEMONIC_COMISD: case ZYDIS_MNEMONIC_UCOMISS: case ZYDIS_MNEMONIC_UCOMISD:
      return bind_thunk(in, op, ThunkKind::flags, kHandlers<Compare>, 0);
    case ZYDIS_MNEMONIC_PCMPESTRI: case ZYDIS_MNEMONIC_PCMPISTRI:
      return bind_thunk(in, op, ThunkKind::string, kHandlers<Index>, 0, true, true);
    case ZYDIS_MNEMONIC_PCMPESTRM: case ZYDIS_MNEMONIC_PCMPISTRM:
      return bind_thunk(in, op, ThunkKind::string, kHandlers<IndexMask>, 0, true, true);
    case ZYDIS_MNEMONIC_RCPSS: return bind_approximation(in, op, kHandlers<ReciprocalOne>);
    case ZYDIS_MNEMONIC_RCPPS: return bind_approximation(in, op, kHandlers<ReciprocalAll>);
    case ZYDIS_MNEMONIC_RSQRTSS: return bind_approximation(in, op, kHandlers<RootOne>);
    case ZYDIS_MNEMONIC_RSQRTPS: return bind_approximation(in, op, kHandlers<RootAll>);
    default: break;
  }
  if (!on_vectors(in) || (in.instruction.mnemonic == ZYDIS_MNEMONIC_MOVQ2DQ)) return Bound::no;
  if (o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {  // shifts: the opcode goes on in ModRM.reg
    op.dst = op.src = xmm_offset(o[0].reg.value);
    op.imm = in.thunks.get(ThunkKind::vector, normal_form(in, in.instruction.raw.modrm.reg, 0, false));
    op.fn = kHandlers<Integer>.on_register;
    return Bound::goes_on;
  }
  const bool moves = !(is_float(o[0]) || is_float(o[1]) || rounds(in.instruction.mnemonic)) || only_moves(in.instruction.mnemonic);
  return bind_thunk(in, op, ThunkKind::vector, moves ? kHandlers<Integer> : kHandlers<Floating>, 0);
}

}  // namespace stasis::soft
