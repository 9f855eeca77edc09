// How integer handlers reach memory: the ways of addressing, and the four shapes of a handler with a memory operand.
//
// A fast shape looks at the TLB only and hands everything else, by a sibling call, to its AnyAddress
// twin, which does the same with all checks. So the fast one needs no stack frame. F is the operation:
//   OnLoad    bool F::run(cpu, op, T value)   value is the operand; false: it raised, having changed nothing
//   OnStore   T F::value(cpu, op)             what is to be stored
//   OnModify  T F::run(cpu, op, T old)        returns the new value; may change registers and flags, cannot fail
//   on_register  the same on the register op->dst
#pragma once

#include <type_traits>

#include "cpu/soft/cpu.hpp"

namespace stasis::soft {

// 64-bit code, no FS/GS, 64-bit address size, no index: the most frequent kind.
struct BaseAddress {
  static u64 linear(Cpu& cpu, const Op* op) { return cpu.r[op->base] + static_cast<u64>(op->disp); }
};

template <class T>
inline constexpr unsigned kBits = sizeof(T) * 8;
template <class T>
constexpr T sign_bit(T value) { return static_cast<T>(value >> (kBits<T> - 1)); }

template <class T>
T peek(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}
template <class T>
void poke(void* at, T value) { std::memcpy(at, &value, sizeof(T)); }

// The host's bytes of an access within one page that the TLB knows, else null.
template <class T>
[[gnu::always_inline]] inline const u8* readable(Cpu& cpu, u64 linear) {
  const TlbEntry& entry = cpu.tlb->read[linear >> 12 & (kTlbEntries - 1)];
  if (((linear + (sizeof(T) - 1)) & ~0xfffull) != entry.tag) [[unlikely]] return nullptr;
  const u8* const at = reinterpret_cast<const u8*>(linear + entry.addend);
  if (!at) __builtin_unreachable();  // saves the caller a second test
  return at;
}
template <class T>
[[gnu::always_inline]] inline u8* writable(Cpu& cpu, u64 linear) {
  const TlbEntry& entry = cpu.tlb->write[linear >> 12 & (kTlbEntries - 1)];
  if (((linear + (sizeof(T) - 1)) & ~0xfffull) != entry.tag) [[unlikely]] return nullptr;
  u8* const at = reinterpret_cast<u8*>(linear + entry.addend);
  if (!at) __builtin_unreachable();
  return at;
}

// Reads the op's memory operand with all checks.
template <class T>
Loaded load_any(Cpu& cpu, const Op* op) {
  const u64 linear = AnyAddress::linear(cpu, op);
  if (!AnyAddress::check(cpu, op, linear, sizeof(T), false)) return {0, false};
  return cpu.read<T>(linear, op);
}
template <class T>
bool store_any(Cpu& cpu, const Op* op, T value) {
  const u64 linear = AnyAddress::linear(cpu, op);
  return AnyAddress::check(cpu, op, linear, sizeof(T), true) && cpu.write<T>(linear, value, op);
}
// Changes `linear` by F: one access to a page, or read for write and write.
template <class T, class F>
bool modify_at(Cpu& cpu, const Op* op, u64 linear) {
  if (u8* at = writable<T>(cpu, linear)) {
    poke<T>(at, F::run(cpu, op, peek<T>(at)));
    return true;
  }
  const Loaded old = cpu.read_for_write(linear, sizeof(T), op);
  return old.ok && cpu.write<T>(linear, F::run(cpu, op, static_cast<T>(old.value)), op);
}

template <class T, class Address, class F>
struct OnLoad {
  static void handle(Cpu& cpu, const Op* op) {
    const u8* at = readable<T>(cpu, Address::linear(cpu, op));
    if (!at) [[unlikely]] return OnLoad<T, AnyAddress, F>::handle(cpu, op);
    if (!F::run(cpu, op, peek<T>(at))) return;
    STASIS_NEXT(cpu, op);
  }
};
template <class T, class F>
struct OnLoad<T, AnyAddress, F> {
  [[gnu::noinline]] static void handle(Cpu& cpu, const Op* op) {
    const Loaded got = load_any<T>(cpu, op);
    if (!got.ok || !F::run(cpu, op, static_cast<T>(got.value))) return;
    STASIS_NEXT(cpu, op);
  }
};

template <class T, class Address, class F>
struct OnStore {
  static void handle(Cpu& cpu, const Op* op) {
    u8* at = writable<T>(cpu, Address::linear(cpu, op));
    if (!at) [[unlikely]] return OnStore<T, AnyAddress, F>::handle(cpu, op);
    poke<T>(at, F::value(cpu, op));
    STASIS_NEXT(cpu, op);
  }
};
template <class T, class F>
struct OnStore<T, AnyAddress, F> {
  [[gnu::noinline]] static void handle(Cpu& cpu, const Op* op) {
    if (!store_any<T>(cpu, op, F::value(cpu, op))) return;
    STASIS_NEXT(cpu, op);
  }
};

template <class T, class Address, class F>
struct OnModify {
  static void handle(Cpu& cpu, const Op* op) {
    u8* at = writable<T>(cpu, Address::linear(cpu, op));
    if (!at) [[unlikely]] return OnModify<T, AnyAddress, F>::handle(cpu, op);
    poke<T>(at, F::run(cpu, op, peek<T>(at)));
    STASIS_NEXT(cpu, op);
  }
};
template <class T, class F>
struct OnModify<T, AnyAddress, F> {
  [[gnu::noinline]] static void handle(Cpu& cpu, const Op* op) {
    const u64 linear = AnyAddress::linear(cpu, op);
    if (!AnyAddress::check(cpu, op, linear, sizeof(T), true) || !modify_at<T, F>(cpu, op, linear)) return;
    STASIS_NEXT(cpu, op);
  }
};

template <class T, class F>
void on_register(Cpu& cpu, const Op* op) {
  const u8 dst = op->dst;
  cpu.set_reg<T>(dst, F::run(cpu, op, cpu.reg<T>(dst)));
  STASIS_NEXT(cpu, op);
}
// The operand is a register and only read: F as for OnLoad, the register is op->dst.
template <class T, class F>
void on_register_read(Cpu& cpu, const Op* op) {
  if (!F::run(cpu, op, cpu.reg<T>(op->dst))) return;
  STASIS_NEXT(cpu, op);
}
// The same, and the register is op->src.
template <class T, class F>
void on_source(Cpu& cpu, const Op* op) {
  if (!F::run(cpu, op, cpu.reg<T>(op->src))) return;
  STASIS_NEXT(cpu, op);
}

// Where a second operand comes from.
struct FromRegister {
  template <class T>
  static T get(Cpu& cpu, const Op* op) { return cpu.reg<T>(op->src); }
};
struct FromImmediate {
  template <class T>
  static T get(Cpu&, const Op* op) { return static_cast<T>(op->imm); }
};

}  // namespace stasis::soft
