// One guest that goes from KVM to the soft engine and back again and again, at random points: each side has all that the
// other had, and the result is that of a guest that was never moved.
//
// The soft engine has neither 16-bit code nor several vCPUs, so this guest has one vCPU and stays in 64-bit mode.
// `STASIS_CROSSINGS=N STASIS_SEED=N test_kvm --gtest_filter='KvmCrossing.*'` for more points or others.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <random>

#include "cpu/checks.hpp"
#include "tiny_vm.hpp"

namespace stasis::tiny {
namespace {

constexpr u64 kIrq = 0x40, kSoftware = 0x41, kFromUser = 0x42;
constexpr u64 kLimit = kData, kSource = 0x11'0000;

// Integers, x87, SSE, strings, ports, MMIO, interrupts that it sends itself, software interrupts, user mode; RCX counts.
PROGRAM(walker, R"(
   movabsq $0x5851f42d4c957f2d, %r9
   movabsq $0x14057b7ef767814f, %r10
   cld
   fninit
   fldpi
   movl $0, 0x310(%r15)
1: cmpq 0x100000, %rcx
   jae 9f
   incq %rcx
   movq %rcx, %r13
   imulq %r9, %rbx
   addq %r10, %rbx
   movq %rbx, %rax
   shrq $33, %rax
   movq %rax, %r14

   pushq %rax                  # x87: the square root, and a sum that stays
   fildq (%rsp)
   fadd %st, %st(1)
   fsqrt
   fistpq (%rsp)
   popq %rdx
   xorq %rdx, %rbx

   cvtsi2sdq %rax, %xmm2       # SSE
   addsd %xmm2, %xmm3
   movq %rbx, %xmm5
   paddd %xmm5, %xmm15
   pshufd $0x39, %xmm15, %xmm15
   movq %xmm15, %rdx
   addq %rdx, %rbx

   movl %r14d, %esi            # strings
   andl $0xff8, %esi
   movq %rbx, 0x110000(%rsi)
   addl $0x110000, %esi
   movl $0x118000, %edi
   movl %r14d, %ecx
   shrl $12, %ecx
   andl $0x7f, %ecx
   rep movsb
   movl $3, %ecx
   rep stosq
   addq 0x118008, %rbx
   movq %r13, %rcx

   int $0x41
   testl $31, %ecx
   jnz 2f
   movl $0x40040, 0x300(%r15)   # an interrupt to itself
   sti
   nop
   cli
2: testl $127, %ecx
   jnz 3f
   movl $0x84, %edx
   inl %dx, %eax
   addq %rax, %rbx
   addl 0x10(%r8), %ebx
   movl %ebx, %eax
   outl %eax, $0x80
3: testl $15, %ecx
   jnz 4f
   movq %rsp, %r11             # to user mode and back
   pushq $0x23
   pushq %r11
   pushq $0x2
   pushq $0x2b
   pushq $0x10e00
   iretq
4: jmp 1b

9: fistpq 0x100010             # the result
   movsd %xmm3, 0x100018
   movups %xmm15, 0x100020
   movq %rbx, 0x100030
   out %al, $0xf4
   hlt
.global walker_irq
walker_irq:
   incq 0x100100
   addq %rcx, 0x100108
   movl $0, 0x0b0(%r15)
   iretq
.global walker_software
walker_software:
   rolq $7, %rbx
   iretq
.global walker_from_user
walker_from_user:
   movq %r11, %rsp
   movl $0x10, %eax
   movl %eax, %ss
   movl %eax, %ds
   movl %eax, %es
   jmp 1b
   .org walker_begin + 0xe00   # user mode
   xorq %r13, %rbx
   movl $200, %r12d
1: pushq %rbx
   popq %rax
   bswapq %rax
   addq %rax, %rbx
   decl %r12d
   jnz 1b
   int $0x42
)");
extern "C" const unsigned char walker_irq[], walker_software[], walker_from_user[];

Rest walker_at_rest(u64 limit) {
  Rest rest = at_rest(PROGRAM_OF(walker));
  gate(rest, kIrq, PLACE_OF(walker, walker_irq));
  gate(rest, kSoftware, PLACE_OF(walker, walker_software));
  gate(rest, kFromUser, PLACE_OF(walker, walker_from_user), 3);
  std::mt19937_64 fill{5};
  for (u64 at = kSource; at < kSource + 0x2000; at += 8) rest.at<u64>(at) = fill();
  rest.at<u64>(kLimit) = limit;
  return rest;
}

u64 number_from(const char* variable, u64 otherwise) {
  const char* const text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

class KvmCrossing : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = no_kvm(); !why.empty()) GTEST_SKIP() << why;
    contract = common_contract();
  }
  // `rest` in a fresh machine has to be what that machine then has.
  std::unique_ptr<TinyVm> enter(TinyVm::Kind kind, const Rest& rest) {
    auto vm = std::make_unique<TinyVm>(kind, rest, outside, contract);
    const Rest there = kind == TinyVm::Kind::kvm ? vm->as_kvm_has_it() : vm->save();
    EXPECT_EQ(there.vcpus[0], rest.vcpus[0]);
    EXPECT_EQ(there.apics[0], rest.apics[0]);
    EXPECT_EQ(digest(there.ram), digest(rest.ram));
    EXPECT_EQ(there.now, rest.now);
    if (kind == TinyVm::Kind::soft) { EXPECT_EQ(check_for_soft(rest.vcpus[0], contract), ""); }
    return vm;
  }
  Outside outside;
  CpuContract contract;
};

TEST_F(KvmCrossing, at_random_points_each_engine_has_what_the_other_had) {
  const u64 crossings = number_from("STASIS_CROSSINGS", 40), seed = number_from("STASIS_SEED", 1);
  std::mt19937_64 random{seed};
  Rest rest = walker_at_rest(~u64{0});
  std::array<u64, 2> in_user{}, in_string{};
  for (u64 crossing = 0; crossing < crossings && !HasFailure(); ++crossing) {
    SCOPED_TRACE(fmt::format("crossing {} of seed {}", crossing, seed));
    const bool kvm = crossing % 2 == 0;
    auto vm = enter(kvm ? TinyVm::Kind::kvm : TinyVm::Kind::soft, rest);
    const u64 before = rest.vcpus[0].gpr[kR13];
    ASSERT_EQ(vm->run(kvm ? 100'000 + random() % 400'000 : random() % 5'000), "");
    rest = vm->save();
    EXPECT_GE(rest.vcpus[0].gpr[kR13], before);
    in_user[kvm] += rest.vcpus[0].cpl == 3;
    in_string[kvm] += rest.vcpus[0].gpr[kRcx] != rest.vcpus[0].gpr[kR13];
  }
  // The rest of the way under KVM; and all of it on the soft engine.
  const u64 limit = rest.vcpus[0].gpr[kR13] + 100;
  rest.at<u64>(kLimit) = limit;
  auto vm = enter(TinyVm::Kind::kvm, rest);
  ASSERT_EQ(vm->run_to_done(), "");
  const Rest moved = vm->save();
  Outside alone;
  TinyVm never_moved(TinyVm::Kind::soft, walker_at_rest(limit), alone, contract);
  while (!alone.done) ASSERT_EQ(never_moved.run(1'000'000), "");
  Rest still = never_moved.save();
  std::printf("%lu crossings, %lu rounds; saved in user mode %lu (KVM) %lu (soft), within a string %lu %lu\n", crossings, limit, in_user[1], in_user[0],
              in_string[1], in_string[0]);
  EXPECT_EQ(still.at<u64>(kData + 0x100), limit / 32) << "interrupts";
  EXPECT_EQ(moved.vcpus[0].gpr, still.vcpus[0].gpr);
  EXPECT_EQ(moved.vcpus[0].fpu.xmm, still.vcpus[0].fpu.xmm);
  EXPECT_TRUE(moved.ram == still.ram) << "first difference at " << std::ranges::mismatch(moved.ram, still.ram).in1 - moved.ram.begin();
  EXPECT_TRUE(outside.written == alone.written) << "what it wrote to a port";
  EXPECT_EQ(outside.next_read, alone.next_read);
  EXPECT_EQ(outside.mmio_accesses, alone.mmio_accesses);
}

}  // namespace
}  // namespace stasis::tiny
