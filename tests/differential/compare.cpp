// Comparison of outcomes.
#include "compare.hpp"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>

namespace stasis::differential {
namespace {

constexpr const char* kNames[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"};
constexpr u64 kComparedFlags = 0xcd5;  // status flags and DF

template <class T>
T peek(const u8* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

std::string hex(const u8* at, unsigned size) {
  std::string out;
  for (unsigned i = size; i-- > 0;) fmt::format_to(std::back_inserter(out), "{:02x}", at[i]);
  return out;
}

class Comparison {
 public:
  Comparison(const Instruction& in, const Start& start, const Outcome& native, const Outcome& soft)
      : in_(in), start_(start), native_(native), soft_(soft) {}

  std::string run() {
    // A POPA that faults half way leaves some registers changed on some processors.
    if (in_.decoded.mnemonic == ZYDIS_MNEMONIC_POPA && native_.vector == 14 && soft_.vector == 14) return {};
    // Whether masked-out bytes of a masked store can fault is left to the processor.
    const bool masked = in_.decoded.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in_.decoded.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU;
    if (masked && (native_.vector != 3 || soft_.vector != 3)) return {};
    faults();
    // With 32-bit addresses, a string instruction that faults may have cut its pointers already, or not.
    const bool cut = in_.decoded.meta.category == ZYDIS_CATEGORY_STRINGOP && in_.decoded.address_width == 32 && native_.vector == 14;
    const u64 pointer = cut ? 0xffff'ffff : ~0ull;
    const bool compatible = start_.cs == kCode32;  // upper halves are undefined after a change of mode
    for (unsigned i = 0; i < (compatible ? 8u : 16u); ++i) {
      const u64 mask = compatible ? 0xffff'ffff : i == 1 || i == 6 || i == 7 ? pointer : ~0ull;
      number(kNames[i], start_.gpr[i], native_.gpr[i] & mask, soft_.gpr[i] & mask);
    }
    number("RIP", start_.rip, native_.rip, soft_.rip);
    const u64 flags = kComparedFlags & ~undefined_flags();
    number("RFLAGS", start_.rflags & flags, native_.rflags & flags, soft_.rflags & flags);
    fpu();
    return out_;
  }

 private:
  void number(const char* name, u64 before, u64 native, u64 soft) {
    if (native != soft) fmt::format_to(std::back_inserter(out_), "  {:<8} native {:#018x}  soft {:#018x}  before {:#018x}\n", name, native, soft, before);
  }
  void bytes(const std::string& name, unsigned offset, unsigned size) {
    if (std::memcmp(native_.fx + offset, soft_.fx + offset, size) == 0) return;
    fmt::format_to(std::back_inserter(out_), "  {:<8} native {}  soft {}  before {}\n", name, hex(native_.fx + offset, size), hex(soft_.fx + offset, size), hex(start_.fx + offset, size));
  }

  void faults() {
    number("vector", 0, native_.vector, soft_.vector);
    if (native_.vector != soft_.vector) return;
    // Whether a page is present is our choice for our own pages only.
    const bool ours = native_.cr2 >= kCode && native_.cr2 < kNothing + kPageSize;
    if (native_.vector == 14) {
      // Which field of an image came first is nobody's promise.
      if (!large_image()) number("CR2", 0, native_.cr2, soft_.cr2);
      number("error", 0, native_.error & (ours ? ~0ull : ~1ull), soft_.error & (ours ? ~0ull : ~1ull));
    }
    // Linux gives no error code for #GP in a signal frame that we could trust to be the processor's, except zero.
  }

  bool large_image() const {  // of the x87 environment or more
    return in_.decoded.operand_count_visible == 1 && in_.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY && in_.operands[0].size >= 112;
  }
  u64 undefined_flags() const {
    // A processor that faults in the middle gives the flags back; here each iteration is an instruction of its own.
    if (in_.decoded.meta.category == ZYDIS_CATEGORY_STRINGOP && native_.vector == 14) return 0x8d5;
    u64 undefined = in_.decoded.cpu_flags ? in_.decoded.cpu_flags->undefined : 0;
    const auto& o = in_.operands[in_.decoded.operand_count_visible > 0 ? in_.decoded.operand_count_visible - 1 : 0];
    switch (in_.decoded.mnemonic) {
      case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR: case ZYDIS_MNEMONIC_SAR: case ZYDIS_MNEMONIC_SHLD: case ZYDIS_MNEMONIC_SHRD:
      case ZYDIS_MNEMONIC_ROL: case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL: case ZYDIS_MNEMONIC_RCR: {
        const u64 mask = in_.decoded.operand_width == 64 ? 63 : 31;
        const u64 count = (o.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? o.imm.value.u : start_.gpr[1]) & mask;
        const bool rotate = in_.decoded.meta.category == ZYDIS_CATEGORY_ROTATE;
        if (count == 0) return 0;
        undefined = rotate ? 0 : 0x10;
        if (count != 1) undefined |= 0x800;
        if (!rotate && count >= in_.operands[0].size && in_.decoded.mnemonic != ZYDIS_MNEMONIC_SAR) undefined |= 1;
        if (count > in_.operands[0].size && (in_.decoded.mnemonic == ZYDIS_MNEMONIC_SHLD || in_.decoded.mnemonic == ZYDIS_MNEMONIC_SHRD)) undefined |= 0x8d5;
        return undefined;
      }
      default: return undefined;
    }
  }

  void fpu() {
    bytes("FCW", 0, 2);
    u16 status = 0xffff;
    if (in_.decoded.fpu_flags) {
      const u32 undefined = in_.decoded.fpu_flags->undefined;
      for (unsigned i = 0; i < 4; ++i) {
        static constexpr u16 kBits[] = {0x100, 0x200, 0x400, 0x4000};
        if (undefined >> i & 1) status &= static_cast<u16>(~kBits[i]);
      }
    }
    number("FSW", peek<u16>(start_.fx + 2), peek<u16>(native_.fx + 2) & status, peek<u16>(soft_.fx + 2) & status);
    bytes("FTW", 4, 1);
    bytes("FOP", 6, 2);
    // Hosts with larger linear addresses keep more bits.
    const unsigned width = in_.decoded.mnemonic == ZYDIS_MNEMONIC_FXRSTOR64 ? 6 : 8;
    bytes("FIP", 8, width);
    bytes("FDP", 16, width);
    // After #XM by overflow or underflow the precision flag tells of a result that nobody sees: not modelled.
    // Nor is which of the products of DPPx was computed before the exception.
    const u32 control = peek<u32>(native_.fx + 24);
    u32 mxcsr = native_.vector == 19 && control & 0x18 ? ~0x20u : ~0u;
    if (native_.vector == 19 && (in_.decoded.mnemonic == ZYDIS_MNEMONIC_DPPD || in_.decoded.mnemonic == ZYDIS_MNEMONIC_DPPS)) mxcsr = ~0x3fu;
    number("MXCSR", peek<u32>(start_.fx + 24), control & mxcsr, peek<u32>(soft_.fx + 24) & mxcsr);
    for (unsigned i = 0; i < 8; ++i) bytes(fmt::format("ST({})", i), 32 + 16 * i, 10);
    for (unsigned i = 0; i < 16; ++i) {
      if (approximates() && close(160 + 16 * i)) continue;
      bytes(fmt::format("XMM{}", i), 160 + 16 * i, 16);
    }
  }

  bool approximates() const {
    switch (in_.decoded.mnemonic) {
      case ZYDIS_MNEMONIC_RCPSS: case ZYDIS_MNEMONIC_RCPPS: case ZYDIS_MNEMONIC_RSQRTSS: case ZYDIS_MNEMONIC_RSQRTPS: return true;
      default: return false;
    }
  }
  bool close(unsigned offset) const {
    for (unsigned i = 0; i < 4; ++i) {
      const u32 a = peek<u32>(native_.fx + offset + 4 * i), b = peek<u32>(soft_.fx + offset + 4 * i);
      if (a == b) continue;
      if (((a | b) & 0x7fff'ffff) < 0x0080'4000 && (a ^ b) >> 31 == 0) continue;  // hardly normal: may be flushed or not
      const double x = std::bit_cast<float>(a), y = std::bit_cast<float>(b);
      if (!(std::fabs(x - y) <= 3.0 / 4096 * std::fabs(x))) return false;
    }
    return true;
  }

  const Instruction& in_;
  const Start& start_;
  const Outcome& native_;
  const Outcome& soft_;
  std::string out_;
};

}  // namespace

std::string compare(const Instruction& in, const Start& start, const Outcome& native, const Outcome& soft) {
  return Comparison(in, start, native, soft).run();
}

std::string describe(const Start& start) {
  std::string out;
  for (unsigned i = 0; i < 16; ++i) fmt::format_to(std::back_inserter(out), "{}{:<3} {:016x}", i % 4 ? "  " : i ? "\n  " : "  ", kNames[i], start.gpr[i]);
  fmt::format_to(std::back_inserter(out), "\n  CS {:x}  RFLAGS {:x}  FCW {:04x}  FSW {:04x}  FTW {:02x}  MXCSR {:04x}\n", start.cs, start.rflags, peek<u16>(start.fx), peek<u16>(start.fx + 2), start.fx[4], peek<u32>(start.fx + 24));
  return out;
}

}  // namespace stasis::differential
