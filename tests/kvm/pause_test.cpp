// How long a pause takes under KVM, whatever four vCPUs do: from the request to where all stand and their state is read.
// It is measured in the CPU time of each thread, so that it does not count what others do on the host.
//
// An emulated machine's CPU time does count it, unless its clocks count instructions (nested.py's `exact`): this test runs so.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "tiny_vm.hpp"

namespace stasis::tiny {
namespace {

constexpr u64 kIrq = 0x40, kCpus = 4;
constexpr u64 kMost = 10 * kMillisecond;

// Each counts its rounds at RDI.
PROGRAM(user_spin, R"(
1: incq (%rdi)
   jmp 1b
)");
PROGRAM(halted, R"(
   incq (%rdi)
   sti
1: hlt
   jmp 1b
)");
PROGRAM(mmio_loop, R"(
1: incq (%rdi)
   movl 0x00(%r8), %eax
   jmp 1b
)");
// Interrupts that it sends itself, without end; its handler is at +0x40.
PROGRAM(storm, R"(
   movl $0, 0x310(%r15)
   sti
1: movl $0x40040, 0x300(%r15)
   jmp 1b
   .org storm_begin + 0x40
   incq (%rdi)
   movl $0, 0x0b0(%r15)
   iretq
)");

enum class Role { user, halt, mmio, storm };
constexpr u64 kPlace = 0x400;  // bytes between the programs

Rest four(const std::array<Role, kCpus>& roles) {
  Rest rest = at_rest({}, kCpus);
  const Bytes programs[] = {PROGRAM_OF(user_spin), PROGRAM_OF(halted), PROGRAM_OF(mmio_loop), PROGRAM_OF(storm)};
  for (u64 i = 0; i < 4; ++i) std::ranges::copy(programs[i], &rest.ram[kCode + i * kPlace]);
  gate(rest, kIrq, kCode + 3 * kPlace + 0x40);
  for (u64 id = 0; id < kCpus; ++id) {
    VcpuState& vcpu = rest.vcpus[id];
    vcpu = rest.vcpus[0];
    vcpu.cpl = 0;
    vcpu.cs = {.selector = 8, .attributes = 0xa9b, .limit = ~0u, .base = 0};
    vcpu.ss = vcpu.ds = vcpu.es = {.selector = 0x10, .attributes = 0xc93, .limit = ~0u, .base = 0};
    if (roles[id] == Role::user) user_mode(vcpu);
    vcpu.rip = kCode + static_cast<u64>(roles[id]) * kPlace;
    vcpu.gpr[kRsp] = kStack - 0x2000 * id;
    vcpu.gpr[kRdi] = kData + 0x40 * id;
  }
  return rest;
}

// The CPU time of each thread of this process, by its number.
std::map<int, u64> thread_times() {
  std::map<int, u64> times;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    const std::string name = entry.path().filename();
    int thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    constexpr int kOfThread = 4, kPrecise = 2;  // a thread's clock by its number (Linux include/linux/posix-timers.h)
    timespec now{};
    if (::clock_gettime(~thread * 8 | kOfThread | kPrecise, &now) == 0)
      times[thread] = static_cast<u64>(now.tv_sec) * kSecond + static_cast<u64>(now.tv_nsec);
  }
  return times;
}

class KvmPause : public ::testing::TestWithParam<std::pair<const char*, std::array<Role, kCpus>>> {
 protected:
  void SetUp() override {
    if (const std::string why = no_kvm(); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_P(KvmPause, defect_20_all_vcpus_stop_within_10_ms_of_cpu_time_and_go_on) {
  constexpr unsigned kPauses = 50;
  const auto& roles = GetParam().second;
  Outside outside;
  const CpuContract contract = common_contract(kCpus);
  const std::map<int, u64> others = thread_times();
  TinyVm vm(TinyVm::Kind::kvm, four(roles), outside, contract);
  std::vector<int> vcpu_threads;  // in the order of their making
  for (const auto& [thread, time] : thread_times())
    if (!others.contains(thread)) vcpu_threads.push_back(thread);
  ASSERT_EQ(vcpu_threads.size(), kCpus);
  std::mt19937_64 random{7};
  std::array<std::vector<u64>, kCpus> of_vcpu;
  std::vector<u64> of_this, all;  // of this thread, which reads the state; of all together
  std::array<u64, kCpus> counts{};
  for (unsigned pause = 0; pause < kPauses; ++pause) {
    std::map<int, u64> asked;
    std::thread requester([&, after = 1000 + random() % 4000] {
      std::this_thread::sleep_for(std::chrono::microseconds(after));
      asked = thread_times();
      vm.engine().kick();
    });
    const StopReason reason = vm.engine().run(~0ull);
    const auto held = vm.engine().hold();
    std::map<int, u64> now = thread_times();
    requester.join();
    ASSERT_EQ(reason, StopReason::attention) << vm.engine().failure();
    ASSERT_TRUE(held) << held.error().text();
    for (u64 id = 0; id < kCpus; ++id) of_vcpu[id].push_back(now[vcpu_threads[id]] - asked[vcpu_threads[id]]);
    of_this.push_back(now[::gettid()] - asked[::gettid()]);
    all.push_back(0);
    for (const auto& [thread, before] : asked)
      if (now.contains(thread)) all.back() += now[thread] - before;  // else it is the requester, which has ended
    Rest rest = vm.save();
    for (u64 id = 0; id < kCpus; ++id) {
      const u64 count = rest.at<u64>(kData + 0x40 * id);
      if (roles[id] == Role::halt) {
        EXPECT_EQ(rest.vcpus[id].activity, Activity::halted);
      } else if (pause % 10 == 9) {
        EXPECT_GT(count, std::exchange(counts[id], count)) << "vCPU " << id << " does not go on";
      }
    }
  }
  std::string told = fmt::format("{}: CPU time of a pause, median and longest, ms:", GetParam().first);
  const auto judge = [&](const std::string& what, std::vector<u64>& times) {
    std::ranges::sort(times);
    told += fmt::format(" {} {:.2f} {:.2f}", what, static_cast<double>(times[kPauses / 2]) / 1e6, static_cast<double>(times.back()) / 1e6);
    return times.back();
  };
  for (u64 id = 0; id < kCpus; ++id) EXPECT_LT(judge(fmt::format("vCPU {}", id), of_vcpu[id]), kMost);
  EXPECT_LT(judge("reading", of_this), kMost);
  judge("together", all);
  std::printf("%s\n", told.c_str());
}

using enum Role;
INSTANTIATE_TEST_SUITE_P(All, KvmPause,
                         ::testing::Values(std::pair{"user mode", std::array{user, user, user, user}}, std::pair{"HLT", std::array{halt, halt, halt, halt}},
                                           std::pair{"MMIO", std::array{mmio, mmio, mmio, mmio}}, std::pair{"interrupts", std::array{storm, storm, storm, storm}},
                                           std::pair{"one of each", std::array{user, halt, mmio, storm}}));

}  // namespace
}  // namespace stasis::tiny
