// String instructions: MOVS CMPS SCAS LODS STOS INS OUTS, and their repetition.
//
// Each iteration of a REP is one retired instruction, and ends with registers, flags and memory as the
// architecture has them, so a REP can be left between any two. See "REP" in cpu.hpp for how budget goes.
#include <algorithm>

#include "cpu/soft/block.hpp"
#include "cpu/soft/integer.hpp"
#include "cpu/soft/integer_arithmetic.hpp"
#include "cpu/soft/ports.hpp"

namespace stasis::soft {
namespace {

enum Repeat : u8 { kOnce, kAlways, kWhileEqual, kWhileNotEqual };  // op->extra

// rSI, rDI and rCX by the address size.
u64 address_mask(const Op* op) { return op->address_bytes == 8 ? ~0ull : op->address_bytes == 4 ? 0xffff'ffffull : 0xffffull; }
u64 get(Cpu& cpu, const Op* op, unsigned slot) { return cpu.r[slot] & address_mask(op); }
void set(Cpu& cpu, const Op* op, unsigned slot, u64 value) {
  if (op->address_bytes == 2) cpu.reg<u16>(static_cast<u8>(slot * 8)) = static_cast<u16>(value);
  else cpu.r[slot] = value & address_mask(op);
}
template <class T>
void advance(Cpu& cpu, const Op* op, unsigned slot, u64 elements = 1) {
  const u64 bytes = elements * sizeof(T);
  set(cpu, op, slot, cpu.rflags_rest & kDf ? cpu.r[slot] - bytes : cpu.r[slot] + bytes);
}

Linear where(Cpu& cpu, const Op* op, unsigned segment, u64 offset, unsigned size, bool write) {
  if (cpu.long_mode) [[likely]] return {segment >= kFs ? offset + cpu.segment_base[segment] : offset, true};
  return linear_of(cpu, op, static_cast<Segment>(segment), offset, size, write);
}
Linear source(Cpu& cpu, const Op* op, unsigned size) { return where(cpu, op, op->segment, get(cpu, op, kRsi), size, false); }
Linear target(Cpu& cpu, const Op* op, unsigned size, bool write) { return where(cpu, op, kEs, get(cpu, op, kRdi), size, write); }
template <class T>
Loaded load_source(Cpu& cpu, const Op* op) {
  const Linear at = source(cpu, op, sizeof(T));
  if (!at.ok) return {0, false};
  return cpu.read<T>(at.address, op);
}
template <class T>
Loaded load_target(Cpu& cpu, const Op* op) {
  const Linear at = target(cpu, op, sizeof(T), false);
  if (!at.ok) return {0, false};
  return cpu.read<T>(at.address, op);
}

// A run of elements within one page, upwards, all of which the segment allows and the TLB knows.
// Returns its first byte, and lowers `count` to the elements in it; null: go one by one.
template <class T, bool kWrite>
u8* run_at(Cpu& cpu, const Op* op, unsigned segment, unsigned slot, u64& count) {
  const u64 offset = get(cpu, op, slot);
  u64 linear = offset + (!cpu.long_mode || segment >= kFs ? cpu.segment_base[segment] : 0);
  if (!cpu.long_mode) linear = static_cast<u32>(linear);
  count = std::min(count, (kPageSize - (linear & (kPageSize - 1))) / sizeof(T));
  if (!cpu.long_mode || op->address_bytes != 8) count = std::min(count, (address_mask(op) - offset) / sizeof(T));
  if (count < 2) return nullptr;
  if (!cpu.long_mode) {
    if (!linear_of(cpu, op, static_cast<Segment>(segment), offset, static_cast<unsigned>(count * sizeof(T)), kWrite).ok) {
      cpu.leave = Leave::none;  // some element is out of bounds; the one it is will say so
      return nullptr;
    }
  }
  const TlbEntry& entry = (kWrite ? cpu.tlb->write : cpu.tlb->read)[linear >> 12 & (kTlbEntries - 1)];
  return (linear & ~0xfffull) == entry.tag ? reinterpret_cast<u8*>(linear + entry.addend) : nullptr;
}

// Each kind: one<T>() does an iteration (false: left, nothing changed), several<T>() up to `count` of them at
// once and returns how many it did (0: cannot; upwards only). Neither counts rCX.
struct Movs {
  template <class T>
  static bool one(Cpu& cpu, const Op* op) {
    const Loaded value = load_source<T>(cpu, op);
    if (!value.ok) return false;
    const Linear to = target(cpu, op, sizeof(T), true);
    if (!to.ok || !cpu.write<T>(to.address, static_cast<T>(value.value), op)) return false;
    advance<T>(cpu, op, kRsi);
    advance<T>(cpu, op, kRdi);
    return true;
  }
  template <class T>
  static u64 several(Cpu& cpu, const Op* op, u64 count) {
    const u8* from = run_at<T, false>(cpu, op, op->segment, kRsi, count);
    u8* to = from ? run_at<T, true>(cpu, op, kEs, kRdi, count) : nullptr;
    if (!to) return 0;
    const u64 bytes = count * sizeof(T);
    if (static_cast<u64>(to - from) >= bytes) {
      std::memmove(to, from, bytes);  // the target may still lie below and overlap
    } else {
      for (u64 at = 0; at < bytes; at += sizeof(T)) poke<T>(to + at, peek<T>(from + at));
    }
    advance<T>(cpu, op, kRsi, count);
    advance<T>(cpu, op, kRdi, count);
    return count;
  }
};
struct Stos {
  template <class T>
  static bool one(Cpu& cpu, const Op* op) {
    const Linear to = target(cpu, op, sizeof(T), true);
    if (!to.ok || !cpu.write<T>(to.address, cpu.reg<T>(kRax * 8), op)) return false;
    advance<T>(cpu, op, kRdi);
    return true;
  }
  template <class T>
  static u64 several(Cpu& cpu, const Op* op, u64 count) {
    u8* to = run_at<T, true>(cpu, op, kEs, kRdi, count);
    if (!to) return 0;
    const T value = cpu.reg<T>(kRax * 8);
    if (value == static_cast<T>(0x0101'0101'0101'0101ull * static_cast<u8>(value))) {
      std::memset(to, static_cast<u8>(value), count * sizeof(T));
    } else {
      for (u64 i = 0; i < count; ++i) poke<T>(to + i * sizeof(T), value);
    }
    advance<T>(cpu, op, kRdi, count);
    return count;
  }
};
struct Lods {
  template <class T>
  static bool one(Cpu& cpu, const Op* op) {
    const Loaded value = load_source<T>(cpu, op);
    if (!value.ok) return false;
    cpu.set_reg<T>(kRax * 8, static_cast<T>(value.value));
    advance<T>(cpu, op, kRsi);
    return true;
  }
  template <class T>
  static u64 several(Cpu& cpu, const Op* op, u64 count) {
    const u8* from = run_at<T, false>(cpu, op, op->segment, kRsi, count);
    if (!from) return 0;
    cpu.set_reg<T>(kRax * 8, peek<T>(from + (count - 1) * sizeof(T)));
    advance<T>(cpu, op, kRsi, count);
    return count;
  }
};
struct Cmps {
  template <class T>
  static bool one(Cpu& cpu, const Op* op) {
    const Loaded right = load_target<T>(cpu, op);  // first, as processors do: it shows when both would fault
    if (!right.ok) return false;
    const Loaded left = load_source<T>(cpu, op);
    if (!left.ok) return false;
    cpu.status = Cmp::run<T>(0, static_cast<T>(left.value), static_cast<T>(right.value)).status;
    advance<T>(cpu, op, kRsi);
    advance<T>(cpu, op, kRdi);
    return true;
  }
  template <class T>
  static u64 several(Cpu& cpu, const Op* op, u64 count) {
    const u8* left = run_at<T, false>(cpu, op, op->segment, kRsi, count);
    const u8* right = left ? run_at<T, false>(cpu, op, kEs, kRdi, count) : nullptr;
    if (!right) return 0;
    const bool while_equal = op->extra == kWhileEqual;
    u64 done = 1;  // with the one that stops it
    while (done < count && (peek<T>(left) == peek<T>(right)) == while_equal) {
      left += sizeof(T);
      right += sizeof(T);
      ++done;
    }
    cpu.status = Cmp::run<T>(0, peek<T>(left), peek<T>(right)).status;
    advance<T>(cpu, op, kRsi, done);
    advance<T>(cpu, op, kRdi, done);
    return done;
  }
};
struct Scas {
  template <class T>
  static bool one(Cpu& cpu, const Op* op) {
    const Loaded value = load_target<T>(cpu, op);
    if (!value.ok) return false;
    cpu.status = Cmp::run<T>(0, cpu.reg<T>(kRax * 8), static_cast<T>(value.value)).status;
    advance<T>(cpu, op, kRdi);
    return true;
  }
  template <class T>
  static u64 several(Cpu& cpu, const Op* op, u64 count) {
    const u8* at = run_at<T, false>(cpu, op, kEs, kRdi, count);
    if (!at) return 0;
    const bool while_equal = op->extra == kWhileEqual;
    const T wanted = cpu.reg<T>(kRax * 8);
    u64 done = 1;
    while (done < count && (peek<T>(at) == wanted) == while_equal) {
      at += sizeof(T);
      ++done;
    }
    cpu.status = Cmp::run<T>(0, wanted, peek<T>(at)).status;
    advance<T>(cpu, op, kRdi, done);
    return done;
  }
};
// The target is known to be writable before the port is read.
struct Ins {
  template <class T>
  static bool one(Cpu& cpu, const Op* op) {
    const Linear to = target(cpu, op, sizeof(T), true);
    if (!to.ok || (!writable<T>(cpu, to.address) && !cpu.read_for_write(to.address, sizeof(T), op).ok)) return false;
    const Loaded value = port_in(cpu, op, cpu.reg<u16>(kRdx * 8), sizeof(T));
    if (!value.ok || !cpu.write<T>(to.address, static_cast<T>(value.value), op)) return false;
    advance<T>(cpu, op, kRdi);
    return true;
  }
  template <class T>
  static u64 several(Cpu&, const Op*, u64) { return 0; }
};
struct Outs {
  template <class T>
  static bool one(Cpu& cpu, const Op* op) {
    const Loaded value = load_source<T>(cpu, op);
    if (!value.ok || !port_out(cpu, op, cpu.reg<u16>(kRdx * 8), sizeof(T), static_cast<u32>(value.value))) return false;
    advance<T>(cpu, op, kRsi);
    return true;
  }
  template <class T>
  static u64 several(Cpu&, const Op*, u64) { return 0; }
};

template <class Kind, class T>
void op_once(Cpu& cpu, const Op* op) {
  if (!Kind::template one<T>(cpu, op)) return;
  STASIS_NEXT(cpu, op);
}
// Bound::alone: finishes the block itself.
template <class Kind, class T>
void op_once_alone(Cpu& cpu, const Op* op) {
  if (Kind::template one<T>(cpu, op)) cpu.rip = cpu.next_rip_of(op);
}

bool stops(const Cpu& cpu, const Op* op) {
  const bool equal = cpu.status & kStatusZf;
  return (op->extra == kWhileEqual && !equal) || (op->extra == kWhileNotEqual && equal);
}

template <class Kind, class T>
void op_repeat(Cpu& cpu, const Op* op) {
  u64 left = get(cpu, op, kRcx);
  if (left == 0) {
    // With a 32-bit address size processors write back the registers even so, and cut them.
    set(cpu, op, kRcx, 0);
    if constexpr (std::is_same_v<Kind, Movs>) set(cpu, op, kRsi, cpu.r[kRsi]);
    if constexpr (std::is_same_v<Kind, Movs> || std::is_same_v<Kind, Stos>) set(cpu, op, kRdi, cpu.r[kRdi]);
    cpu.rip = cpu.next_rip_of(op);
    return;
  }
  const u64 allowed = cpu.alone || cpu.budget < 0 ? 1 : static_cast<u64>(cpu.budget) + 1;
  u64 done = 0;
  bool finished = false;
  do {
    u64 step = 0;
    if (!cpu.alone && !(cpu.rflags_rest & kDf)) step = Kind::template several<T>(cpu, op, std::min(left, allowed - done));
    if (step == 0) {
      if (!Kind::template one<T>(cpu, op)) {
        cpu.budget -= static_cast<i64>(done);
        return;
      }
      step = 1;
    }
    done += step;
    left -= step;
    set(cpu, op, kRcx, left);
    finished = left == 0 || stops(cpu, op);
    // A store may have hit the running block: then the instruction is to be fetched again.
  } while (!finished && done < allowed && !cpu.block->dropped);
  cpu.budget -= static_cast<i64>(done) - 1;
  cpu.rip = finished ? cpu.next_rip_of(op) : cpu.rip_of(op);
}

// The last of F2 and F3 counts; both repeat what compares nothing.
Repeat repeat_of(const Decoded& in, bool compares) {
  u8 prefix = 0;
  for (unsigned i = 0; i < in.instruction.raw.prefix_count; ++i) {
    const u8 value = in.instruction.raw.prefixes[i].value;
    if (value == 0xf2 || value == 0xf3) prefix = value;
  }
  if (prefix == 0) return kOnce;
  return !compares ? kAlways : prefix == 0xf3 ? kWhileEqual : kWhileNotEqual;
}

Segment source_segment(ZydisInstructionAttributes attributes) {
  if (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES) return kEs;
  if (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS) return kCs;
  if (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS) return kSs;
  if (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS) return kFs;
  if (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS) return kGs;
  return kDs;
}

template <class Kind, class T>
Bound choose(const Decoded& in, Op& op) {
  constexpr bool kCompares = std::is_same_v<Kind, Cmps> || std::is_same_v<Kind, Scas>;
  constexpr bool kPorts = std::is_same_v<Kind, Ins> || std::is_same_v<Kind, Outs>;
  op.address_bytes = static_cast<u8>(in.instruction.address_width / 8);
  op.segment = source_segment(in.instruction.attributes);
  if (std::is_same_v<Kind, Stos> || std::is_same_v<Kind, Scas> || std::is_same_v<Kind, Ins>) op.segment = kEs;
  op.extra = repeat_of(in, kCompares);
  if (op.extra != kOnce) op.fn = op_repeat<Kind, T>;
  else op.fn = kPorts ? op_once_alone<Kind, T> : op_once<Kind, T>;
  return kPorts ? Bound::alone : op.extra != kOnce ? Bound::ends : Bound::goes_on;
}

}  // namespace

Bound bind_string(const Decoded& in, Op& op) {
  const ZydisInstructionCategory category = in.instruction.meta.category;
  if (category != ZYDIS_CATEGORY_STRINGOP && category != ZYDIS_CATEGORY_IOSTRINGOP) return Bound::no;
  switch (in.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB: return choose<Movs, u8>(in, op);
    case ZYDIS_MNEMONIC_MOVSW: return choose<Movs, u16>(in, op);
    case ZYDIS_MNEMONIC_MOVSD: return choose<Movs, u32>(in, op);
    case ZYDIS_MNEMONIC_MOVSQ: return choose<Movs, u64>(in, op);
    case ZYDIS_MNEMONIC_STOSB: return choose<Stos, u8>(in, op);
    case ZYDIS_MNEMONIC_STOSW: return choose<Stos, u16>(in, op);
    case ZYDIS_MNEMONIC_STOSD: return choose<Stos, u32>(in, op);
    case ZYDIS_MNEMONIC_STOSQ: return choose<Stos, u64>(in, op);
    case ZYDIS_MNEMONIC_LODSB: return choose<Lods, u8>(in, op);
    case ZYDIS_MNEMONIC_LODSW: return choose<Lods, u16>(in, op);
    case ZYDIS_MNEMONIC_LODSD: return choose<Lods, u32>(in, op);
    case ZYDIS_MNEMONIC_LODSQ: return choose<Lods, u64>(in, op);
    case ZYDIS_MNEMONIC_CMPSB: return choose<Cmps, u8>(in, op);
    case ZYDIS_MNEMONIC_CMPSW: return choose<Cmps, u16>(in, op);
    case ZYDIS_MNEMONIC_CMPSD: return choose<Cmps, u32>(in, op);
    case ZYDIS_MNEMONIC_CMPSQ: return choose<Cmps, u64>(in, op);
    case ZYDIS_MNEMONIC_SCASB: return choose<Scas, u8>(in, op);
    case ZYDIS_MNEMONIC_SCASW: return choose<Scas, u16>(in, op);
    case ZYDIS_MNEMONIC_SCASD: return choose<Scas, u32>(in, op);
    case ZYDIS_MNEMONIC_SCASQ: return choose<Scas, u64>(in, op);
    case ZYDIS_MNEMONIC_INSB: return choose<Ins, u8>(in, op);
    case ZYDIS_MNEMONIC_INSW: return choose<Ins, u16>(in, op);
    case ZYDIS_MNEMONIC_INSD: return choose<Ins, u32>(in, op);
    case ZYDIS_MNEMONIC_OUTSB: return choose<Outs, u8>(in, op);
    case ZYDIS_MNEMONIC_OUTSW: return choose<Outs, u16>(in, op);
    case ZYDIS_MNEMONIC_OUTSD: return choose<Outs, u32>(in, op);
    default: return Bound::no;
  }
}

}  // namespace stasis::soft
