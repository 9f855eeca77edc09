// Where the value of each MSR that KVM lists for saving is held.
#pragma once

#include <string_view>

#include "cpu/vcpu_state.hpp"

namespace stasis {

enum class MsrHome {
  vcpu,         // a field of VcpuState
  local_apic,   // the local APIC's record
  contract,     // constant: the CPU contract says it, or every contract has the same
  other,        // VcpuState::other_msrs
  not_offered,  // no guest is shown it
};

struct MsrEntry {
  u32 first, last;
  std::string_view name;
  MsrHome home;
  std::string_view field_or_reason;  // of `vcpu`, `local_apic` and `contract`: the field; else why
};

// Null: an MSR that nobody has thought about.
const MsrEntry* find_msr(u32 index);
std::string_view msr_name(u32 index);  // "unknown" when the table has none

// The MSRs of home `vcpu` and `other`. False: not of these, or 0x10 (the TSC), which needs a clock to be read.
bool msr_get(const VcpuState& state, u32 index, u64& value);
bool msr_set(VcpuState& state, u32 index, u64 value);
// The field behind an MSR of home `vcpu`; null for others and for 0x10.
u64* msr_field(VcpuState& state, u32 index);

}  // namespace stasis
