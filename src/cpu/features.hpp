// CPUID feature bits: their names, and which of one set another lacks.
#pragma once

#include <string>
#include <vector>

#include "cpu/contract.hpp"

namespace stasis {

const CpuidLeaf* find_leaf(const std::vector<CpuidLeaf>& leaves, u32 leaf, u32 subleaf = 0);

// The names of what is set in `wanted` and not in `offered`, over all registers that hold features. A bit without a name
// is told by its place. Bits that are no promise are left out: what the processor sets by its state or topology, and
// hints that hold or speed up whatever the host has (ERMS, FSRM, when the x87 unit stores its data pointer).
std::vector<std::string> missing_features(const std::vector<CpuidLeaf>& wanted, const std::vector<CpuidLeaf>& offered);

// The names of IA32_ARCH_CAPABILITIES' bits that are set in `value`.
std::vector<std::string> arch_capability_names(u64 value);

std::string joined(const std::vector<std::string>& names);

}  // namespace stasis
