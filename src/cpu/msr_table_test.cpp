// Every MSR that KVM lists has a home, and what has one comes back from it.
#include "cpu/msr_table.hpp"

#include <gtest/gtest.h>

#include "cpu/checks.hpp"

using namespace stasis;
namespace {

// KVM_GET_MSR_INDEX_LIST of Linux 6.1 on an AMD processor, and what Intel ones and newer kernels add to it
// (arch/x86/kvm/x86.c: msrs_to_save_base, msrs_to_save_pmu, emulated_msrs_all).
constexpr u32 kListed[] = {
    0x10, 0x11, 0x12, 0x34, 0x3a, 0x3b, 0x48, 0x8b, 0x9e, 0xc1, 0xc8, 0xce, 0xe1, 0x10a, 0x122, 0x140, 0x174, 0x175, 0x176, 0x17a, 0x17b, 0x186, 0x18d,
    0x1a0, 0x1c4, 0x1c5, 0x1d9, 0x1db, 0x1dc, 0x1dd, 0x1de, 0x1fc, 0x277, 0x309, 0x30a, 0x30b, 0x345, 0x38d, 0x38e, 0x38f, 0x390, 0x3f1, 0x3f2,
    0x480, 0x491, 0x4d0, 0x560, 0x561, 0x570, 0x571, 0x572, 0x580, 0x587, 0x600, 0x6a0, 0x6a2, 0x6a4, 0x6a5, 0x6a6, 0x6a7, 0x6a8, 0x6e0, 0xd90, 0xda0,
    0x4000'0000, 0x4000'0001, 0x4000'0002, 0x4000'0003, 0x4000'0010, 0x4000'0020, 0x4000'0021, 0x4000'0022, 0x4000'0023, 0x4000'0073, 0x4000'0080,
    0x4000'00b0, 0x4000'00f1, 0x4000'00f5, 0x4000'00ff, 0x4000'0100, 0x4000'0105, 0x4000'0106, 0x4000'0108, 0x4000'0118,
    0x4b56'4d00, 0x4b56'4d01, 0x4b56'4d02, 0x4b56'4d03, 0x4b56'4d04, 0x4b56'4d05, 0x4b56'4d06, 0x4b56'4d07, 0x4b56'4d08,
    0xc000'0081, 0xc000'0082, 0xc000'0083, 0xc000'0084, 0xc000'0102, 0xc000'0103, 0xc000'0104, 0xc000'0300, 0xc000'0301, 0xc000'0302, 0xc000'0303,
    0xc001'0000, 0xc001'0003, 0xc001'0004, 0xc001'0007, 0xc001'0015, 0xc001'0117, 0xc001'011f, 0xc001'0200, 0xc001'020b};

TEST(MsrTable, every_listed_msr_has_a_home) {
  for (const u32 index : kListed) EXPECT_NE(find_msr(index), nullptr) << std::hex << index;
  EXPECT_EQ(find_msr(0x13), nullptr);
  EXPECT_EQ(find_msr(0), nullptr);
  EXPECT_EQ(find_msr(0xffff'ffff), nullptr);
}

// By home, not by a list: each such MSR holds a value of its own, unless it is the old number of another.
TEST(MsrTable, fields_and_other_msrs_come_back) {
  unsigned fields = 0;
  for (u64 at = 0; at <= 0xc001'ffff; at = at == 0x2000 ? 0x4b56'4d00 : at == 0x4b56'4dff ? 0xc000'0000 : at + 1) {
    const u32 index = static_cast<u32>(at);
    const MsrEntry* entry = find_msr(index);
    const bool held = entry && (entry->home == MsrHome::vcpu || entry->home == MsrHome::other) && index != 0x10;
    VcpuState s;
    u64 value = 0;
    ASSERT_EQ(msr_set(s, index, 0x1234'5678), held) << std::hex << index;
    ASSERT_EQ(msr_get(s, index, value), held) << std::hex << index;
    if (!held) continue;
    ++fields;
    EXPECT_EQ(value, 0x1234'5678u) << entry->name;
    EXPECT_NE(s, VcpuState{}) << entry->name;
    EXPECT_EQ(s.other_msrs.size(), entry->home == MsrHome::other ? 1u : 0u) << entry->name;
  }
  EXPECT_GT(fields, 60u);
}

TEST(MsrTable, other_msrs_ascend_and_hold_no_zero) {
  VcpuState s;
  for (const u32 index : {0xc001'011fu, 0x3au, 0x140u, 0xe1u}) msr_set(s, index, 1);
  msr_set(s, 0x140, 0);
  msr_set(s, 0x1fc, 0);
  EXPECT_EQ(s.other_msrs, (std::vector<MsrState>{{0x3a, 1}, {0xe1, 1}, {0xc001'011f, 1}}));
  EXPECT_EQ(check_vcpu(s), "");
}

}  // namespace
