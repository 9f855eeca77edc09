// For tests of single instructions: a guest of a few of them, run through the whole engine.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>

#include "bus/mmio_bus.hpp"
#include "bus/port_bus.hpp"
#include "cpu/soft/engine.hpp"

namespace stasis::soft {

// Flat 64-bit or 32-bit protected mode, ring 0. RAM is 4 MiB; with paging (64-bit) the last 2 MiB are not
// present. Every exception ends in a HLT of its own.
class InstructionGuest {
 public:
  static constexpr u64 kCode = 0x10000, kData = 0x20000, kStack = 0x30000, kAbsent = 0x200000;

  explicit InstructionGuest(bool long_mode = true) {
    put<u64>(0x1000, 0x2003);
    put<u64>(0x2000, 0x3003);
    put<u64>(0x3000, 0x83);  // 2 MiB
    put<u64>(0x7008, long_mode ? 0x00af'9b00'0000'ffff : 0x00cf'9b00'0000'ffff);
    put<u64>(0x7010, 0x00cf'9300'0000'ffff);
    for (u64 vector = 0; vector < 32; ++vector) {
      put<u8>(kHandlers + vector, 0xf4);
      const u64 gate = (kHandlers + vector) | 0x0008'0000 | 0x8e00ull << 32;
      put<u64>(0x9000 + vector * (long_mode ? 16 : 8), gate);
    }
    s.rip = kCode;
    s.gpr = {};
    s.gpr[kRsp] = kStack;
    s.cr0 = long_mode ? 0x8001'0033 : 0x33;
    s.cr3 = 0x1000;
    s.cr4 = 0x620;
    s.efer = long_mode ? 0xd00 : 0;
    s.cs = {.selector = 8, .attributes = static_cast<u16>(long_mode ? 0xa9b : 0xc9b), .limit = ~0u, .base = 0};
    s.ss = s.ds = s.es = {.selector = 0x10, .attributes = 0xc93, .limit = ~0u, .base = 0};
    s.gdtr = {.base = 0x7000, .limit = 0x3f};
    s.idtr = {.base = 0x9000, .limit = 0x1ff};
  }

  // Runs `code` from state `s` for `count` instructions; `s` is the state after that.
  InstructionGuest& run(std::initializer_list<u8> code, u64 count = 1) {
    for (u64 at = kCode; const u8 byte : code) put<u8>(at++, byte);
    s.rip = kCode;
    s.activity = Activity::running;
    engine.set(s);
    const u64 start = s.retired;
    engine.run(start + count);
    s = engine.get();
    return *this;
  }
  // Vector of the exception that the last run ended in (its HLT is another instruction), or -1.
  int exception() const {
    return s.rip >= kHandlers && s.rip <= kHandlers + 32 ? static_cast<int>(s.rip - kHandlers - (s.activity == Activity::halted)) : -1;
  }
  u64 status() const { return s.rflags & kStatusFlags; }

  template <class T>
  void put(u64 address, T value) { std::memcpy(memory.host() + address, &value, sizeof(T)); }
  template <class T>
  T get(u64 address) const {
    T value;
    std::memcpy(&value, memory.host() + address, sizeof(T));
    return value;
  }

  Clock clock;
  GuestMemory memory = *GuestMemory::create(4 * kMiB);
  PortBus ports;
  MmioBus mmio;
  CpuContract contract = default_cpu_contract(1);
  LocalApic apic{clock, 0, contract.tsc_hz};
  SoftEngine engine{CpuBoard{memory, ports, mmio, clock, apic, contract}};
  VcpuState s;

 private:
  static constexpr u64 kHandlers = 0x8000;
};

}  // namespace stasis::soft
