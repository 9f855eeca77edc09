// The x87 environment and control words, FXSAVE and FXRSTOR, MXCSR: all in software on FpuState.
// Formats: SDM vol. 1, 8.1.10 (environment, figures 8-9 to 8-12) and 10.5.1 (FXSAVE).
#include <algorithm>

#include "cpu/soft/vector_access.hpp"

namespace stasis::soft {
namespace {

constexpr u16 kFcwWritable = 0x1f3f, kFcwFixed = 0x40, kFswFlags = 0x7f, kExceptions = 0x3f;
constexpr u32 kMxcsrReserved = ~FpuState::kMxcsrMask;

bool not_available(Cpu& cpu, const Op* op) {  // for the instructions that do not look at pending exceptions
  if (!(cpu.sys.cr0 & (kCr0Em | kCr0Ts))) [[likely]] return false;
  cpu.raise(op, kNm);
  return true;
}

// FSW.ES and B are no memory of their own: pending means a flag that FCW does not mask.
void settle_pending(FpuState& fpu) {
  const bool pending = fpu.fsw & ~fpu.fcw & kExceptions;
  fpu.fsw = static_cast<u16>((fpu.fsw & ~(kFswEs | kFswB)) | (pending ? kFswEs | kFswB : 0));
}
void set_control(FpuState& fpu, u16 value) {
  fpu.fcw = static_cast<u16>((value & kFcwWritable) | kFcwFixed);
  settle_pending(fpu);
}
void initialize(FpuState& fpu) {
  rotate_to_zero(fpu);
  fpu.fcw = 0x37f;
  fpu.fsw = fpu.fop = 0;
  fpu.ftw = 0;
  fpu.fip = fpu.fdp = 0;
}

// ---- tag words -----------------------------------------------------------------------------------------------
enum Tag : u16 { kValid, kZeroTag, kSpecial, kEmptyTag };

u16 tag_of(const std::array<u8, 10>& value) {
  const u64 mantissa = peek<u64>(value.data());
  const unsigned exponent = peek<u16>(value.data() + 8) & 0x7fff;
  if (exponent == 0) return mantissa ? kSpecial : kZeroTag;
  return exponent == 0x7fff || !(mantissa >> 63) ? kSpecial : kValid;
}
u16 full_tags(const FpuState& fpu) {
  const unsigned top = fpu.fsw >> 11 & 7;
  unsigned tags = 0;
  for (unsigned physical = 0; physical < 8; ++physical) {
    const bool used = fpu.ftw >> physical & 1;
    const u16 tag = used ? tag_of(fpu.st[(physical - top) & 7]) : static_cast<u16>(kEmptyTag);
    tags |= static_cast<unsigned>(tag) << 2 * physical;
  }
  return static_cast<u16>(tags);
}
u8 abridged_tags(u16 full) {
  unsigned tags = 0;
  for (unsigned physical = 0; physical < 8; ++physical) {
    if ((full >> 2 * physical & 3) != kEmptyTag) tags |= 1u << physical;
  }
  return static_cast<u8>(tags);
}

// ---- environment: 14 or 28 bytes, protected or real-address format ---------------------------------------------------
// op->dst: bytes of the environment.
bool real_format(const Cpu& cpu) { return !(cpu.sys.cr0 & kCr0Pe) || cpu.rflags_rest & kVm; }

void put_environment(const Cpu& cpu, u8* out, unsigned size) {
  const FpuState& fpu = cpu.fpu;
  const u32 ip = static_cast<u32>(fpu.fip), dp = static_cast<u32>(fpu.fdp);
  if (size == 14) {
    const u16 words[7] = {fpu.fcw, fpu.fsw, full_tags(fpu), static_cast<u16>(ip),
                          static_cast<u16>(real_format(cpu) ? (ip >> 4 & 0xf000) | fpu.fop : 0), static_cast<u16>(dp),
                          static_cast<u16>(real_format(cpu) ? dp >> 4 & 0xf000 : 0)};
    std::memcpy(out, words, 14);
    return;
  }
  constexpr u32 kOnes = 0xffff'0000;  // unused halves
  u32 words[7] = {kOnes | fpu.fcw, kOnes | fpu.fsw, kOnes | full_tags(fpu), ip, static_cast<u32>(fpu.fop) << 16, dp, kOnes};
  if (real_format(cpu)) {
    words[3] = kOnes | (ip & 0xffff);
    words[4] = (ip >> 4 & 0x0fff'f000) | fpu.fop;
    words[5] = kOnes | (dp & 0xffff);
    words[6] = dp >> 4 & 0x0fff'f000;
  }
  std::memcpy(out, words, 28);
}
void take_environment(Cpu& cpu, const u8* in, unsigned size) {
  FpuState& fpu = cpu.fpu;
  u32 word[7];
  for (unsigned i = 0; i < 7; ++i) word[i] = size == 14 ? peek<u16>(in + 2 * i) : peek<u32>(in + 4 * i);
  const unsigned old_top = fpu.fsw >> 11 & 7, new_top = word[1] >> 11 & 7;
  std::rotate(fpu.st.begin(), fpu.st.begin() + ((new_top - old_top) & 7), fpu.st.end());  // physical registers stay
  fpu.fsw = static_cast<u16>(word[1]);
  fpu.ftw = abridged_tags(static_cast<u16>(word[2]));
  if (real_format(cpu)) {
    const u32 high = size == 14 ? 0xf000 : 0x0fff'f000;
    fpu.fip = (word[3] & 0xffff) | (word[4] & high) << 4;
    fpu.fdp = (word[5] & 0xffff) | (word[6] & high) << 4;
    fpu.fop = word[4] & 0x7ff;
  } else {
    fpu.fip = word[3];
    fpu.fdp = word[5];
    fpu.fop = size == 14 ? 0 : word[4] >> 16 & 0x7ff;
  }
  set_control(fpu, static_cast<u16>(word[0]));
}

[[gnu::noinline]] bool store_image(Cpu& cpu, const Op* op, unsigned size) {
  const u64 linear = AnyAddress::linear(cpu, op);
  return AnyAddress::check(cpu, op, linear, size, true) && cpu.write_bytes(linear, cpu.scratch, size, op);
}
[[gnu::noinline]] bool load_image(Cpu& cpu, const Op* op, unsigned size) {
  const u64 linear = AnyAddress::linear(cpu, op);
  return AnyAddress::check(cpu, op, linear, size, false) && cpu.read_bytes(linear, cpu.scratch, size, op);
}

void fnstenv(Cpu& cpu, const Op* op) {
  if (not_available(cpu, op)) return;
  put_environment(cpu, cpu.scratch, op->dst);
  if (!store_image(cpu, op, op->dst)) return;
  set_control(cpu.fpu, cpu.fpu.fcw | kExceptions);
  STASIS_NEXT(cpu, op);
}
void fldenv(Cpu& cpu, const Op* op) {
  if (!x87_allowed(cpu, op) || !load_image(cpu, op, op->dst)) return;
  take_environment(cpu, cpu.scratch, op->dst);
  STASIS_NEXT(cpu, op);
}
void fnsave(Cpu& cpu, const Op* op) {
  if (not_available(cpu, op)) return;
  put_environment(cpu, cpu.scratch, op->dst);
  std::memcpy(cpu.scratch + op->dst, cpu.fpu.st.data(), 80);
  if (!store_image(cpu, op, op->dst + 80u)) return;
  initialize(cpu.fpu);
  STASIS_NEXT(cpu, op);
}
void frstor(Cpu& cpu, const Op* op) {
  if (!x87_allowed(cpu, op) || !load_image(cpu, op, op->dst + 80u)) return;
  take_environment(cpu, cpu.scratch, op->dst);
  std::memcpy(cpu.fpu.st.data(), cpu.scratch + op->dst, 80);
  STASIS_NEXT(cpu, op);
}

// ---- control and status ------------------------------------------------------------------------------------------------
void fninit(Cpu& cpu, const Op* op) {
  if (not_available(cpu, op)) return;
  initialize(cpu.fpu);
  STASIS_NEXT(cpu, op);
}
void fnclex(Cpu& cpu, const Op* op) {
  if (not_available(cpu, op)) return;
  cpu.fpu.fsw &= static_cast<u16>(~(kFswFlags | kFswEs | kFswB));
  STASIS_NEXT(cpu, op);
}
void fnstsw_ax(Cpu& cpu, const Op* op) {
  if (not_available(cpu, op)) return;
  cpu.reg<u16>(kRax * 8) = cpu.fpu.fsw;
  STASIS_NEXT(cpu, op);
}
template <u16 FpuState::*kWord>
void store_word(Cpu& cpu, const Op* op) {  // FNSTCW, FNSTSW
  if (not_available(cpu, op) || !store_any<u16>(cpu, op, cpu.fpu.*kWord)) return;
  STASIS_NEXT(cpu, op);
}
void fldcw(Cpu& cpu, const Op* op) {
  if (!x87_allowed(cpu, op)) return;
  const Loaded word = load_any<u16>(cpu, op);
  if (!word.ok) return;
  set_control(cpu.fpu, static_cast<u16>(word.value));
  STASIS_NEXT(cpu, op);
}
void fwait(Cpu& cpu, const Op* op) {
  if ((cpu.sys.cr0 & (kCr0Mp | kCr0Ts)) == (kCr0Mp | kCr0Ts)) return cpu.raise(op, kNm);
  if (cpu.fpu.fsw & kFswEs) return cpu.raise(op, kMf);
  STASIS_NEXT(cpu, op);
}
void obsolete(Cpu& cpu, const Op* op) {  // FNENI, FNDISI, FNSETPM
  if (not_available(cpu, op)) return;
  STASIS_NEXT(cpu, op);
}

// ---- FXSAVE, FXRSTOR: op->extra says whether pointers are 64 bits wide ------------------------------------------------------
// Without CR4.OSFXSR the XMM part stays out, as on Intel's processors. Bytes 416 to 511 are not touched.
constexpr unsigned kFxHeader = 160, kFxSize = 512;
unsigned vector_registers(const Cpu& cpu) { return cpu.long_mode ? 16 : 8; }

bool fx_operand(Cpu& cpu, const Op* op, u64& linear, bool write) {
  if (not_available(cpu, op)) return false;
  linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, kFxSize, write)) return false;
  // Here, and not for operands of 16 bytes, an address that is not canonical is seen before alignment.
  const bool stack = cpu.long_mode && op->segment == kSs && !is_canonical(linear);
  if (linear & 15) return cpu.raise(op, stack ? kSsFault : kGp, 0), false;
  return true;
}
[[gnu::noinline]] bool fxsave_all(Cpu& cpu, const Op* op) {
  u64 linear;
  if (!fx_operand(cpu, op, linear, true)) return false;
  // The bytes that are not written must be writable too.
  if (!cpu.read_for_write(linear, 1, op).ok || !cpu.read_for_write(linear + kFxSize - 1, 1, op).ok) return false;
  const FpuState& fpu = cpu.fpu;
  u8* const out = cpu.scratch;
  std::memset(out, 0, kFxHeader);
  poke<u16>(out, fpu.fcw);
  poke<u16>(out + 2, fpu.fsw);
  out[4] = fpu.ftw;
  poke<u16>(out + 6, fpu.fop);
  poke<u64>(out + 8, op->extra ? fpu.fip : static_cast<u32>(fpu.fip));
  poke<u64>(out + 16, op->extra ? fpu.fdp : static_cast<u32>(fpu.fdp));
  for (unsigned i = 0; i < 8; ++i) std::memcpy(out + 32 + 16 * i, fpu.st[i].data(), 10);
  const bool vectors = cpu.sys.cr4 & kCr4Osfxsr;
  poke<u32>(out + 24, fpu.mxcsr);
  poke<u32>(out + 28, FpuState::kMxcsrMask);
  const unsigned size = kFxHeader + (vectors ? 16 * vector_registers(cpu) : 0);
  std::memcpy(out + kFxHeader, fpu.xmm.data(), size - kFxHeader);
  return cpu.write_bytes(linear, out, size, op);
}
[[gnu::noinline]] bool fxrstor_all(Cpu& cpu, const Op* op) {
  u64 linear;
  if (!fx_operand(cpu, op, linear, false) || !cpu.read_bytes(linear, cpu.scratch, kFxSize, op)) return false;
  const u8* const in = cpu.scratch;
  const bool vectors = cpu.sys.cr4 & kCr4Osfxsr;
  const u32 mxcsr = peek<u32>(in + 24);
  if (vectors && mxcsr & kMxcsrReserved) return cpu.raise(op, kGp, 0), false;
  FpuState& fpu = cpu.fpu;
  fpu.fsw = peek<u16>(in + 2);
  fpu.ftw = in[4];
  fpu.fop = peek<u16>(in + 6) & 0x7ff;
  fpu.fip = op->extra ? static_cast<u64>(static_cast<i64>(peek<u64>(in + 8) << 16) >> 16) : peek<u32>(in + 8);
  fpu.fdp = op->extra ? static_cast<u64>(static_cast<i64>(peek<u64>(in + 16) << 16) >> 16) : peek<u32>(in + 16);
  set_control(fpu, peek<u16>(in));
  for (unsigned i = 0; i < 8; ++i) std::memcpy(fpu.st[i].data(), in + 32 + 16 * i, 10);
  if (vectors) {
    fpu.mxcsr = mxcsr;
    std::memcpy(fpu.xmm.data(), in + kFxHeader, 16 * vector_registers(cpu));
  }
  return true;
}
void fxsave(Cpu& cpu, const Op* op) {
  if (!fxsave_all(cpu, op)) return;
  STASIS_NEXT(cpu, op);
}
void fxrstor(Cpu& cpu, const Op* op) {
  if (!fxrstor_all(cpu, op)) return;
  STASIS_NEXT(cpu, op);
}

// ---- MXCSR -----------------------------------------------------------------------------------------------------------------
void ldmxcsr(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op)) return;
  const Loaded word = load_any<u32>(cpu, op);
  if (!word.ok) return;
  if (word.value & kMxcsrReserved) return cpu.raise(op, kGp, 0);
  cpu.fpu.mxcsr = static_cast<u32>(word.value);
  STASIS_NEXT(cpu, op);
}
void stmxcsr(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu, op) || !store_any<u32>(cpu, op, cpu.fpu.mxcsr)) return;
  STASIS_NEXT(cpu, op);
}

Handler handler_of(const Decoded& in, Op& op) {
  const bool memory = is_memory(in.operands[0]);
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV: op.dst = static_cast<u8>(in.operands[0].size / 8); return fnstenv;
    case ZYDIS_MNEMONIC_FLDENV: op.dst = static_cast<u8>(in.operands[0].size / 8); return fldenv;
    case ZYDIS_MNEMONIC_FNSAVE: op.dst = static_cast<u8>(in.operands[0].size / 8 - 80); return fnsave;
    case ZYDIS_MNEMONIC_FRSTOR: op.dst = static_cast<u8>(in.operands[0].size / 8 - 80); return frstor;
    case ZYDIS_MNEMONIC_FNINIT: return fninit;
    case ZYDIS_MNEMONIC_FNCLEX: return fnclex;
    case ZYDIS_MNEMONIC_FNSTSW: return memory ? store_word<&FpuState::fsw> : fnstsw_ax;
    case ZYDIS_MNEMONIC_FNSTCW: return store_word<&FpuState::fcw>;
    case ZYDIS_MNEMONIC_FLDCW: return fldcw;
    case ZYDIS_MNEMONIC_FWAIT: return fwait;
    case ZYDIS_MNEMONIC_FENI8087_NOP: case ZYDIS_MNEMONIC_FDISI8087_NOP: case ZYDIS_MNEMONIC_FSETPM287_NOP: return obsolete;
    case ZYDIS_MNEMONIC_FXSAVE: return fxsave;
    case ZYDIS_MNEMONIC_FXRSTOR: return fxrstor;
    case ZYDIS_MNEMONIC_FXSAVE64: op.extra = 1; return fxsave;
    case ZYDIS_MNEMONIC_FXRSTOR64: op.extra = 1; return fxrstor;
    case ZYDIS_MNEMONIC_LDMXCSR: return ldmxcsr;
    case ZYDIS_MNEMONIC_STMXCSR: return stmxcsr;
    default: return nullptr;
  }
}

}  // namespace

Bound bind_fpu_state(const Decoded& in, Op& op) {
  const Handler fn = handler_of(in, op);
  if (!fn) return Bound::no;
  for (unsigned i = 0; i < in.instruction.operand_count; ++i) {
    if (is_memory(in.operands[i])) fill_memory(in, in.operands[i], op);
  }
  op.fn = fn;
  return Bound::goes_on;
}

}  // namespace stasis::soft
