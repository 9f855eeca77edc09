// What a vCPU state or a CPU contract from outside must satisfy before an engine may have it.
#pragma once

#include "cpu/contract.hpp"
#include "cpu/vcpu_state.hpp"

namespace stasis {

// Empty when the state is one that a processor could be in; else the field, its value and what is allowed.
std::string check_vcpu(const VcpuState& state);

// Empty when the soft engine can go on from this state; else what in it needs another engine, by name and value.
std::string check_for_soft(const VcpuState& state, const CpuContract& contract);

// Adds a problem for each thing in the state of the vCPU `object` that KVM on this host does not have, by name and value.
void check_for_kvm(const VcpuState& state, const CpuContract& contract, const CpuOffer& here, const std::string& object, state::Problems& problems);

// Compares what the guest was shown with what this engine and host offer; adds a problem for each missing thing, by name.
void check_contract(const CpuContract& saved, const CpuOffer& here, u32 cpus, state::Problems& problems);

}  // namespace stasis
