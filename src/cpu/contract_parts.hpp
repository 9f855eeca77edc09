// What the files of make_contract() share: the leaves that every model has.
#pragma once

#include <initializer_list>

#include "cpu/contract.hpp"

namespace stasis::cpu_model {

constexpr u32 bits(std::initializer_list<unsigned> set) {
  u32 value = 0;
  for (const unsigned bit : set) value |= 1u << bit;
  return value;
}

// Characters 4 * index and on of `text`, as a register holds them.
u32 word(std::string_view text, unsigned index);

struct Shape {
  u32 cpus;
  u32 physical_bits;
};

// Leaves 0xB, 0x15, 0x16, 0x40000000 and 0x40000001, 0x80000002 to 4.
void add_common(CpuContract& contract, const Shape& shape, std::string_view brand);
// Ascending, and leaves 0 and 0x80000000 say where their ranges end.
void finish(CpuContract& contract, const CpuidLeaf& vendor);
// Bits of IA32_ARCH_CAPABILITIES that say no more than: this needs no workaround.
extern const u64 kImmune;

void fill_movable(CpuContract& contract, const Shape& shape, const CpuOffer& offer, bool v3);
void fill_host(CpuContract& contract, const Shape& shape, const CpuOffer& offer);
// What the model cannot do without; for error messages by missing_features().
std::vector<CpuidLeaf> required_features(bool v3);

}  // namespace stasis::cpu_model
