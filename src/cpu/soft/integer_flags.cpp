// Flag instructions, extensions of the accumulator, BOUND, and what does nothing.
#include "cpu/soft/integer.hpp"

namespace stasis::soft {
namespace {

void op_nothing(Cpu& cpu, const Op* op) { STASIS_NEXT(cpu, op); }

void op_lahf(Cpu& cpu, const Op* op) {
  cpu.reg<u8>(kRax * 8 + 1) = static_cast<u8>(cpu.status >> 8);
  STASIS_NEXT(cpu, op);
}
void op_sahf(Cpu& cpu, const Op* op) {
  constexpr u8 kLoaded = kSf | kZf | kAf | kPf | kCf;
  cpu.status = static_cast<u16>((cpu.status & kStatusOf) | ((cpu.reg<u8>(kRax * 8 + 1) & kLoaded) | 2) << 8);
  STASIS_NEXT(cpu, op);
}
void op_clc(Cpu& cpu, const Op* op) {
  cpu.status &= static_cast<u16>(~kStatusCf);
  STASIS_NEXT(cpu, op);
}
void op_stc(Cpu& cpu, const Op* op) {
  cpu.status |= kStatusCf;
  STASIS_NEXT(cpu, op);
}
void op_cmc(Cpu& cpu, const Op* op) {
  cpu.status ^= kStatusCf;
  STASIS_NEXT(cpu, op);
}
void op_cld(Cpu& cpu, const Op* op) {
  cpu.rflags_rest &= ~kDf;
  STASIS_NEXT(cpu, op);
}
void op_std(Cpu& cpu, const Op* op) {
  cpu.rflags_rest |= kDf;
  STASIS_NEXT(cpu, op);
}
// AL <- FF if CF, else 0; no flags.
void op_salc(Cpu& cpu, const Op* op) {
  cpu.reg<u8>(kRax * 8) = cpu.status & kStatusCf ? 0xff : 0;
  STASIS_NEXT(cpu, op);
}

// CBW CWDE CDQE: S to T within rAX.
template <class T, class S>
void op_extend(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(kRax * 8, static_cast<T>(static_cast<S>(cpu.r[kRax])));
  STASIS_NEXT(cpu, op);
}
// CWD CDQ CQO: the sign of rAX into rDX.
template <class T>
void op_spread(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(kRdx * 8, static_cast<T>(0 - sign_bit<T>(cpu.reg<T>(kRax * 8))));
  STASIS_NEXT(cpu, op);
}

// Two signed bounds in memory, lower first.
template <class T>
void op_bound(Cpu& cpu, const Op* op) {
  using S = std::make_signed_t<T>;
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, 2 * sizeof(T), false)) return;
  const Loaded lower = cpu.read<T>(linear, op);
  if (!lower.ok) return;
  const Loaded upper = cpu.read<T>(linear + sizeof(T), op);
  if (!upper.ok) return;
  const S index = static_cast<S>(cpu.reg<T>(op->dst));
  if (index < static_cast<S>(lower.value) || index > static_cast<S>(upper.value)) return cpu.raise(op, kBr);
  STASIS_NEXT(cpu, op);
}

Handler choose_bound(const Decoded& in, Op& op) {
  op.dst = register_offset(in.operands[0].reg.value);
  fill_memory(in, in.operands[1], op);
  return in.operands[0].size == 16 ? op_bound<u16> : op_bound<u32>;
}

// Also what hidden extensions (CET, MPX, CLDEMOTE) put where processors without them have a NOP.
Handler choose_nothing(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_RDSSPD:
    case ZYDIS_MNEMONIC_RDSSPQ:
    case ZYDIS_MNEMONIC_BNDMK:
    case ZYDIS_MNEMONIC_BNDCL:
    case ZYDIS_MNEMONIC_BNDCU:
    case ZYDIS_MNEMONIC_BNDCN:
    case ZYDIS_MNEMONIC_BNDMOV:
    case ZYDIS_MNEMONIC_BNDLDX:
    case ZYDIS_MNEMONIC_BNDSTX:
    case ZYDIS_MNEMONIC_CLDEMOTE: return op_nothing;
    default: return nullptr;
  }
}

}  // namespace

Bound bind_flags(const Decoded& in, Op& op) {
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_LAHF: return bound(op, op_lahf);
    case ZYDIS_MNEMONIC_SAHF: return bound(op, op_sahf);
    case ZYDIS_MNEMONIC_CLC: return bound(op, op_clc);
    case ZYDIS_MNEMONIC_STC: return bound(op, op_stc);
    case ZYDIS_MNEMONIC_CMC: return bound(op, op_cmc);
    case ZYDIS_MNEMONIC_CLD: return bound(op, op_cld);
    case ZYDIS_MNEMONIC_STD: return bound(op, op_std);
    case ZYDIS_MNEMONIC_SALC: return bound(op, op_salc);
    case ZYDIS_MNEMONIC_CBW: return bound(op, op_extend<u16, i8>);
    case ZYDIS_MNEMONIC_CWDE: return bound(op, op_extend<u32, i16>);
    case ZYDIS_MNEMONIC_CDQE: return bound(op, op_extend<u64, i32>);
    case ZYDIS_MNEMONIC_CWD: return bound(op, op_spread<u16>);
    case ZYDIS_MNEMONIC_CDQ: return bound(op, op_spread<u32>);
    case ZYDIS_MNEMONIC_CQO: return bound(op, op_spread<u64>);
    case ZYDIS_MNEMONIC_BOUND: return bound(op, choose_bound(in, op));
    default: return bound(op, choose_nothing(in.instruction.mnemonic));
  }
}

}  // namespace stasis::soft
