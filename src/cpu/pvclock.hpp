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

// struct pvclock_wall_clock: what a guest finds where it asked for the wall clock, its time of day at system time 0.
struct PvclockWallClock {
  u32 version = 2;  // even: not being written
  u32 seconds = 0, nanoseconds = 0;
};
static_assert(sizeof(PvclockWallClock) == 12);

// `start_time`: of the machine, seconds since 1970 at guest time 0.
constexpr PvclockWallClock wall_clock_of(const PvclockState& pvclock, u64 start_time) {
  const u64 start = start_time * kSecond - pvclock.offset_ns;
  return {.seconds = static_cast<u32>(start / kSecond), .nanoseconds = static_cast<u32>(start % kSecond)};
}

}  // namespace stasis
