// RCPSS and RSQRTSS by integer arithmetic, the same on every host.
#include "cpu/soft/vector_approximate.hpp"

namespace stasis::soft {
namespace {

constexpr u32 kSign = 0x8000'0000, kInfinity = 0x7f80'0000, kQuiet = 0x0040'0000, kIndefinite = 0xffc0'0000, kFraction = 0x007f'ffff;

// 2^(exponent - 127) * q / 2^(bits), q in [2^bits, 2^(bits+1)), rounded to 12 bits of fraction.
u32 rounded(u32 sign, int exponent, u64 q, unsigned bits) {
  u64 r = (q + (1ull << (bits - 13))) >> (bits - 12);
  if (r >> 13) {
    r >>= 1;
    ++exponent;
  }
  if (exponent <= 0) return sign;
  return sign | static_cast<u32>(exponent) << 23 | (static_cast<u32>(r & 0xfff) << 11);
}

u64 integer_root(u64 value) {  // rounds down
  u64 root = 0;
  for (u64 bit = 1ull << 31; bit; bit >>= 1) {
    if ((root | bit) * (root | bit) <= value) root |= bit;
  }
  return root;
}

}  // namespace

u32 approximate_reciprocal(u32 x) {
  const u32 sign = x & kSign, exponent = x >> 23 & 0xff;
  if ((x & ~kSign) > kInfinity) return x | kQuiet;
  if (exponent == 0xff) return sign;
  if (exponent == 0) return sign | kInfinity;
  const u64 mantissa = (x & kFraction) | 0x80'0000;
  const u64 q = (1ull << 48) / mantissa;  // (2^24, 2^25]
  if (q >> 25) return rounded(sign, 254 - static_cast<int>(exponent), 1ull << 24, 24);
  return rounded(sign, 253 - static_cast<int>(exponent), q, 24);
}

u32 approximate_reciprocal_root(u32 x) {
  const u32 sign = x & kSign, exponent = x >> 23 & 0xff;
  if ((x & ~kSign) > kInfinity) return x | kQuiet;
  if (exponent == 0) return sign | kInfinity;
  if (sign) return kIndefinite;
  if (exponent == 0xff) return 0;
  const int e = static_cast<int>(exponent) - 127;
  const unsigned odd = static_cast<unsigned>(e) & 1;
  const u64 mantissa = static_cast<u64>((x & kFraction) | 0x80'0000) << odd;  // [1, 4) in units of 2^-23
  const int half = (e - static_cast<int>(odd)) / 2;
  const u64 q = integer_root((1ull << 63) / mantissa);  // (2^19, 2^20]
  if (q >> 20) return rounded(0, 127 - half, 1ull << 19, 19);
  return rounded(0, 126 - half, q, 19);
}

}  // namespace stasis::soft
