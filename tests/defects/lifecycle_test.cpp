// A machine's life between its first instruction and its ending: stop counts, cancelled saves, a vCPU that sleeps.
#include <gtest/gtest.h>

#include <thread>

#include "machine/vm.hpp"
#include "tiny_machine.hpp"

namespace stasis::tiny {
namespace {

struct Running {
  ConsoleHub console;
  Vm vm;
  Running(std::unique_ptr<Machine> machine, VmOptions options) : vm(std::move(machine), console, std::move(options)) {}
};

VmOptions stop_at(u64 count, std::string suspend_to = {}) {
  VmOptions out;
  out.name = "tiny";
  out.pace = Pace::fast;
  out.stop_at = count;
  out.suspend_to = std::move(suspend_to);
  return out;
}

std::unique_ptr<Machine> spun(u64 count) {
  auto machine = boot(spin());
  run_to(*machine, count);
  return machine;
}

TEST(Lifecycle, a_stop_count_in_the_past_is_refused) {
  Folder folder;
  Running running(spun(1000), stop_at(999, folder / "guest.stasis"));
  running.vm.start();
  const Ending ending = running.vm.wait();
  EXPECT_EQ(ending.outcome, Outcome::failed);
  EXPECT_EQ(ending.error.code, ErrorCode::usage);
  for (const char* word : {"--stop-at", "999", "1000"}) EXPECT_NE(ending.error.text().find(word), std::string::npos) << ending.error.text();
  EXPECT_TRUE(folder.files().empty());
}

TEST(Lifecycle, a_stop_count_that_is_reached_already_stops_at_once) {
  Running running(spun(1000), stop_at(1000));
  running.vm.start();
  EXPECT_EQ(running.vm.wait().outcome, Outcome::stopped);
  EXPECT_EQ(running.vm.info().retired, 1000u);
}

TEST(Lifecycle, a_save_that_cannot_be_at_the_stop_count_is_told) {
  Folder folder;
  Running running(spun(10), stop_at(1000, folder / "no/such/folder.stasis"));
  running.vm.start();
  const Ending ending = running.vm.wait();
  EXPECT_EQ(ending.outcome, Outcome::failed);
  EXPECT_NE(ending.error.text().find("no/such"), std::string::npos) << ending.error.text();
}

// A request waits until the machine's thread serves it: what is asked before start() has a certain order.
TEST(Lifecycle, a_cancelled_save_cancels_no_other) {
  Folder folder;
  Running running(spun(10), stop_at(1000, folder / "stopped.stasis"));
  std::thread saver([&] {
    const auto saved = running.vm.checkpoint({.path = folder / "cancelled.stasis"});
    ASSERT_FALSE(saved);
    EXPECT_EQ(saved.error().code, ErrorCode::cancelled) << saved.error().text();
  });
  while (!running.vm.info().save.active) std::this_thread::yield();
  const auto second = running.vm.checkpoint({.path = folder / "second.stasis"});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::busy);
  EXPECT_NE(second.error().text().find("cancelled.stasis"), std::string::npos) << second.error().text();
  while (!running.vm.cancel_save()) std::this_thread::yield();
  running.vm.start();
  saver.join();
  EXPECT_EQ(running.vm.wait().outcome, Outcome::suspended);
  EXPECT_EQ(folder.files(), std::vector<std::string>{"stopped.stasis"});
}

// HLT with interrupts off: what waits at the local APIC wakes nobody, and guest time does not stand still for it.
TEST(Lifecycle, an_interrupt_that_is_not_taken_does_not_stop_the_time) {
  auto machine = boot(waiting());
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(run_to(*machine, 1000), MachineEvent::idle);
    const u64 later = machine->now() + kMillisecond;
    machine->advance_idle(later);
    ASSERT_EQ(machine->now(), later);
  }
}

}  // namespace
}  // namespace stasis::tiny
