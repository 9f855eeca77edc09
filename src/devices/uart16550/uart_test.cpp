// The UART as a driver, the outside and the guest clock see it.
#include "devices/uart16550/uart.hpp"

#include "contract.hpp"

using namespace stasis;
namespace {

constexpr u16 kBase = 0x3f8, kData = kBase, kIer = kBase + 1, kIir = kBase + 2, kFcr = kIir, kLcr = kBase + 3, kMcr = kBase + 4,
              kLsr = kBase + 5, kMsr = kBase + 6, kScr = kBase + 7;

struct Rig : host::CharacterSink {
  Clock clock;
  PortBus bus;
  IrqLine irq;
  Uart uart{clock, irq, *this};
  std::string sent;
  unsigned edges = 0;
  bool seen = false;
  Rig() {
    uart.attach(bus, kBase);
    irq.connect([this](bool level) {
      edges += level && !seen;
      seen = level;
    });
  }
  void put(u8 byte) override { sent += static_cast<char>(byte); }
  state::Part& part() { return uart; }
  std::vector<u64> lines() const { return {irq.level(), uart.can_receive()}; }
  u32 in(u16 port) { return bus.in(port); }
  void out(u16 port, u32 value) { bus.out(port, value); }
  void open(u8 trigger = 0x80) {  // 115200 8N1, FIFO with trigger level 8, all interrupts but modem status
    out(kLcr, 0x83);
    out(kData, 1);
    out(kIer, 0);
    out(kLcr, 3);
    out(kFcr, 7u | trigger);
    out(kMcr, 0xb);
    out(kIer, 5);
  }
};

TEST(Uart, linux_finds_a_16550a) {  // the steps of its autoconfiguration
  Rig m;
  m.out(kIer, 0);
  EXPECT_EQ(m.in(kIer) & 0x0f, 0u);
  m.out(kIer, 0x4f);
  EXPECT_EQ(m.in(kIer), 0x0fu) << "no more than four bits";
  m.out(kIer, 0);
  m.out(kMcr, 0x1a);  // loopback, OUT2, RTS
  EXPECT_EQ(m.in(kMsr) & 0xf0, 0x90u);
  m.out(kMcr, 0);
  m.out(kLcr, 0xbf);
  m.out(kFcr, 0);
  m.out(kLcr, 0);
  m.out(kFcr, 1);
  EXPECT_EQ(m.in(kIir) >> 6, 3u);
  m.out(kFcr, 0x21);
  EXPECT_EQ(m.in(kIir) & 0x20, 0u) << "not a 16750";
  m.out(kScr, 0x5a);
  EXPECT_EQ(m.in(kScr), 0x5au);
  EXPECT_EQ(m.in(kLsr), 0x60u);
}

TEST(Uart, thre_interrupt_comes_again_when_enabled_again) {  // Linux's test for broken UARTs
  Rig m;
  m.out(kIer, 2);
  EXPECT_EQ(m.in(kIir), 2u);
  EXPECT_EQ(m.in(kIir), 1u) << "reading IIR takes it";
  m.out(kIer, 0);
  m.out(kIer, 2);
  EXPECT_EQ(m.in(kIir), 2u);
}

TEST(Uart, each_transmission_is_an_edge) {
  Rig m;
  m.open();
  m.out(kIer, 7);
  EXPECT_EQ(m.edges, 1u);
  m.out(kData, 'h');
  m.out(kData, 'i');
  EXPECT_EQ(m.edges, 3u);
  EXPECT_EQ(m.sent, "hi");
  EXPECT_EQ(m.in(kIir), 0xc2u);
  EXPECT_FALSE(m.irq.level());
  m.out(kData, '!');
  EXPECT_TRUE(m.irq.level());
}

TEST(Uart, out2_gates_the_line) {
  Rig m;
  m.open();
  m.out(kIer, 2);
  EXPECT_TRUE(m.irq.level());
  m.out(kMcr, 3);
  EXPECT_FALSE(m.irq.level());
}

TEST(Uart, receiver_interrupts_at_its_trigger_level) {
  Rig m;
  m.open();
  for (u8 i = 0; i < 7; ++i) m.uart.receive(i);
  EXPECT_FALSE(m.irq.level());
  EXPECT_EQ(m.in(kLsr), 0x61u);
  m.uart.receive(7);
  EXPECT_EQ(m.in(kIir), 0xc4u);
  EXPECT_EQ(m.in(kData), 0u);
  EXPECT_FALSE(m.irq.level());
}

TEST(Uart, fewer_characters_time_out_after_four_character_times) {
  Rig m;
  m.open();
  m.uart.receive('x');
  m.uart.receive('y');
  const u64 wait = mul_div_up(40, kSecond, 115'200);
  EXPECT_EQ(m.clock.next_alarm(), wait);
  m.clock.advance(wait - 1);
  EXPECT_FALSE(m.irq.level());
  m.clock.advance(1);
  EXPECT_TRUE(m.irq.level());
  EXPECT_EQ(m.in(kIir), 0xccu);
  EXPECT_EQ(m.in(kData), u32{'x'});
  EXPECT_FALSE(m.irq.level()) << "a read starts the time anew";
  m.clock.advance(wait);
  EXPECT_EQ(m.in(kIir), 0xccu);
  EXPECT_EQ(m.in(kData), u32{'y'});
  EXPECT_EQ(m.clock.next_alarm(), Clock::kNever);
  m.clock.advance(kSecond);
  EXPECT_EQ(m.in(kIir), 0xc1u);
}

TEST(Uart, what_does_not_fit_stays_outside) {
  Rig m;
  m.open();
  unsigned taken = 0;
  for (; m.uart.can_receive(); ++taken) m.uart.receive('a');
  EXPECT_EQ(taken, 16u);
  EXPECT_EQ(m.in(kIir), 0xc4u) << "no overrun";
  m.out(kFcr, 0);
  m.uart.receive('b');
  EXPECT_FALSE(m.uart.can_receive());
}

TEST(Uart, overrun_is_told_once) {
  Rig m;
  m.open();
  for (u8 i = 0; i < 17; ++i) m.uart.receive(i);
  EXPECT_EQ(m.in(kIir), 0xc6u);
  EXPECT_EQ(m.in(kLsr), 0x63u);
  EXPECT_EQ(m.in(kLsr), 0x61u);
  EXPECT_EQ(m.in(kIir), 0xc4u);
}

TEST(Uart, loopback_turns_data_and_modem_lines_around) {
  Rig m;
  m.open();
  m.out(kMcr, 0x10);
  EXPECT_EQ(m.in(kMsr), 0x0bu) << "CTS, DSR and DCD fell";
  EXPECT_EQ(m.in(kMsr), 0x00u);
  m.out(kMcr, 0x1f);
  EXPECT_EQ(m.in(kMsr), 0xfbu) << "RI counts when it ends";
  m.out(kData, 0xa5);
  EXPECT_TRUE(m.sent.empty());
  EXPECT_FALSE(m.uart.can_receive());
  EXPECT_EQ(m.in(kData), 0xa5u);
  m.out(kIer, 8);
  m.out(kMcr, 0x0b);
  EXPECT_EQ(m.in(kIir), 0xc0u);
  EXPECT_EQ(m.in(kMsr), 0xb4u);
}

TEST(Uart, defect_12_saving_disturbs_nothing) {
  Rig m;
  m.open();
  m.out(kIer, 7);
  m.uart.receive('k');
  const unsigned edges = m.edges;
  const auto record = cbor::encode(m.uart.capture());
  EXPECT_EQ(m.edges, edges);
  EXPECT_EQ(cbor::encode(m.uart.capture()), record);
  EXPECT_EQ(m.in(kIir), 0xc2u);
  EXPECT_EQ(m.in(kData), u32{'k'});
}

TEST(Uart, inconsistent_states_are_refused) {
  Rig m;
  auto record = m.uart.capture();
  record.as<cbor::Map>()->set("timeout_ns", u64{5});
  EXPECT_FALSE(state::restore_one(m.uart, "uart", record, 1));
}

u64 poke(Rig& m, std::mt19937_64& random) {
  const unsigned edges = m.edges;
  m.sent.clear();
  const u64 x = random(), y = random();
  const u16 port = static_cast<u16>(kBase + y % 8);
  u64 seen = 0;
  switch (x % 8) {
    case 0: m.clock.advance(y % 500'000); break;
    case 1: case 2: if (m.uart.can_receive() || y % 16 == 0) m.uart.receive(static_cast<u8>(y >> 8)); break;
    case 3: m.open(static_cast<u8>(y & 0xc0)); break;
    case 4: m.out(port, static_cast<u32>(y >> 8)); break;
    case 5: m.out(y & 8 ? kMcr : kIer, static_cast<u32>(y >> 8)); break;
    default: seen = m.in(port);
  }
  for (char c : m.sent) seen = seen * 31 + static_cast<u8>(c);
  return seen * 31 + m.edges - edges;
}

DEVICE_CONTRACT(Uart, Rig, poke)

}  // namespace
