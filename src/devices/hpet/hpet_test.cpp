// The HPET in registers, levels and guest time.
#include "devices/hpet/hpet.hpp"

#include "contract.hpp"

using namespace stasis;
namespace {

constexpr u64 kConfig = 0x10, kStatus = 0x20, kCounter = 0xf0, kEnable = 1, kLegacy = 2;
constexpr u64 kLevel = 2, kInterrupt = 4, kPeriodic = 8, kValueSet = 0x40, kMode32 = 0x100, kFsb = 0x4000;
constexpr u64 conf(unsigned n) { return 0x100 + 0x20 * n; }
constexpr u64 comparator(unsigned n) { return 0x108 + 0x20 * n; }
constexpr u64 fsb(unsigned n) { return 0x110 + 0x20 * n; }
constexpr u64 route(unsigned pin) { return pin << 9; }

struct Rig : MessageSink {
  Clock clock;
  MmioBus bus;
  HpetWires wires;
  Hpet hpet{clock, wires, *this};
  std::vector<u64> events;  // time and place of each rising edge and message
  bool legacy = false;
  std::array<bool, 6> seen{};
  Rig() {
    hpet.attach(bus);
    hpet.connect_legacy([this](bool active) { legacy = active; });
    listen(wires.irq0, 0);
    listen(wires.irq8, 1);
    for (unsigned i = 0; i < 4; ++i) listen(wires.pins[i], 2 + i);
  }
  void listen(IrqLine& line, u64 which) {
    line.connect([this, which](bool level) {
      if (level && !seen[which]) events.push_back(clock.now() * 8 + which);
      seen[which] = level;
    });
  }
  void deliver(u64 address, u32 data) override { events.push_back(clock.now() * 8 + 7 + address + data); }
  state::Part& part() { return hpet; }
  std::vector<u64> lines() const {
    std::vector<u64> all{wires.irq0.level(), wires.irq8.level(), legacy};
    for (const IrqLine& pin : wires.pins) all.push_back(pin.level());
    return all;
  }
  u64 in(u64 offset, unsigned size = 8) { return bus.read(Hpet::kBase + offset, size); }
  void out(u64 offset, u64 value, unsigned size = 8) { bus.write(Hpet::kBase + offset, size, value); }
};
using Events = std::vector<u64>;

TEST(Hpet, says_what_it_is) {
  Rig m;
  EXPECT_EQ(m.in(0), 0x00989680'8086a201u);
  EXPECT_EQ(m.in(4, 4), 10'000'000u);
  EXPECT_EQ(m.in(conf(1)), 0x00f00000'00008030u);
  m.out(conf(1), route(5) | kInterrupt);
  EXPECT_EQ(m.in(conf(1), 4), 0x8034u) << "a route it has not is not taken";
}

TEST(Hpet, counts_at_100_mhz_while_enabled) {
  Rig m;
  m.clock.advance(1000);
  EXPECT_EQ(m.in(kCounter), 0u);
  m.out(kConfig, kEnable);
  m.clock.advance(12'345);
  EXPECT_EQ(m.in(kCounter), 1234u);
  m.out(kConfig, 0);
  m.clock.advance(1000);
  EXPECT_EQ(m.in(kCounter), 1234u);
  m.out(kCounter + 4, 7, 4);
  EXPECT_EQ(m.in(kCounter), 7 * (u64{1} << 32) + 1234);
}

TEST(Hpet, legacy_one_shot_matches_once_and_exactly) {
  Rig m;
  m.out(kConfig, kEnable | kLegacy);
  EXPECT_TRUE(m.legacy);
  m.clock.advance(7);
  m.out(comparator(0), 100);
  m.out(conf(0), kInterrupt);
  EXPECT_EQ(m.clock.next_alarm(), 1000u);
  m.clock.advance(kSecond);
  EXPECT_EQ(m.events, Events{1000 * 8 + 0});
  m.out(comparator(0), m.in(kCounter));
  EXPECT_EQ(m.events.size(), 2u) << "equal now matches now";
  m.out(conf(1), kInterrupt);
  m.out(comparator(1), m.in(kCounter) + 2);
  m.clock.advance(20);
  EXPECT_EQ(m.events.back(), (m.clock.now() - 7) * 8 + 1) << "timer 1 is IRQ 8";
}

TEST(Hpet, periodic_as_linux_programs_it) {
  Rig m;
  m.out(kConfig, kEnable | kLegacy);
  m.out(conf(0), kInterrupt | kPeriodic | kValueSet | kMode32, 4);
  EXPECT_EQ(m.in(conf(0), 4) & kValueSet, 0u);
  m.out(comparator(0), 50, 4);
  m.out(comparator(0), 100, 4);
  m.clock.advance(2600);
  EXPECT_EQ(m.events, (Events{500 * 8, 1500 * 8, 2500 * 8}));
  EXPECT_EQ(m.in(comparator(0)), 350u);
  m.out(conf(0), kPeriodic | kMode32, 4);
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever) << "nobody would see it";
  m.clock.advance(100'000);
  EXPECT_EQ(m.in(comparator(0)), 10'350u) << "the accumulator goes on";
}

TEST(Hpet, one_shot_of_32_bits_comes_again_when_the_counter_wraps) {
  Rig m;
  m.out(conf(2), kInterrupt | kMode32 | route(21));
  m.out(comparator(2), 0x1'0000'0005);
  m.out(kConfig, kEnable);
  m.clock.advance_to(60 * kSecond);
  EXPECT_EQ(m.events, (Events{50 * 8 + 3, ((u64{1} << 32) + 5) * 80 + 3}));
}

TEST(Hpet, level_holds_until_its_status_is_cleared) {
  Rig m;
  m.out(conf(1), kInterrupt | kLevel | route(20));
  m.out(comparator(1), 10);
  m.out(kConfig, kEnable);
  m.clock.advance(99);
  EXPECT_FALSE(m.wires.pins[0].level());
  m.clock.advance(1);
  EXPECT_TRUE(m.wires.pins[0].level());
  EXPECT_EQ(m.in(kStatus), 2u);
  m.out(kStatus, 2);
  EXPECT_FALSE(m.wires.pins[0].level());
}

TEST(Hpet, status_of_a_silent_level_timer_shows_without_an_alarm) {
  Rig m;
  m.out(conf(1), kLevel);
  m.out(comparator(1), 10);
  m.out(kConfig, kEnable);
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  m.clock.advance(100);
  EXPECT_EQ(m.in(kStatus), 2u);
}

TEST(Hpet, messages) {
  Rig m;
  m.out(fsb(2), 0xfee01000'00000041);
  m.out(conf(2), kInterrupt | kFsb);
  m.out(comparator(2), 10);
  m.out(kConfig, kEnable);
  m.clock.advance(100);
  EXPECT_EQ(m.events, Events{100 * 8 + 7 + 0xfee01000 + 0x41});
}

TEST(Hpet, inconsistent_states_are_refused) {
  Rig m;
  auto record = m.hpet.capture();
  record.as<cbor::Map>()->set("status", u64{1});
  EXPECT_FALSE(state::restore_one(m.hpet, "hpet", record, 1));
}

u64 poke(Rig& m, std::mt19937_64& random) {
  m.events.clear();
  u64 seen = 0;
  const u64 x = random(), y = random();
  static constexpr u64 kRegisters[] = {kConfig, kStatus, kCounter};
  const unsigned n = static_cast<unsigned>(y % 3), size = y & 16 ? 8 : 4;
  const u64 reg = x & 8 ? kRegisters[y / 3 % 3] : conf(n) + y / 8 % 3 * 8;
  u64 value = x >> 20;
  if (reg == kCounter) value &= 0xffff;
  if (reg % 0x20 == 8 && reg > 0x100) value = m.in(kCounter) + value % 500;
  switch (x % 8) {
    case 0: case 1: case 2: m.clock.advance(y % 20'000); break;
    case 3: seen = m.in(reg, size); break;
    case 4: m.out(kConfig, y & 8 ? 1 : 3); break;
    case 5: if (y % 8 == 0) m.out(conf(n), kInterrupt | kPeriodic | kValueSet | kMode32 | route(20 + n)); break;
    default: m.out(reg + (size == 4 && y & 32 ? 4 : 0), value, size);
  }
  for (u64 event : m.events) seen = seen * 31 + event;
  return seen;
}

DEVICE_CONTRACT(Hpet, Rig, poke)

}  // namespace
