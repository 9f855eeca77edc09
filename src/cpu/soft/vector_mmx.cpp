// MMX by native thunks. The registers are the low halves of the physical x87 registers; every instruction but EMMS
// sets TOP to zero and marks all of them valid.
#include "cpu/soft/vector_access.hpp"

namespace stasis::soft {
namespace {

// Operands: dst and src are register numbers; memory when op->extra (its size) is not zero.
bool get_source(Cpu& cpu, const Op* op, u64& out) {
  if (!op->extra) {
    out = mmx(cpu, op->src);
    return true;
  }
  const Loaded loaded = load_small(cpu, op);
  out = loaded.value;
  return loaded.ok;
}

void compute(Cpu& cpu, const Op* op) {
  u64 source;
  if (!mmx_allowed(cpu, op) || !get_source(cpu, op, source)) return;
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, reinterpret_cast<MmxCode>(op->imm)(mmx(cpu, op->dst), source));
  STASIS_NEXT(cpu, op);
}
void to_general(Cpu& cpu, const Op* op) {  // PMOVMSKB, PEXTRW
  if (!mmx_allowed(cpu, op)) return;
  enter_mmx(cpu);
  cpu.reg<u64>(op->dst) = reinterpret_cast<MmxCode>(op->imm)(0, mmx(cpu, op->src));
  STASIS_NEXT(cpu, op);
}

// ---- moves ------------------------------------------------------------------------------------------------------
void load(Cpu& cpu, const Op* op) {
  u64 source;
  if (!mmx_allowed(cpu, op) || !get_source(cpu, op, source)) return;
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, source);
  STASIS_NEXT(cpu, op);
}
void store(Cpu& cpu, const Op* op) {
  if (!mmx_allowed(cpu, op)) return;
  if (cpu.fpu.fsw & kFswTop) rotate_to_zero(cpu.fpu);  // even when the store faults, which leaves the tags alone
  if (!store_small(cpu, op, mmx(cpu, op->src))) return;
  enter_mmx(cpu);
  STASIS_NEXT(cpu, op);
}
template <class T>
void from_register(Cpu& cpu, const Op* op) {
  if (!mmx_allowed(cpu, op)) return;
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, cpu.reg<T>(op->src));
  STASIS_NEXT(cpu, op);
}
template <class T>
void to_register(Cpu& cpu, const Op* op) {
  if (!mmx_allowed(cpu, op)) return;
  enter_mmx(cpu);
  cpu.set_reg<T>(op->dst, static_cast<T>(mmx(cpu, op->src)));
  STASIS_NEXT(cpu, op);
}
// PINSRW: the element is in imm.
void insert(Cpu& cpu, const Op* op) {
  u64 source = cpu.reg<u64>(op->src);
  if (!mmx_allowed(cpu, op)) return;
  if (op->extra) {
    const Loaded loaded = load_small(cpu, op);
    if (!loaded.ok) return;
    source = loaded.value;
  }
  enter_mmx(cpu);
  const unsigned shift = static_cast<unsigned>(op->imm & 3) * 16;
  set_mmx(cpu, op->dst, (mmx(cpu, op->dst) & ~(0xffffull << shift)) | (source & 0xffff) << shift);
  STASIS_NEXT(cpu, op);
}
void store_masked(Cpu& cpu, const Op* op) {  // MASKMOVQ
  if (!mmx_allowed(cpu, op)) return;
  enter_mmx(cpu);  // even when the store faults
  const u64 data = mmx(cpu, op->dst), mask = mmx(cpu, op->src) & 0x8080'8080'8080'8080;
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, 8, true)) return;
  if (!masked_writable(cpu, op, linear, static_cast<unsigned>(_mm_movemask_epi8(_mm_cvtsi64_si128(static_cast<i64>(mask)))))) return;
  for (unsigned i = 0; i < 8; ++i) {
    if (mask >> (i * 8 + 7) & 1 && !cpu.write<u8>(linear + i, static_cast<u8>(data >> i * 8), op)) return;
  }
  STASIS_NEXT(cpu, op);
}
void empty(Cpu& cpu, const Op* op) {  // EMMS
  if (!mmx_allowed(cpu, op)) return;
  if (cpu.fpu.fsw & kFswTop) rotate_to_zero(cpu.fpu);
  cpu.fpu.ftw = 0;
  STASIS_NEXT(cpu, op);
}

// ---- between MMX and XMM registers -------------------------------------------------------------------------------------
// These answer to CR4.OSFXSR as SSE does, and to a pending x87 exception as MMX does.
bool both_allowed(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return false;
  return mmx_allowed(cpu, op);
}
void quadword_to_vector(Cpu& cpu, const Op* op) {  // MOVQ2DQ
  if (!both_allowed(cpu, op)) return;
  enter_mmx(cpu);
  set_xmm(cpu, op->dst, _mm_cvtsi64_si128(static_cast<i64>(mmx(cpu, op->src))));
  STASIS_NEXT(cpu, op);
}
void vector_to_quadword(Cpu& cpu, const Op* op) {  // MOVDQ2Q
  if (!both_allowed(cpu, op)) return;
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, peek<u64>(xmm_bytes(cpu, op->src)));
  STASIS_NEXT(cpu, op);
}
void invoke_to_vector(Cpu& cpu, const Op* op) {
  set_scratch_vector(cpu, 2, reinterpret_cast<FromGeneralCode>(op->imm)(scratch_vector(cpu, 0), peek<u64>(cpu.scratch + 16)));
}
// CVTPI2PS, CVTPI2PD: leave the x87 state alone when their source is memory.
template <bool kEnters>
void convert_to_vector(Cpu& cpu, const Op* op) {
  u64 source;
  if (!(kEnters ? both_allowed(cpu, op) : sse_allowed(cpu, op)) || !get_source(cpu, op, source)) return;
  if constexpr (kEnters) enter_mmx(cpu);  // even when #XM follows
  set_scratch_vector(cpu, 0, xmm(cpu, op->dst));
  poke<u64>(cpu.scratch + 16, source);
  if (!run_with_guest_mxcsr(cpu, op, invoke_to_vector)) return;
  set_xmm(cpu, op->dst, scratch_vector(cpu, 2));
  STASIS_NEXT(cpu, op);
}
void invoke_to_mmx(Cpu& cpu, const Op* op) {
  poke<u64>(cpu.scratch + 32, reinterpret_cast<ToGeneralCode>(op->imm)(_mm_setzero_si128(), scratch_vector(cpu, 1)));
}
void convert_to_mmx(Cpu& cpu, const Op* op) {  // CVTxPS2PI, CVTxPD2PI
  __m128i source;
  if (!both_allowed(cpu, op)) return;
  if (!op->extra) source = xmm(cpu, op->src);
  else if (!load_operand(cpu, op, source)) return;
  enter_mmx(cpu);  // even when #XM follows
  set_scratch_vector(cpu, 1, source);
  if (!run_with_guest_mxcsr(cpu, op, invoke_to_mmx)) return;
  set_mmx(cpu, op->dst, peek<u64>(cpu.scratch + 32));
  STASIS_NEXT(cpu, op);
}

// ---- binding -----------------------------------------------------------------------------------------------------------
u8 mmx_number(const ZydisDecodedOperand& o) { return static_cast<u8>(o.reg.value - ZYDIS_REGISTER_MM0); }

// Register number or byte offset into op.src, or memory.
void bind_source(const Decoded& in, Op& op, const ZydisDecodedOperand& o) {
  if (is_memory(o)) {
    fill_memory(in, o, op);
    op.extra = static_cast<u8>(o.size / 8 | (o.size == 128 ? kMustAlign : 0));
  } else {
    op.src = is_mmx(o) ? mmx_number(o) : is_xmm(o) ? xmm_offset(o.reg.value) : register_offset(o.reg.value);
  }
}
Bound bound(Op& op, Handler fn) {
  op.fn = fn;
  return Bound::goes_on;
}

template <class T>
Bound bind_move(const Decoded& in, Op& op) {  // MOVD, MOVQ, MOVNTQ
  const auto* o = in.operands;
  if (is_mmx(o[0])) {
    op.dst = mmx_number(o[0]);
    bind_source(in, op, o[1]);
    return bound(op, is_general(o[1]) ? from_register<T> : load);
  }
  op.src = mmx_number(o[1]);
  if (is_memory(o[0])) {
    fill_memory(in, o[0], op);
    op.extra = sizeof(T);
    return bound(op, store);
  }
  op.dst = register_offset(o[0].reg.value);
  return bound(op, to_register<T>);
}
Bound bind_masked_store(const Decoded& in, Op& op) {
  op.dst = mmx_number(in.operands[0]);
  op.src = mmx_number(in.operands[1]);
  for (unsigned i = 2; i < in.instruction.operand_count; ++i) {
    if (is_memory(in.operands[i])) fill_memory(in, in.operands[i], op);
  }
  return bound(op, store_masked);
}
Bound bind_conversion(const Decoded& in, Op& op) {
  const auto* o = in.operands;
  bind_source(in, op, o[1]);
  if (is_xmm(o[0])) {
    op.dst = xmm_offset(o[0].reg.value);
    op.imm = in.thunks.get(ThunkKind::mmx_to_vector, normal_form(in, 0, 1, false));
    const bool enters = !is_memory(o[1]);
    return bound(op, enters ? convert_to_vector<true> : convert_to_vector<false>);
  }
  op.dst = mmx_number(o[0]);
  op.imm = in.thunks.get(ThunkKind::vector_to_mmx, normal_form(in, 0, 1, false));
  return bound(op, convert_to_mmx);
}
Bound bind_compute(const Decoded& in, Op& op) {
  const auto* o = in.operands;
  if (is_general(o[0])) {  // PMOVMSKB, PEXTRW
    op.dst = register_offset(o[0].reg.value);
    op.src = mmx_number(o[1]);
    op.imm = in.thunks.get(ThunkKind::mmx_to_general, normal_form(in, 0, 1, false));
    return bound(op, to_general);
  }
  op.dst = mmx_number(o[0]);
  if (o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {  // shifts: the opcode goes on in ModRM.reg
    op.src = op.dst;
    op.imm = in.thunks.get(ThunkKind::mmx, normal_form(in, in.instruction.raw.modrm.reg, 0, false));
  } else {
    bind_source(in, op, o[1]);
    op.imm = in.thunks.get(ThunkKind::mmx, normal_form(in, 0, 1, false));
  }
  return bound(op, compute);
}

}  // namespace

Bound bind_mmx(const Decoded& in, Op& op) {
  const auto* o = in.operands;
  if (in.instruction.mnemonic == ZYDIS_MNEMONIC_EMMS) return bound(op, empty);
  const auto mnemonic = in.instruction.mnemonic;
  if (mnemonic == ZYDIS_MNEMONIC_CVTPI2PS || mnemonic == ZYDIS_MNEMONIC_CVTPI2PD) return bind_conversion(in, op);
  const unsigned count = in.instruction.operand_count_visible;
  if (count < 2 || (!is_mmx(o[0]) && !is_mmx(o[1]))) return Bound::no;
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVD: return bind_move<u32>(in, op);
    case ZYDIS_MNEMONIC_MOVQ: case ZYDIS_MNEMONIC_MOVNTQ: return bind_move<u64>(in, op);
    case ZYDIS_MNEMONIC_MASKMOVQ: return bind_masked_store(in, op);
    case ZYDIS_MNEMONIC_PINSRW:
      op.dst = mmx_number(o[0]);
      op.imm = o[2].imm.value.u;
      bind_source(in, op, o[1]);
      return bound(op, insert);
    case ZYDIS_MNEMONIC_MOVQ2DQ:
      op.dst = xmm_offset(o[0].reg.value);
      op.src = mmx_number(o[1]);
      return bound(op, quadword_to_vector);
    case ZYDIS_MNEMONIC_MOVDQ2Q:
      op.dst = mmx_number(o[0]);
      op.src = xmm_offset(o[1].reg.value);
      return bound(op, vector_to_quadword);
    default: break;
  }
  if (is_xmm(o[0]) || is_xmm(o[1]) || in.instruction.meta.category == ZYDIS_CATEGORY_CONVERT) return bind_conversion(in, op);
  return bind_compute(in, op);
}

}  // namespace stasis::soft
