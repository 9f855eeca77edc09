// Random unprivileged instructions of 64-bit or 32-bit code, and registers that let them reach the memory of their case.
#pragma once

#include <Zydis/Zydis.h>

#include <string>
#include <vector>

#include "random.hpp"

namespace stasis::differential {

struct Instruction {
  u8 bytes[24] = {};
  ZydisDecodedInstruction decoded;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

class Instructions {
 public:
  explicit Instructions(bool long_mode);

  // One of all; `only`: mnemonics to choose from (empty: all). False when there is none.
  bool restrict(const std::string& only);
  std::size_t mnemonics() const { return families_.size(); }
  // Fills an instruction for slot `index` and a state to start it from.
  void generate(Random& random, unsigned index, Instruction& out, Start& start) const;
  bool decode(const u8* bytes, Instruction& out) const;
  std::string text(const Instruction& in, u64 address) const;

 private:
  struct Template {
    u8 prefix, map, opcode;
    bool has_modrm, memory;
    u8 reg, rm;  // ModRM fields; kAny: any
  };
  static constexpr u8 kAny = 0xff;
  struct Family {
    ZydisMnemonic mnemonic;
    unsigned weight;
    std::vector<Template> templates;
  };

  void consider(u8 prefix, u8 map, u8 opcode);
  void add(const Template& one, const Instruction& sample);
  const Template& choose(Random& random) const;
  bool try_generate(Random& random, unsigned index, Instruction& out, Start& start) const;
  void encode(Random& random, const Template& one, u8* bytes) const;

  bool is_prefix(u8 byte) const;

  const bool long_mode_;
  ZydisDecoder decoder_;
  ZydisFormatter formatter_;
  std::vector<Family> families_;
  unsigned total_weight_ = 0;
};

}  // namespace stasis::differential
