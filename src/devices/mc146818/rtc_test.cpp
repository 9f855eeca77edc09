// The RTC as an operating system reads it, in guest time.
#include "devices/mc146818/rtc.hpp"

#include "contract.hpp"

using namespace stasis;
namespace {

constexpr u64 kStart = 951'782'397;  // Mon 2000-02-28 23:59:57 UTC

struct Rig {
  Clock clock;
  IrqLine irq8;
  PortBus bus;
  Rtc rtc{clock, irq8, kStart};
  Rig() { rtc.attach(bus); }
  state::Part& part() { return rtc; }
  std::vector<u64> lines() const { return {irq8.level()}; }

  u32 get(u8 index) { return bus.out(0x70, index), bus.in(0x71); }
  void put(u8 index, u8 value) { bus.out(0x70, index), bus.out(0x71, value); }
  std::string text() {  // as in hexadecimal: "century year-month-day weekday hours:minutes:seconds"
    return fmt::format("{:02x}{:02x}-{:02x}-{:02x} {:x} {:02x}:{:02x}:{:02x}", get(0x32), get(9), get(8), get(7), get(6),
                       get(4), get(2), get(0));
  }
};

TEST(Rtc, tells_the_start_date_and_counts_over_a_leap_day) {
  Rig m;
  EXPECT_EQ(m.text(), "2000-02-28 2 23:59:57");
  m.clock.advance(2 * kSecond);
  EXPECT_EQ(m.text(), "2000-02-28 2 23:59:59");
  m.clock.advance(kSecond);
  EXPECT_EQ(m.text(), "2000-02-29 3 00:00:00");
  m.clock.advance(86'400 * kSecond);
  EXPECT_EQ(m.text(), "2000-03-01 4 00:00:00");
}

TEST(Rtc, binary_and_12_hours) {
  Rig m;
  m.put(0x0b, 0x80);
  m.put(0x04, 0x91), m.put(0x02, 0x59), m.put(0x00, 0x59);  // 11:59:59 pm
  m.put(0x0b, 0x00);
  m.clock.advance(kSecond);
  EXPECT_EQ(m.text(), "2000-02-29 3 12:00:00");
  m.clock.advance(12 * 3600 * kSecond);
  EXPECT_EQ(m.text(), "2000-02-29 3 92:00:00");
  Rig n;
  n.put(0x0b, 0x86);
  n.put(0x32, 19), n.put(9, 99), n.put(8, 12), n.put(7, 31), n.put(6, 6), n.put(4, 23), n.put(2, 59), n.put(0, 59);
  n.put(0x0b, 0x06);
  n.clock.advance(kSecond);
  EXPECT_EQ(n.text(), "1400-01-01 7 00:00:00");
}

TEST(Rtc, update_in_progress_warns_ahead_of_each_change) {
  Rig m;
  EXPECT_EQ(m.get(0x0a), 0x26u);
  m.clock.advance(kSecond - 2'228'001);
  EXPECT_EQ(m.get(0x0a), 0x26u);
  m.clock.advance(1);
  EXPECT_EQ(m.get(0x0a), 0xa6u);
  m.clock.advance(2'228'000 - 1);
  EXPECT_EQ(m.get(0), 0x57u);
  m.clock.advance(1);
  EXPECT_EQ(m.get(0x0a), 0x26u);
  EXPECT_EQ(m.get(0), 0x58u);
}

TEST(Rtc, set_stops_the_time_and_the_divider_restarts_it_half_a_second_later) {
  Rig m;
  m.put(0x0b, 0x82);
  m.clock.advance(10 * kSecond);
  EXPECT_EQ(m.get(0), 0x57u);
  m.put(0x0a, 0x76);
  m.put(0x0b, 0x02);
  m.clock.advance(10 * kSecond + kSecond / 4);
  EXPECT_EQ(m.get(0), 0x57u);
  m.put(0x0a, 0x26);
  m.clock.advance(kSecond / 2 - 1);
  EXPECT_EQ(m.get(0), 0x57u);
  m.clock.advance(1);
  EXPECT_EQ(m.get(0), 0x58u);
  m.clock.advance(kSecond);
  EXPECT_EQ(m.get(0), 0x59u);
}

TEST(Rtc, periodic_interrupt) {
  Rig m;
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  m.put(0x0a, 0x2f);  // 2 Hz
  m.put(0x0b, 0x42);
  m.clock.advance(kSecond / 2 - 1);
  EXPECT_FALSE(m.irq8.level());
  m.clock.advance(1);
  EXPECT_TRUE(m.irq8.level());
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  EXPECT_EQ(m.get(0x0c), 0xc0u);
  EXPECT_FALSE(m.irq8.level());
  m.put(0x0a, 0x26);  // 1024 Hz
  unsigned interrupts = 0;
  for (const u64 end = m.clock.now() + kSecond; m.clock.next_alarm() <= end; ++interrupts) {
    m.clock.advance_to(m.clock.next_alarm());
    m.get(0x0c);
  }
  EXPECT_EQ(interrupts, 1024u);
}

TEST(Rtc, update_ended_interrupt) {
  Rig m;
  m.put(0x0b, 0x12);
  m.clock.advance(kSecond);
  EXPECT_TRUE(m.irq8.level());
  EXPECT_EQ(m.get(0x0c) & 0x90, 0x90u);
  m.put(0x0b, 0x92);
  EXPECT_EQ(m.get(0x0b), 0x82u);
}

TEST(Rtc, alarm_interrupt_at_an_exact_and_at_a_repeating_time) {
  Rig m;
  m.put(5, 0x01), m.put(3, 0x00), m.put(1, 0x30);
  m.put(0x0b, 0x22);
  EXPECT_EQ(m.clock.next_alarm(), (3 + 3600 + 30) * kSecond);
  m.clock.advance((3 + 3600 + 30) * kSecond);
  EXPECT_TRUE(m.irq8.level());
  EXPECT_EQ(m.get(0x0c) & 0xa0, 0xa0u);
  m.put(5, 0xff), m.put(3, 0xc0);
  EXPECT_EQ(m.clock.next_alarm(), (3 + 3600 + 90) * kSecond);
  m.put(1, 0x61);  // never
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
}

TEST(Rtc, flags_come_without_interrupts_too) {
  Rig m;
  m.clock.advance(5 * kSecond);
  EXPECT_EQ(m.get(0x0c), 0x70u);  // the alarm bytes say midnight, which passed
  EXPECT_EQ(m.get(0x0c), 0x00u);
}

TEST(Rtc, cmos_and_the_index) {
  Rig m;
  m.rtc.set_cmos(0x15, 0x80);
  EXPECT_EQ(m.get(0x15), 0x80u);
  m.put(0x8e + 0x20, 0x5a);
  EXPECT_EQ(m.rtc.state().index, 0xae);  // bit 7 masks NMI
  EXPECT_EQ(m.get(0x2e), 0x5au);
  EXPECT_EQ(m.get(0x0d), 0x80u);
  m.rtc.reset();
  EXPECT_EQ(m.get(0x2e), 0u);
  EXPECT_EQ(m.get(0x15), 0x80u);
}

TEST(Rtc, reset_is_power_on_with_the_date_that_guest_time_has_reached) {
  Rig m;
  m.put(0x00, 0x00);
  m.clock.advance(3 * kSecond);
  m.rtc.reset();
  EXPECT_EQ(m.text(), "2000-02-29 3 00:00:00");
}

TEST(Rtc, the_reset_pin_keeps_time_and_cmos_but_no_interrupt) {
  Rig m;
  m.put(0x2e, 7);
  m.put(0x0b, 0x12);
  m.clock.advance(kSecond);
  EXPECT_TRUE(m.irq8.level());
  m.rtc.reset_pin();
  EXPECT_FALSE(m.irq8.level());
  EXPECT_EQ(m.get(0x0b), 0x02u);
  EXPECT_EQ(m.get(0x2e), 7u);
  EXPECT_EQ(m.get(0), 0x58u);
}

// Defect 6 of the reference: the time since the last update is not lost.
TEST(Rtc, defect_06_a_restored_clock_keeps_the_time_since_its_last_update) {
  Rig m;
  m.clock.advance(700 * kSecond + kSecond / 3);  // nobody looked all the while
  for (unsigned saves = 0; saves < 100; ++saves) {
    Rig twin;
    ASSERT_TRUE(contract::restore_bytes(twin, contract::bytes_of(m), 1, m.clock.now()));
    m.clock.advance(kSecond / 100);
    twin.clock.advance(kSecond / 100);
    ASSERT_EQ(twin.text(), m.text());
  }
  EXPECT_EQ(m.text(), "2000-02-29 3 00:11:38");
}

TEST(Rtc, any_bytes_and_any_distance_are_harmless) {
  std::mt19937_64 random(3);
  for (unsigned round = 0; round < 2000; ++round) {
    Rig m;
    for (u8 index = 0; index < 10; ++index) m.put(index, static_cast<u8>(random()));
    m.put(0x32, static_cast<u8>(random()));
    m.put(0x0b, static_cast<u8>(random()));
    m.clock.advance(random() >> (random() % 62 + 2));
    m.get(0x0c);
    EXPECT_GT(m.clock.next_alarm(), m.clock.now());
  }
}

u64 poke(Rig& m, std::mt19937_64& random) {
  const u8 index = static_cast<u8>(random() % 4 ? random() % 14 : random());
  switch (random() % 6) {
    case 0: return m.put(index, static_cast<u8>(random())), 0;
    case 1: return m.put(0x0b, static_cast<u8>(random() % 8 << 4 | 2)), 0;
    case 2: return m.put(0x0a, static_cast<u8>(0x20 | random() % 16)), 0;
    case 3: return m.clock.advance(random() % (random() % 4 ? 2 * kMillisecond : 100'000 * kSecond)), 0;
    case 4: return m.get(0x0c);
    default: return m.get(index);
  }
}

DEVICE_CONTRACT(Rtc, Rig, poke)

}  // namespace
