// The local APIC as its processor, its bus and its pins see it.
#include "cpu/local_apic.hpp"

#include <contract.hpp>  // of tests/support, not cpu/contract.hpp

using namespace stasis;
namespace {

constexpr u64 kTscHz = 2'100'000'000;
constexpr u64 kTpr = 0x80, kPpr = 0xa0, kEoi = 0xb0, kLdr = 0xd0, kDfr = 0xe0, kSvr = 0xf0, kIsr = 0x100, kIrr = 0x200,
              kEsr = 0x280, kIcr = 0x300, kIcrHigh = 0x310, kTimer = 0x320, kLint0 = 0x350, kLint1 = 0x360, kError = 0x370,
              kInitial = 0x380, kCurrent = 0x390, kDivide = 0x3e0;
constexpr u32 kMasked = 0x10000, kPeriodic = 0x20000, kDeadlineMode = 0x40000, kLevel = 0x8000, kExtInt = 0x700, kNmi = 0x400;
constexpr u32 kBaseMsr = 0x1b, kDeadlineMsr = 0x6e0;

struct Rig : CpuSignals {
  Clock clock;
  LocalApic apic{clock, 0, kTscHz};
  std::vector<u64> events;  // what the processor, the PIC and the I/O APICs were told
  explicit Rig() {
    apic.connect(this);
    apic.connect_pic([this] { return events.push_back(4), u8{0x38}; });
    apic.connect_eoi([this](u8 vector) { events.push_back(0x500 + vector); });
  }
  void nmi() override { events.push_back(1); }
  void init() override { events.push_back(2); }
  void startup(u8 vector) override { events.push_back(0x300 + vector); }

  state::Part& part() { return apic; }
  std::vector<u64> lines() const { return {apic.deliverable(), apic.cr8(), apic.base_address(), apic.mmio_enabled()}; }

  u32 in(u64 offset) { return static_cast<u32>(apic.mmio_read(offset, 4)); }
  void out(u64 offset, u32 value) { apic.mmio_write(offset, 4, value); }
  void enable() { out(kSvr, 0x1ff); }
  void x2apic() { ASSERT_TRUE(apic.write_msr(kBaseMsr, 0xfee00d00, 0)); }
  u64 msr(u32 index) {
    u64 value = 0xdead;
    return apic.read_msr(index, value) ? value : 0xdead;
  }
  void message(u8 vector, bool level = false) { apic.deliver(0xfee00000, vector | (level ? 0xc000u : 0u)); }
};

TEST(LocalApic, power_on_is_xapic_mode_software_disabled) {
  Rig m;
  EXPECT_EQ(m.msr(kBaseMsr), 0xfee00900u);
  EXPECT_EQ(m.in(0x30), 0x00050014u);
  EXPECT_EQ(m.in(kSvr), 0xffu);
  EXPECT_EQ(m.in(kLint0), kMasked);
  m.message(0x40);
  EXPECT_FALSE(m.apic.deliverable());
  m.out(kLint0, kExtInt);
  EXPECT_EQ(m.in(kLint0), kMasked | kExtInt) << "the mask stays on while software-disabled";
  m.enable();
  m.out(kLint0, kExtInt);
  EXPECT_EQ(m.in(kLint0), kExtInt);
  m.out(kSvr, 0xff);
  EXPECT_EQ(m.in(kLint0), kMasked | kExtInt);
}

TEST(LocalApic, highest_class_first_and_priorities_hold_back_lower_ones) {
  Rig m;
  m.enable();
  m.message(0x41);
  m.message(0x55);
  EXPECT_EQ(m.apic.acknowledge(), 0x55);
  EXPECT_EQ(m.in(kPpr), 0x50u);
  EXPECT_FALSE(m.apic.deliverable());
  m.message(0x5f);
  EXPECT_FALSE(m.apic.deliverable()) << "same class";
  m.message(0x60);
  EXPECT_EQ(m.apic.acknowledge(), 0x60);
  m.out(kEoi, 0);
  m.out(kEoi, 0);
  EXPECT_EQ(m.apic.acknowledge(), 0x5f);
  m.out(kEoi, 0);
  m.apic.set_cr8(4);
  EXPECT_EQ(m.in(kTpr), 0x40u);
  EXPECT_FALSE(m.apic.deliverable());
  EXPECT_EQ(m.apic.acknowledge(), 0xff) << "spurious";
  m.out(kTpr, 0);
  EXPECT_TRUE(m.apic.deliverable());
}

TEST(LocalApic, eoi_of_a_level_vector_is_broadcast) {
  Rig m;
  m.enable();
  m.message(0x41, true);
  m.message(0x51, false);
  m.apic.acknowledge();
  m.out(kEoi, 0);
  EXPECT_TRUE(m.events.empty());
  m.apic.acknowledge();
  m.out(kEoi, 0);
  EXPECT_EQ(m.events, std::vector<u64>{0x541});
  m.message(0x41, false);
  m.apic.acknowledge();
  m.out(kEoi, 0);
  EXPECT_EQ(m.events.size(), 1u) << "the same vector by edge is not";
}

TEST(LocalApic, lint0_passes_the_pic_through) {
  Rig m;
  m.enable();
  m.out(kLint0, kExtInt);
  m.apic.lint0(true);
  EXPECT_TRUE(m.apic.deliverable());
  EXPECT_EQ(m.apic.acknowledge(), 0x38);
  m.apic.lint0(false);
  EXPECT_FALSE(m.apic.deliverable());
  m.apic.lint0(true);
  m.out(kLint0, kExtInt | kMasked);
  EXPECT_FALSE(m.apic.deliverable());
  ASSERT_TRUE(m.apic.write_msr(kBaseMsr, 0xfee00100, 0));  // no APIC: INTR
  EXPECT_TRUE(m.apic.deliverable());
}

TEST(LocalApic, level_triggered_lint_comes_again_after_eoi) {
  Rig m;
  m.enable();
  m.out(kLint0, kLevel | 0x71);
  m.apic.lint0(true);
  EXPECT_EQ(m.in(kLint0), 0x4000 | kLevel | 0x71);
  EXPECT_EQ(m.apic.acknowledge(), 0x71);
  EXPECT_FALSE(m.apic.deliverable());
  m.out(kEoi, 0);
  EXPECT_EQ(m.apic.acknowledge(), 0x71);
  m.apic.lint0(false);
  m.out(kEoi, 0);
  EXPECT_FALSE(m.apic.deliverable());
  EXPECT_EQ(m.in(kLint0), kLevel | 0x71);
}

TEST(LocalApic, lint1_is_nmi_once_per_edge) {
  Rig m;
  m.enable();
  m.out(kLint1, kNmi);
  m.apic.lint1(true);
  m.apic.lint1(true);
  m.apic.lint1(false);
  EXPECT_EQ(m.events, std::vector<u64>{1});
}

TEST(LocalApic, one_shot_fires_at_its_nanosecond_and_once) {
  Rig m;
  m.enable();
  m.out(kDivide, 0x3);  // 16
  m.out(kTimer, 0x30);
  m.clock.advance(5);
  m.out(kInitial, 1000);
  m.clock.advance(15'999);
  EXPECT_FALSE(m.apic.deliverable());
  EXPECT_EQ(m.in(kCurrent), 1u);
  m.clock.advance(1);
  EXPECT_TRUE(m.apic.deliverable());
  EXPECT_EQ(m.in(kCurrent), 0u);
  EXPECT_EQ(m.apic.acknowledge(), 0x30);
  m.out(kEoi, 0);
  m.clock.advance(kSecond);
  EXPECT_FALSE(m.apic.deliverable());
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
}

TEST(LocalApic, periodic_keeps_its_beat_and_an_unread_tick_costs_no_alarms) {
  Rig m;
  m.enable();
  m.out(kDivide, 0xb);  // 1
  m.out(kTimer, kPeriodic | 0x30);
  m.out(kInitial, 1000);
  m.clock.advance(1000);
  EXPECT_TRUE(m.apic.deliverable());
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  m.clock.advance(2500);
  EXPECT_EQ(m.in(kCurrent), 500u);
  m.apic.acknowledge();
  m.out(kEoi, 0);
  EXPECT_EQ(m.clock.next_alarm(), 4000u);
  m.out(kTimer, kPeriodic | kMasked | 0x30);
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  m.clock.advance(1000);
  m.out(kTimer, kPeriodic | 0x30);
  EXPECT_FALSE(m.apic.deliverable()) << "a tick that passed while masked is gone";
  EXPECT_EQ(m.clock.next_alarm(), 5000u);
}

TEST(LocalApic, another_alarm_at_the_same_instant_loses_no_tick) {
  Clock clock;
  LocalApic* apic = nullptr;
  Alarm first(clock, [&] { apic->deliver(0xfee00000, 0x99); });
  LocalApic made{clock, 0, kTscHz};
  apic = &made;
  made.mmio_write(kSvr, 4, 0x1ff);
  made.mmio_write(kDivide, 4, 0xb);
  made.mmio_write(kTimer, 4, kPeriodic | 0x30);
  made.mmio_write(kInitial, 4, 1000);
  first.at(1000);
  clock.advance(1000);
  EXPECT_EQ(made.acknowledge(), 0x99);
  made.mmio_write(kEoi, 4, 0);
  EXPECT_TRUE(made.deliverable());
}

TEST(LocalApic, deadline_fires_when_the_guest_tsc_reaches_it_and_then_reads_zero) {
  Rig m;
  m.enable();
  const u64 offset = u64(0) - 77;
  ASSERT_TRUE(m.apic.write_msr(kDeadlineMsr, 5, offset));
  EXPECT_EQ(m.msr(kDeadlineMsr), 0u) << "ignored in other modes";
  m.out(kTimer, kDeadlineMode | 0x31);
  m.clock.advance(1000);
  const u64 wanted = 2100 - 77 + 1'000'000;
  ASSERT_TRUE(m.apic.write_msr(kDeadlineMsr, wanted, offset));
  EXPECT_EQ(m.msr(kDeadlineMsr), wanted);
  const u64 at = m.clock.next_alarm();
  EXPECT_GE(mul_div(at, kTscHz, kSecond) + offset, wanted);
  EXPECT_LT(mul_div(at - 1, kTscHz, kSecond) + offset, wanted);
  m.clock.advance_to(at - 1);
  EXPECT_FALSE(m.apic.deliverable());
  m.clock.advance(1);
  EXPECT_TRUE(m.apic.deliverable());
  EXPECT_EQ(m.msr(kDeadlineMsr), 0u);
  m.apic.acknowledge();
  m.out(kEoi, 0);
  EXPECT_FALSE(m.apic.deliverable()) << "once";
  ASSERT_TRUE(m.apic.write_msr(kDeadlineMsr, 1, offset));
  EXPECT_TRUE(m.apic.deliverable()) << "a deadline in the past fires at once";
}

TEST(LocalApic, deadline_moves_with_the_tsc_and_goes_with_its_mode) {
  Rig m;
  m.enable();
  m.out(kTimer, kDeadlineMode | 0x31);
  ASSERT_TRUE(m.apic.write_msr(kDeadlineMsr, 2'100'000, 0));
  EXPECT_EQ(m.clock.next_alarm(), 1'000'000u);
  m.apic.tsc_offset_changed(1'050'000);
  EXPECT_EQ(m.clock.next_alarm(), 500'000u);
  m.out(kTimer, 0x31);
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  m.out(kTimer, kDeadlineMode | kMasked | 0x31);
  ASSERT_TRUE(m.apic.write_msr(kDeadlineMsr, 2'100'000, 0));
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever) << "masked: nobody would see it";
  m.clock.advance(1'000'000);
  EXPECT_EQ(m.msr(kDeadlineMsr), 0u);
}

TEST(LocalApic, ipis_to_itself_and_logical_destinations) {
  Rig m;
  m.enable();
  m.out(kIcr, 0x40041);  // self
  EXPECT_EQ(m.apic.acknowledge(), 0x41);
  m.out(kEoi, 0);
  m.out(kLdr, 0x0200'0000);
  m.out(kIcrHigh, 0x0100'0000);
  m.out(kIcr, 0x842);
  EXPECT_FALSE(m.apic.deliverable());
  m.out(kIcrHigh, 0x0300'0000);
  m.out(kIcr, 0x942);  // lowest priority
  EXPECT_TRUE(m.apic.deliverable());
  m.apic.acknowledge();
  m.out(kEoi, 0);
  m.out(kDfr, 0);  // cluster model
  EXPECT_EQ(m.in(kDfr), 0x0fff'ffffu);
  m.out(kLdr, 0x2100'0000);
  m.out(kIcrHigh, 0x1100'0000);
  m.out(kIcr, 0x843);
  EXPECT_FALSE(m.apic.deliverable());
  m.out(kIcrHigh, 0x2100'0000);
  m.out(kIcr, 0x843);
  EXPECT_EQ(m.apic.acknowledge(), 0x43);
  m.out(kIcr, 0xc0044);  // others: nobody
  EXPECT_FALSE(m.apic.deliverable());
  m.out(kIcr, 0x80644);  // SIPI to all
  EXPECT_EQ(m.events, std::vector<u64>{0x344});
}

TEST(LocalApic, ipis_go_to_the_bus_when_there_is_one) {
  Rig m;
  m.enable();
  std::vector<std::pair<u32, bool>> sent;
  m.apic.connect_ipi_bus([&](const InterruptMessage& message, bool others) { sent.emplace_back(message.destination, others); });
  m.out(kIcrHigh, 0x0500'0000);
  m.out(kIcr, 0x41);
  m.out(kIcr, 0xc0041);
  EXPECT_EQ(sent, (std::vector<std::pair<u32, bool>>{{5, false}, {5, true}}));
}

TEST(LocalApic, init_resets_all_but_id_and_base) {
  Rig m;
  m.x2apic();
  ASSERT_TRUE(m.apic.write_msr(0x80f, 0x1f0, 0));
  ASSERT_TRUE(m.apic.write_msr(0x83f, 0x66, 0));
  m.apic.receive({.broadcast = true, .mode = 5});
  EXPECT_EQ(m.events, std::vector<u64>{2});
  EXPECT_FALSE(m.apic.deliverable());
  EXPECT_EQ(m.msr(0x80f), 0xffu);
  EXPECT_EQ(m.msr(kBaseMsr), 0xfee00d00u);
}

TEST(LocalApic, errors_latch_on_a_write_and_raise_their_vector_once) {
  Rig m;
  m.enable();
  m.out(kError, 0xfe);
  m.out(kIcr, 0x40005);
  EXPECT_EQ(m.in(kEsr), 0u);
  EXPECT_EQ(m.apic.acknowledge(), 0xfe);
  m.out(kEoi, 0);
  m.out(kIcr, 0x40005);
  EXPECT_FALSE(m.apic.deliverable());
  m.message(3);
  EXPECT_TRUE(m.apic.deliverable());
  m.out(kEsr, 0);
  EXPECT_EQ(m.in(kEsr), 0x60u);
  m.out(kEsr, 0);
  EXPECT_EQ(m.in(kEsr), 0u);
}

TEST(LocalApic, modes_change_as_the_manual_draws_it) {
  Rig m;
  EXPECT_FALSE(m.apic.write_msr(kBaseMsr, 0xfee00500, 0)) << "x2APIC without enable";
  EXPECT_FALSE(m.apic.write_msr(kBaseMsr, 0xfee00901, 0)) << "reserved bit";
  EXPECT_EQ(m.msr(0x802), 0xdeadu) << "no x2APIC MSRs in xAPIC mode";
  m.x2apic();
  EXPECT_FALSE(m.apic.mmio_enabled());
  EXPECT_FALSE(m.apic.write_msr(kBaseMsr, 0xfee00900, 0)) << "back to xAPIC";
  ASSERT_TRUE(m.apic.write_msr(kBaseMsr, 0xfee00100, 0));
  EXPECT_FALSE(m.apic.write_msr(kBaseMsr, 0xfee00d00, 0)) << "disabled to x2APIC";
  ASSERT_TRUE(m.apic.write_msr(kBaseMsr, 0xfee00900, 0));
  EXPECT_TRUE(m.apic.mmio_enabled());
}

TEST(LocalApic, x2apic_msrs_refuse_what_is_reserved) {
  Rig m;
  m.x2apic();
  EXPECT_EQ(m.msr(0x80d), 1u);
  EXPECT_EQ(m.msr(0x80b), 0xdeadu) << "EOI is write-only";
  for (const auto& [index, value] : std::initializer_list<std::pair<u32, u64>>{
           {0x802, 0}, {0x803, 0}, {0x808, 0x100}, {0x80a, 0}, {0x80b, 1}, {0x80d, 0}, {0x80e, 0}, {0x80f, 0x1000}, {0x828, 1},
           {0x82f, 0}, {0x830, 0x2000}, {0x831, 0}, {0x832, 0x80000}, {0x83e, 4}, {0x83f, 0x100}, {0x838, u64{1} << 32}, {0x8ff, 0}})
    EXPECT_FALSE(m.apic.write_msr(index, value, 0)) << std::hex << index;
  ASSERT_TRUE(m.apic.write_msr(0x80f, 0x1ff, 0));
  ASSERT_TRUE(m.apic.write_msr(0x830, 0x41, 0));  // physical 0, that is us
  EXPECT_EQ(m.apic.acknowledge(), 0x41);
  ASSERT_TRUE(m.apic.write_msr(0x80b, 0, 0));
  ASSERT_TRUE(m.apic.write_msr(0x830, u64{0xffff'ffff} << 32 | 0x42, 0));
  EXPECT_EQ(m.apic.acknowledge(), 0x42);
}

TEST(LocalApic, inconsistent_states_are_refused) {
  Rig m;
  const auto refused = [&](std::string_view field, u64 value) {
    auto record = m.apic.capture();
    record.as<cbor::Map>()->set(std::string(field), value);
    return !state::restore_one(m.apic, "apic", record, 1);
  };
  EXPECT_TRUE(refused("id", 1));
  EXPECT_TRUE(refused("base", 0xfee00500));
  EXPECT_TRUE(refused("lvt_timer", 0x30)) << "unmasked while software-disabled";
  EXPECT_TRUE(refused("deadline", 5));
  EXPECT_FALSE(refused("tpr", 0x20));
}

// One random access, pin, message or time step.
u64 poke(Rig& m, std::mt19937_64& random) {
  m.events.clear();
  u64 seen = 0;
  const u64 dice = random() % 16, x = random(), y = random();
  const u8 vector = static_cast<u8>(x % 8 ? 0x20 + x % 0xd0 : x >> 8);
  static constexpr u32 kRegisters[] = {0x8, 0xb, 0xd, 0xe, 0xf, 0x28, 0x30, 0x31, 0x32, 0x32, 0x35, 0x36, 0x37, 0x38, 0x3e, 0x3f};
  const u32 number = x % 4 ? kRegisters[x / 4 % 16] : static_cast<u32>(x / 4 % 0x48);
  u32 value = static_cast<u32>(y);
  if (number == 0xf) value = y % 8 ? 0x1ff : 0xff;
  if (number >= 0x32 && number <= 0x37) value = 0x20 + y % 0xd0 + (y >> 16 & 0xffff & 0xe700) + (y >> 40 & 0x60000);
  if (number == 0x38) value %= 5000;
  if (number == 0x30) value &= 0xccfff;
  switch (dice) {
    case 0: case 1: m.clock.advance(x % 4000); break;
    case 2: m.clock.advance(x % 300'000); break;
    case 3: m.apic.lint0(x & 1); break;
    case 4: m.apic.lint1(x & 1); break;
    case 5: m.apic.deliver(0xfee00000 | (y % 4 ? 0 : y & 0xff00c), vector | (y >> 32 & 0xc700)); break;
    case 6: case 7: if (m.apic.deliverable()) seen = m.apic.acknowledge(); break;
    case 8: m.apic.set_cr8(static_cast<u8>(x % 4)); break;
    case 9: seen = m.apic.write_msr(kDeadlineMsr, mul_div(m.clock.now(), kTscHz, kSecond) + x % 100'000, 0); break;
    case 10: seen = m.apic.mmio_enabled() ? m.in(number << 4) : m.msr(0x800 + number); break;
    case 11: seen = m.msr(x & 1 ? kDeadlineMsr : kBaseMsr) + m.in(kCurrent) + m.in(kIrr + (x >> 8) % 8 * 16) + m.in(kIsr); break;
    case 12: if (y % 16 == 0) seen = m.apic.write_msr(kBaseMsr, 0xfee00100 | (x & 0xc00), 0); break;
    case 13: if (y % 4 == 0) m.apic.tsc_offset_changed(x % 100'000); break;
    default:
      if (m.apic.mmio_enabled()) m.out(number << 4, value);
      else seen = m.apic.write_msr(0x800 + number, value, 0);
  }
  for (u64 event : m.events) seen = seen * 31 + event;
  return seen;
}

DEVICE_CONTRACT(LocalApic, Rig, poke)

}  // namespace
