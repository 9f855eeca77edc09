// Arithmetic with the host's flags: each operation gives its result and the status word of flags.hpp.
//
// What the architecture leaves undefined is fixed here: docs/decisions/0003-undefined-flags.md.
#pragma once

#include "cpu/soft/flags.hpp"

namespace stasis::soft {

template <class T>
struct Result {
  T value;
  u16 status;
};

// SF, ZF and PF of a result; CF, OF and AF clear.
template <class T>
u16 result_status(T value) {
  u16 ax;
  asm("test %1, %1\n\tlahf" : "=&a"(ax) : "r"(value));
  return static_cast<u16>((ax & (kStatusSf | kStatusZf | kStatusPf)) | 0x0200);
}

struct Add {
  static constexpr bool kWrites = true;
  template <class T>
  static Result<T> run(u16, T a, T b) {
    u16 ax;
    asm("add %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax), "+r"(a) : "rm"(b));
    return {a, ax};
  }
};
struct Sub {
  static constexpr bool kWrites = true;
  template <class T>
  static Result<T> run(u16, T a, T b) {
    u16 ax;
    asm("sub %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax), "+r"(a) : "rm"(b));
    return {a, ax};
  }
};
struct Cmp {
  static constexpr bool kWrites = false;
  template <class T>
  static Result<T> run(u16, T a, T b) {
    u16 ax;
    asm("cmp %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "rm"(b));
    return {a, ax};
  }
};
// BT copies the carry out of the status word.
struct Adc {
  static constexpr bool kWrites = true;
  template <class T>
  static Result<T> run(u16 ax, T a, T b) {
    asm("bt $8, %0\n\tadc %2, %1\n\tlahf\n\tseto %%al" : "+&a"(ax), "+&r"(a) : "rm"(b));
    return {a, ax};
  }
};
struct Sbb {
  static constexpr bool kWrites = true;
  template <class T>
  static Result<T> run(u16 ax, T a, T b) {
    asm("bt $8, %0\n\tsbb %2, %1\n\tlahf\n\tseto %%al" : "+&a"(ax), "+&r"(a) : "rm"(b));
    return {a, ax};
  }
};
struct And {
  static constexpr bool kWrites = true;
  template <class T>
  static Result<T> run(u16, T a, T b) {
    u16 ax;
    asm("and %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax), "+r"(a) : "rm"(b));
    return {a, static_cast<u16>(ax & ~kStatusAf)};
  }
};
struct Or {
  static constexpr bool kWrites = true;
  template <class T>
  static Result<T> run(u16, T a, T b) {
    u16 ax;
    asm("or %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax), "+r"(a) : "rm"(b));
    return {a, static_cast<u16>(ax & ~kStatusAf)};
  }
};
struct Xor {
  static constexpr bool kWrites = true;
  template <class T>
  static Result<T> run(u16, T a, T b) {
    u16 ax;
    asm("xor %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax), "+r"(a) : "rm"(b));
    return {a, static_cast<u16>(ax & ~kStatusAf)};
  }
};
struct Test {
  static constexpr bool kWrites = false;
  template <class T>
  static Result<T> run(u16, T a, T b) {
    u16 ax;
    asm("test %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b));
    return {a, static_cast<u16>(ax & ~kStatusAf)};
  }
};

struct Inc {
  template <class T>
  static Result<T> run(u16 ax, T a) {
    asm("bt $8, %0\n\tinc %1\n\tlahf\n\tseto %%al" : "+&a"(ax), "+&r"(a));
    return {a, ax};
  }
};
struct Dec {
  template <class T>
  static Result<T> run(u16 ax, T a) {
    asm("bt $8, %0\n\tdec %1\n\tlahf\n\tseto %%al" : "+&a"(ax), "+&r"(a));
    return {a, ax};
  }
};
struct Neg {
  template <class T>
  static Result<T> run(u16, T a) {
    u16 ax;
    asm("neg %1\n\tlahf\n\tseto %%al" : "=&a"(ax), "+r"(a));
    return {a, ax};
  }
};
struct Not {
  template <class T>
  static Result<T> run(u16 ax, T a) { return {static_cast<T>(~a), ax}; }
};

}  // namespace stasis::soft
