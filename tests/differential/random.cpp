// Values near the edges of integers and floating-point formats.
#include "random.hpp"

#include <cstring>

namespace stasis::differential {
namespace {

template <class T>
void poke(u8* at, T value) { std::memcpy(at, &value, sizeof(T)); }

// A number of `fraction` and `exponent` bits: specials, small integers, neighbours of limits, anything.
u64 interesting_float(Random& random, unsigned exponent_bits, unsigned fraction_bits) {
  const u64 sign = random.below(2) << (exponent_bits + fraction_bits), top = (1ull << exponent_bits) - 1, bias = top >> 1;
  const u64 fraction_mask = (1ull << fraction_bits) - 1;
  u64 exponent = random.below(top + 1), fraction = random.next() & fraction_mask;
  switch (random.below(14)) {
    case 0: exponent = fraction = 0; break;
    case 1: exponent = 0; break;
    case 2: exponent = 0; fraction = 1ull << random.below(fraction_bits); break;
    case 3: exponent = top; fraction = 0; break;
    case 4: exponent = top; fraction |= 1ull << (fraction_bits - 1); break;
    case 5: exponent = top; fraction &= fraction_mask >> 1; break;
    case 6: exponent = 1 + random.below(3); break;
    case 7: exponent = top - 1 - random.below(3); break;
    case 8: exponent = bias; fraction = 0; break;
    case 9: exponent = bias + random.below(6); fraction &= ~(fraction_mask >> 4); break;
    case 10: exponent = bias + 28 + random.below(40); break;
    default: exponent = bias - 8 + random.below(16); break;
  }
  return sign | (exponent & top) << fraction_bits | fraction;
}

}  // namespace

u64 interesting_integer(Random& random) {
  const u64 raw = random.next();
  switch (random.below(10)) {
    case 0: return raw & 0xff;
    case 1: return ~(raw & 0xff);
    case 2: return 1ull << (raw & 63);
    case 3: return (1ull << (raw & 63)) - 1;
    case 4: return ~0ull << (raw & 63);
    case 5: return static_cast<u64>(static_cast<i64>(static_cast<i32>(raw)));
    case 6: return raw & 0xffff'ffff;
    case 7: {
      static constexpr u64 kEdges[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff'ffff, 0x8000'0000, 0xffff'ffff,
                                       0x7fff'ffff'ffff'ffff, 0x8000'0000'0000'0000, ~0ull};
      return kEdges[raw % std::size(kEdges)];
    }
    default: return raw;
  }
}

void interesting_vector(Random& random, u8* out) {
  switch (random.below(6)) {
    case 0:
    case 1:
      for (unsigned i = 0; i < 4; ++i) poke<u32>(out + 4 * i, static_cast<u32>(interesting_float(random, 8, 23)));
      break;
    case 2:
    case 3:
      for (unsigned i = 0; i < 2; ++i) poke<u64>(out + 8 * i, interesting_float(random, 11, 52));
      break;
    case 4:
      for (unsigned i = 0; i < 2; ++i) poke<u64>(out + 8 * i, interesting_integer(random));
      break;
    default:
      for (unsigned i = 0; i < 2; ++i) poke<u64>(out + 8 * i, random.next() & (random.percent(50) ? 0x0f0f'0f0f'0f0f'0f0f : ~0ull));
      break;
  }
}

void interesting_extended(Random& random, u8* out) {
  u64 mantissa = random.next() | 1ull << 63;
  u64 exponent = 0x3fff - 40 + random.below(110);
  switch (random.below(16)) {
    case 0: exponent = mantissa = 0; break;
    case 1: exponent = 0; mantissa &= ~0ull >> 1; break;
    case 2: exponent = 0; break;                                  // pseudo-denormal
    case 3: exponent = 0x7fff; mantissa = 1ull << 63; break;
    case 4: exponent = 0x7fff; mantissa |= 1ull << 62; break;
    case 5: exponent = 0x7fff; mantissa &= ~(1ull << 62); break;  // signalling, or infinity with luck
    case 6: mantissa &= ~0ull >> 1; break;                        // unnormal
    case 7: exponent = 1 + random.below(70); break;
    case 8: exponent = 0x7ffe - random.below(70); break;
    case 9: exponent = random.below(0x7fff); break;
    case 10: exponent = 0x3fff; mantissa = 1ull << 63; break;
    case 11: exponent = 0x3fff + random.below(20); mantissa &= ~0ull << 44; break;
    case 12: exponent = 0x3fff - 1022 - 60 + random.below(64); break;  // around the smallest doubles
    case 13: exponent = 0x3fff - 126 - 30 + random.below(34); break;
    default: break;
  }
  poke<u64>(out, mantissa);
  poke<u16>(out + 8, static_cast<u16>(exponent | random.below(2) << 15));
}

void interesting_fx(Random& random, u8* image) {
  std::memset(image, 0, 512);
  const u16 masks = random.percent(80) ? 0x3f : static_cast<u16>(random.below(0x40));
  const u16 control = random.percent(50) ? 0x340 : static_cast<u16>(0x40 | random.below(16) << 8);
  u16 status = static_cast<u16>(random.next() & 0x7f7f);
  if (random.percent(50)) status &= 0x7f00;
  if (random.percent(95)) status &= static_cast<u16>(~(~masks & 0x3f));  // else something is pending
  poke<u16>(image, control | masks);
  poke<u16>(image + 2, status);
  image[4] = random.percent(50) ? 0xff : static_cast<u8>(random.next());
  poke<u16>(image + 6, static_cast<u16>(random.below(0x800)));
  poke<u64>(image + 8, random.next() >> 17);
  poke<u64>(image + 16, random.next() >> 17);
  u32 mxcsr = 0x1f80;
  if (random.percent(30)) mxcsr ^= static_cast<u32>(random.next()) & 0xe040;
  if (random.percent(10)) mxcsr ^= static_cast<u32>(random.next()) & 0x1f80;
  if (random.percent(50)) mxcsr |= static_cast<u32>(random.next()) & 0x3f;
  poke<u32>(image + 24, mxcsr);
  for (unsigned i = 0; i < 8; ++i) interesting_extended(random, image + 32 + 16 * i);
  for (unsigned i = 0; i < 16; ++i) interesting_vector(random, image + 160 + 16 * i);
}

void interesting_memory(Random& random, u8* out, u64 size) {
  for (u64 at = 0; at < size; at += 16) {
    if (random.percent(15)) {
      poke<u64>(out + at + 8, random.next());
      interesting_extended(random, out + at);
    } else {
      interesting_vector(random, out + at);
    }
  }
}

}  // namespace stasis::differential
