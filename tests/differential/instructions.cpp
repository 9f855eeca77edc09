// What is generated: every unprivileged legacy-encoded instruction up to SSE4.2 that Zydis knows, found by decoding.
#include "instructions.hpp"

#include <algorithm>
#include <cstring>

#include "base/error.hpp"

namespace stasis::differential {
namespace {

bool wanted_set(ZydisISASet set) {
  switch (set) {
    case ZYDIS_ISA_SET_CMOV: case ZYDIS_ISA_SET_FAT_NOP: case ZYDIS_ISA_SET_FCMOV: case ZYDIS_ISA_SET_FXSAVE: case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_I186: case ZYDIS_ISA_SET_I386: case ZYDIS_ISA_SET_I486REAL: case ZYDIS_ISA_SET_I86: case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE: case ZYDIS_ISA_SET_PAUSE: case ZYDIS_ISA_SET_PENTIUMMMX: case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_POPCNT: case ZYDIS_ISA_SET_PPRO: case ZYDIS_ISA_SET_PREFETCH_NOP: case ZYDIS_ISA_SET_SSE: case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX: case ZYDIS_ISA_SET_SSE3: case ZYDIS_ISA_SET_SSE3X87: case ZYDIS_ISA_SET_SSE4: case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSEMXCSR: case ZYDIS_ISA_SET_SSE_PREFETCH: case ZYDIS_ISA_SET_SSSE3: case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_X87: case ZYDIS_ISA_SET_CLFSH: case ZYDIS_ISA_SET_CMPXCHG16B: return true;
    default: return false;
  }
}
bool wanted(const Instruction& in) {
  if (in.decoded.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || !wanted_set(in.decoded.meta.isa_set)) return false;
  switch (in.decoded.meta.category) {
    case ZYDIS_CATEGORY_SYSTEM: case ZYDIS_CATEGORY_IO: case ZYDIS_CATEGORY_IOSTRINGOP: case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_RET: case ZYDIS_CATEGORY_SYSCALL: case ZYDIS_CATEGORY_SYSRET: case ZYDIS_CATEGORY_SEGOP: return false;
    default: break;
  }
  switch (in.decoded.mnemonic) {
    case ZYDIS_MNEMONIC_CPUID: case ZYDIS_MNEMONIC_POPF: case ZYDIS_MNEMONIC_POPFD: case ZYDIS_MNEMONIC_POPFQ: return false;
    case ZYDIS_MNEMONIC_JMP: case ZYDIS_MNEMONIC_CALL: return in.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    default: break;
  }
  for (unsigned i = 0; i < in.decoded.operand_count; ++i) {
    const ZydisDecodedOperand& o = in.operands[i];
    if (o.type == ZYDIS_OPERAND_TYPE_REGISTER && o.visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
        ZydisRegisterGetClass(o.reg.value) == ZYDIS_REGCLASS_SEGMENT) return false;
    if (o.type == ZYDIS_OPERAND_TYPE_POINTER) return false;
  }
  return true;
}
// 0..15 of a general register of any width; -1: none.
int number_of(ZydisRegister reg) {
  const ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  return full >= ZYDIS_REGISTER_RAX && full <= ZYDIS_REGISTER_R15 ? full - ZYDIS_REGISTER_RAX : -1;
}

template <class T>
void poke(u8* at, T value) { std::memcpy(at, &value, sizeof(T)); }

}  // namespace

bool Instructions::is_prefix(u8 byte) const {
  switch (byte) {
    case 0x0f: case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3: return true;
    default: return long_mode_ && (byte & 0xf0) == 0x40;
  }
}

Instructions::Instructions(bool long_mode) : long_mode_(long_mode) {
  if (long_mode) ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  else ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
  for (const auto mode : {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_CLDEMOTE}) ZydisDecoderEnableMode(&decoder_, mode, ZYAN_FALSE);
  ZydisFormatterInit(&formatter_, ZYDIS_FORMATTER_STYLE_INTEL);
  for (const u8 prefix : {0x00, 0x66, 0xf2, 0xf3}) {
    for (u8 map = 0; map < 4; ++map) {
      for (unsigned opcode = 0; opcode < 256; ++opcode) {
        if (map != 0 || !is_prefix(static_cast<u8>(opcode))) consider(prefix, map, static_cast<u8>(opcode));
      }
    }
  }
  for (const Family& family : families_) total_weight_ += family.weight;
}

bool Instructions::decode(const u8* bytes, Instruction& out) const {
  return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_, bytes, 15, &out.decoded, out.operands));
}

std::string Instructions::text(const Instruction& in, u64 address) const {
  char buffer[128];
  if (!ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter_, &in.decoded, in.operands, in.decoded.operand_count_visible, buffer, sizeof(buffer), address, nullptr))) return "?";
  return buffer;
}

void Instructions::consider(u8 prefix, u8 map, u8 opcode) {
  const bool x87 = map == 0 && opcode >= 0xd8 && opcode <= 0xdf;
  const bool fixed = x87 || (map == 1 && opcode == 0xae);  // ModRM.rm is part of the opcode
  for (unsigned reg = 0; reg < 8; ++reg) {
    for (const u8 rm : {0xff, 0, 1, 2, 3, 4, 5, 6, 7}) {  // 0xff: memory
      if (rm != 0xff && rm != 1 && !fixed) continue;
      u8 bytes[24] = {};
      u8* at = bytes;
      if (prefix) *at++ = prefix;
      if (map) *at++ = 0x0f;
      if (map > 1) *at++ = map == 2 ? 0x38 : 0x3a;
      *at++ = opcode;
      *at = static_cast<u8>(rm == 0xff ? reg << 3 : 0xc0 | reg << 3 | rm);
      Instruction sample;
      if (!decode(bytes, sample) || !wanted(sample)) continue;
      const bool has_modrm = sample.decoded.attributes & ZYDIS_ATTRIB_HAS_MODRM;
      if (!has_modrm && (reg || rm != 0xff)) continue;
      add({prefix, map, opcode, has_modrm, rm == 0xff, static_cast<u8>(reg), fixed ? rm : kAny}, sample);
    }
  }
}

void Instructions::add(const Template& one, const Instruction& sample) {
  const ZydisMnemonic mnemonic = sample.decoded.mnemonic;
  auto family = std::find_if(families_.begin(), families_.end(), [&](const Family& f) { return f.mnemonic == mnemonic; });
  if (family == families_.end()) {
    const bool integer = sample.decoded.meta.isa_ext == ZYDIS_ISA_EXT_BASE || sample.decoded.meta.isa_ext == ZYDIS_ISA_EXT_LONGMODE;
    family = families_.insert(families_.end(), {mnemonic, integer ? 3u : 1u, {}});
  }
  family->templates.push_back(one);
}

bool Instructions::restrict(const std::string& only) {
  std::erase_if(families_, [&](const Family& f) { return (',' + only + ',').find(std::string(",") + ZydisMnemonicGetString(f.mnemonic) + ',') == std::string::npos; });
  total_weight_ = 0;
  for (const Family& family : families_) total_weight_ += family.weight;
  return !families_.empty();
}

const Instructions::Template& Instructions::choose(Random& random) const {
  u64 at = random.below(total_weight_);
  for (const Family& family : families_) {
    if (at < family.weight) return family.templates[random.below(family.templates.size())];
    at -= family.weight;
  }
  return families_.back().templates.back();
}

void Instructions::generate(Random& random, unsigned index, Instruction& out, Start& start) const {
  while (!try_generate(random, index, out, start)) {
  }
}

void Instructions::encode(Random& random, const Template& one, u8* at) const {
  const u8* const end = at + 24;
  if (random.percent(5)) *at++ = 0x67;
  if (random.percent(4)) {
    static constexpr u8 kSegments[] = {0x26, 0x2e, 0x36, 0x3e, 0x65};  // GS: its base is zero
    *at++ = kSegments[random.below(std::size(kSegments))];
  }
  if (random.percent(10) && one.memory) *at++ = 0xf0;
  if (one.prefix) *at++ = one.prefix;
  if (long_mode_ && random.percent(60)) *at++ = static_cast<u8>(0x40 | random.below(16));
  if (one.map) *at++ = 0x0f;
  if (one.map > 1) *at++ = one.map == 2 ? 0x38 : 0x3a;
  *at++ = one.opcode;
  if (one.has_modrm) {
    u8 modrm = static_cast<u8>(one.reg << 3);
    if (one.memory) modrm |= static_cast<u8>(random.below(3) << 6 | random.below(8));
    else modrm |= static_cast<u8>(0xc0 | (one.rm == kAny ? random.below(8) : one.rm));
    *at++ = modrm;
    if (one.memory && (modrm & 7) == 4) *at++ = static_cast<u8>(random.next());
  }
  const bool small = random.percent(30);
  while (at < end) *at++ = small ? static_cast<u8>(random.below(4)) : static_cast<u8>(random.next());
}

namespace {

// Makes a case of a decoded instruction: patches what its bytes must say, sets registers.
class Setting {
 public:
  Setting(Random& random, unsigned index, Instruction& in, Start& start) : random_(random), in_(in), start_(start), index_(index) {}

  bool run() {
    for (unsigned i = 0; i < 16; ++i) start_.gpr[i] = interesting_integer(random_);
    start_.gpr[4] = middle(8);
    start_.rip = kCode + index_ * kSlot;
    start_.cs = in_.decoded.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? kCode64 : kCode32;
    start_.rflags = 0x202 | (random_.next() & 0x8d5) | (random_.percent(50) ? 0x400 : 0);
    interesting_fx(random_, start_.fx);
    special();
    for (unsigned i = 0; i < in_.decoded.operand_count; ++i) {
      if (in_.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY && !reach(in_.operands[i])) return false;
    }
    return true;
  }

 private:
  void pin(unsigned reg, u64 value) {
    start_.gpr[reg] = value;
    pinned_ |= 1u << reg;
  }
  u64 window() const { return kData + index_ * kWindow; }
  u64 middle(u64 size) {
    u64 at = window() + 256 + random_.below(256);
    if (random_.percent(85)) at &= ~(std::min<u64>(size & -size, 16) - 1);
    return at;
  }
  u64 target(u64 size) {
    // What is stored in parts may have stored some before it faults at the edge of a page.
    const auto mnemonic = in_.decoded.mnemonic;
    const bool parts = size > 16 || size == 10 || mnemonic == ZYDIS_MNEMONIC_ENTER || mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU;
    const u64 roll = parts ? 92 * random_.below(2) + random_.below(8) : random_.below(100);
    if (roll < 86) return middle(size);
    if (roll < 90) return kEdge + kPageSize - random_.below(size + 1);
    if (roll < 92) return kEdge - random_.below(size + 1);
    if (roll < 96) return kReadOnly + (random_.below(kPageSize - size) & ~15ull);
    if (roll < 98) return kNothing + random_.below(kPageSize);
    // Far away: not canonical, or with 32-bit addresses where neither guest nor child (nor a sanitizer) has anything.
    if (in_.decoded.address_width == 32 || in_.decoded.machine_mode != ZYDIS_MACHINE_MODE_LONG_64) return kNothing + random_.below(0x4000'0000);
    return random_.next() | 1ull << 62;
  }

  void special() {
    const auto& d = in_.decoded;
    const bool repeats = d.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
    if (repeats) pin(1, random_.below(12));
    switch (d.mnemonic) {
      case ZYDIS_MNEMONIC_DIV: case ZYDIS_MNEMONIC_IDIV:
        if (random_.percent(70)) start_.gpr[2] = d.mnemonic == ZYDIS_MNEMONIC_IDIV && start_.gpr[0] >> 63 ? ~0ull : 0;
        break;
      case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS: case ZYDIS_MNEMONIC_BTR: case ZYDIS_MNEMONIC_BTC:
        if (const int reg = in_.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER ? number_of(in_.operands[1].reg.value) : -1; reg >= 0) {
          const u64 reach = random_.percent(80) ? 512 : 1 << 24;
          pin(static_cast<unsigned>(reg), random_.below(reach) - reach / 2);
          bit_ = reg;
        }
        break;
      case ZYDIS_MNEMONIC_ENTER:
        poke<u16>(in_.bytes + d.raw.imm[0].offset, static_cast<u16>(random_.below(64)));
        in_.bytes[d.raw.imm[1].offset] &= 0xe3;
        pin(5, middle(8));
        break;
      case ZYDIS_MNEMONIC_LEAVE: pin(5, target(8)); break;
      case ZYDIS_MNEMONIC_CMPXCHG:
        if (random_.percent(40) && in_.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
          const int reg = number_of(in_.operands[0].reg.value);
          if (reg >= 0) start_.gpr[0] = start_.gpr[reg];
        }
        break;
      default: break;
    }
    if (d.raw.imm[0].is_relative) {  // a branch: stays among the INT3s of its slot
      u8* const at = in_.bytes + d.raw.imm[0].offset;
      const u64 distance = random_.below(kSlot - d.length);
      if (d.raw.imm[0].size == 8) *at = static_cast<u8>(distance);
      else if (d.raw.imm[0].size == 16) poke<u16>(at, static_cast<u16>(distance));
      else poke<u32>(at, static_cast<u32>(distance));
    }
  }

  // Sets registers, or the displacement, so that the operand lies where it should.
  bool reach(const ZydisDecodedOperand& o) {
    const auto& mem = o.mem;
    const u64 size = std::clamp<u64>(o.size / 8, 1, 512);
    u64 at = target(mem.base == ZYDIS_REGISTER_RSP && o.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ? 8 : size);
    const u64 disp = mem.disp.has_displacement ? static_cast<u64>(mem.disp.value) : 0;
    const auto& raw = in_.decoded.raw.disp;
    const bool fixed = mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP || mem.base == ZYDIS_REGISTER_NONE;
    if (fixed && at >> 32) at = kNothing;  // cut to 32 bits it could be anywhere
    if (in_.decoded.address_width == 16) return true;  // nothing is there: CR2 tells the address
    if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
      poke<u32>(in_.bytes + raw.offset, static_cast<u32>(at - (start_.rip + in_.decoded.length)));
      return true;
    }
    const int base = number_of(mem.base), index = number_of(mem.index);
    if (base < 0 && index < 0) {
      if (raw.size == 64) poke<u64>(in_.bytes + raw.offset, at);
      else if (raw.size == 32) poke<u32>(in_.bytes + raw.offset, static_cast<u32>(at));
      return raw.size != 0;
    }
    if (in_.decoded.mnemonic == ZYDIS_MNEMONIC_XLAT) return pin(3, at - (start_.gpr[0] & 0xff)), true;
    if (base < 0 || base == index) {
      const u64 factor = mem.scale + (base == index ? 1u : 0u);
      if (pinned_ >> index & 1) return true;
      pin(static_cast<unsigned>(index), (at - disp) / factor);
      return true;
    }
    if (base == bit_ && in_.decoded.address_width == 32) return false;
    if (pinned_ >> base & 1) return true;
    const u64 scaled = index >= 0 ? start_.gpr[index] * mem.scale : 0;
    u64 value = at - disp - scaled;
    if (in_.decoded.address_width == 32) value = (value & 0xffff'ffff) | (random_.percent(50) ? random_.next() << 32 : 0);
    if (index >= 0) pinned_ |= 1u << index;
    pin(static_cast<unsigned>(base), value);
    return true;
  }

  Random& random_;
  Instruction& in_;
  Start& start_;
  unsigned index_;
  unsigned pinned_ = 0;
  int bit_ = -1;  // register with a bit offset
};

}  // namespace

bool Instructions::try_generate(Random& random, unsigned index, Instruction& out, Start& start) const {
  Template one = choose(random);
  // Where ModRM.reg is a register, all its values were found: choosing any template chose it.
  encode(random, one, out.bytes);
  if (!decode(out.bytes, out) || !wanted(out) || out.decoded.length > 15) return false;
  if (!Setting(random, index, out, start).run()) return false;
  return decode(out.bytes, out);
}

}  // namespace stasis::differential
