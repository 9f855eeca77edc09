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

TEST(Contract, our_own_is_accepted) {
  state::Problems problems;
  check_contract(default_cpu_contract(1), soft_offer(), 1, problems);
  EXPECT_TRUE(problems.empty()) << problems.front().text();
}

// Defect 19 of the reference: no check of CPU vendor, features or TSC rate.
TEST(Contract, defect_19_lists_each_missing_thing_by_name) {
  CpuContract saved = default_cpu_contract(1);
  saved.tsc_hz = 2'400'000'000;
  for (CpuidLeaf& leaf : saved.cpuid) {
    if (leaf.leaf == 0) leaf.ebx = 0x6874'7541;  // "Auth"
    if (leaf.leaf == 1) leaf.ecx |= 1u << 28 | 1u << 30;
  }
  state::Problems problems;
  CpuOffer here = soft_offer();
  here.any_tsc_rate = false;
  check_contract(saved, here, 1, problems);
  std::string all;
  for (const Error& problem : problems) all += problem.text() + "\n";
  EXPECT_EQ(problems.size(), 4u) << all;
  for (const char* name : {"AVX", "RDRAND", "vendor", "2400000000"}) EXPECT_NE(all.find(name), std::string::npos) << name;
}

}  // namespace
