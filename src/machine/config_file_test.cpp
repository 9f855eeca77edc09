#include "machine/config_file.hpp"

#include <gtest/gtest.h>

using namespace stasis;
namespace {

ConfigFile good(std::string_view text, const std::string& path = "conf/web.toml") {
  auto config = parse_config_file(text, path);
  EXPECT_TRUE(config) << config.error().text();
  return config ? *config : ConfigFile{};
}

void expect_refused(std::string_view text, std::initializer_list<std::string_view> parts) {
  const auto config = parse_config_file(text, "conf/web.toml");
  ASSERT_FALSE(config) << text;
  EXPECT_EQ(config.error().code, ErrorCode::usage);
  const std::string message = config.error().text();
  for (const auto part : parts) EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks " << part;
}

TEST(ConfigFile, reads_every_key) {
  const ConfigFile c = good(R"(
name = "web1"
kernel = "vmlinuz"
initrd = "/boot/initrd"
cmdline = "console=ttyS0 quiet"
memory = "512M"
cpus = 2
cpu = "x86-64-v3"
tsc = 2_000_000_000
engine = "soft"
console = "unix:run/console"
pace = "fast"
rtc = 1_700_000_000
paused = true
debugcon = "file:/tmp/e9"
debug-exit = true
no-reboot = true
detach = false
stop-at = 1_000_000
suspend-to = "../a.stasis"
)");
  EXPECT_EQ(c.name, "web1");
  EXPECT_EQ(c.kernel, "conf/vmlinuz");
  EXPECT_EQ(c.initrd, "/boot/initrd");
  EXPECT_EQ(c.cmdline, "console=ttyS0 quiet");
  EXPECT_EQ(c.memory, 512 * kMiB);
  EXPECT_EQ(c.cpus, 2u);
  EXPECT_EQ(c.cpu, "x86-64-v3");
  EXPECT_EQ(c.tsc, 2'000'000'000u);
  EXPECT_EQ(c.engine, "soft");
  EXPECT_EQ(c.console, "unix:conf/run/console");
  EXPECT_EQ(c.pace, "fast");
  EXPECT_EQ(c.rtc, "1700000000");
  EXPECT_EQ(c.paused, true);
  EXPECT_EQ(c.debugcon, "file:/tmp/e9");
  EXPECT_EQ(c.debug_exit, true);
  EXPECT_EQ(c.no_reboot, true);
  EXPECT_EQ(c.detach, false);
  EXPECT_EQ(c.stop_at, 1'000'000u);
  EXPECT_EQ(c.suspend_to, "a.stasis");
}

TEST(ConfigFile, what_is_absent_stays_empty) {
  const ConfigFile c = good("# nothing\n");
  EXPECT_FALSE(c.name || c.kernel || c.memory || c.cpus || c.debugcon || c.debug_exit);
}

TEST(ConfigFile, alternatives) {
  EXPECT_EQ(good("memory = 268435456").memory, 256 * kMiB);
  EXPECT_EQ(good("debugcon = true").debugcon, "");
  EXPECT_FALSE(good("debugcon = false").debugcon);
  EXPECT_EQ(good("console = 'stdio'").console, "stdio");
  EXPECT_EQ(good("rtc = 'now'").rtc, "now");
  EXPECT_EQ(good("kernel = 'k'", "web.toml").kernel, "k");
  EXPECT_EQ(good("kernel = 'k'", "/etc/web.toml").kernel, "/etc/k");
}

TEST(ConfigFile, unknown_key_is_named_with_its_line) {
  expect_refused("cpus = 1\nkernal = 'x'\n", {"conf/web.toml:2", "`kernal`", "kernel", "debug-exit"});
  expect_refused("[machine]\ncpus = 1\n", {"conf/web.toml:1", "`machine`"});
}

TEST(ConfigFile, wrong_types_and_values) {
  expect_refused("\n\ncpus = 'two'", {"conf/web.toml:3", "cpus", "string", "integer from 1 to 16"});
  expect_refused("cpus = 0", {"cpus is 0", "1 to 16"});
  expect_refused("cpus = 17", {"17"});
  expect_refused("cpus = -1", {"-1"});
  expect_refused("cpu = 'i486'", {"i486", "x86-64-v2, x86-64-v3, host"});
  expect_refused("tsc = 5", {"tsc is 5", "1000000 to 100000000000"});
  expect_refused("memory = '512Q'", {"memory", "512Q", "512M"});
  expect_refused("memory = 1.5", {"float"});
  expect_refused("memory = -4096", {"-4096"});
  expect_refused("engine = 'turbo'", {"engine", "turbo", "auto, soft, kvm"});
  expect_refused("rtc = 'noon'", {"rtc", "noon", "now"});
  expect_refused("rtc = -5", {"-5"});
  expect_refused("pace = true", {"boolean", "host, fast"});
  expect_refused("console = 'tty'", {"console", "tty", "file:PATH"});
  expect_refused("console = 'file:'", {"file:PATH"});
  expect_refused("debugcon = 3", {"debugcon", "integer"});
  expect_refused("detach = 'yes'", {"detach", "string", "true or false"});
  expect_refused("kernel = ''", {"kernel", "empty"});
  expect_refused("name = [1]", {"array"});
  expect_refused("cmdline = \"a\\u0000b\"", {"zero byte"});
}

TEST(ConfigFile, what_is_no_toml) {
  expect_refused("cpus = 1\nkernel =\n", {"conf/web.toml:2", "no TOML"});
  expect_refused("cpus = 1\ncpus = 2\n", {"conf/web.toml:2"});
  expect_refused("\xff\xfe", {"conf/web.toml:1"});
}

}  // namespace
