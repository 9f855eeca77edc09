// Integer names and the few arithmetic helpers that every room uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace stasis {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using u128 = unsigned __int128;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using i128 = __int128;

using Bytes = std::span<const u8>;
using MutableBytes = std::span<u8>;

// a * b / c without overflow of the product; rounds down. c is not zero.
constexpr u64 mul_div(u64 a, u64 b, u64 c) { return static_cast<u64>(static_cast<u128>(a) * b / c); }
// The same, rounded up.
constexpr u64 mul_div_up(u64 a, u64 b, u64 c) {
  return static_cast<u64>((static_cast<u128>(a) * b + (c - 1)) / c);
}

constexpr u64 align_down(u64 value, u64 power_of_two) { return value & ~(power_of_two - 1); }
constexpr u64 align_up(u64 value, u64 power_of_two) { return align_down(value + power_of_two - 1, power_of_two); }

constexpr u64 kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;
constexpr u64 kPageSize = 4096;
constexpr u64 kMicrosecond = 1'000, kMillisecond = 1'000'000, kSecond = 1'000'000'000;  // in ns

}  // namespace stasis
