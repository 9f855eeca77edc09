// Interrupt wiring: shared wires, legacy replacement, and no edge from the order of settling.
#include "machine/wires.hpp"

#include <gtest/gtest.h>

#include <array>

using namespace stasis;
namespace {

struct Rig {
  std::array<bool, 16> pic{};
  std::array<bool, 24> ioapic{};
  unsigned edges = 0;
  Wires wires{[this](unsigned n, bool level) { edges += pic[n] != level, pic[n] = level; },
              [this](unsigned n, bool level) { ioapic[n] = level; }};
};

TEST(Wires, shared_interrupt_is_the_or_of_its_drivers) {
  Rig m;
  IrqLine a, b;
  m.wires.connect_isa(a, 4);
  m.wires.connect_isa(b, 4);
  a.set(true);
  b.set(true);
  a.set(false);
  EXPECT_TRUE(m.pic[4] && m.ioapic[4]);
  b.set(false);
  EXPECT_FALSE(m.pic[4] || m.ioapic[4]);
}

TEST(Wires, irq_0_is_pin_2_and_legacy_replacement_cuts_the_pit) {
  Rig m;
  IrqLine pit, hpet;
  m.wires.connect_isa(pit, 0, Wires::When::without_legacy_replacement);
  m.wires.connect_isa(hpet, 0, Wires::When::with_legacy_replacement);
  pit.set(true);
  EXPECT_TRUE(m.pic[0] && m.ioapic[2]);
  m.wires.set_legacy_replacement(true);
  EXPECT_FALSE(m.pic[0] || m.ioapic[2]);
  hpet.set(true);
  EXPECT_TRUE(m.pic[0] && m.ioapic[2] && !m.pic[2]);
}

TEST(Wires, a_restore_makes_no_edge) {
  Rig m;
  IrqLine a, b;
  m.wires.connect_isa(a, 4);
  m.wires.connect_isa(b, 4);
  m.pic[4] = true;  // the receiver's restored memory of the level
  m.wires.mute();
  b.set(false);
  a.set(true);
  EXPECT_EQ(m.edges, 0u);
  m.wires.unmute();
  EXPECT_EQ(m.edges, 0u);
  EXPECT_TRUE(m.pic[4]);
}

}  // namespace
