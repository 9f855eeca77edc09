// The six status flags as the host's LAHF and SETO give them, and conversions to RFLAGS.
//
// Kept as a 16-bit word in the layout of AX after LAHF; SETO AL: AL = OF (0 or 1), AH = SF ZF 0 AF 0 PF 1 CF.
#pragma once

#include "base/types.hpp"

namespace stasis::soft {

inline constexpr u64 kCf = 1, kPf = 4, kAf = 0x10, kZf = 0x40, kSf = 0x80, kTf = 0x100, kIf = 0x200, kDf = 0x400, kOf = 0x800,
                     kIopl = 0x3000, kNt = 0x4000, kRf = 0x1'0000, kVm = 0x2'0000, kAc = 0x4'0000, kVif = 0x8'0000,
                     kVip = 0x10'0000, kId = 0x20'0000;
inline constexpr u64 kStatusFlags = kCf | kPf | kAf | kZf | kSf | kOf;

constexpr u64 status_to_rflags(u16 status) {
  return (static_cast<u64>(status >> 8) & (kCf | kPf | kAf | kZf | kSf)) | (static_cast<u64>(status & 1) << 11);
}
constexpr u16 status_from_rflags(u64 rflags) {
  return static_cast<u16>(((rflags & (kCf | kPf | kAf | kZf | kSf)) | 2) << 8 | (rflags >> 11 & 1));
}
inline constexpr u16 kStatusCf = 0x0100, kStatusPf = 0x0400, kStatusAf = 0x1000, kStatusZf = 0x4000, kStatusSf = 0x8000, kStatusOf = 1;

// Condition codes 0..15 as in Jcc/SETcc/CMOVcc (O NO B NB Z NZ BE A S NS P NP L GE LE G).
template <unsigned kCondition>
constexpr bool condition(u16 s) {
  bool truth = false;
  constexpr unsigned kind = kCondition >> 1;
  if constexpr (kind == 0) truth = s & kStatusOf;
  else if constexpr (kind == 1) truth = s & kStatusCf;
  else if constexpr (kind == 2) truth = s & kStatusZf;
  else if constexpr (kind == 3) truth = s & (kStatusCf | kStatusZf);
  else if constexpr (kind == 4) truth = s & kStatusSf;
  else if constexpr (kind == 5) truth = s & kStatusPf;
  else if constexpr (kind == 6) truth = ((s >> 15) ^ s) & 1;
  else truth = (((s >> 15) ^ s) & 1) || (s & kStatusZf);
  return truth != (kCondition & 1);
}

}  // namespace stasis::soft
