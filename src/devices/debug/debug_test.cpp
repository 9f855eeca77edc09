// The two debug ports.
#include <optional>

#include "contract.hpp"
#include "devices/debug/debug_console.hpp"
#include "devices/debug/debug_exit.hpp"

using namespace stasis;
namespace {

struct ConsoleRig final : host::CharacterSink {
  Clock clock;
  PortBus bus;
  std::string said;
  DebugConsole console{*this};
  ConsoleRig() { console.attach(bus); }
  void put(u8 byte) override { said += static_cast<char>(byte); }
  state::Part& part() { return console; }
  std::vector<u64> lines() const { return {}; }
};

struct ExitRig final : SystemControl {
  Clock clock;
  PortBus bus;
  std::optional<u32> status;
  DebugExit exit{*this};
  ExitRig() { exit.attach(bus); }
  void request_reset() override {}
  void request_poweroff() override {}
  void request_debug_exit(u32 value) override { status = value; }
  void set_a20(bool) override {}
  state::Part& part() { return exit; }
  std::vector<u64> lines() const { return {}; }
};

TEST(DebugConsole, says_what_is_written_and_that_it_is_there) {
  ConsoleRig m;
  for (const char c : std::string("hi\n")) m.bus.out(0xe9, static_cast<u8>(c));
  EXPECT_EQ(m.said, "hi\n");
  EXPECT_EQ(m.bus.in(0xe9), 0xe9u);
}

TEST(DebugExit, passes_the_value_on) {
  ExitRig m;
  m.bus.out(0xf5, 9);
  EXPECT_FALSE(m.status);
  m.bus.out(0xf4, 0x12345678, 4);
  EXPECT_EQ(m.status, 0x12345678u);
  m.bus.out(0xf4, 3);
  EXPECT_EQ(m.status, 3u);
}

u64 poke_console(ConsoleRig& m, std::mt19937_64& random) { return m.bus.out(0xe9, random() & 0xff), m.bus.in(0xe9); }
u64 poke_exit(ExitRig& m, std::mt19937_64& random) { return m.bus.out(0xf4, random() & 0xff, 4), m.bus.in(0xf4); }

DEVICE_CONTRACT(DebugConsole, ConsoleRig, poke_console)
DEVICE_CONTRACT(DebugExit, ExitRig, poke_exit)

}  // namespace
