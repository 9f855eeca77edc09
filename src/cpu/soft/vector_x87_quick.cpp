// Frequent x87 instructions without FXSAVE: operands are loaded on the host's empty stack, or moved in C++.
//
// FSW's exception flags are sticky on the host too, and nobody clears them here: when those returned are a subset
// of the guest's, nothing new was raised. Else the exact way runs, which leaves the host's clear.
#include "cpu/soft/vector_x87.hpp"

namespace stasis::soft {
namespace {

constexpr u16 kHostControl = 0x37f, kMasks = 0x3f, kFlags = 0x7f;
constexpr u16 kAllConditions = 0x4700;  // C0 to C3

using Register = std::array<u8, 10>;
static_assert(sizeof(Register) == 10 && sizeof(FpuState::st) == 80);

u8* memory_of(Cpu& cpu) { return cpu.scratch + kX87Memory; }
u8* result_of(Cpu& cpu) { return cpu.scratch; }

bool ordinary(const Cpu& cpu) {
  return !(cpu.sys.cr0 & (kCr0Em | kCr0Ts)) && !(cpu.fpu.fsw & kFswEs) && (cpu.fpu.fcw & kMasks) == kMasks;
}
unsigned top(const Cpu& cpu) { return cpu.fpu.fsw >> 11 & 7; }
bool used(const Cpu& cpu, unsigned i) { return cpu.fpu.ftw >> ((top(cpu) + i) & 7) & 1; }

// ---- the stack: ST(0) is first in FpuState::st, so pushing and popping moves all eight -------------------------
template <unsigned... kFrom>
void copy_blocks(u8* to, const u8* from) {
  const __m128i blocks[] = {_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + kFrom))...};
  unsigned i = 0;
  (_mm_storeu_si128(reinterpret_cast<__m128i*>(to + kFrom), blocks[i++]), ...);
}
void set_top(Cpu& cpu, unsigned value) { cpu.fpu.fsw = static_cast<u16>((cpu.fpu.fsw & ~kFswTop) | (value & 7) << 11); }
void push(Cpu& cpu, const u8* value) {
  u8* const st = cpu.fpu.st[0].data();
  const Register copy = *reinterpret_cast<const Register*>(value);  // may be one of those that move
  copy_blocks<0, 16, 32, 48, 54>(st + 10, st);
  cpu.fpu.st[0] = copy;
  set_top(cpu, top(cpu) - 1);
  cpu.fpu.ftw |= static_cast<u8>(1u << top(cpu));
}
void pop(Cpu& cpu) {
  u8* const st = cpu.fpu.st[0].data();
  const Register first = cpu.fpu.st[0];
  copy_blocks<0, 16, 32, 48, 54>(st, st + 10);
  cpu.fpu.st[7] = first;
  cpu.fpu.ftw &= static_cast<u8>(~(1u << top(cpu)));
  set_top(cpu, top(cpu) + 1);
}
template <unsigned kPops>
void finish(Cpu& cpu, const Op* op, u16 fsw, u16 conditions = kFswC1) {
  cpu.fpu.fsw = static_cast<u16>((cpu.fpu.fsw & ~conditions) | (fsw & conditions));
  for (unsigned i = 0; i < kPops; ++i) pop(cpu);
  cpu.fpu.fip = cpu.rip_of(op);
}

// ---- through a thunk ---------------------------------------------------------------------------------------------
// ST(i): its number is in op->scale.
u16 call(Cpu& cpu, const Op* op, unsigned i) {
  const auto code = reinterpret_cast<X87QuickCode>(op->imm + kQuickOffset);
  const bool other = cpu.fpu.fcw != kHostControl;
  if (other) asm volatile("fldcw %0" : : "m"(cpu.fpu.fcw));
  const u16 fsw = code(cpu.fpu.st[0].data(), cpu.fpu.st[i].data(), memory_of(cpu), result_of(cpu), &cpu.status);
  if (other) asm volatile("fldcw %0" : : "m"(kHostControl));
  return fsw;
}
bool raised(const Cpu& cpu, u16 fsw) { return fsw & kFlags & ~cpu.fpu.fsw; }
void take_result(Cpu& cpu, unsigned i) { std::memcpy(cpu.fpu.st[i].data(), result_of(cpu), 10); }
bool load_number(Cpu& cpu, const Op* op) {
  const Loaded loaded = load_small(cpu, op);
  poke<u64>(memory_of(cpu), loaded.value);
  return loaded.ok;
}
constexpr Handler kExact = run_x87<X87Operand::none, false>, kExactRead = run_x87<X87Operand::read, false>,
                  kExactWrite = run_x87<X87Operand::write, false>, kExactFlags = run_x87<X87Operand::none, true>;

void load_memory(Cpu& cpu, const Op* op) {  // FLD, FILD
  if (!ordinary(cpu) || used(cpu, 7) || cpu.alone) return kExactRead(cpu, op);
  if (!load_number(cpu, op)) return;
  const u16 fsw = call(cpu, op, 0);
  if (raised(cpu, fsw)) return kExactRead(cpu, op);
  push(cpu, result_of(cpu));
  finish<0>(cpu, op, fsw);
  STASIS_NEXT(cpu, op);
}
void load_constant(Cpu& cpu, const Op* op) {  // FLDPI …: rounded by RC
  if (!ordinary(cpu) || used(cpu, 7)) return kExact(cpu, op);
  const u16 fsw = call(cpu, op, 0);
  if (raised(cpu, fsw)) return kExact(cpu, op);
  push(cpu, result_of(cpu));
  finish<0>(cpu, op, fsw);
  STASIS_NEXT(cpu, op);
}
template <unsigned kPops>
void store_memory(Cpu& cpu, const Op* op) {  // FST, FIST, FISTTP
  if (!ordinary(cpu) || !used(cpu, 0) || cpu.alone) return kExactWrite(cpu, op);
  const u16 fsw = call(cpu, op, 0);
  if (raised(cpu, fsw)) return kExactWrite(cpu, op);
  if (!store_small(cpu, op, peek<u64>(memory_of(cpu)))) return;
  finish<kPops>(cpu, op, fsw);
  STASIS_NEXT(cpu, op);
}
void with_memory(Cpu& cpu, const Op* op) {  // FADD …, FIADD …
  if (!ordinary(cpu) || !used(cpu, 0) || cpu.alone) return kExactRead(cpu, op);
  if (!load_number(cpu, op)) return;
  const u16 fsw = call(cpu, op, 0);
  if (raised(cpu, fsw)) return kExactRead(cpu, op);
  take_result(cpu, 0);
  finish<0>(cpu, op, fsw);
  STASIS_NEXT(cpu, op);
}
template <unsigned kPops>
void compare_memory(Cpu& cpu, const Op* op) {
  if (!ordinary(cpu) || !used(cpu, 0) || cpu.alone) return kExactRead(cpu, op);
  if (!load_number(cpu, op)) return;
  const u16 fsw = call(cpu, op, 0);
  if (raised(cpu, fsw)) return kExactRead(cpu, op);
  finish<kPops>(cpu, op, fsw, kAllConditions);
  STASIS_NEXT(cpu, op);
}
void unary(Cpu& cpu, const Op* op) {
  if (!ordinary(cpu) || !used(cpu, 0)) return kExact(cpu, op);
  const u16 fsw = call(cpu, op, 0);
  if (raised(cpu, fsw)) return kExact(cpu, op);
  take_result(cpu, 0);
  finish<0>(cpu, op, fsw);
  STASIS_NEXT(cpu, op);
}
void examine(Cpu& cpu, const Op* op) {  // FTST, FXAM
  if (!ordinary(cpu) || !used(cpu, 0)) return kExact(cpu, op);
  const u16 fsw = call(cpu, op, 0);
  if (raised(cpu, fsw)) return kExact(cpu, op);
  finish<0>(cpu, op, fsw, kAllConditions);
  STASIS_NEXT(cpu, op);
}
template <bool kToFirst, unsigned kPops>
void binary(Cpu& cpu, const Op* op) {
  const unsigned i = op->scale;
  if (!ordinary(cpu) || !used(cpu, 0) || !used(cpu, i)) return kExact(cpu, op);
  const u16 fsw = call(cpu, op, i);
  if (raised(cpu, fsw)) return kExact(cpu, op);
  take_result(cpu, kToFirst ? 0 : i);
  finish<kPops>(cpu, op, fsw);
  STASIS_NEXT(cpu, op);
}
template <unsigned kPops>
void compare(Cpu& cpu, const Op* op) {
  if (!ordinary(cpu) || !used(cpu, 0) || !used(cpu, op->scale)) return kExact(cpu, op);
  const u16 fsw = call(cpu, op, op->scale);
  if (raised(cpu, fsw)) return kExact(cpu, op);
  finish<kPops>(cpu, op, fsw, kAllConditions);
  STASIS_NEXT(cpu, op);
}
template <unsigned kPops>
void compare_flags(Cpu& cpu, const Op* op) {
  if (!ordinary(cpu) || !used(cpu, 0) || !used(cpu, op->scale)) return kExactFlags(cpu, op);
  const u16 fsw = call(cpu, op, op->scale);
  if (raised(cpu, fsw)) return kExactFlags(cpu, op);
  finish<kPops>(cpu, op, fsw, 0);  // C1 stays
  STASIS_NEXT(cpu, op);
}

// ---- in C++: they move bits and clear C1 ------------------------------------------------------------------------------
void copy_to_top(Cpu& cpu, const Op* op) {  // FLD ST(i)
  if (!ordinary(cpu) || used(cpu, 7) || !used(cpu, op->scale)) return kExact(cpu, op);
  push(cpu, cpu.fpu.st[op->scale].data());
  finish<0>(cpu, op, 0);
  STASIS_NEXT(cpu, op);
}
template <unsigned kPops>
void copy_from_top(Cpu& cpu, const Op* op) {  // FST ST(i), FSTP ST(i)
  if (!ordinary(cpu) || !used(cpu, 0)) return kExact(cpu, op);
  cpu.fpu.st[op->scale] = cpu.fpu.st[0];
  cpu.fpu.ftw |= static_cast<u8>(1u << ((top(cpu) + op->scale) & 7));
  finish<kPops>(cpu, op, 0);
  STASIS_NEXT(cpu, op);
}
void load_extended(Cpu& cpu, const Op* op) {
  if (!ordinary(cpu) || used(cpu, 7) || cpu.alone) return kExactRead(cpu, op);
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, 10, false) || !cpu.read_bytes(linear, memory_of(cpu), 10, op)) return;
  push(cpu, memory_of(cpu));
  finish<0>(cpu, op, 0);
  STASIS_NEXT(cpu, op);
}
void store_extended(Cpu& cpu, const Op* op) {
  if (!ordinary(cpu) || !used(cpu, 0) || cpu.alone) return kExactWrite(cpu, op);
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, 10, true) || !cpu.write_bytes(linear, cpu.fpu.st[0].data(), 10, op)) return;
  finish<1>(cpu, op, 0);
  STASIS_NEXT(cpu, op);
}
void exchange(Cpu& cpu, const Op* op) {
  if (!ordinary(cpu) || !used(cpu, 0) || !used(cpu, op->scale)) return kExact(cpu, op);
  std::swap(cpu.fpu.st[0], cpu.fpu.st[op->scale]);
  finish<0>(cpu, op, 0);
  STASIS_NEXT(cpu, op);
}
template <u8 kAnd, u8 kXor>
void change_sign(Cpu& cpu, const Op* op) {  // FABS, FCHS
  if (!ordinary(cpu) || !used(cpu, 0)) return kExact(cpu, op);
  u8& last = cpu.fpu.st[0][9];
  last = static_cast<u8>((last & kAnd) ^ kXor);
  finish<0>(cpu, op, 0);
  STASIS_NEXT(cpu, op);
}
template <u16 kExponent, u64 kMantissa>
void load_simple(Cpu& cpu, const Op* op) {  // FLD1, FLDZ
  if (!ordinary(cpu) || used(cpu, 7)) return kExact(cpu, op);
  poke<u64>(result_of(cpu), kMantissa);
  poke<u16>(result_of(cpu) + 8, kExponent);
  push(cpu, result_of(cpu));
  finish<0>(cpu, op, 0);
  STASIS_NEXT(cpu, op);
}

// ---- binding ------------------------------------------------------------------------------------------------------------
struct Quick {
  Handler fn = nullptr;
  ThunkKind kind = ThunkKind::x87;
  u8 opcode = 0, modrm = 0;  // of the quick form; opcode 0: none, C++ does it
};

Quick arithmetic_with_memory(u8 opcode, u8 reg) {
  constexpr u8 kMemory = 2;  // [rdx]
  if (reg == 2 || reg == 3) return {reg == 2 ? compare_memory<0> : compare_memory<1>, ThunkKind::x87_test, opcode, 2 << 3 | kMemory};
  return {with_memory, ThunkKind::x87_unary, opcode, static_cast<u8>(reg << 3 | kMemory)};
}
Quick move_with_memory(u8 opcode, u8 reg) {
  constexpr u8 kMemory = 2;
  const u8 modrm = static_cast<u8>(reg << 3 | kMemory);
  switch (reg) {
    case 0: return {load_memory, ThunkKind::x87_load, opcode, modrm};
    case 1: return opcode == 0xd9 ? Quick{} : Quick{store_memory<1>, ThunkKind::x87_store, opcode, modrm};  // FISTTP
    case 2: return {store_memory<0>, ThunkKind::x87_store, opcode, 3 << 3 | kMemory};
    case 3: return {store_memory<1>, ThunkKind::x87_store, opcode, modrm};
    case 5: return opcode == 0xdf ? Quick{load_memory, ThunkKind::x87_load, opcode, modrm} : opcode == 0xdb ? Quick{load_extended} : Quick{};
    case 7: return opcode == 0xdf ? Quick{store_memory<1>, ThunkKind::x87_store, opcode, modrm} : opcode == 0xdb ? Quick{store_extended} : Quick{};
    default: return {};
  }
}
Quick on_top(u8 modrm) {  // D9 E0 to FF
  switch (modrm) {
    case 0xe0: return {change_sign<0xff, 0x80>};
    case 0xe1: return {change_sign<0x7f, 0>};
    case 0xe4:
    case 0xe5: return {examine, ThunkKind::x87_test, 0xd9, modrm};
    case 0xe8: return {load_simple<0x3fff, 1ull << 63>};
    case 0xe9: case 0xea: case 0xeb: case 0xec: case 0xed: return {load_constant, ThunkKind::x87_load, 0xd9, modrm};
    case 0xee: return {load_simple<0, 0>};
    case 0xfa: case 0xfc: return {unary, ThunkKind::x87_unary, 0xd9, modrm};  // FSQRT, FRNDINT
    default: return {};
  }
}
Quick on_registers(u8 opcode, u8 modrm) {
  const u8 reg = modrm >> 3 & 7, i = modrm & 7;
  const u8 pair = static_cast<u8>((modrm & 0xf8) | 1);  // with ST(1)
  switch (opcode) {
    case 0xd8:
      if (reg == 2 || reg == 3) return {reg == 2 ? compare<0> : compare<1>, ThunkKind::x87_compare, 0xd8, 0xd1};
      return {binary<true, 0>, ThunkKind::x87_first, 0xd8, pair};
    case 0xd9:
      if (reg == 0) return {copy_to_top};
      if (reg == 1) return {exchange};
      return on_top(modrm);
    case 0xda: return modrm == 0xe9 ? Quick{compare<2>, ThunkKind::x87_compare, 0xdd, 0xe1} : Quick{};
    case 0xdb:
      if (reg == 5 || reg == 6) return {compare_flags<0>, ThunkKind::x87_compare_flags, 0xdb, pair};
      return {};
    case 0xdc: return reg == 2 || reg == 3 ? Quick{} : Quick{binary<false, 0>, ThunkKind::x87_second, 0xdc, pair};
    case 0xdd:
      if (reg == 2 || reg == 3) return {reg == 2 ? copy_from_top<0> : copy_from_top<1>};
      if (reg == 4 || reg == 5) return {reg == 4 ? compare<0> : compare<1>, ThunkKind::x87_compare, 0xdd, 0xe1};
      return {};
    case 0xde:
      if (modrm == 0xd9) return {compare<2>, ThunkKind::x87_compare, 0xd8, 0xd1};
      return reg == 2 || reg == 3 || i == 0 ? Quick{} : Quick{binary<false, 1>, ThunkKind::x87_second, 0xdc, pair};
    case 0xdf:
      if (reg == 5 || reg == 6) return {compare_flags<1>, ThunkKind::x87_compare_flags, 0xdb, pair};
      return {};
    default: return {};
  }
}

}  // namespace

bool bind_x87_quick(const Decoded& in, Op& op, const NormalForm& exact) {
  const ZydisDecodedInstruction& i = in.instruction;
  const bool memory = i.raw.modrm.mod != 3;
  Quick quick;
  if (!memory) quick = on_registers(i.opcode, op.src);
  else if (i.opcode & 1) quick = move_with_memory(i.opcode, i.raw.modrm.reg);
  else quick = arithmetic_with_memory(i.opcode, i.raw.modrm.reg);
  if (!quick.fn) return false;
  NormalForm form;
  if (quick.opcode) {
    form.add(quick.opcode);
    form.add(quick.modrm);
  }
  if (!memory) op.scale = i.raw.modrm.rm;
  op.imm = in.thunks.get(quick.kind, exact, form);
  op.fn = quick.fn;
  return true;
}

}  // namespace stasis::soft
