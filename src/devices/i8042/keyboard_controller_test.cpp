// The keyboard controller as a kernel probes it: reset, A20, and no keyboard.
#include "devices/i8042/keyboard_controller.hpp"

#include "contract.hpp"

using namespace stasis;
namespace {

struct FakeControl final : SystemControl {
  unsigned resets = 0;
  bool a20 = true;
  void request_reset() override { ++resets; }
  void request_poweroff() override {}
  void request_debug_exit(u32) override {}
  void set_a20(bool open) override { a20 = open; }
};

struct Rig {
  Clock clock;
  FakeControl control;
  IrqLine irq1;
  PortBus bus;
  KeyboardController keyboard{control, irq1};
  Rig() { keyboard.attach(bus); }
  state::Part& part() { return keyboard; }
  std::vector<u64> lines() const { return {irq1.level(), control.a20}; }

  u32 ask(u8 command) {
    bus.out(0x64, command);
    return bus.in(0x64) & 1 ? bus.in(0x60) : ~0u;
  }
  void tell(u8 command, u8 data) { bus.out(0x64, command), bus.out(0x60, data); }
};

TEST(KeyboardController, a_kernel_finds_a_controller) {
  Rig m;
  EXPECT_EQ(m.bus.in(0x64), 0x10u);
  EXPECT_EQ(m.ask(0xaa), 0x55u);
  EXPECT_EQ(m.bus.in(0x64), 0x1cu);
  EXPECT_EQ(m.ask(0xab), 0x00u);
  m.tell(0x60, 0x47);
  EXPECT_EQ(m.ask(0x20), 0x47u);
  m.tell(0x65, 0x12);
  EXPECT_EQ(m.ask(0x25), 0x12u);
  m.bus.out(0x64, 0xad);
  EXPECT_EQ(m.ask(0x20), 0x57u);
}

TEST(KeyboardController, has_no_auxiliary_port) {
  Rig m;
  m.tell(0xd3, 0x5a);
  EXPECT_EQ(m.bus.in(0x64) & 0x21, 0x01u);  // comes back, but not as auxiliary data
  EXPECT_EQ(m.bus.in(0x60), 0x5au);
  EXPECT_EQ(m.ask(0xa9), 0x02u);
  m.tell(0xd4, 0xf4);
  EXPECT_EQ(m.bus.in(0x64) & 0x41, 0x41u);
}

TEST(KeyboardController, no_keyboard_answers_and_irq1_says_so) {
  Rig m;
  m.tell(0x60, 0x45);
  EXPECT_FALSE(m.irq1.level());
  m.bus.out(0x60, 0xf2);
  EXPECT_TRUE(m.irq1.level());
  EXPECT_EQ(m.bus.in(0x64) & 0x41, 0x41u);
  EXPECT_EQ(m.bus.in(0x60), 0xfeu);
  EXPECT_EQ(m.bus.in(0x64) & 0x41, 0x00u);
  EXPECT_FALSE(m.irq1.level());
}

TEST(KeyboardController, resets_the_machine_in_all_three_ways) {
  Rig m;
  m.bus.out(0x64, 0xff);
  EXPECT_EQ(m.control.resets, 0u);
  m.bus.out(0x64, 0xfe);
  EXPECT_EQ(m.control.resets, 1u);
  m.tell(0xd1, 0x02);
  EXPECT_EQ(m.control.resets, 2u);
  m.bus.out(0x92, 0x03);
  EXPECT_EQ(m.control.resets, 3u);
}

TEST(KeyboardController, a20_opens_and_closes) {
  Rig m;
  EXPECT_EQ(m.ask(0xd0), 0x03u);
  m.tell(0xd1, 0x01);
  EXPECT_FALSE(m.control.a20);
  EXPECT_EQ(m.ask(0xd0), 0x01u);
  m.bus.out(0x92, 0x02);
  EXPECT_TRUE(m.control.a20);
  EXPECT_EQ(m.bus.in(0x92), 0x02u);
  m.bus.out(0x64, 0xdd);
  EXPECT_FALSE(m.control.a20);
  m.keyboard.reset();
  EXPECT_TRUE(m.control.a20);
}

TEST(KeyboardController, defect_10_what_waits_in_it_survives_a_save) {
  Rig m, answering, awaiting;
  m.tell(0x60, 0x45);
  m.bus.out(0x64, 0xd0);  // the answer waits in the output buffer
  ASSERT_TRUE(state::restore_one(answering.keyboard, "keyboard", m.keyboard.capture(), 1));
  EXPECT_EQ(answering.irq1.level(), m.irq1.level());
  EXPECT_EQ(answering.bus.in(0x64), m.bus.in(0x64));
  EXPECT_EQ(answering.bus.in(0x60), m.bus.in(0x60));
  m.bus.out(0x64, 0x65);  // a command whose data byte comes next
  ASSERT_TRUE(state::restore_one(awaiting.keyboard, "keyboard", m.keyboard.capture(), 1));
  awaiting.bus.out(0x60, 0x5a);
  EXPECT_EQ(awaiting.ask(0x25), 0x5au);
}

u64 poke(Rig& m, std::mt19937_64& random) {
  static constexpr u16 kPorts[] = {0x60, 0x64, 0x92};
  switch (random() % 4) {
    case 0: return m.bus.in(kPorts[random() % 3]);
    case 1: return m.tell(0x60, static_cast<u8>(random())), 0;
    case 2: return m.ask(static_cast<u8>(random()));
    default: return m.bus.out(kPorts[random() % 3], static_cast<u8>(random())), 0;
  }
}

DEVICE_CONTRACT(KeyboardController, Rig, poke)

}  // namespace
