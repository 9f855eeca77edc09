// Consoles without threads: what --console accepts, the bounded queue, the terminal's settings, the leave key.
#include "host/console.hpp"

#include <gtest/gtest.h>

#include <string>

#include "host/byte_queue.hpp"
#include "host/host_clock.hpp"
#include "host/terminal.hpp"

namespace stasis::host {
namespace {

Bytes as_bytes(std::string_view text) { return {reinterpret_cast<const u8*>(text.data()), text.size()}; }

std::string taken(ByteQueue& queue, std::size_t most) {
  std::string out(most, '\0');
  out.resize(queue.peek({reinterpret_cast<u8*>(out.data()), most}));
  queue.consume(out.size());
  return out;
}

TEST(ConsoleSpec, AcceptsTheFourKinds) {
  EXPECT_EQ(parse_console("stdio", "--console")->kind, ConsoleKind::stdio);
  EXPECT_EQ(parse_console("none", "--console")->kind, ConsoleKind::none);
  EXPECT_EQ(*parse_console("file:/a:b", "--console"), (ConsoleSpec{.kind = ConsoleKind::file, .path = "/a:b"}));
  EXPECT_EQ(*parse_console("unix:s", "--console"), (ConsoleSpec{.kind = ConsoleKind::unix_socket, .path = "s"}));
}

TEST(ConsoleSpec, RefusesTheRestByName) {
  for (const char* text : {"", "stdio:", "file:", "unix:", "file", "tcp:1", "none "}) {
    const auto spec = parse_console(text, "--console");
    ASSERT_FALSE(spec) << text;
    EXPECT_EQ(spec.error().code, ErrorCode::usage);
    EXPECT_EQ(spec.error().object, "--console");
    EXPECT_FALSE(spec.error().hint.empty());
  }
}

TEST(ByteQueue, KeepsTheOrderAndLosesNothingThatFits) {
  ByteQueue queue(8, 0);
  EXPECT_EQ(queue.push(as_bytes("abcdef")), 0u);
  EXPECT_EQ(taken(queue, 4), "abcd");
  EXPECT_EQ(queue.push(as_bytes("ghijkl")), 0u);
  EXPECT_EQ(taken(queue, 3), "efg");
  EXPECT_EQ(taken(queue, 100), "hijkl");
  EXPECT_EQ(queue.size(), 0u);
}

TEST(ByteQueue, DropsWhatDoesNotFitOnceItsTakerIsStuck) {
  ByteQueue queue(4, 1000);  // a microsecond of patience
  EXPECT_EQ(queue.push(as_bytes("abcdef")), 2u);
  EXPECT_EQ(queue.push(as_bytes("gh")), 2u);
  EXPECT_EQ(taken(queue, 1), "a");
  EXPECT_EQ(queue.push(as_bytes("i")), 0u);
  EXPECT_EQ(taken(queue, 9), "bcdi");
}

TEST(ByteQueue, PeekingTakesNothing) {
  ByteQueue queue(4, 0);
  queue.push(as_bytes("ab"));
  u8 out[4];
  EXPECT_EQ(queue.peek(out), 2u);
  EXPECT_EQ(queue.peek(out), 2u);
  EXPECT_FALSE(queue.wait_until_empty(1));
  queue.consume(2);
  EXPECT_TRUE(queue.wait_until_empty(1));
}

TEST(ByteQueue, AnAbandonedQueueTakesAndHoldsNothing) {
  ByteQueue queue(4, 1'000'000'000'000);
  queue.push(as_bytes("ab"));
  queue.abandon();
  EXPECT_EQ(queue.size(), 0u);
  EXPECT_EQ(queue.push(as_bytes("cdefgh")), 6u);  // at once, in spite of its patience
}

TEST(Terminal, RawSettingsPassEveryByteBothWays) {
  termios before{};
  before.c_iflag = ICRNL | IXON | ISTRIP | INLCR;
  before.c_oflag = OPOST | ONLCR;
  before.c_lflag = ECHO | ICANON | ISIG | IEXTEN;
  before.c_cflag = CS7 | PARENB | CREAD;
  const termios raw = raw_settings(before);
  EXPECT_EQ(raw.c_iflag, 0u);
  EXPECT_EQ(raw.c_oflag & OPOST, 0u);
  EXPECT_EQ(raw.c_lflag, 0u);
  EXPECT_EQ(raw.c_cflag, static_cast<tcflag_t>(CS8 | CREAD));
  EXPECT_EQ(raw.c_cc[VMIN], 1);
  EXPECT_EQ(raw.c_cc[VTIME], 0);
}

TEST(Terminal, TheLeaveKeyEndsTheInputAndIsNoInput) {
  const auto before = split_at_leave_key(as_bytes("ls\r"));
  EXPECT_EQ(before.bytes.size(), 3u);
  EXPECT_FALSE(before.leave);
  const auto leaving = split_at_leave_key(as_bytes("ab\x1d" "cd"));
  EXPECT_EQ(leaving.bytes.size(), 2u);
  EXPECT_TRUE(leaving.leave);
}

TEST(HostClock, TheFakeSleepsInNoTimeAndCanBeWoken) {
  FakeHostClock clock;
  EXPECT_TRUE(clock.sleep_until(500));
  EXPECT_EQ(clock.now_ns(), 500u);
  EXPECT_TRUE(clock.sleep_until(100));
  EXPECT_EQ(clock.now_ns(), 500u);
  clock.wake();
  EXPECT_FALSE(clock.sleep_until(900));
  EXPECT_EQ(clock.now_ns(), 500u);
  EXPECT_TRUE(clock.sleep_until(900));
}

}  // namespace
}  // namespace stasis::host
