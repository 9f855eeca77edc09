// What a vCPU state or a CPU contract from outside must satisfy before an engine may have it.
#pragma once

#include "cpu/contract.hpp"
#include "cpu/vcpu_state.hpp"

namespace stasis {

// Empty when the state is one that a processor could be in; else the field, its value and what is allowed.
std::string check_vcpu(const VcpuState& state);

// Compares what the guest was shown with what this engine offers; adds a problem for each missing thing, by name.
void check_contract(const CpuContract& saved, u32 cpus, state::Problems& problems);

}  // namespace stasis
