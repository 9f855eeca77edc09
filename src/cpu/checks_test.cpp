// Hostile vCPU states and contracts that this engine cannot keep.
#include "cpu/checks.hpp"

#include <gtest/gtest.h>

using namespace stasis;
namespace {

TEST(CheckVcpu, power_on_is_fine) { EXPECT_EQ(check_vcpu(VcpuState{}), ""); }

TEST(CheckVcpu, names_field_value_and_what_is_allowed) {
  VcpuState s;
  s.cr4 = 1ull << 40;
  EXPECT_NE(check_vcpu(s).find("cr4 has reserved bits set (0x10000000000)"), std::string::npos);
  s = {};
  s.efer = 0x400;
  EXPECT_NE(check_vcpu(s).find("efer"), std::string::npos);
  s = {};
  s.cr0 = 0x8000'0000;
  EXPECT_NE(check_vcpu(s).find("paging without protection"), std::string::npos);
  s = {};
  s.retired = ~0ull;
  EXPECT_NE(check_vcpu(s).find("retired"), std::string::npos);
}

void expect_wrong(const VcpuState& s, std::string_view what) {
  EXPECT_NE(check_vcpu(s).find(what), std::string::npos) << "wanted '" << what << "', got '" << check_vcpu(s) << "'";
}

TEST(CheckVcpu, xsave) {
  VcpuState s;
  s.xsave.xcr0 = 0x602e7;
  s.xsave.tile_config.assign(64, 0), s.xsave.tile_data.assign(8192, 0);
  EXPECT_EQ(check_vcpu(s), "");
  for (const auto& [xcr0, why] : {std::pair<u64, std::string_view>{0, "x87"}, {5, "needs SSE"}, {0xf, "MPX"}, {0x27, "AVX-512 components"},
                                  {0xe3, "needs AVX"}, {0x20007, "AMX"}}) {
    s.xsave.xcr0 = xcr0;
    expect_wrong(s, why);
  }
  s.xsave.xcr0 = 7;
  s.xsave.tile_config.resize(63);
  expect_wrong(s, "xsave/tile_config has 63 bytes");
  s.xsave.tile_config.clear();
  s.xsave.tile_data.resize(1);
  expect_wrong(s, "xsave/tile_data has 1 bytes");
}

TEST(CheckVcpu, events) {
  VcpuState s;
  s.pending = {.valid = true, .vector = 14, .has_error_code = true, .has_payload = true, .payload = 1};
  expect_wrong(s, "pending/has_payload");
  s.pending = {.valid = true, .vector = 3, .type = EventType::nmi};
  expect_wrong(s, "an NMI's is 2");
  s.pending = {.valid = true, .vector = 8, .has_error_code = true, .type = EventType::interrupt};
  expect_wrong(s, "pending/type is interrupt");
  s.pending = {};
  s.exception = {.valid = true, .vector = 13, .has_error_code = true, .type = EventType::exception, .has_payload = true};
  expect_wrong(s, "exception/has_payload is true for vector 13");
  s.exception = {.valid = true, .vector = 0x40, .type = EventType::interrupt};
  expect_wrong(s, "exception/type is interrupt");
  s.exception = {.valid = true, .vector = 2, .type = EventType::exception};
  expect_wrong(s, "without 2");
  s.exception = {.valid = true, .vector = 14, .has_error_code = true, .type = EventType::exception, .has_payload = true, .payload = 0x1000};
  EXPECT_EQ(check_vcpu(s), "");
}

TEST(CheckVcpu, other_msrs_ascend_and_may_stand_there) {
  VcpuState s;
  s.other_msrs = {{0x140, 1}, {0x3a, 1}};
  expect_wrong(s, "they must ascend");
  s.other_msrs = {{0x174, 1}};
  expect_wrong(s, "0x174 (IA32_SYSENTER_CS), which may not stand there");
  s.other_msrs.assign(300, {0x140, 1});
  expect_wrong(s, "300 members");
}

// A 64-bit kernel, as either engine has it.
VcpuState running() {
  VcpuState s;
  s.cr0 = 0x8005'0033, s.cr4 = 0x3006f0, s.efer = 0xd01;
  s.cs.attributes = 0xa9b;
  return s;
}

TEST(CheckForSoft, what_it_cannot_run_is_named_with_its_value) {
  const CpuContract contract = default_cpu_contract(1);
  EXPECT_EQ(check_vcpu(running()), "");
  EXPECT_EQ(check_for_soft(running(), contract), "");
  const auto expect = [&](auto change, std::string_view what) {
    VcpuState s = running();
    change(s);
    EXPECT_EQ(check_vcpu(s), "") << what;
    const std::string said = check_for_soft(s, contract);
    EXPECT_NE(said.find(what), std::string::npos) << "wanted '" << what << "', got '" << said << "'";
    EXPECT_NE(said.find("--engine kvm"), std::string::npos) << said;
  };
  expect([](VcpuState& s) { s = {}; }, "cr0 is 0x60000010: the soft engine has no real mode");
  expect([](VcpuState& s) { s.efer = 0, s.rflags |= 0x20000; }, "virtual-8086");
  expect([](VcpuState& s) { s.efer = 0, s.cs.attributes = 0x9b; }, "16-bit code");
  expect([](VcpuState& s) { s.cr4 |= 1u << 18; }, "CR4 bits 0x40000");
  expect([](VcpuState& s) { s.efer |= 1u << 14; }, "EFER bits 0x4000");
  expect([](VcpuState& s) { s.smm.active = true; }, "smm/active");
  expect([](VcpuState& s) { s.smm.pending = true; }, "smm/pending");
  expect([](VcpuState& s) { s.xsave.in_use = 7; }, "xsave/in_use is 0x7");
  expect([](VcpuState& s) { s.xsave.xcr0 = 7; }, "xsave/xcr0 is 0x7");
  expect([](VcpuState& s) { s.other_msrs = {{0x140, 1}}; }, "MSR 0x140 (MSR_MISC_FEATURES_ENABLES)");
  expect([](VcpuState& s) { s.hwcr = 0x40000; }, "hwcr is 0x40000");
  expect([](VcpuState& s) { s.last_branch.debug_ctl = 0x40; }, "last_branch/debug_ctl is 0x40");
  VcpuState far = running();
  far.cr3 = 1ull << 39;
  EXPECT_NE(check_for_soft(far, contract).find("cr3"), std::string::npos) << "39 physical address bits";
}

TEST(CheckForKvm, each_msr_and_component_that_is_missing_is_named) {
  const CpuContract contract = default_cpu_contract(1);
  CpuOffer here{.engine = "kvm"};
  here.msrs = {0x3a, 0x1fc};
  VcpuState s = running();
  s.other_msrs = {{0x3a, 1}, {0xe1, 0}, {0x140, 1}, {0x1c4, 6}};
  state::Problems problems;
  check_for_kvm(s, contract, here, "cpu/2", problems);
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0].object, "cpu/2");
  EXPECT_NE(problems[0].message.find("0x140 (MSR_MISC_FEATURES_ENABLES)"), std::string::npos) << problems[0].message;
  EXPECT_NE(problems[1].message.find("0x1c4 (IA32_XFD), its value is 0x6"), std::string::npos) << problems[1].message;
  s.other_msrs = {{0x1fc, 2}};
  s.xsave.xcr0 = 7;
  problems.clear();
  check_for_kvm(s, contract, here, "cpu/2", problems);
  ASSERT_EQ(problems.size(), 1u) << "the contract shows no AVX";
  EXPECT_NE(problems[0].message.find("xsave/xcr0 is 0x7"), std::string::npos) << problems[0].message;
}

}  // namespace
