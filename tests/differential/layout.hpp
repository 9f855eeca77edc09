// Where a case lives: the same linear addresses in the native child and in the guest.
#pragma once

#include <cstddef>

#include "base/types.hpp"

namespace stasis::differential {

inline constexpr unsigned kBatch = 2048;  // cases per round trip

inline constexpr u64 kCode = 0x2000'0000, kSlot = 32;        // one slot per case: the instruction, then INT3s
inline constexpr u64 kData = 0x3000'0000, kWindow = 1024;    // one window of memory per case
inline constexpr u64 kEdge = 0x3400'1000;                    // one page between pages that are not present
inline constexpr u64 kReadOnly = 0x3401'0000;                // one page
inline constexpr u64 kNothing = 0x3500'0000;                 // not present
inline constexpr u64 kCodeSize = kBatch * kSlot, kDataSize = kBatch * kWindow;

// All memory of a batch, in this order in the file that the child maps and in the guest's RAM.
inline constexpr u64 kCodeAt = 0, kDataAt = kCodeSize, kEdgeAt = kDataAt + kDataSize, kReadOnlyAt = kEdgeAt + kPageSize,
                     kMemorySize = kReadOnlyAt + kPageSize;

// User selectors as Linux has them.
inline constexpr u64 kCode64 = 0x33, kCode32 = 0x23, kStackSelector = 0x2b;

struct Start {
  u64 gpr[16];
  u64 rip, rflags;
  u64 cs;
  u64 padding[5];
  alignas(64) u8 fx[512];
};
struct Outcome {
  u64 gpr[16];
  u64 rip, rflags;
  u64 vector, error, cr2;
  u64 padding[3];
  alignas(64) u8 fx[512];
};

}  // namespace stasis::differential
