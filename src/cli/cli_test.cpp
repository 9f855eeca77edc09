// The command line without a machine: exit statuses, option checks, words, and what a snapshot shows.
#include <gtest/gtest.h>

#include <set>

#include "cli/exit_status.hpp"
#include "cli/hex_dump.hpp"
#include "cli/machine_options.hpp"
#include "cli/output.hpp"
#include "cli/snapshot_view.hpp"
#include "state/layout.hpp"

namespace stasis::cli {
namespace {

Ending ending(Outcome outcome, u32 debug_status = 0) { return {.outcome = outcome, .debug_status = debug_status, .error = {}}; }

TEST(ExitStatus, IsAsDocumented) {
  EXPECT_EQ(status_of(ending(Outcome::powered_off)), 0);
  EXPECT_EQ(status_of(ending(Outcome::suspended)), 4);
  EXPECT_EQ(status_of(ending(Outcome::stopped)), 6);
  EXPECT_EQ(status_of(ending(Outcome::rebooted)), 8);
  EXPECT_EQ(status_of(ending(Outcome::crashed)), 10);
  EXPECT_EQ(status_of(ending(Outcome::failed)), 12);
  EXPECT_EQ(run_status_of(Error{ErrorCode::usage, "", "", ""}), 2);
  EXPECT_EQ(run_status_of(Error{ErrorCode::bad_file, "", "", ""}), 12);
  EXPECT_EQ(status_of(Error{ErrorCode::usage, "", "", ""}), 2);
  EXPECT_EQ(status_of(Error{ErrorCode::bad_file, "", "", ""}), 1);
}

TEST(ExitStatus, OfDebugExitIsOddAndMeetsNoOther) {
  std::set<int> others;
  using enum Outcome;
  for (Outcome outcome : {powered_off, rebooted, suspended, stopped, crashed, failed}) others.insert(status_of(ending(outcome)));
  EXPECT_EQ(others.size(), 6u);
  EXPECT_FALSE(others.contains(kUsage));
  EXPECT_EQ(status_of(ending(debug_exit, 0)), 1);
  EXPECT_EQ(status_of(ending(debug_exit, 0x2a)), 0x55);
  for (u32 value = 0; value < 1000; ++value) {
    const int status = status_of(ending(debug_exit, value));
    EXPECT_TRUE(status >= 0 && status < 256 && !others.contains(status) && status != kUsage) << value;
  }
}

TEST(MachineOptions, HaveTheDocumentedDefaults) {
  const auto plain = session_options({}, false);
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->console.kind, host::ConsoleKind::stdio);
  EXPECT_EQ(plain->vm.pace, Pace::host);
  MachineOptions options;
  options.detach = true;
  EXPECT_EQ(session_options(options, false)->console.kind, host::ConsoleKind::none);
  options.stop_at = 5;
  EXPECT_EQ(session_options(options, false)->vm.pace, Pace::fast);
  options.pace = "host";
  EXPECT_EQ(session_options(options, false)->vm.pace, Pace::host);
}

TEST(MachineOptions, PathsAreAbsolute) {
  MachineOptions options;
  options.console = "file:a";
  options.stop_at = 1;
  options.suspend_to = "b";
  const auto session = session_options(options, true);
  ASSERT_TRUE(session);
  EXPECT_TRUE(session->console.path.starts_with("/") && session->console.path.ends_with("/a"));
  EXPECT_TRUE(session->console.append);
  EXPECT_TRUE(session->vm.suspend_to.starts_with("/") && session->vm.suspend_to.ends_with("/b"));
}

TEST(MachineOptions, RefuseWhatDoesNotFit) {
  const auto refused = [](auto change, std::string_view object) {
    MachineOptions options;
    change(options);
    const auto session = session_options(options, false);
    ASSERT_FALSE(session) << object;
    EXPECT_EQ(session.error().code, ErrorCode::usage);
    EXPECT_EQ(session.error().object, object);
  };
  refused([](auto& o) { o.console = "serial"; }, "--console");
  refused([](auto& o) { o.detach = true, o.console = "stdio"; }, "--console");
  refused([](auto& o) { o.debugcon = "unix:/a"; }, "--debugcon");
  refused([](auto& o) { o.suspend_to = "/a"; }, "--suspend-to");
  refused([](auto& o) { o.suspend_to = "/", o.stop_at = 1; }, "--suspend-to");
  refused([](auto& o) { o.suspend_to = "/no/such/folder/a", o.stop_at = 1; }, "--suspend-to");
  refused([](auto& o) { o.pace = "slow"; }, "--pace");
  refused([](auto& o) { o.name = "a/b"; }, "machine name");
}

TEST(Output, SaysSizesTimesAndProgressInWords) {
  EXPECT_EQ(human_bytes(0), "0 bytes");
  EXPECT_EQ(human_bytes(512 * kMiB), "512.0 MiB");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(~0ull), "16777216.0 TiB");
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(1234567), "1 234 567");
  EXPECT_EQ(human_count(123), "123");
  EXPECT_EQ(human_seconds(12'345'678'901), "12.345 s");
  EXPECT_EQ(progress_line(0, 0, 5), "preparing");
  EXPECT_EQ(progress_line(kGiB, 2 * kGiB, 2 * kSecond), "1.0 GiB of 2.0 GiB, 512.0 MiB/s, 2 s left");
  EXPECT_EQ(progress_line(5, 4, 1), "5 bytes of 4 bytes, 4.7 GiB/s");
}

TEST(Output, ShowsControlCharactersInsteadOfSendingThem) {
  EXPECT_EQ(printable("a\x1b[2Jb\x07\r\n\tü"), "a\\x1b[2Jb\\x07\\x0d\n\\x09ü");
  EXPECT_EQ(printable(std::string_view("\0\x7f", 2)), "\\x00\\x7f");
}

struct Channel {
  u8 mode = 3;
  std::vector<u8> memory = std::vector<u8>(100, 0xab);
  static constexpr auto layout() {
    using S = Channel;
    return state::Layout("test.channel", 1, state::field<&S::mode>("mode").hex().help("how it counts"),
                         state::field<&S::memory>("memory"));
  }
};
struct Chip {
  u32 count = 7;
  std::array<Channel, 2> channels{};
  static constexpr auto layout() {
    using S = Chip;
    return state::Layout("test.chip", 2, state::field<&S::count>("count").unit("ns"), state::field<&S::channels>("channels"));
  }
};

snapshot::OpenSnapshot sample() {
  snapshot::OpenSnapshot out;
  out.path = "a.stasis";
  out.image.machine = {"machine", state::schema_of<MachineConfig>(), state::save_record(MachineConfig{})};
  for (const char* path : {"device/isa/chip0", "device/isa/chip0/sub", "device/isa/chip1"})
    out.image.parts.push_back({path, state::schema_of<Chip>(), state::save_record(Chip{})});
  out.image.ram_size = 128 * kPageSize;
  out.ram.chunks = {{.nonzero = 3, .present = 3}, {.nonzero = 1, .present = 1}};
  return out;
}

TEST(SnapshotShow, FindsRecordsFieldsAndGroups) {
  const auto snapshot = sample();
  EXPECT_EQ(*show_path(snapshot, "device/isa/chip0/count"), fmt::format("{:24} 7 ns\n", "device/isa/chip0/count"));
  const std::string mode = *show_path(snapshot, "device/isa/chip1/channels/1/mode");
  EXPECT_NE(mode.find("0x3"), std::string::npos) << mode;
  EXPECT_NE(mode.find("how it counts"), std::string::npos) << mode;
  EXPECT_NE(show_path(snapshot, "device/isa/chip0/sub/count")->find("7 ns"), std::string::npos);
  EXPECT_TRUE(show_path(snapshot, "machine")->starts_with("machine (stasis.machine version 1)"));
  const std::string group = *show_path(snapshot, "device/isa");
  EXPECT_NE(group.find("chip1 (test.chip version 2)"), std::string::npos);
  EXPECT_NE(group.find("channels/1"), std::string::npos);
}

TEST(SnapshotShow, CutsLongBytes) {
  const std::string text = *show_path(sample(), "device/isa/chip0/channels/0/memory");
  EXPECT_NE(text.find("… (100 bytes)"), std::string::npos) << text;
  EXPECT_LT(text.size(), 200u);
}

TEST(SnapshotShow, GoesToElementsAndBytes) {
  const auto snapshot = sample();
  EXPECT_EQ(*show_path(snapshot, "device/isa/chip0/channels/0/memory/99"), fmt::format("{:24} 171\n", "device/isa/chip0/channels/0/memory/99"));
  EXPECT_NE(show_path_json(snapshot, "device/isa/chip0/channels/0/memory/99")->find("\"value\": 171"), std::string::npos);
  for (const char* path : {"device/isa/chip0/channels/0/memory/100", "device/isa/chip0/channels/0/memory/x", "device/isa/chip0/channels/0/memory/1/2"})
    EXPECT_FALSE(show_path(snapshot, path)) << path;
}

TEST(SnapshotShow, KnowsSectionsThatAreNoRecords) {
  auto snapshot = sample();
  snapshot.sections.push_back({.name = "memory/ram", .version = 1, .critical = true, .known = true, .offset = 8192, .length = 524288, .digest = ""});
  const std::string text = *show_path(snapshot, "memory/ram");
  EXPECT_NE(text.find("8192"), std::string::npos) << text;
  EXPECT_NE(text.find("present                  3"), std::string::npos) << text;
  EXPECT_NE(show_path_json(snapshot, "memory/ram")->find("\"bytes\": 524288"), std::string::npos);
  EXPECT_FALSE(show_path(snapshot, "memory/rom"));
}

TEST(HexDump, ShowsEqualLinesOnceAcrossPieces) {
  HexDump dump;
  std::vector<u8> zeros(32), text{'s', 't', 'a', 's', 'i', 's', 0xff};
  EXPECT_EQ(dump.lines(0x1000, zeros), "0000000000001000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n*\n");
  EXPECT_EQ(dump.lines(0x1020, zeros), "");
  EXPECT_EQ(dump.end(), "0000000000001040\n");
  EXPECT_EQ(dump.lines(0x1040, text), "0000000000001040  73 74 61 73 69 73 ff                              |stasis.|\n");
  EXPECT_EQ(dump.end(), "");
}

TEST(SnapshotShow, SaysWhatIsThereWhenAPathIsNot) {
  for (const char* path : {"nothing", "device/isa/chip", "device/isa/chip0/nothing", "device/isa/chip0/channels/2/mode", "", "/"}) {
    const auto shown = show_path(sample(), path);
    ASSERT_FALSE(shown) << path;
    EXPECT_EQ(shown.error().code, ErrorCode::not_found);
    EXPECT_FALSE(shown.error().hint.empty());
  }
}

TEST(SnapshotShow, JsonHoldsExactValues) {
  const std::string field = *show_path_json(sample(), "device/isa/chip0/count");
  EXPECT_NE(field.find("\"value\": 7,"), std::string::npos) << field;
  EXPECT_NE(field.find("\"unit\": \"ns\""), std::string::npos);
  EXPECT_NE(show_path_json(sample(), "device/isa/chip0/channels/0/memory")->find("abab"), std::string::npos);
  EXPECT_NE(show_whole_json(sample()).find("\"present\": 3,"), std::string::npos);
  EXPECT_NE(show_whole(sample()).find("128 pages, 3 present, 0 same as another, 0 in the parent, 125 zero"), std::string::npos);
}

}  // namespace
}  // namespace stasis::cli
