// The 8254 as software sees it: counts, outputs and edges in guest time.
#include "devices/i8254/pit.hpp"

#include "contract.hpp"

using namespace stasis;
namespace {

// The first nanosecond of a tick.
constexpr u64 at_tick(u64 tick) { return mul_div_up(tick, kSecond, Pit::kHz); }

struct Rig {
  Clock clock;
  IrqLine irq0;
  PortBus bus;
  u64 rises = 0, last_rise = 0;
  bool seen = false;
  Pit pit{clock, irq0};
  Rig() {
    pit.attach(bus);
    irq0.connect([this](bool level) {
      if (level && !seen) ++rises, last_rise = clock.now();
      seen = level;
    });
  }
  state::Part& part() { return pit; }
  std::vector<u64> lines() const { return {irq0.level()}; }

  void to_tick(u64 tick) { clock.advance_to(at_tick(tick)); }
  void program(unsigned channel, u8 mode, u16 count, bool bcd = false) {
    bus.out(0x43, channel << 6 | 0x30 | mode << 1 | bcd);
    bus.out(0x40 + channel, count & 0xff);
    bus.out(0x40 + channel, count >> 8);
  }
  u32 count(unsigned channel) {
    bus.out(0x43, channel << 6);
    const u32 low = bus.in(0x40 + channel);
    return low | bus.in(0x40 + channel) << 8;
  }
  u32 status(unsigned channel) { return bus.out(0x43, 0xe0 | 2u << channel), bus.in(0x40 + channel); }
  bool out2() { return bus.in(0x61) & 0x20; }
};

TEST(Pit, mode_0_raises_irq0_once_after_the_count) {
  Rig m;
  m.to_tick(100);
  m.program(0, 0, 1000);
  EXPECT_FALSE(m.irq0.level());
  m.clock.advance_to(at_tick(1101) - 1);
  EXPECT_FALSE(m.irq0.level());
  m.to_tick(1101);
  EXPECT_TRUE(m.irq0.level());
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  m.to_tick(1103);
  EXPECT_EQ(m.count(0), 0xfffeu);  // it counts on
}

TEST(Pit, mode_2_rises_once_a_period_for_hours_without_drift) {
  Rig m;
  m.program(0, 2, 11932);
  m.clock.advance_to(10 * kSecond);
  EXPECT_EQ(m.rises, 1 + (10 * Pit::kHz - 1) / 11932);  // OUT goes high with the control word
  EXPECT_EQ(m.last_rise, at_tick(1 + 11932 * (m.rises - 1)));
}

TEST(Pit, mode_2_counts_from_n_to_1) {
  Rig m;
  m.program(0, 2, 5);
  for (u64 tick = 1; tick < 12; ++tick) {
    m.to_tick(tick);
    EXPECT_EQ(m.count(0), 5 - (tick - 1) % 5) << tick;
    EXPECT_EQ(m.irq0.level(), (tick - 1) % 5 != 4) << tick;
  }
}

TEST(Pit, mode_3_is_a_square_wave_also_of_odd_counts) {
  Rig m;
  m.program(0, 3, 5);
  std::string wave, counts;
  for (u64 tick = 1; tick <= 10; ++tick) {
    m.to_tick(tick);
    wave += m.irq0.level() ? '1' : '0';
    counts += static_cast<char>('0' + m.count(0));
  }
  EXPECT_EQ(wave, "1110011100");
  EXPECT_EQ(counts, "4204242042");
}

TEST(Pit, a_new_count_in_mode_2_waits_for_the_end_of_the_period) {
  Rig m;
  m.program(0, 2, 10);
  m.to_tick(5);
  m.bus.out(0x40, 4), m.bus.out(0x40, 0);
  EXPECT_TRUE(m.status(0) & 0x40);
  EXPECT_EQ(m.count(0), 6u);
  m.to_tick(11);
  EXPECT_FALSE(m.status(0) & 0x40);
  EXPECT_EQ(m.count(0), 4u);
  m.to_tick(15);
  EXPECT_EQ(m.last_rise, at_tick(15));
}

TEST(Pit, channel_2_calibrates_a_tsc_as_linux_does) {
  Rig m;
  m.bus.out(0x61, (m.bus.in(0x61) & ~2u) | 1);
  m.program(2, 0, 59659);  // 50 ms
  EXPECT_FALSE(m.out2());
  m.clock.advance(50 * kMillisecond - 2 * kMicrosecond);
  EXPECT_FALSE(m.out2());
  m.clock.advance(4 * kMicrosecond);
  EXPECT_TRUE(m.out2());
}

TEST(Pit, gate_pauses_mode_0) {
  Rig m;
  m.bus.out(0x61, 1);
  m.program(2, 0, 100);
  m.to_tick(41);  // 40 counted
  m.bus.out(0x61, 0);
  m.to_tick(1000);
  EXPECT_EQ(m.count(2), 60u);
  m.bus.out(0x61, 1);
  m.to_tick(1059);
  EXPECT_FALSE(m.out2());
  m.to_tick(1060);
  EXPECT_TRUE(m.out2());
}

TEST(Pit, gate_triggers_modes_1_and_5) {
  Rig m;
  m.program(2, 1, 10);
  m.to_tick(50);
  EXPECT_TRUE(m.out2());
  EXPECT_TRUE(m.status(2) & 0x40);
  m.bus.out(0x61, 1);
  m.to_tick(51);
  EXPECT_FALSE(m.out2());
  m.to_tick(60);
  EXPECT_FALSE(m.out2());
  m.to_tick(61);
  EXPECT_TRUE(m.out2());
  m.bus.out(0x61, 0);
  m.program(2, 5, 10);
  m.bus.out(0x61, 1);
  m.to_tick(72);
  EXPECT_FALSE(m.out2());
  m.to_tick(73);
  EXPECT_TRUE(m.out2());
}

TEST(Pit, mode_4_strobes_for_one_tick) {
  Rig m;
  m.program(0, 4, 10);
  m.to_tick(10);
  EXPECT_TRUE(m.irq0.level());
  m.to_tick(11);
  EXPECT_FALSE(m.irq0.level());
  m.to_tick(12);
  EXPECT_TRUE(m.irq0.level());
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
}

TEST(Pit, gate_low_holds_mode_3_high_and_restarts_it) {
  Rig m;
  m.bus.out(0x61, 1);
  m.program(2, 3, 10);
  m.to_tick(7);
  EXPECT_FALSE(m.out2());
  m.bus.out(0x61, 0);
  EXPECT_TRUE(m.out2());
  m.to_tick(100);
  m.bus.out(0x61, 1);
  m.to_tick(105);
  EXPECT_TRUE(m.out2());
  m.to_tick(106);
  EXPECT_FALSE(m.out2());
}

TEST(Pit, bcd_counts_in_decimal) {
  Rig m;
  m.program(0, 2, 0x1000, true);
  m.to_tick(2);
  EXPECT_EQ(m.count(0), 0x0999u);
  m.program(0, 0, 0, true);
  m.to_tick(10'000 + 2);
  EXPECT_FALSE(m.irq0.level());
  m.to_tick(10'000 + 3);
  EXPECT_TRUE(m.irq0.level());
}

TEST(Pit, latches_hold_until_both_bytes_are_read_and_status_comes_first) {
  Rig m;
  m.program(0, 2, 0x1234);
  m.to_tick(1);
  m.bus.out(0x43, 0xc2);  // read back: count and status of channel 0
  m.to_tick(1000);
  m.bus.out(0x43, 0x00);  // already latched: ignored
  EXPECT_EQ(m.bus.in(0x40), 0xb4u);
  EXPECT_EQ(m.bus.in(0x40), 0x34u);
  m.to_tick(1100);
  EXPECT_EQ(m.bus.in(0x40), 0x12u);
  EXPECT_EQ(m.count(0), 0x1234u - 1099);
}

TEST(Pit, single_byte_access) {
  Rig m;
  m.bus.out(0x43, 0x14);  // channel 0, low byte only, mode 2
  m.bus.out(0x40, 0x80);
  m.to_tick(1);
  EXPECT_EQ(m.bus.in(0x40), 0x80u);
  EXPECT_EQ(m.bus.in(0x40), 0x80u);
  m.bus.out(0x43, 0x24);  // high byte only
  m.bus.out(0x40, 0x80);
  m.to_tick(2);
  EXPECT_EQ(m.bus.in(0x40), 0x80u);
  EXPECT_EQ(m.count(0), 0x8080u);  // the same byte, twice
}

TEST(Pit, refresh_toggles) {
  Rig m;
  const u32 before = m.bus.in(0x61) & 0x10;
  m.to_tick(18);
  EXPECT_NE(m.bus.in(0x61) & 0x10, before);
}

// Defect 4 of the reference: a running timer is re-armed, and on guest time only.
TEST(Pit, defect_04_a_restored_running_timer_goes_on_exactly) {
  Rig m, twin;
  m.clock.advance(77 * kSecond + 123);
  m.program(0, 2, 4773);
  m.clock.advance(3 * kSecond + 4567);
  ASSERT_TRUE(contract::restore_bytes(twin, contract::bytes_of(m), 1, m.clock.now()));
  EXPECT_EQ(twin.clock.next_alarm(), m.clock.next_alarm());
  const u64 rises = m.rises, rises_twin = twin.rises;
  m.clock.advance(10 * kSecond), twin.clock.advance(10 * kSecond);
  EXPECT_EQ(m.rises - rises, twin.rises - rises_twin);
  EXPECT_EQ(m.last_rise, twin.last_rise);
}

TEST(Pit, hostile_times_are_harmless) {
  Rig source;
  source.program(0, 2, 2);
  auto record = cbor::decode(contract::bytes_of(source), "test");
  cbor::Map& fields = *record->as<cbor::Map>();
  cbor::Array channel = *fields.find("channel")->as<cbor::Array>();
  for (const u64 tick : {u64{0}, PitChannel::kLatestTick}) {
    for (const u64 now : {u64{0}, u64{1} << 62}) {
      channel[0].as<cbor::Map>()->set("next_at", tick);
      fields.set("channel", channel);
      Rig m;
      ASSERT_TRUE(contract::restore_bytes(m, cbor::encode(*record), 1, now));
      m.clock.advance(kMillisecond);
      EXPECT_GT(m.clock.next_alarm(), m.clock.now());
    }
  }
}

u64 poke(Rig& m, std::mt19937_64& random) {
  static constexpr u16 kPorts[] = {0x40, 0x41, 0x42, 0x43, 0x61};
  const u16 port = kPorts[random() % 5];
  switch (random() % 6) {
    case 0: return m.bus.out(port, static_cast<u8>(random())), 0;
    case 1: return m.clock.advance(random() % (20 * kMicrosecond)), 0;
    case 2: return m.clock.advance(random() % (random() % 30 ? kMillisecond : 100 * kMillisecond)), 0;
    case 3: return m.program(random() % 3, random() % 6, random() % 8 ? 500 + random() % 3000 : static_cast<u16>(random()), random() % 4 == 0), 0;
    case 4: return m.status(random() % 3);
    default: return m.bus.in(port);
  }
}

DEVICE_CONTRACT(Pit, Rig, poke)

}  // namespace
