// The seeded random numbers of a run, and values that instructions find interesting.
#pragma once

#include "layout.hpp"

namespace stasis::differential {

class Random {
 public:
  explicit Random(u64 seed) : state_(seed) { state_ = next() ^ seed << 32; }  // neighbours do not overlap
  u64 next() {  // splitmix64
    u64 z = state_ += 0x9e37'79b9'7f4a'7c15;
    z = (z ^ z >> 30) * 0xbf58'476d'1ce4'e5b9;
    z = (z ^ z >> 27) * 0x94d0'49bb'1331'11eb;
    return z ^ z >> 31;
  }
  u64 below(u64 bound) { return static_cast<u64>(static_cast<u128>(next()) * bound >> 64); }
  bool percent(unsigned chance) { return below(100) < chance; }

 private:
  u64 state_;
};

u64 interesting_integer(Random& random);
void interesting_vector(Random& random, u8* out16);     // floats, doubles, integers, bytes
void interesting_extended(Random& random, u8* out10);   // x87 registers, all their classes
void interesting_fx(Random& random, u8* image);         // FXSAVE image: control words, tags, registers
void interesting_memory(Random& random, u8* out, u64 size);  // size: a multiple of 16

}  // namespace stasis::differential
