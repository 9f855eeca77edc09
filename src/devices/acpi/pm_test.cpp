// ACPI fixed hardware and the reset register, in ports, levels and guest time.
#include "devices/acpi/pm.hpp"

#include "contract.hpp"
#include "devices/acpi/reset_control.hpp"

using namespace stasis;
namespace {

constexpr u16 kSts = 0x600, kEn = 0x602, kCnt = 0x604, kTmr = 0x608, kSmi = 0xb2;
constexpr u64 kLap = 599'930'000'000;  // 2^31 ticks, in ns, a little less

struct System : SystemControl {
  unsigned resets = 0, poweroffs = 0;
  void request_reset() override { ++resets; }
  void request_poweroff() override { ++poweroffs; }
  void request_debug_exit(u32) override {}
  void set_a20(bool) override {}
};

struct Rig {
  Clock clock;
  IrqLine sci;
  PortBus bus;
  System system;
  AcpiPm pm{clock, sci, system};
  Rig() { pm.attach(bus); }
  state::Part& part() { return pm; }
  std::vector<u64> lines() const { return {sci.level()}; }
  void enable_acpi() { bus.out(kSmi, AcpiPm::kAcpiEnable); }
};

TEST(AcpiPm, timer_counts_at_3_579545_mhz_in_32_bits) {
  Rig m;
  m.clock.advance(kSecond);
  EXPECT_EQ(m.bus.in(kTmr, 4), 3'579'545u);
  EXPECT_EQ(m.bus.in(kTmr + 1), 3'579'545u >> 8 & 0xff);
  m.clock.advance(1'200 * kSecond);
  EXPECT_EQ(m.bus.in(kTmr, 4), static_cast<u32>(1201ull * 3'579'545));
}

TEST(AcpiPm, defect_03_timer_never_goes_backwards_over_a_save) {
  Rig m, later;
  m.clock.advance(12'345'678'901);
  m.pm.reset();
  EXPECT_EQ(m.bus.in(kTmr, 4), 0u);
  m.clock.advance(987'654'321);
  const u32 before = m.bus.in(kTmr, 4);
  later.clock.restore(m.clock.now());
  ASSERT_TRUE(state::restore_one(later.pm, "pm", m.pm.capture(), 1));
  EXPECT_EQ(later.bus.in(kTmr, 4), before);
  later.clock.advance(1000);
  EXPECT_GE(later.bus.in(kTmr, 4), before);
}

TEST(AcpiPm, lap_raises_sci_unasked_once_enabled) {
  Rig m;
  m.enable_acpi();
  EXPECT_EQ(m.bus.in(kCnt, 2), 1u);
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  m.bus.out(kEn, 1, 2);
  const u64 at = m.clock.next_alarm();
  EXPECT_EQ(mul_div(at, 3'579'545, kSecond), u64{1} << 31);
  EXPECT_EQ(mul_div(at - 1, 3'579'545, kSecond), (u64{1} << 31) - 1);
  m.clock.advance_to(at - 1);
  EXPECT_FALSE(m.sci.level());
  m.clock.advance(1);
  EXPECT_TRUE(m.sci.level());
  m.bus.out(kSts, 1, 2);
  EXPECT_FALSE(m.sci.level());
  EXPECT_EQ(m.bus.in(kSts, 2), 0u);
}

TEST(AcpiPm, lap_shows_in_status_though_nobody_armed_it) {
  Rig m;
  m.clock.advance(2 * kLap);
  EXPECT_EQ(m.bus.in(kSts, 2), 1u);
  m.bus.out(kSts, 1);
  EXPECT_EQ(m.bus.in(kSts, 2), 0u);
}

TEST(AcpiPm, power_button_and_acpi_mode) {
  Rig m;
  m.bus.out(kEn, 0x100, 2);
  m.pm.press_power_button();
  EXPECT_FALSE(m.sci.level()) << "legacy mode has no SCI";
  m.enable_acpi();
  EXPECT_TRUE(m.sci.level());
  EXPECT_EQ(m.bus.in(kSts, 4), 0x0100'0100u);
  m.bus.out(kSts + 1, 1);
  EXPECT_FALSE(m.sci.level());
  m.bus.out(kSmi, AcpiPm::kAcpiDisable);
  EXPECT_EQ(m.bus.in(kCnt, 2), 0u);
}

TEST(AcpiPm, sleep_type_5_is_power_off) {
  Rig m;
  m.bus.out(kCnt, 1u << 13 | 1u << 10, 2);
  EXPECT_EQ(m.system.poweroffs, 0u);
  m.bus.out(kCnt, 5u << 10, 2);
  EXPECT_EQ(m.system.poweroffs, 0u);
  m.bus.out(kCnt, 1u << 13 | 5u << 10, 2);
  EXPECT_EQ(m.system.poweroffs, 1u);
  EXPECT_EQ(m.bus.in(kCnt, 2), 5u << 10);
}

u64 poke(Rig& m, std::mt19937_64& random) {
  const u64 x = random(), y = random();
  const u16 port = static_cast<u16>(kSts + y % 12);
  switch (x % 8) {
    case 0: m.clock.advance(y % kLap); return 0;
    case 1: m.clock.advance(y % kSecond); return 0;
    case 2: m.pm.press_power_button(); return 0;
    case 3: m.bus.out(kSmi, 2 + y % 2); return 0;
    case 4: {
      const unsigned before = m.system.poweroffs;
      m.bus.out(port, static_cast<u32>(y >> 8), 1u << (x >> 8) % 3);
      return m.system.poweroffs - before;
    }
    case 5: m.bus.out(kEn, 0x101, 2); return 0;
    default: return m.bus.in(port, 1u << (x >> 8) % 3);
  }
}

DEVICE_CONTRACT(AcpiPm, Rig, poke)

struct ResetRig {
  Clock clock;
  PortBus bus;
  System system;
  ResetControl control{system};
  ResetRig() { control.attach(bus); }
  state::Part& part() { return control; }
  std::vector<u64> lines() const { return {}; }
};

TEST(ResetControl, resets_when_bit_2_rises) {
  ResetRig m;
  m.bus.out(0xcf9, 2);
  EXPECT_EQ(m.system.resets, 0u);
  m.bus.out(0xcf9, ResetControl::kResetValue);
  m.bus.out(0xcf9, ResetControl::kResetValue);
  EXPECT_EQ(m.system.resets, 1u);
  EXPECT_EQ(m.bus.in(0xcf9), 6u);
}

TEST(ResetControl, leaves_config_address_alone) {
  ResetRig m;
  m.bus.out(0xcf8, 0x8000'0600, 4);
  m.bus.out(0xcf8, 0x0600, 2);
  EXPECT_EQ(m.system.resets, 0u);
  EXPECT_EQ(m.bus.in(0xcf8, 4), 0xffff'ffffu);
  EXPECT_EQ(m.bus.in(0xcf8), 0xffu);
  EXPECT_EQ(m.bus.in(0xcf9), 0u);
}

u64 poke_reset(ResetRig& m, std::mt19937_64& random) {
  const u64 x = random();
  const unsigned before = m.system.resets;
  if (x & 1) return m.bus.in(0xcf8 + (x >> 8) % 4, 1u << (x >> 16) % 3);
  m.bus.out(0xcf8 + (x >> 8) % 4, static_cast<u32>(x >> 32), 1u << (x >> 16) % 3);
  return m.system.resets - before;
}

DEVICE_CONTRACT(ResetControl, ResetRig, poke_reset)

}  // namespace
