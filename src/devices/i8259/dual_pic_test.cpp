// The 8259 pair, spoken to as a PC's kernel does: ports, lines and INTA cycles.
#include "devices/i8259/dual_pic.hpp"

#include "contract.hpp"

using namespace stasis;
namespace {

struct Rig {
  Clock clock;
  IrqLine intr;
  PortBus bus;
  DualPic pic{intr};
  Rig() { pic.attach(bus); }
  state::Part& part() { return pic; }
  std::vector<u64> lines() const { return {intr.level()}; }

  void init(u8 icw4 = 0x01) {
    for (const u16 port : {0x20, 0xa0}) {
      bus.out(port, 0x11);
      bus.out(port + 1, port == 0x20 ? 0x30 : 0x38);
      bus.out(port + 1, port == 0x20 ? 0x04 : 0x02);
      bus.out(port + 1, icw4);
      bus.out(port + 1, 0x00);
    }
  }
  void pulse(unsigned irq) { pic.set_irq(irq, true), pic.set_irq(irq, false); }
  u32 in_service(u16 port) { return bus.out(port, 0x0b), bus.in(port); }
  u32 requested(u16 port) { return bus.out(port, 0x0a), bus.in(port); }
};

TEST(DualPic, is_masked_at_power_on_and_the_mask_reads_back) {
  Rig m;
  m.pulse(4);
  EXPECT_FALSE(m.intr.level());
  m.bus.out(0x21, 0xfb);
  EXPECT_EQ(m.bus.in(0x21), 0xfbu);
}

TEST(DualPic, an_edge_is_latched_acknowledged_and_ended) {
  Rig m;
  m.init();
  m.pic.set_irq(4, true);
  m.pic.set_irq(4, true);  // the same level again is no edge
  EXPECT_TRUE(m.intr.level());
  EXPECT_EQ(m.requested(0x20), 0x10u);
  EXPECT_EQ(m.pic.acknowledge(), 0x34);
  EXPECT_FALSE(m.intr.level());
  EXPECT_EQ(m.in_service(0x20), 0x10u);
  m.bus.out(0x20, 0x20);
  EXPECT_EQ(m.in_service(0x20), 0u);
  EXPECT_FALSE(m.intr.level());  // still high, but no new edge
}

TEST(DualPic, a_more_urgent_line_interrupts_a_less_urgent_one_waits) {
  Rig m;
  m.init();
  m.pulse(3);
  EXPECT_EQ(m.pic.acknowledge(), 0x33);
  m.pulse(5);
  EXPECT_FALSE(m.intr.level());
  m.pulse(1);
  EXPECT_TRUE(m.intr.level());
  EXPECT_EQ(m.pic.acknowledge(), 0x31);
  m.bus.out(0x20, 0x20);  // ends 1
  EXPECT_EQ(m.in_service(0x20), 0x08u);
  m.bus.out(0x20, 0x63);  // specific end of 3
  EXPECT_EQ(m.pic.acknowledge(), 0x35);
}

TEST(DualPic, the_slave_comes_through_the_cascade) {
  Rig m;
  m.init();
  m.pulse(10);
  EXPECT_EQ(m.pic.acknowledge(), 0x3a);
  EXPECT_EQ(m.in_service(0x20), 0x04u);
  EXPECT_EQ(m.in_service(0xa0), 0x04u);
  m.pulse(8);  // beats 10 on the slave, but the master serves its cascade already
  EXPECT_FALSE(m.intr.level());
  m.bus.out(0xa0, 0x20);
  m.bus.out(0x20, 0x20);
  EXPECT_TRUE(m.intr.level());
  EXPECT_EQ(m.pic.acknowledge(), 0x38);
}

TEST(DualPic, special_fully_nested_mode_lets_the_slave_nest) {
  Rig m;
  m.init(0x11);
  m.pulse(10);
  m.pic.acknowledge();
  m.pulse(8);
  EXPECT_TRUE(m.intr.level());
  EXPECT_EQ(m.pic.acknowledge(), 0x38);
}

TEST(DualPic, several_slave_requests_under_auto_eoi_all_arrive) {
  Rig m;
  m.init(0x03);
  m.pulse(9), m.pulse(14), m.pulse(11);
  EXPECT_EQ(m.pic.acknowledge(), 0x39);
  EXPECT_EQ(m.pic.acknowledge(), 0x3b);
  EXPECT_EQ(m.pic.acknowledge(), 0x3e);
  EXPECT_FALSE(m.intr.level());
  EXPECT_EQ(m.in_service(0x20), 0u);
}

TEST(DualPic, a_level_triggered_line_asks_as_long_as_it_is_high) {
  Rig m;
  m.init();
  m.bus.out(0x4d0, 0xff);
  m.bus.out(0x4d1, 0xff);
  EXPECT_EQ(m.bus.in(0x4d0), 0xf8u);
  EXPECT_EQ(m.bus.in(0x4d1), 0xdeu);
  m.pic.set_irq(11, true);
  EXPECT_EQ(m.pic.acknowledge(), 0x3b);
  m.bus.out(0xa0, 0x20);
  m.bus.out(0x20, 0x20);
  EXPECT_EQ(m.pic.acknowledge(), 0x3b);
  m.pic.set_irq(11, false);
  m.bus.out(0xa0, 0x20);
  m.bus.out(0x20, 0x20);
  EXPECT_FALSE(m.intr.level());
}

TEST(DualPic, vanished_requests_are_spurious_and_not_in_service) {
  Rig m;
  m.init();
  m.bus.out(0x4d0, 0xf8);
  m.bus.out(0x4d1, 0xde);
  m.pic.set_irq(5, true);
  m.pic.set_irq(5, false);
  EXPECT_EQ(m.pic.acknowledge(), 0x37);
  EXPECT_EQ(m.in_service(0x20), 0u);
  m.pic.set_irq(11, true);
  m.pic.set_irq(11, false);
  EXPECT_EQ(m.pic.acknowledge(), 0x3f);
  EXPECT_EQ(m.in_service(0x20), 0x04u);  // the master did serve its cascade
  EXPECT_EQ(m.in_service(0xa0), 0u);
}

TEST(DualPic, rotation_makes_the_served_line_the_least_urgent) {
  Rig m;
  m.init();
  m.pulse(0);
  m.pic.acknowledge();
  m.bus.out(0x20, 0xa0);  // rotate on non-specific EOI
  m.pulse(0), m.pulse(1);
  EXPECT_EQ(m.pic.acknowledge(), 0x31);
  m.bus.out(0x20, 0xe1);  // rotate on specific EOI
  m.bus.out(0x20, 0xc4);  // set priority: 4 least, 5 most
  m.pulse(5);
  EXPECT_EQ(m.pic.acknowledge(), 0x35);
}

TEST(DualPic, rotation_in_auto_eoi) {
  Rig m;
  m.init(0x03);
  m.bus.out(0x20, 0x80);
  m.pulse(3);
  EXPECT_EQ(m.pic.acknowledge(), 0x33);
  m.pulse(3), m.pulse(6);
  EXPECT_EQ(m.pic.acknowledge(), 0x36);
}

TEST(DualPic, special_mask_mode_lets_lower_lines_through) {
  Rig m;
  m.init();
  m.pulse(2 + 1);
  m.pic.acknowledge();
  m.pulse(6);
  EXPECT_FALSE(m.intr.level());
  m.bus.out(0x20, 0x68);
  m.bus.out(0x21, 0x08);
  EXPECT_TRUE(m.intr.level());
  EXPECT_EQ(m.pic.acknowledge(), 0x36);
  m.bus.out(0x20, 0x20);  // sees 6 only
  EXPECT_EQ(m.in_service(0x20), 0x08u);
}

TEST(DualPic, poll_mode_acknowledges_by_a_read) {
  Rig m;
  m.init();
  m.bus.out(0x20, 0x0c);
  EXPECT_EQ(m.bus.in(0x20) & 0x80, 0u);
  m.pulse(12);
  m.bus.out(0xa0, 0x0c);
  EXPECT_EQ(m.bus.in(0xa0), 0x84u);
  EXPECT_FALSE(m.intr.level());
  EXPECT_EQ(m.in_service(0xa0), 0x10u);
}

TEST(DualPic, icw1_forgets_edges_and_wants_new_ones) {
  Rig m;
  m.init();
  m.pic.set_irq(6, true);
  m.init();
  EXPECT_FALSE(m.intr.level());
  m.pic.set_irq(6, false);
  m.pic.set_irq(6, true);
  EXPECT_TRUE(m.intr.level());
}

TEST(DualPic, restoring_a_level_is_no_edge) {
  Rig m, twin;
  m.init();
  m.pic.set_irq(4, true);
  m.pic.acknowledge();
  m.bus.out(0x20, 0x20);
  ASSERT_TRUE(contract::restore_bytes(twin, contract::bytes_of(m), 1, 0));
  twin.pic.set_irq(4, true);  // the device settles
  EXPECT_FALSE(twin.intr.level());
}

u64 poke(Rig& m, std::mt19937_64& random) {
  static constexpr u16 kPorts[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
  const u16 port = kPorts[random() % 6];
  switch (random() % 8) {
    case 0: return m.bus.out(port, static_cast<u8>(random())), 0;
    case 1: return m.bus.out(port & ~1u, 0x20), 0;
    case 2: return m.bus.in(port);
    case 3: return m.intr.level() ? m.pic.acknowledge() : 0;
    case 4: return random() % 40 ? 0 : (m.init(static_cast<u8>(random())), 0);
    case 5: return random() % 20 ? 0 : m.pic.acknowledge();
    default: return m.pic.set_irq(random() % 16, random() % 2), 0;
  }
}

DEVICE_CONTRACT(DualPic, Rig, poke)

}  // namespace
