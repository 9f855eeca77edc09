// What a guest has in MSRs and debug registers, moved from machine to machine under KVM: the guest sets them and looks again in
// every machine, and the host compares what the kernel gives back.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "cpu/msr_table.hpp"
#include "tiny_vm.hpp"

namespace stasis::tiny {
namespace {

constexpr u64 kRounds = kData, kWrong = kData + 8, kWrongMsr = kData + 0xc, kEnd = kData + 0x10, kDebug = kData + 0x40, kCount = kData + 0x1000,
              kMsrs = kCount + 0x10;

PROGRAM(keeper, R"(
   movl 0x101000, %ebx
   leaq 0x101010, %rsi
1: movl (%rsi), %ecx
   movl 8(%rsi), %eax
   movl 12(%rsi), %edx
   wrmsr
   addq $16, %rsi
   decl %ebx
   jnz 1b
   movq 0x100040, %rax
   movq %rax, %dr0
   movq 0x100048, %rax
   movq %rax, %dr1
   movq 0x100050, %rax
   movq %rax, %dr2
   movq 0x100058, %rax
   movq %rax, %dr3
   movq 0x100060, %rax
   movq %rax, %dr7

2: movl 0x101000, %ebx         # again and again: are they what they were?
   leaq 0x101010, %rsi
3: movl (%rsi), %ecx
   rdmsr
   shlq $32, %rdx
   orq %rdx, %rax
   cmpq 8(%rsi), %rax
   je 4f
   incl 0x100008
   movl %ecx, 0x10000c
4: addq $16, %rsi
   decl %ebx
   jnz 3b
   movq %dr0, %rax
   cmpq 0x100040, %rax
   jne 5f
   movq %dr1, %rax
   cmpq 0x100048, %rax
   jne 5f
   movq %dr2, %rax
   cmpq 0x100050, %rax
   jne 5f
   movq %dr3, %rax
   cmpq 0x100058, %rax
   jne 5f
   movq %dr7, %rax
   cmpq 0x100060, %rax
   je 6f
5: incl 0x100008
   movl $0xd4, 0x10000c
6: incq 0x100000
   cmpl $0, 0x100010
   je 2b
   movl 0x100008, %eax
   outl %eax, $0x80
   out %al, $0xf4
)");

struct Msr {
  u64 index, value;
};

constexpr u64 kFixed = 0x0605'0401'0001'0406;  // eight types of memory
constexpr Msr kValues[] = {
    {0x174, 0x1230}, {0x175, 0xffff'8000'1111'2222}, {0x176, 0xffff'8000'3333'4444}, {0x1a0, 0x1}, {0x200, 0x1234'5006}, {0x201, 0x7fff'f800},
    {0x20e, 0x4567'8001}, {0x20f, 0x7fff'0800}, {0x250, kFixed}, {0x258, 0x0606'0606'0404'0101}, {0x259, kFixed - 1}, {0x268, kFixed - 2}, {0x269, 0x0606'0606'0606'0606},
    {0x26f, 0x0101'0101'0404'0404}, {0x277, 0x0006'0407'0106'0500}, {0x2ff, 0xc06}, {0x400, ~u64{0}}, {0xc000'0081, 0x0123'4567'89ab'cdef},
    {0xc000'0082, 0xffff'8000'5555'6666}, {0xc000'0083, 0xffff'8000'7777'8888}, {0xc000'0084, 0x4'7700}, {0xc000'0100, 0x7fff'1234'5000},
    {0xc000'0101, 0xffff'8000'9999'aaaa}, {0xc000'0102, 0xffff'8000'bbbb'cccc}, {0xc000'0103, 0x1234'5678}};
constexpr u64 kDebugValues[] = {0x7fff'0000'1000, 0x7fff'0000'2001, 0x7fff'0000'3002, 0xffff'8000'0000'4003, 0x455};  // DR0 to 3, DR7

TEST(KvmRegisters, msrs_and_debug_registers_are_the_guests_in_every_machine) {
  if (const std::string why = no_kvm(); !why.empty()) GTEST_SKIP() << why;
  const CpuContract contract = common_contract();
  Outside outside;
  Rest rest = at_rest(PROGRAM_OF(keeper));
  rest.at<u32>(kCount) = std::size(kValues);
  for (std::size_t i = 0; i < std::size(kValues); ++i) rest.at<Msr>(kMsrs + i * sizeof(Msr)) = kValues[i];
  for (std::size_t i = 0; i < std::size(kDebugValues); ++i) rest.at<u64>(kDebug + 8 * i) = kDebugValues[i];
  auto vm = std::make_unique<TinyVm>(TinyVm::Kind::kvm, rest, outside, contract);
  for (int machine = 0; machine < 5; ++machine) {
    const u64 rounds = rest.at<u64>(kRounds);
    for (int turn = 0; turn < 100 && rest.at<u64>(kRounds) <= rounds + 1; ++turn) {
      ASSERT_EQ(vm->run(5 * kMillisecond), "");
      rest = vm->save();
    }
    ASSERT_FALSE(outside.done) << fmt::format("the guest wrote {:#x}, with RCX {:#x}", outside.written.empty() ? 0 : outside.written[0], rest.vcpus[0].gpr[kRcx]);
    ASSERT_GT(rest.at<u64>(kRounds), rounds + 1) << "machine " << machine << " does not go on";
    const VcpuState& saved = rest.vcpus[0];
    for (const auto& [index, value] : kValues) {
      u64 found = 0;
      EXPECT_TRUE(msr_get(saved, static_cast<u32>(index), found));
      EXPECT_EQ(found, value) << fmt::format("MSR {:#x} in the saved form", index);
    }
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(saved.dr[i], kDebugValues[i]) << "DR" << i;
    EXPECT_EQ(saved.dr7, kDebugValues[4]);
    vm = std::make_unique<TinyVm>(TinyVm::Kind::kvm, rest, outside, contract);
    EXPECT_EQ(vm->as_kvm_has_it().vcpus[0], saved);
  }
  rest.at<u32>(kEnd) = 1;
  vm = std::make_unique<TinyVm>(TinyVm::Kind::kvm, rest, outside, contract);
  ASSERT_EQ(vm->run_to_done(), "");
  EXPECT_EQ(outside.written, std::vector<u32>{0}) << fmt::format("the guest finds another value; the last time in {:#x}", vm->save().at<u32>(kWrongMsr));
  EXPECT_EQ(vm->save().at<u32>(kWrong), 0u);
}

}  // namespace
}  // namespace stasis::tiny
