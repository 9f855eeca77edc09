// CPU models made for, and contracts checked against, what Intel and AMD hosts and the soft engine offer.
#include "cpu/contract.hpp"

#include <gtest/gtest.h>

#include <contract.hpp>  // of tests/support, not cpu/contract.hpp
#include "cpu/checks.hpp"
#include "cpu/features.hpp"

using namespace stasis;
namespace {

constexpr u32 kPv = 0x0100'7efb;

// A server of 2023 with everything that KVM passes on.
CpuOffer intel() {
  return {.engine = "kvm",
          .cpuid = {{0, 0, 0x20, 0x756e'6547, 0x6c65'746e, 0x4965'6e69},
                    {1, 0, 0x0008'06f8, 0, 0xfffa'3203 | 1u << 5 | 1u << 3, 0x1f8b'fbff},
                    {4, 0, 0x7c00'4121, 0x02c0'003f, 0x3f, 0},
                    {4, 3, 0xfc1f'c163, 0x0380'003f, 0x1bfff, 4},
                    {7, 0, 2, 0xf1bf'27eb, 0x1b41'5f6e, 0xac18'4410 | 1u << 26 | 7u << 22},
                    {7, 1, 0x1c30, 0, 0, 0},
                    {0xa, 0, 0x0730'0805, 0, 0, 0x8603},
                    {0xd, 0, 0x602e7, 0, 11008, 0},
                    {0xd, 1, 0x1f, 0, 0, 0},
                    {0xd, 2, 256, 576, 0, 0},
                    {0xd, 5, 64, 1088, 0, 0},
                    {0xd, 6, 512, 1152, 0, 0},
                    {0xd, 7, 1024, 1664, 0, 0},
                    {0xd, 9, 8, 2688, 0, 0},
                    {0xd, 17, 64, 2752, 2, 0},
                    {0xd, 18, 8192, 2816, 6, 0},
                    {0x4000'0001, 0, kPv, 0, 0, 0},
                    {0x8000'0001, 0, 0, 0, 0x121, 0x2c10'0800},
                    {0x8000'0007, 0, 0, 0, 0, 0x100},
                    {0x8000'0008, 0, 0x3934, 0x200, 0, 0}},
          .arch_capabilities = 0x4000'0000'0d08'e17b | 1ull << 7,
          .tsc_hz = 2'400'000'000,
          .any_tsc_rate = true,
          .physical_bits = 52,
          .most_cpus = 16};
}

// KVM on an emulated AMD processor: no invariant TSC, no SPEC_CTRL, no TSC scaling, 40 address bits.
CpuOffer amd() {
  return {.engine = "kvm",
          .cpuid = {{0, 0, 0xd, 0x6874'7541, 0x444d'4163, 0x6974'6e65},
                    {1, 0, 0x0006'0fb1, 0, 0x76f8'3203 | 1u << 24, 0x0f8b'fbfd},
                    {7, 0, 0, 0x0198'03ab, 0x0001'020c, 0x2000'0000},
                    {0xd, 0, 0x207, 0xa88, 0xa88, 0},
                    {0xd, 1, 5, 0, 0, 0},
                    {0xd, 2, 0x100, 0x240, 0, 0},
                    {0xd, 9, 8, 0xa80, 0, 0},
                    {0x4000'0001, 0, kPv, 0, 0, 0},
                    {0x8000'0001, 0, 0x0006'0fb1, 0, 0x77, 0xedd3'fbfd},
                    {0x8000'0006, 0, 0, 0x4200'4200, 0x0200'8140, 0x0080'8140},
                    {0x8000'0008, 0, 0x3928, 0x0400'0000, 0x1001, 0},
                    {0x8000'000a, 0, 1, 8, 0, 0x1001'0021}},
          .arch_capabilities = 0x4000'0000'0c00'0079,
          .tsc_hz = 2'596'148'000,
          .any_tsc_rate = false,
          .physical_bits = 40,
          .most_cpus = 16};
}

CpuContract made(std::string_view model, const CpuOffer& offer, const CpuModelOptions& options = {}) {
  auto contract = make_contract(model, options, offer);
  EXPECT_TRUE(contract) << contract.error().text();
  return contract.value_or(CpuContract{});
}

std::string problems_of(const CpuContract& saved, const CpuOffer& here, u32 cpus = 1) {
  state::Problems problems;
  check_contract(saved, here, cpus, problems);
  std::string all;
  for (const Error& problem : problems) all += problem.text() + "\n";
  return all;
}

void expect_named(const std::string& all, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) EXPECT_NE(all.find(name), std::string::npos) << "not named: " << name << "\n" << all;
  EXPECT_EQ(static_cast<std::size_t>(std::ranges::count(all, '\n')), names.size()) << all;
}

TEST(CpuModel, leaves_ascend_and_lie_within_their_ranges) {
  for (const CpuOffer& offer : {intel(), amd(), soft_offer()})
    for (const std::string_view model : {"x86-64-v2", "x86-64-v3", "host"}) {
      if (offer.engine == "soft" && model == "x86-64-v3") continue;
      const CpuContract contract = made(model, offer);
      const u32 basic = find_leaf(contract.cpuid, 0)->eax, extended = find_leaf(contract.cpuid, 0x8000'0000)->eax;
      u64 before = 0;
      for (const CpuidLeaf& l : contract.cpuid) {
        const u64 key = u64{l.leaf} << 32 | l.subleaf;
        EXPECT_TRUE(key > before || key == 0) << std::hex << key;
        before = key;
        EXPECT_LE(l.leaf, l.leaf < 0x4000'0000 ? basic : l.leaf < 0x8000'0000 ? 0x4000'0001 : extended);
      }
    }
}

TEST(CpuModel, its_own_host_takes_it_back) {
  for (const CpuOffer& offer : {intel(), amd(), soft_offer()})
    for (const std::string_view model : {"x86-64-v2", "x86-64-v3", "host"})
      if (offer.engine != "soft" || model != "x86-64-v3") EXPECT_EQ(problems_of(made(model, offer), offer), "") << offer.engine << " " << model;
}

TEST(CpuModel, v2_of_an_amd_host_runs_on_the_soft_engine_and_on_intel) {
  const CpuContract contract = made("x86-64-v2", amd());
  EXPECT_EQ(problems_of(contract, soft_offer()), "");
  CpuOffer moved = intel();
  EXPECT_EQ(problems_of(contract, moved), "");
  moved.arch_capabilities &= ~(1ull << 62);
  expect_named(problems_of(contract, moved), {"ARCH_CAPABILITIES ITS_NO"});
}

TEST(CpuModel, v3_shows_what_its_level_needs) {
  const CpuContract contract = made("x86-64-v3", amd(), {.cpus = 4});
  const CpuidLeaf one = *find_leaf(contract.cpuid, 1), seven = *find_leaf(contract.cpuid, 7), area = *find_leaf(contract.cpuid, 0xd);
  EXPECT_EQ(one.ecx & 0x3440'1000, 0x3440'1000u);  // FMA MOVBE XSAVE AVX F16C
  EXPECT_EQ(seven.ebx & 0x128, 0x128u);
  EXPECT_EQ(area, (CpuidLeaf{0xd, 0, 7, 832, 832, 0})) << "no PKRU, though the host has it";
  EXPECT_EQ(find_leaf(contract.cpuid, 0xd, 9), nullptr);
  EXPECT_EQ(one.ecx >> 30 & 1, 0u) << "RDRAND is not of this level";
}

TEST(CpuModel, what_the_level_needs_and_the_engine_lacks_is_named) {
  const auto none = make_contract("x86-64-v3", {}, soft_offer());
  ASSERT_FALSE(none);
  for (const std::string_view name : {"FMA", "MOVBE", "XSAVE", "AVX", "F16C", "BMI1", "AVX2", "BMI2", "LZCNT", "XSAVE component 2 (AVX)"})
    EXPECT_NE(none.error().message.find(name), std::string::npos) << name;
  CpuOffer poor = amd();
  poor.cpuid[8].edx &= ~(1u << 27);
  poor.cpuid[7].eax = 0;
  EXPECT_NE(make_contract("x86-64-v2", {}, poor).error().message.find("RDTSCP, kvmclock (old MSRs), kvmclock, kvmclock stable bit"), std::string::npos)
      << make_contract("x86-64-v2", {}, poor).error().message;
  EXPECT_EQ(make_contract("x86-64-v4", {}, soft_offer()).error().code, ErrorCode::usage);
  EXPECT_NE(make_contract("x86-64-v2", {.cpus = 4}, soft_offer()).error().message.find("cpus is 4, the soft engine runs 1"), std::string::npos);
  EXPECT_NE(make_contract("x86-64-v2", {.tsc_hz = 1'000'000'000}, amd()).error().message.find("tsc_hz is 1000000000"), std::string::npos);
}

TEST(CpuModel, host_hides_what_keeps_state_elsewhere) {
  const CpuContract contract = made("host", intel(), {.cpus = 2});
  EXPECT_EQ(find_leaf(contract.cpuid, 0xa), nullptr);
  const CpuidLeaf one = *find_leaf(contract.cpuid, 1);
  EXPECT_EQ(one.ecx & (1u << 3 | 1u << 5), 0u) << "MONITOR, VMX";
  EXPECT_EQ(one.eax, 0x0008'06f8u);
  EXPECT_EQ(find_leaf(contract.cpuid, 0xd)->eax, 0x602e7u);
  EXPECT_EQ(find_leaf(contract.cpuid, 0xd)->ebx, 11008u);
  EXPECT_EQ(contract.arch_capabilities >> 7 & 1, 0u) << "TSX_CTRL needs its MSR";
  EXPECT_EQ(find_leaf(made("host", amd()).cpuid, 0x8000'000a), nullptr) << "SVM";
}

TEST(CpuModel, address_bits_follow_the_memory) {
  EXPECT_EQ(physical_bits(made("x86-64-v2", intel())), 39u);
  EXPECT_EQ(physical_bits(made("x86-64-v2", intel(), {.memory_bytes = 600 * kGiB})), 46u);
  EXPECT_EQ(physical_bits(made("x86-64-v2", amd(), {.memory_bytes = 600 * kGiB})), 40u);
  EXPECT_NE(make_contract("x86-64-v2", {.memory_bytes = 1024 * kGiB}, amd()).error().message.find("40 physical address bits"), std::string::npos);
}

// As Linux computes it, in 32 bits (arch/x86/kernel/tsc.c): the rate in kHz.
TEST(CpuModel, leaf_15_tells_the_tsc_rate_by_a_crystal_of_1_ghz) {
  for (const u64 hz : {u64{1'000'000'000}, u64{2'400'000'000}, u64{2'596'148'000}, u64{2'596'407'000}, u64{3'999'999'000}, u64{1'000'000}}) {
    const CpuidLeaf leaf = *find_leaf(made("x86-64-v2", soft_offer(), {.tsc_hz = hz}).cpuid, 0x15);
    ASSERT_EQ(leaf.ecx, 1'000'000'000u);
    const u32 crystal_khz = leaf.ecx / 1000, khz = crystal_khz * leaf.ebx / leaf.eax;
    EXPECT_EQ(u64{crystal_khz} * leaf.ebx >> 32, 0u) << "overflows";
    const u64 wanted = hz / 1000, off = khz > wanted ? khz - wanted : wanted - khz;
    EXPECT_LE(off, 1 + wanted * 3 / 1'000'000) << hz;
  }
}

TEST(CpuModel, the_local_apic_id_is_each_processors_own) {
  const CpuContract contract = made("x86-64-v2", intel(), {.cpus = 4});
  const auto leaves = cpuid_for(contract, 3);
  EXPECT_EQ(find_leaf(leaves, 1)->ebx, 3u << 24 | 4u << 16 | 8u << 8);
  EXPECT_EQ(find_leaf(leaves, 0xb, 0)->edx, 3u);
  EXPECT_EQ(find_leaf(leaves, 0xb, 1)->edx, 3u);
  EXPECT_EQ(find_leaf(leaves, 0xb, 1)->ebx, 4u);
  EXPECT_EQ(find_leaf(leaves, 0xb, 1)->ecx, 0x201u);
  EXPECT_EQ(find_leaf(leaves, 7)->edx, find_leaf(contract.cpuid, 7)->edx);
}

// Version 1's contracts: another signature at 0x40000000, 46 bits, self-snoop.
TEST(CheckContract, those_of_early_snapshots_are_kept_by_the_soft_engine) {
  const std::string text = contract::read_text(contract::golden_folder() / "records" / "x86.cpu_contract.v1.cbor");
  const auto value = cbor::decode({reinterpret_cast<const u8*>(text.data()), text.size()}, "golden");
  ASSERT_TRUE(value);
  CpuContract old;
  state::Problems problems;
  ASSERT_TRUE(state::load_record(old, *value, "", {"cpu/contract", 1, problems}));
  EXPECT_EQ(physical_bits(old), 46u);
  EXPECT_EQ(problems_of(old, soft_offer()), "");
}

// Defect 19 of the reference: no check of CPU vendor, features or TSC rate.
TEST(CheckContract, defect_19_lists_each_missing_thing_by_name) {
  CpuContract saved = default_cpu_contract(1);
  saved.tsc_hz = 2'400'000'000;
  for (CpuidLeaf& leaf : saved.cpuid) {
    if (leaf.leaf == 0) leaf.ebx = 0x6874'7541;  // "Auth"
    if (leaf.leaf == 1) leaf.ecx |= 1u << 28 | 1u << 30;
    if (leaf.leaf == 0x8000'0008) leaf.eax = 0x3930, leaf.ebx = 1u << 12;
  }
  saved.cpuid.push_back({0xd, 0, 1u << 5, 0, 0, 0});
  saved.arch_capabilities |= 1u << 2;
  CpuOffer here = soft_offer();
  here.any_tsc_rate = false;
  expect_named(problems_of(saved, here, 4), {"cpus is 4, the soft engine runs 1", "AVX,", "RDRAND", "another vendor", "tsc_hz is 2400000000",
                                             "48 physical address bits", "IBPB", "XSAVE component 5 (AVX-512 masks)", "ARCH_CAPABILITIES RSBA"});
}

TEST(CheckContract, the_rate_may_be_off_by_250_ppm) {
  CpuContract saved = made("x86-64-v2", amd());
  saved.tsc_hz = 2'596'148'000 + 649'000;
  EXPECT_EQ(problems_of(saved, amd()), "");
  saved.tsc_hz = 2'596'148'000 + 650'000;
  expect_named(problems_of(saved, amd()), {"tsc_hz is 2596798000, the kvm engine on this host has 2596148000"});
}

TEST(CheckContract, an_intel_hosts_v2_names_what_the_amd_host_lacks) {
  CpuContract saved = made("x86-64-v2", intel(), {.tsc_hz = 2'596'148'000});
  saved.arch_capabilities = 0;
  expect_named(problems_of(saved, amd()), {"SPEC_CTRL", "invariant TSC"});
}

TEST(CheckContract, host_moves_to_the_same_processor_only) {
  const CpuContract saved = made("host", amd());
  CpuOffer other = amd();
  other.cpuid[1].eax += 0x10;
  expect_named(problems_of(saved, other), {"family, model and stepping 0x60fb1, here are 0x60fc1"});
  const std::string all = problems_of(saved, intel());
  for (const std::string_view name : {"another vendor", "family, model and stepping", "SSE4A"}) EXPECT_NE(all.find(name), std::string::npos) << all;
  EXPECT_NE(problems_of(saved, soft_offer()).find("AVX2"), std::string::npos);
}

}  // namespace
