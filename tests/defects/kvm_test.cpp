// Defects of the reference on a whole machine under KVM, over a KVM of our own (cpu/kvm/fake_kernel.hpp).
#include <gtest/gtest.h>

#include <algorithm>

#include "cpu/kvm/fake_kernel.hpp"
#include "tiny_machine.hpp"

namespace stasis::tiny {
namespace {

constexpr u32 kSse42 = 1u << 20;

std::shared_ptr<kvm::FakeKernel> host() {
  auto kernel = std::make_shared<kvm::FakeKernel>();
  const auto leaf = [&](u32 number, u32 a, u32 b, u32 c, u32 d) {
    kvm_cpuid_entry2 entry{};
    entry.function = number, entry.eax = a, entry.ebx = b, entry.ecx = c, entry.edx = d;
    kernel->cpuid.push_back(entry);
  };
  leaf(0, 0xd, 0x6874'7541, 0x444d'4163, 0x6974'6e65);
  leaf(1, 0x0006'0fb1, 0, 0x76f8'3203 | 1u << 24, 0x0f8b'fbfd);
  leaf(7, 0, 0x0198'03ab, 0x0001'020c, 0x2000'0000);
  leaf(0x4000'0001, 0x0100'7efb, 0, 0, 0);
  leaf(0x8000'0001, 0x0006'0fb1, 0, 0x77, 0xedd3'fbfd);
  leaf(0x8000'0008, 0x3928, 0x0400'0000, 0x1001, 0);
  return kernel;
}

EngineOptions on(std::shared_ptr<kvm::FakeKernel> kernel) { return {.engine = "kvm", .kernel = std::move(kernel)}; }

MachineConfig two_cpus() {
  MachineConfig out = config();
  out.cpus = 2;
  return out;
}

class KvmDefects : public ::testing::Test {
 protected:
  void save_one() { must(must(Machine::boot(two_cpus(), images(spin()), {}, on(host())))->save(file, nullptr)); }
  void expect_refused(const std::shared_ptr<kvm::FakeKernel>& kernel, std::initializer_list<std::string_view> words) {
    const auto machine = Machine::restore(file, {}, on(kernel));
    ASSERT_FALSE(machine);
    for (const std::string_view word : words) EXPECT_NE(machine.error().text().find(word), std::string::npos) << word << " is not in: " << machine.error().text();
    EXPECT_TRUE(kernel->vcpus.empty()) << "a refused snapshot has made vCPUs";
  }
  Folder folder;
  const std::string file = folder / "guest.stasis";
};

// Every call that a save makes fails in turn: the save says so, and what was saved before is untouched.
TEST_F(KvmDefects, defect_13_14_a_save_that_kvm_fails_leaves_the_previous_file) {
  save_one();
  const std::string previous = content(file);
  unsigned failed = 0, saved_later = 0;
  for (u64 call = 1; call <= 70; ++call) {
    SCOPED_TRACE(call);
    const auto kernel = host();
    auto machine = must(Machine::restore(file, {}, on(kernel)));
    ASSERT_EQ(machine->run(machine->retired() + 100'000), MachineEvent::none) << machine->failure();
    kernel->fail_call = kernel->calls + call;
    const auto saved = machine->save(folder / "new.stasis", nullptr);
    const auto replaced = saved ? Result<SaveReport>(*saved) : machine->save(file, nullptr);
    kernel->fail_call = 0;
    if (saved) continue;  // the save made fewer calls
    ++failed;
    EXPECT_NE(saved.error().text().find("kvm"), std::string::npos) << saved.error().text();
    if (!replaced) { EXPECT_EQ(content(file), previous); }
    saved_later += replaced.has_value();
    ASSERT_TRUE(Machine::restore(file, {}, on(host())));
  }
  EXPECT_GT(failed, 20u);
  EXPECT_GT(saved_later, failed / 2) << "the guest did not go on after a save that failed";
  const auto names = folder.files();
  EXPECT_TRUE(std::ranges::all_of(names, [](const std::string& name) { return name == "guest.stasis" || name == "new.stasis"; }));
}

TEST_F(KvmDefects, defect_18_memory_and_vcpus_are_those_of_the_file) {
  MachineConfig config = two_cpus();
  config.memory_bytes = 3 * kMiB;
  must(must(Machine::boot(config, images(spin()), {}, on(host())))->save(file, nullptr));
  const auto kernel = host();
  const auto machine = must(Machine::restore(file, {}, on(kernel)));
  EXPECT_EQ(kernel->vcpus.size(), 2u);
  ASSERT_EQ(kernel->slots.size(), 1u);
  EXPECT_EQ(kernel->slots.at(0).region.memory_size, 3 * kMiB);
  EXPECT_EQ(kernel->vcpus[1].activity.mp_state, static_cast<u32>(KVM_MP_STATE_INIT_RECEIVED));
}

TEST_F(KvmDefects, defect_19_a_host_that_lacks_a_feature_or_the_tsc_rate_is_refused_by_name) {
  save_one();
  auto less = host();
  for (kvm_cpuid_entry2& leaf : less->cpuid)
    if (leaf.function == 1) leaf.ecx &= ~kSse42;
  expect_refused(less, {"SSE4.2"});
  auto faster = host();
  faster->tsc_khz = 2'400'000;
  expect_refused(faster, {"tsc_hz", "2000000000", "2400000000"});
  EXPECT_TRUE(Machine::restore(file, {}, on(host())));
}

TEST_F(KvmDefects, defect_19_a_host_that_lacks_msrs_is_refused_with_all_of_them_by_name) {
  const auto more = host();
  more->msr_values[0x140] = more->msr_values[0x1fc] = 0;
  auto machine = must(Machine::boot(two_cpus(), images(spin()), {}, on(more)));
  for (auto& [id, vcpu] : more->vcpus) vcpu.msrs[0x140] = 1, vcpu.msrs[0x1fc] = 2;
  ASSERT_EQ(machine->run(machine->retired() + 100'000), MachineEvent::none) << machine->failure();
  must(machine->save(file, nullptr));
  expect_refused(host(), {"0x140 (MSR_MISC_FEATURES_ENABLES)", "0x1fc (MSR_POWER_CTL)", "cpu/0", "cpu/1"});
  const auto some = host();
  some->msr_values[0x140] = 0;
  expect_refused(some, {"0x1fc"});
  some->msr_values[0x1fc] = 0;
  EXPECT_TRUE(Machine::restore(file, {}, on(some)));
}

}  // namespace
}  // namespace stasis::tiny
