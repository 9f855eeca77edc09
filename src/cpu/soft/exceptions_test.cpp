// Delivery of exceptions and interrupts: stacks, error codes, double and triple faults, privilege, single step.
#include "cpu/soft/tiny_guest.hpp"

SNIPPET(undefined_op, "ud2");
SNIPPET(divide_zero, "xor ecx, ecx; nop; div ecx; hlt");
SNIPPET(int_n, "int 0x41; hlt");
SNIPPET(halt_only, "hlt");
SNIPPET(load_selector, "mov ds, ecx; hlt");
SNIPPET(step_over, R"(
   pushf
   or qword ptr [rsp], 0x100
   popf
   inc rbx
   inc rbx
   hlt)");
SNIPPET(return_to_user, R"(
   push 0x23
   push 0x20000
   push 0x202
   push 0x2b
   lea rax, [rip+1f]
   push rax
   iretq
1: inc rbx
   int 0x41)");
SNIPPET(break_here, "nop; nop; inc rbx; hlt");
SNIPPET(use_avx, "vaddps ymm0, ymm1, ymm2; hlt");
SNIPPET(lock_nop, ".byte 0xf0, 0x90");
SNIPPET(too_many_prefixes, ".fill 16, 1, 0x66; nop; hlt");
SNIPPET(store_gdt, "sgdt [rsp-16]; hlt");
SNIPPET(read_a_port, "in al, 0x80; mov rbx, 1; hlt");
SNIPPET(disable_interrupts, "cli; hlt");

namespace stasis::soft {
namespace {

u64 stack(const TinyGuest& guest, const VcpuState& s, unsigned slot) { return guest.peek(s.gpr[kRsp] + 8 * slot); }
int vector_after(TinyGuest& guest) { return TinyGuest::vector_of(guest.finish()); }

TEST(Exceptions, AFaultPushesItsOwnAddressAndSetsRf) {
  TinyGuest guest(CODE_OF(divide_zero));
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 0);
  EXPECT_EQ(s.gpr[kRsp], 0xd000u - 40);
  EXPECT_EQ(stack(guest, s, 0), TinyGuest::kCode + 3);
  EXPECT_EQ(stack(guest, s, 1), 8u);
  EXPECT_EQ(stack(guest, s, 2) & (kRf | kIf), kRf);
  EXPECT_EQ(stack(guest, s, 3), 0xd000u);
  EXPECT_EQ(stack(guest, s, 4), 0x10u);
  EXPECT_EQ(s.retired, 3u) << "XOR, NOP and the handler's HLT; the DIV did not retire";
}

TEST(Exceptions, TheFrameIsAligned) {
  TinyGuest guest(CODE_OF(undefined_op));
  guest.state.gpr[kRsp] = 0xcff9;
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 6);
  EXPECT_EQ(s.gpr[kRsp], 0xcff0u - 40);
  EXPECT_EQ(stack(guest, s, 3), 0xcff9u);
}

TEST(Exceptions, SelectorsAreInErrorCodes) {
  TinyGuest guest(CODE_OF(load_selector));
  guest.state.gpr[kRcx] = 0x4b;
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 13);
  EXPECT_EQ(stack(guest, s, 0), 0x48u);
}

TEST(Exceptions, SoftwareInterruptsNeedTheGatesPrivilege) {
  TinyGuest kernel(CODE_OF(int_n));
  EXPECT_EQ(vector_after(kernel), 0x41);
  TinyGuest user(CODE_OF(int_n));
  user.user();
  const VcpuState refused = user.finish();
  EXPECT_EQ(TinyGuest::vector_of(refused), 13);
  EXPECT_EQ(stack(user, refused, 0), 0x41u * 8 + 2);
  TinyGuest allowed(CODE_OF(int_n));
  allowed.user();
  allowed.gate(0x41, TinyGuest::kHandlers + 0x41 * 16, 3);
  const VcpuState s = allowed.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 0x41);
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.gpr[kRsp], 0xf000u - 40);
  EXPECT_EQ(stack(allowed, s, 0), TinyGuest::kCode + 2) << "behind the INT";
  EXPECT_EQ(stack(allowed, s, 1), 0x2bu);
  EXPECT_EQ(s.ss.selector, 0u);
}

TEST(Exceptions, DoubleAndTripleFault) {
  TinyGuest twice(CODE_OF(undefined_op));
  twice.gate(6, TinyGuest::kHandlers, 0);
  twice.put(0x9000 + 6 * 16, 0);  // no gate for #UD: #NP or #GP, which is benign after #UD
  EXPECT_EQ(vector_after(twice), 13);
  TinyGuest contributory(CODE_OF(divide_zero));
  contributory.put(0x9000, 0);
  const VcpuState s = contributory.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 8);
  EXPECT_EQ(stack(contributory, s, 0), 0u);
  TinyGuest dead(CODE_OF(divide_zero));
  dead.state.idtr.limit = 0;
  dead.start();
  EXPECT_EQ(dead.run(), StopReason::shutdown);
  EXPECT_EQ(dead.engine.get().activity, Activity::shutdown);
  EXPECT_EQ(dead.run(), StopReason::shutdown);
}

TEST(Exceptions, SingleStepTrapsAfterTheInstruction) {
  TinyGuest guest(CODE_OF(step_over));
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 1);
  EXPECT_EQ(s.gpr[kRbx], 1u) << "POPF itself does not trap";
  EXPECT_EQ(s.dr6 & 0x4000, 0x4000u);
  EXPECT_EQ(s.rflags & kTf, 0u);
  EXPECT_EQ(stack(guest, s, 2) & kTf, kTf);
}

TEST(Exceptions, InstructionBreakpointsFaultUnlessRf) {
  TinyGuest guest(CODE_OF(break_here));
  guest.state.dr[1] = TinyGuest::kCode + 2;
  guest.state.dr7 = 0x404;
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 1);
  EXPECT_EQ(s.dr6 & 0xf, 2u);
  EXPECT_EQ(s.gpr[kRbx], 0u);
  TinyGuest resumed(CODE_OF(break_here));
  resumed.state.dr[0] = TinyGuest::kCode;
  resumed.state.dr7 = 0x401;
  resumed.state.rflags |= kRf;
  EXPECT_EQ(vector_after(resumed), -1);
  EXPECT_EQ(resumed.engine.get().gpr[kRbx], 1u);
}

TEST(Exceptions, IretReachesUserModeAndInterruptsComeBack) {
  TinyGuest guest(CODE_OF(return_to_user));
  guest.gate(0x41, TinyGuest::kHandlers + 0x41 * 16, 3);
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 0x41);
  EXPECT_EQ(s.gpr[kRbx], 1u);
  EXPECT_EQ(stack(guest, s, 1), 0x2bu);
  EXPECT_EQ(stack(guest, s, 3), 0x20000u);
  EXPECT_EQ(s.ds.selector, 0u) << "the outer level may not use a supervisor's segment";
}

TEST(Exceptions, WhatThisProcessorLacksIsUndefined) {
  TinyGuest avx(CODE_OF(use_avx)), lock(CODE_OF(lock_nop)), lengthy(CODE_OF(too_many_prefixes));
  EXPECT_EQ(vector_after(avx), 6);
  EXPECT_EQ(vector_after(lock), 6);
  EXPECT_EQ(vector_after(lengthy), 13);
}

TEST(Exceptions, UserModeIsKeptOut) {
  TinyGuest halt(CODE_OF(halt_only)), gdt(CODE_OF(store_gdt)), port(CODE_OF(read_a_port)), cli(CODE_OF(disable_interrupts));
  for (TinyGuest* guest : {&halt, &gdt, &port, &cli}) {
    guest->user();
    guest->state.cr4 |= kCr4Umip;
    EXPECT_EQ(vector_after(*guest), 13);
  }
  TinyGuest bitmap(CODE_OF(read_a_port));  // the TSS lets port 0x80 through
  bitmap.user();
  bitmap.state.tr.limit = 0x200;
  bitmap.put(0xa066, 0x100);
  const VcpuState s = bitmap.finish();
  EXPECT_EQ(s.gpr[kRbx], 1u);
  EXPECT_EQ(TinyGuest::vector_of(s), 13) << "then the HLT";
}

}  // namespace
}  // namespace stasis::soft
