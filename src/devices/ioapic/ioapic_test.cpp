// The I/O APIC as its pins, its registers and the message bus see it.
#include "devices/ioapic/ioapic.hpp"

#include "contract.hpp"

using namespace stasis;
namespace {

struct Rig : MessageSink {
  Clock clock;
  MmioBus bus;
  IoApic ioapic{*this};
  std::vector<std::pair<u64, u32>> sent;
  Rig() { ioapic.attach(bus); }
  void deliver(u64 address, u32 data) override { sent.emplace_back(address, data); }
  state::Part& part() { return ioapic; }
  std::vector<u64> lines() const { return {}; }

  u32 get(u8 index) {
    bus.write(IoApic::kBase, 4, index);
    return static_cast<u32>(bus.read(IoApic::kBase + 0x10, 4));
  }
  void put(u8 index, u32 value) {
    bus.write(IoApic::kBase, 4, index);
    bus.write(IoApic::kBase + 0x10, 4, value);
  }
};
using Messages = std::vector<std::pair<u64, u32>>;

TEST(IoApic, power_on) {
  Rig m;
  EXPECT_EQ(m.get(1), 0x00170020u);
  EXPECT_EQ(m.get(0x10), 0x10000u);
  EXPECT_EQ(m.get(0x3e), 0x10000u);
  EXPECT_EQ(m.get(0x40), 0u);
  m.ioapic.set_irq(4, true);
  EXPECT_TRUE(m.sent.empty());
}

TEST(IoApic, defect_05_its_id_survives_a_save) {
  Rig m, other;
  m.put(0, 0x0900'0000);
  EXPECT_EQ(m.get(2), 0x0900'0000u);
  ASSERT_TRUE(state::restore_one(other.ioapic, "ioapic", m.ioapic.capture(), 1));
  EXPECT_EQ(other.get(0), 0x0900'0000u);
}

TEST(IoApic, edge_sends_once_per_rising_edge) {
  Rig m;
  m.put(0x10 + 2 * 4 + 1, 0x0300'0000);
  m.put(0x10 + 2 * 4, 0x924);  // vector 0x24, lowest priority, logical
  m.ioapic.set_irq(4, true);
  m.ioapic.set_irq(4, true);
  EXPECT_EQ(m.sent, (Messages{{0xfee03004, 0x4124}}));
  m.ioapic.set_irq(4, false);
  m.ioapic.set_irq(4, true);
  EXPECT_EQ(m.sent.size(), 2u);
}

TEST(IoApic, masked_edges_are_lost) {
  Rig m;
  m.ioapic.set_irq(4, true);
  m.put(0x18, 0x24);
  EXPECT_TRUE(m.sent.empty());
}

TEST(IoApic, level_sends_again_at_eoi_while_asserted) {
  Rig m;
  m.put(0x18, 0x8024 | 0x10000);
  m.ioapic.set_irq(4, true);
  m.put(0x18, 0xa024);
  EXPECT_EQ(m.sent, (Messages{{0xfee00000, 0xc024}}));
  EXPECT_EQ(m.get(0x18), 0xe024u) << "remote IRR";
  m.ioapic.set_irq(4, false);
  m.ioapic.set_irq(4, true);
  EXPECT_EQ(m.sent.size(), 1u);
  m.ioapic.end_of_interrupt(0x25);
  EXPECT_EQ(m.sent.size(), 1u);
  m.ioapic.end_of_interrupt(0x24);
  EXPECT_EQ(m.sent.size(), 2u);
  m.ioapic.set_irq(4, false);
  m.bus.write(IoApic::kBase + 0x40, 4, 0x24);
  EXPECT_EQ(m.sent.size(), 2u);
  EXPECT_EQ(m.get(0x18), 0xa024u);
}

TEST(IoApic, becoming_edge_triggered_forgets_remote_irr) {
  Rig m;
  m.put(0x18, 0x8024);
  m.ioapic.set_irq(4, true);
  m.put(0x18, 0x10024);
  EXPECT_EQ(m.get(0x18), 0x10024u);
  m.put(0x18, 0x8024);
  EXPECT_EQ(m.sent.size(), 2u);
}

TEST(IoApic, extint_and_nmi_are_edges_and_keep_their_mode) {
  Rig m;
  m.put(0x10, 0x8700);
  m.put(0x12, 0x8400);
  m.ioapic.set_irq(0, true);
  m.ioapic.set_irq(1, true);
  EXPECT_EQ(m.sent, (Messages{{0xfee00000, 0x4700}, {0xfee00000, 0x4400}}));
}

TEST(IoApic, a_restored_asserted_line_is_no_edge) {
  Rig m, twin;
  m.put(0x18, 0x24);
  m.ioapic.set_irq(4, true);
  ASSERT_TRUE(state::restore_one(twin.ioapic, "ioapic", m.ioapic.capture(), 1));
  twin.ioapic.set_irq(4, true);
  EXPECT_TRUE(twin.sent.empty());
}

u64 poke(Rig& m, std::mt19937_64& random) {
  m.sent.clear();
  u64 seen = 0;
  const u64 x = random(), y = random();
  switch (x % 6) {
    case 0: m.clock.advance(y % 1000); break;
    case 1: case 2: m.ioapic.set_irq(y % 6, y >> 8 & 1); break;
    case 3: m.put(static_cast<u8>(x & 8 ? 0x10 + y % 12 : y % 0x44), static_cast<u32>((y >> 16 & 0xfffefff0) | 4)); break;
    case 4: seen = m.get(static_cast<u8>(y % 0x44)); break;
    default: m.ioapic.end_of_interrupt(static_cast<u8>(y << 4 | 4));
  }
  for (const auto& [address, data] : m.sent) seen = seen * 31 + address + data;
  return seen;
}

DEVICE_CONTRACT(IoApic, Rig, poke)

}  // namespace
