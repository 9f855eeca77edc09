// The paravirtual clock of a machine (Linux Documentation/virt/kvm/x86/msr.rst): its reading is guest time plus an
// offset, for all processors. Each vCPU's record holds where its page lies.
#pragma once

#include "state/codec.hpp"

namespace stasis {

struct PvclockState {
  u64 offset_ns = 0;  // wraps
  static constexpr auto layout() {
    using S = PvclockState;
    return state::Layout("x86.pvclock", 1, state::field<&S::offset_ns>("offset_ns").unit("ns").help("system time = guest time + this (wraps)"));
  }
  bool operator==(const PvclockState&) const = default;
};

}  // namespace stasis
