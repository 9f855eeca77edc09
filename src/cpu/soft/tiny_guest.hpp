// For tests: a machine of 2 MiB with page tables, a GDT, an IDT whose handlers halt, and a snippet of code.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>

#include "bus/mmio_bus.hpp"
#include "bus/port_bus.hpp"
#include "cpu/soft/engine.hpp"

// SNIPPET(name, "assembly"): bytes of position-independent 64-bit code (Intel syntax) for `code(name)`.
#define STASIS_SNIPPET(name, bits, text)                                                                        \
  asm(".pushsection .rodata\n.intel_syntax noprefix\n.code" bits "\n.balign 16\n" #name "_begin:\n" text "\n"    \
      #name "_end:\n.code64\n.att_syntax prefix\n.popsection");                                                  \
  extern "C" const unsigned char name##_begin[], name##_end[]
#define SNIPPET(name, text) STASIS_SNIPPET(name, "64", text)
#define SNIPPET32(name, text) STASIS_SNIPPET(name, "32", text)
#define CODE_OF(name) stasis::Bytes(name##_begin, static_cast<std::size_t>(name##_end - name##_begin))

namespace stasis::soft {

// Physical layout: tables from 0x1000, GDT 0x7000, IDT 0x9000, TSS 0xa000, handlers 0xb000 (16 bytes per vector),
// kernel stack below 0xd000, IST1 below 0xe000, RSP0 0xf000, code at 0x10000. All below 1 MiB is mapped to
// itself for user and supervisor; 0x100000 to 0x1fffff is not mapped; the local APIC is, at 0xfee00000.
struct TinyGuest {
  static constexpr u64 kCode = 0x10000, kHandlers = 0xb000, kPageTable = 0x4000, kNever = ~0ull;

  explicit TinyGuest(Bytes program) {
    put(0x1000, 0x2007);
    put(0x2000, 0x3007);
    put(0x2018, 0x5007);
    put(0x3000, kPageTable | 7);
    put(0x5000 + 503 * 8, 0x6007);
    put(0x6000, 0xfee00003);
    for (u64 page = 0; page < 0x100; ++page) put(kPageTable + page * 8, page << 12 | 7);
    put(0x7008, 0x00af'9b00'0000'ffff);  // 08 code, 10 data
    put(0x7010, 0x00cf'9300'0000'ffff);
    put(0x7018, 0x00cf'9b00'0000'ffff);  // 18 32-bit code
    put(0x7020, 0x00cf'f300'0000'ffff);  // 23 user data, 2b user code
    put(0x7028, 0x00af'fb00'0000'ffff);
    put(0x7030, 0x0000'8900'a000'0067);  // 30 TSS
    put(0xa004, 0xf000);
    put(0xa024, 0xe000);
    for (u64 v = 0; v < 256; ++v) {
      gate(static_cast<u8>(v), kHandlers + v * 16, 0);
      memory.host()[kHandlers + v * 16] = 0xf4;  // HLT
    }
    std::memcpy(memory.host() + kCode, program.data(), program.size());
    state.rip = kCode;
    state.gpr = {};
    state.gpr[kRsp] = 0xd000;
    state.cr0 = 0x8001'0033;
    state.cr3 = 0x1000;
    state.cr4 = 0x620;
    state.efer = 0xd00;
    state.cs = {.selector = 8, .attributes = 0xa9b, .limit = ~0u, .base = 0};
    state.ss = state.ds = state.es = {.selector = 0x10, .attributes = 0xc93, .limit = ~0u, .base = 0};
    state.gdtr = {.base = 0x7000, .limit = 0x3f};
    state.idtr = {.base = 0x9000, .limit = 0xfff};
    state.tr = {.selector = 0x30, .attributes = 0x8b, .limit = 0x67, .base = 0xa000};
  }

  void put(u64 address, u64 value) { std::memcpy(memory.host() + address, &value, 8); }
  u64 peek(u64 address) const {
    u64 value;
    std::memcpy(&value, memory.host() + address, 8);
    return value;
  }
  // The page-table entry of a linear address below 2 MiB.
  void map(u64 linear, u64 entry) { put(kPageTable + (linear >> 12) * 8, entry); }
  u64 entry(u64 linear) const { return peek(kPageTable + (linear >> 12) * 8); }
  void gate(u8 vector, u64 handler, unsigned dpl) {
    put(0x9000 + vector * 16, (handler & 0xffff) | 8ull << 16 | (0x8e00ull | dpl << 13) << 32 | (handler >> 16 & 0xffff) << 48);
    put(0x9008 + vector * 16, handler >> 32);
  }
  void user() {  // the snippet runs at CPL 3
    state.cpl = 3;
    state.cs = {.selector = 0x2b, .attributes = 0xafb, .limit = ~0u, .base = 0};
    state.ss = state.ds = state.es = {.selector = 0x23, .attributes = 0xcf3, .limit = ~0u, .base = 0};
  }
  void start() { engine.set(state); }
  // Runs to `until`, jumping over idle time.
  StopReason run(u64 until = kNever) {
    for (;;) {
      const StopReason reason = engine.run(until);
      if (reason != StopReason::idle || clock.next_alarm() == Clock::kNever) return reason;
      clock.advance_to(clock.next_alarm());
    }
  }
  // From the start to a halt; the state there.
  VcpuState finish() {
    start();
    EXPECT_EQ(run(1'000'000), StopReason::idle) << engine.failure();
    EXPECT_TRUE(engine.consistent());
    return engine.get();
  }
  // The vector whose handler halted, or -1.
  static int vector_of(const VcpuState& s) {
    const u64 at = s.rip - 1 - kHandlers;
    return at < 256 * 16 && at % 16 == 0 ? static_cast<int>(at / 16) : -1;
  }
  u64 digest() const {
    u64 hash = 14695981039346656037ull;
    for (u64 at = 0; at < memory.size(); at += 8) hash = (hash ^ peek(at)) * 1099511628211ull;
    return hash;
  }

  Clock clock;
  GuestMemory memory = *GuestMemory::create(2 * kMiB);
  PortBus ports;
  MmioBus mmio;
  CpuContract contract = default_cpu_contract(1);
  LocalApic apic{clock, 0, contract.tsc_hz};
  SoftEngine engine{CpuBoard{memory, ports, mmio, clock, apic, contract}};
  VcpuState state;
};

}  // namespace stasis::soft
