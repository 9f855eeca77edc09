// States that another engine saved: events of a declared type, raised exceptions, MSRs; and the clock that both show.
#include "cpu/soft/tiny_guest.hpp"

using namespace stasis;
using namespace stasis::soft;
namespace {

SNIPPET(foreign_halt, "hlt");
SNIPPET(foreign_get_msr, "rdmsr\n hlt");
SNIPPET(foreign_set_msr, "wrmsr\n hlt");

VcpuState after(PendingEventState pending, PendingEventState exception, u64 dr6 = 0xffff'0ff0) {
  TinyGuest guest(CODE_OF(foreign_halt));
  guest.state.pending = pending;
  guest.state.exception = exception;
  guest.state.dr6 = dr6;
  guest.state.dr7 = 0x2400;
  return guest.finish();
}

TEST(ForeignState, a_raised_page_fault_puts_its_address_in_cr2) {
  const VcpuState s = after({}, {.valid = true, .vector = 14, .has_error_code = true, .error_code = 6, .type = EventType::exception,
                                 .has_payload = true, .payload = 0x12345000});
  EXPECT_EQ(TinyGuest::vector_of(s), 14);
  EXPECT_EQ(s.cr2, 0x12345000u);
  EXPECT_EQ(s.gpr[kRsp], 0xd000u - 48);
  EXPECT_EQ(s.exception, PendingEventState{});
  EXPECT_EQ(s.dr7, 0x2400u);
}

TEST(ForeignState, a_raised_debug_exception_puts_its_cause_in_dr6) {
  const VcpuState s = after({}, {.valid = true, .vector = 1, .type = EventType::exception, .has_payload = true, .payload = 0x4002}, 0xffff'0ff1);
  EXPECT_EQ(TinyGuest::vector_of(s), 1);
  EXPECT_EQ(s.dr6, 0xffff'4ff2u);
  EXPECT_EQ(s.dr7, 0x400u) << "general detect is off in the handler";
}

TEST(ForeignState, what_is_on_its_way_comes_before_what_was_raised) {
  const VcpuState s = after({.valid = true, .vector = 0x40, .type = EventType::interrupt},
                            {.valid = true, .vector = 13, .has_error_code = true, .type = EventType::exception});
  EXPECT_EQ(TinyGuest::vector_of(s), 13) << "raised in the interrupt's handler, before its first instruction";
}

TEST(ForeignState, an_nmi_on_its_way_blocks_the_next) {
  const VcpuState s = after({.valid = true, .vector = 2, .type = EventType::nmi}, {});
  EXPECT_EQ(TinyGuest::vector_of(s), 2);
  EXPECT_TRUE(s.nmi_blocked);
}

// An interrupt on a vector below 32, as a type says: no error code, and no resume flag in the pushed flags.
TEST(ForeignState, the_type_decides_and_not_the_vector) {
  TinyGuest guest(CODE_OF(foreign_halt));
  guest.state.pending = {.valid = true, .vector = 13, .type = EventType::interrupt};
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 13);
  EXPECT_EQ(guest.peek(s.gpr[kRsp] + 16) & 0x10000, 0u);
  EXPECT_EQ(s.gpr[kRsp], 0xd000u - 40);
}

struct ClockGuest {
  explicit ClockGuest(Bytes code, u64 tsc_hz = kSecond) : tiny(code) {
    contract.tsc_hz = tsc_hz;
    tiny.clock.advance_to(5'000'000'000);
    tiny.state.retired = 0;
  }
  VcpuState finish(u32 index, u64 value) {
    tiny.state.gpr[kRcx] = index;
    tiny.state.gpr[kRax] = static_cast<u32>(value);
    tiny.state.gpr[kRdx] = value >> 32;
    engine.set(tiny.state);
    EXPECT_EQ(engine.run(100), StopReason::idle) << engine.failure();
    return engine.get();
  }
  template <class T>
  T at(u64 address) const {
    T value;
    std::memcpy(&value, tiny.memory.host() + address, sizeof value);
    return value;
  }
  TinyGuest tiny;
  CpuContract contract = default_cpu_contract(1);
  PvclockState pvclock{.offset_ns = 7'000};
  SoftEngine engine{CpuBoard{tiny.memory, tiny.ports, tiny.mmio, tiny.clock, tiny.apic, contract, &pvclock, 1'700'000'000}};
};

// As a guest computes it (Linux Documentation/virt/kvm/x86/msr.rst).
u64 reading(const ClockGuest& guest, u64 page, u64 tsc) {
  const u64 delta = tsc - guest.at<u64>(page + 8);
  const int shift = guest.at<i8>(page + 28);
  const u64 scaled = shift < 0 ? delta >> -shift : delta << shift;
  return guest.at<u64>(page + 16) + static_cast<u64>(static_cast<u128>(scaled) * guest.at<u32>(page + 24) >> 32);
}

TEST(Pvclock, the_page_tells_guest_time_by_the_tsc) {
  for (const u64 tsc_hz : {u64{1'000'000}, u64{1'000'000'000}, u64{2'596'148'000}, u64{5'000'000'000}}) {
    ClockGuest guest(CODE_OF(foreign_set_msr), tsc_hz);
    const VcpuState s = guest.finish(0x4b56'4d01, 0x30001);
    EXPECT_EQ(s.pvclock_system_time, 0x30001u);
    EXPECT_EQ(guest.at<u32>(0x30000) & 1, 0u) << "not being written";
    EXPECT_EQ(guest.at<u8>(0x3001d), 1u) << "stable";
    const u64 now = guest.at<u64>(0x30010);
    EXPECT_EQ(now, 5'000'007'000u);
    const u64 later = reading(guest, 0x30000, guest.at<u64>(0x30008) + tsc_hz * 10);
    EXPECT_LE(now + 10 * kSecond - later, 100u) << tsc_hz << ": ten seconds of ticks, rounded down";
  }
}

TEST(Pvclock, the_wall_clock_is_that_of_system_time_zero) {
  ClockGuest guest(CODE_OF(foreign_set_msr));
  guest.finish(0x4b56'4d00, 0x30000);
  EXPECT_EQ(guest.at<u32>(0x30004), 1'699'999'999u);
  EXPECT_EQ(guest.at<u32>(0x30008), 999'993'000u);
}

TEST(Pvclock, is_absent_where_the_contract_does_not_show_it) {
  for (const u32 index : {0x11u, 0x12u, 0x4b56'4d00u, 0x4b56'4d01u}) {
    ClockGuest guest(CODE_OF(foreign_set_msr));
    EXPECT_EQ(TinyGuest::vector_of(guest.finish(index, 0x30001)), -1);
    ClockGuest without(CODE_OF(foreign_set_msr));
    for (CpuidLeaf& leaf : without.contract.cpuid)
      if (leaf.leaf == 0x4000'0001) leaf.eax = 0;
    EXPECT_EQ(TinyGuest::vector_of(without.finish(index, 0x30001)), 13) << index;
  }
}

TEST(Pvclock, restoring_writes_nothing) {
  ClockGuest guest(CODE_OF(foreign_halt));
  guest.tiny.state.pvclock_system_time = 0x30001;
  guest.finish(0, 0);
  EXPECT_EQ(guest.at<u64>(0x30008), 0u);
}

TEST(ForeignState, machine_check_and_debug_registers_are_kept) {
  TinyGuest guest(CODE_OF(foreign_get_msr));
  guest.state.machine_check = {.mcg_status = 4, .ctl = 0xff, .status = 1, .addr = 2, .misc = 3};
  for (const auto& [index, value] : {std::pair<u32, u64>{0x179, 1}, {0x17a, 4}, {0x400, 0xff}, {0x401, 1}, {0x402, 2}, {0x403, 3}, {0xce, 0}, {0x1d9, 0}}) {
    guest.state.gpr[kRcx] = index;
    const VcpuState s = guest.finish();
    EXPECT_EQ(TinyGuest::vector_of(s), -1) << index;
    EXPECT_EQ(s.gpr[kRax], value) << index;
  }
}

}  // namespace
