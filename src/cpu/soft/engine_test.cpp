// Tiny guests: a program that meets faults, interrupts, self-modifying code and user mode must reach the same
// state whatever the counts at which it is stopped, saved and restored.
#include "cpu/soft/tiny_guest.hpp"

// The program is linked to run at 0x10000, with the page tables, GDT and stacks that TinyGuest sets up.
asm(R"(
.pushsection .rodata
.balign 4096
.intel_syntax noprefix
mix_start:
  lgdt [rip+mix_gdtr]
  lidt [rip+mix_idtr]
  mov ax, 0x30
  ltr ax
  # gates: vector -> handler
  .macro gate vec, handler, dpl=0, ist=0
  lea rax, [rip+\handler]
  mov edi, 0x9000 + \vec*16
  mov word ptr [rdi], ax
  mov word ptr [rdi+2], 0x08
  mov byte ptr [rdi+4], \ist
  mov byte ptr [rdi+5], 0x8e | (\dpl << 5)
  shr rax, 16
  mov word ptr [rdi+6], ax
  shr rax, 16
  mov dword ptr [rdi+8], eax
  .endm
  gate 6, mix_on_ud
  gate 14, mix_on_pf, 0, 1
  gate 0x80, mix_on_int, 3
  gate 0x40, mix_on_timer
  gate 1, mix_on_db
  xor ebx, ebx
  mov ecx, 20
1:
  call mix_twist
  add rbx, rax
  dec ecx
  jnz 1b
  # strings
  cld
  lea rsi, [rip+mix_start]
  mov edi, 0x20000
  mov ecx, 37
  rep movsb
  mov eax, 0x1234567
  mov ecx, 5
  rep stosq
  mov esi, 0x20000
  mov edi, 0x20000
  mov ecx, 60
  repe cmpsb
  pushf
  pop r10
  int 0x80
  # page fault: 0x100000 is not present; the handler maps it
  mov rdi, 0x100ff8
  mov qword ptr [rdi], 0x55
  mov qword ptr [rdi+4], 0x66      # crosses into 0x101000, not present either
  mov r9, [rdi]
  # alias 0x102000 -> 0x20000, then -> 0x21000 without INVLPG
  mov qword ptr [0x4000 + 0x102*8], 0x20003
  mov r8, [0x102000]
  mov qword ptr [0x4000 + 0x102*8], 0x21003
  mov qword ptr [0x102000], 0x77
  add r8, [0x21000]
  mov r11, [0x4000 + 0x102*8]       # A and D
  ud2
  # self-modifying code: in the same block, then in a loop
  mov byte ptr [rip+mix_patched+1], 0x21
mix_patched:
  mov al, 0x20
  movzx eax, al
  add rbx, rax
  mov ecx, 5
2:
  mov byte ptr [rip+mix_patched2+1], cl
  nop
mix_patched2:
  mov al, 0x20
  movzx eax, al
  add rbx, rax
  dec ecx
  jnz 2b
  # devices: port and local APIC
  mov al, 'x'
  out 0xe9, al
  mov edi, 0xfee00000
  mov dword ptr [rdi+0xf0], 0x1ff
  mov dword ptr [rdi+0x3e0], 0xb
  mov dword ptr [rdi+0x320], 0x40
  mov dword ptr [rdi+0x380], 90
  rdtsc
  mov r12, rax
  sti
  nop
  mov ecx, 50
3:
  add rbx, rcx
  loop 3b
  mov dword ptr [rdi+0x380], 300
  hlt
  mov dword ptr [rdi+0x380], 40
  mov edi, 0x20000
  mov ecx, 200
  rep stosb
  mov edi, 0xfee00000
  mov ecx, [rdi+0x390]
  cli
  # mix_user mode and back
  mov ecx, 0xc0000080
  rdmsr
  or eax, 1
  wrmsr
  mov ecx, 0xc0000081
  xor eax, eax
  mov edx, 0x00180008
  wrmsr
  inc ecx
  lea rax, [rip+mix_on_syscall]
  xor edx, edx
  wrmsr
  mov ecx, 0xc0000084
  mov eax, 0x200
  wrmsr
  mov ecx, 0x1f000
  mov r11, 0x202
  mov r15, rsp
  lea rsi, [rip+mix_user]
  mov edi, 0x1f000
  push rcx
  mov ecx, mix_user_end - mix_user
  rep movsb
  pop rcx
  sysretq
mix_on_syscall:
  mov rsp, r15
  # single step over a few instructions
  pushf
  or qword ptr [rsp], 0x100
  popf
  nop
  inc rbx
  pushf
  and qword ptr [rsp], ~0x100
  popf
  # jump to an instruction that crosses a page end
  lea rax, [rip+mix_crossing]
  jmp rax
mix_done:
  hlt
  jmp mix_done

mix_twist:
  push rcx
  mov rax, rcx
  imul rax, rax, 77
  xor rax, rbx
  rol rax, 5
  adc rax, 3
  pop rcx
  ret
mix_user:
  mov r13, 5
4:
  add rbx, r13
  dec r13
  jnz 4b
  mov rdx, 0x103000    # not present: fault from mix_user mode, handled with the mix_user bit
  mov [rdx], rbx
  int 0x80
  syscall
mix_user_end:
mix_on_ud:
  add qword ptr [rsp], 2
  iretq
mix_on_int:
  inc r14
  iretq
mix_on_db:
  inc r14
  iretq
mix_on_pf:
  push rax
  push rdx
  mov rax, cr2
  and rax, ~0xfff
  mov rdx, rax
  shr rdx, 12
  or rax, 7
  mov [0x4000 + rdx*8], rax
  pop rdx
  pop rax
  add r14, [rsp]
  add rsp, 8
  iretq
mix_on_timer:
  push rdi
  mov edi, 0xfee00000
  mov dword ptr [rdi+0xb0], 0
  pop rdi
  inc r14
  add rbx, rcx
  iretq
.balign 8
mix_gdtr: .word 0x3f
  .quad 0x7000
mix_idtr: .word 0xfff
  .quad 0x9000
.org mix_start + 0xffd
mix_crossing:
  movabs rax, 0x1122334455667788
  add rbx, rax
  mov dword ptr [rip+mix_crossing+5], 0x99999999
  dec byte ptr [rip+mix_again]
  jnz mix_crossing
  jmp mix_done
mix_again: .byte 3
mix_all_end:
.att_syntax prefix
.popsection
)");
extern "C" const unsigned char mix_start[], mix_all_end[];

SNIPPET(count_up, R"(
1: inc rax
   jmp 1b)");

SNIPPET(fill_long, R"(
   mov edi, 0x20000
   mov ecx, 1000
   mov al, 0x5a
   rep stosb
   hlt)");

SNIPPET(read_port, R"(
   mov dx, 0x510
1: in al, dx
   inc rbx
   jmp 1b)");

SNIPPET(call_patch, R"(
1: mov al, 1
   inc rcx
   cmp rcx, 10
   jne 1b
   hlt)");

SNIPPET(patch_for_long, R"(
   mov ecx, 20000
1: mov dword ptr [rip+2f+1], ecx
   call 2f
   add rbx, rax
   dec ecx
   jnz 1b
   hlt
2: mov eax, 0
   ret)");

SNIPPET(wait_for_timer, R"(
   mov edi, 0xfee00000
   mov dword ptr [rdi+0xf0], 0x1ff
   mov dword ptr [rdi+0x3e0], 0xb
   mov dword ptr [rdi+0x320], 0x40
   mov dword ptr [rdi+0x380], 100
   sti
1: inc rbx
   jmp 1b)");

SNIPPET(shadow, R"(
   mov edi, 0xfee00000
   mov dword ptr [rdi+0xf0], 0x1ff
   mov dword ptr [rdi+0x3e0], 0xb
   mov dword ptr [rdi+0x320], 0x40
   mov dword ptr [rdi+0x380], 1
   nop
   nop
   nop
   sti
   inc rbx
   inc rbx
   hlt)");

namespace stasis::soft {
namespace {

constexpr u64 kNever = TinyGuest::kNever;

Bytes mix() { return {mix_start, static_cast<std::size_t>(mix_all_end - mix_start)}; }

TEST(SoftEngine, RunsAMixedProgramToItsEnd) {
  TinyGuest guest(mix());
  guest.start();
  ASSERT_EQ(guest.run(), StopReason::idle) << guest.engine.failure();
  const VcpuState s = guest.engine.get();
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.activity, Activity::halted);
  EXPECT_EQ(s.gpr[kR8], guest.peek(TinyGuest::kCode) + 0x77) << "the alias was changed without INVLPG";
  EXPECT_EQ(s.gpr[kR9], 0x66'0000'0055u) << "a store over two pages, both mapped by the fault handler";
  EXPECT_EQ(guest.peek(0x101000) & 0xffff'ffff, 0u);
  EXPECT_EQ(s.gpr[kR11] & kIf, kIf) << "flags as SYSCALL saved them";
  EXPECT_EQ(guest.entry(0x102000), 0x21063u) << "accessed and dirty";
  EXPECT_EQ(guest.entry(0x103000) & 0x67, 0x67u);
  EXPECT_TRUE(guest.engine.consistent());
}

TEST(SoftEngine, StoppingAnywhereChangesNothing) {
  TinyGuest whole(mix());
  whole.start();
  ASSERT_EQ(whole.run(), StopReason::idle);
  const u64 end = whole.engine.retired();
  for (const u64 step : {1, 2, 3, 7, 50}) {
    SCOPED_TRACE(step);
    TinyGuest parts(mix());
    parts.start();
    for (u64 at = 0; at < end; at += step) {
      ASSERT_NE(parts.run(at), StopReason::failed) << parts.engine.failure();
      const VcpuState saved = parts.engine.get();
      parts.engine.set(saved);  // as a restored machine: nothing cached
      ASSERT_EQ(parts.engine.get(), saved) << at;
    }
    ASSERT_EQ(parts.run(), StopReason::idle);
    EXPECT_EQ(parts.engine.get(), whole.engine.get());
    EXPECT_EQ(parts.digest(), whole.digest());
    EXPECT_EQ(parts.clock.now(), whole.clock.now());
    EXPECT_EQ(parts.apic.state(), whole.apic.state());
  }
}

TEST(SoftEngine, EveryCountHasOneState) {
  TinyGuest walked(mix());
  walked.start();
  for (u64 at = 0; at < 900; at += 13) {
    TinyGuest direct(mix());
    direct.start();
    walked.run(at);
    direct.run(at);
    ASSERT_EQ(walked.engine.get(), direct.engine.get()) << at;
    ASSERT_EQ(direct.engine.retired(), at);
  }
}

TEST(SoftEngine, StopsAtTheCountAndKeepsTime) {
  TinyGuest guest(CODE_OF(count_up));
  guest.start();
  for (const u64 count : {1ull, 2ull, 3ull, 1000ull, 250'001ull}) {
    EXPECT_EQ(guest.engine.run(count), StopReason::count);
    EXPECT_EQ(guest.engine.retired(), count);
    EXPECT_EQ(guest.clock.now(), count);
    EXPECT_EQ(guest.engine.get().gpr[kRax], (count + 1) / 2);
  }
}

TEST(SoftEngine, RepCountsEachIterationAndStopsBetween) {
  TinyGuest guest(CODE_OF(fill_long));
  guest.start();
  guest.engine.run(3 + 400);
  VcpuState s = guest.engine.get();
  EXPECT_EQ(s.rip, TinyGuest::kCode + 12);
  EXPECT_EQ(s.gpr[kRcx], 600u);
  EXPECT_EQ(s.gpr[kRdi], 0x20000u + 400);
  EXPECT_EQ(guest.memory.host()[0x20000 + 399], 0x5a);
  EXPECT_EQ(guest.memory.host()[0x20000 + 400], 0);
  EXPECT_EQ(guest.run(), StopReason::idle);
  EXPECT_EQ(guest.engine.retired(), 3u + 1000 + 1);
}

TEST(SoftEngine, DevicesSeeTheTimeOfTheirInstruction) {
  struct Probe : PortDevice {
    explicit Probe(Clock& c) : clock(c) {}
    u32 port_read(u16, unsigned) override {
      times.push_back(clock.now());
      return 0;
    }
    void port_write(u16, unsigned, u32) override {}
    Clock& clock;
    std::vector<u64> times;
  };
  TinyGuest guest(CODE_OF(read_port));
  Probe probe(guest.clock);
  guest.ports.map(0x510, 0x510, probe);
  guest.start();
  guest.engine.run(8);
  EXPECT_EQ(probe.times, (std::vector<u64>{1, 4, 7}));
}

TEST(SoftEngine, AttentionAndKickEndARun) {
  struct Button : PortDevice {
    u32 port_read(u16, unsigned) override { return engine->attention(), 0; }
    void port_write(u16, unsigned, u32) override {}
    Engine* engine = nullptr;
  };
  TinyGuest guest(CODE_OF(read_port));
  Button button;
  button.engine = &guest.engine;
  guest.ports.map(0x510, 0x510, button);
  guest.start();
  EXPECT_EQ(guest.engine.run(100), StopReason::attention);
  EXPECT_EQ(guest.engine.retired(), 2u) << "right after the IN";
  guest.engine.kick();
  EXPECT_EQ(guest.engine.run(100), StopReason::attention);
  EXPECT_EQ(guest.engine.retired(), 2u);
}

TEST(SoftEngine, DmaIntoDecodedCodeIsSeen) {
  TinyGuest guest(CODE_OF(call_patch));
  guest.start();
  guest.engine.run(21);
  const u8 two = 2;
  ASSERT_TRUE(guest.memory.write(TinyGuest::kCode + 1, {&two, 1}));
  guest.engine.memory_written(TinyGuest::kCode + 1, 1);
  guest.run();
  EXPECT_EQ(guest.engine.get().gpr[kRax], 2u);
}

TEST(SoftEngine, CodeMayBePatchedForEver) {
  TinyGuest guest(CODE_OF(patch_for_long));
  const VcpuState s = guest.finish();
  EXPECT_EQ(s.gpr[kRbx], 20000ull * 20001 / 2);
}

TEST(SoftEngine, TimerInterruptComesAtItsCount) {
  TinyGuest guest(CODE_OF(wait_for_timer));
  guest.start();
  ASSERT_EQ(guest.run(), StopReason::idle);
  const VcpuState s = guest.engine.get();
  EXPECT_EQ(TinyGuest::vector_of(s), 0x40);
  // Armed by the fifth instruction, at 4 ns; due at 104; then HLT.
  EXPECT_EQ(s.retired, 105u);
  EXPECT_EQ(s.gpr[kRbx], 49u);
}

TEST(SoftEngine, StiHoldsInterruptsForOneInstruction) {
  TinyGuest guest(CODE_OF(shadow));
  guest.start();
  guest.engine.run(9);
  EXPECT_EQ(guest.engine.get().shadow, InterruptShadow::sti);
  guest.run();
  const VcpuState s = guest.engine.get();
  EXPECT_EQ(TinyGuest::vector_of(s), 0x40);
  EXPECT_EQ(s.gpr[kRbx], 1u);
  EXPECT_EQ(s.shadow, InterruptShadow::none);
}

TEST(SoftEngine, StateComesBackAsItWasSet) {
  TinyGuest guest(CODE_OF(count_up));
  VcpuState s = guest.state;
  for (unsigned i = 0; i < 16; ++i) s.gpr[i] = 0x1111'1111'1111'1111ull * i;
  s.rflags = 0x3f'7fd7;
  s.cpl = 3;
  s.dr = {1, 2, 3, 4};
  s.fs.base = 0x1234, s.gs.base = 0x5678, s.kernel_gs_base = 0x9abc;
  s.fpu.st[3][2] = 7, s.fpu.xmm[15][15] = 9;
  s.shadow = InterruptShadow::mov_ss;
  s.nmi_blocked = true;
  s.pending = {.valid = true, .vector = 14, .has_error_code = true, .error_code = 5};
  s.retired = 12345;
  guest.engine.set(s);
  EXPECT_EQ(guest.engine.get(), s);
}

TEST(SoftEngine, APendingEventIsDeliveredFirst) {
  TinyGuest guest(CODE_OF(count_up));
  guest.state.pending = {.valid = true, .vector = 13, .has_error_code = true, .error_code = 0x18};
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 13);
  EXPECT_EQ(guest.peek(s.gpr[kRsp]), 0x18u);
  EXPECT_EQ(s.retired, 1u);
  EXPECT_FALSE(s.pending.valid);
}

TEST(SoftEngine, NmiIsBlockedUntilIret) {
  TinyGuest guest(CODE_OF(count_up));
  guest.state.nmi_pending = true;
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 2);
  EXPECT_TRUE(s.nmi_blocked);
  EXPECT_FALSE(s.nmi_pending);
}

TEST(SoftEngine, CodeOutsideRamFailsWithItsAddress) {
  TinyGuest guest(CODE_OF(count_up));
  guest.map(0x180000, 0xd000'0003);
  guest.state.rip = 0x180000;
  guest.start();
  EXPECT_EQ(guest.run(), StopReason::failed);
  EXPECT_NE(guest.engine.failure().find("0xd0000000"), std::string::npos) << guest.engine.failure();
}

}  // namespace
}  // namespace stasis::soft
