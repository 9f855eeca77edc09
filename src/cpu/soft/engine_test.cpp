// Tiny guests: a program that meets faults, interrupts, self-modifying code and user mode must reach the same
// state whatever the counts at which it is stopped, saved and restored.
#include "cpu/soft/engine.hpp"

#include <gtest/gtest.h>

#include "bus/mmio_bus.hpp"
#include "bus/port_bus.hpp"

// The program is linked to run at 0x10000, with the page tables, GDT and stacks that Guest sets up.
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

namespace stasis::soft {
namespace {

constexpr u64 kProgram = 0x10000, kNever = ~0ull;

struct Guest {
  explicit Guest(Bytes program) {
    const auto put = [&](u64 address, u64 value) { std::memcpy(memory.host() + address, &value, 8); };
    put(0x1000, 0x2007);
    put(0x2000, 0x3007);
    put(0x2018, 0x5007);
    put(0x3000, 0x4007);
    put(0x5000 + 503 * 8, 0x6007);  // 0xfee00000
    put(0x6000, 0xfee00003);
    for (u64 page = 0; page < 0x100; ++page) put(0x4000 + page * 8, page << 12 | 7);
    put(0x7008, 0x00af'9b00'0000'ffff);  // 08 code, 10 data, 18 + 8 user data, 18 + 10 user code, 30 TSS
    put(0x7010, 0x00cf'9300'0000'ffff);
    put(0x7020, 0x00cf'f300'0000'ffff);
    put(0x7028, 0x00af'fb00'0000'ffff);
    put(0x7030, 0x0000'8900'a000'0067);
    put(0xa004, 0xf000);  // RSP0
    put(0xa024, 0xe000);  // IST1
    std::memcpy(memory.host() + kProgram, program.data(), program.size());
    VcpuState s;
    s.rip = kProgram;
    s.gpr = {};
    s.gpr[kRsp] = 0xd000;
    s.cr0 = 0x8001'0033;
    s.cr3 = 0x1000;
    s.cr4 = 0x620;
    s.efer = 0xd00;
    s.cs = {.selector = 8, .attributes = 0xa9b, .limit = ~0u, .base = 0};
    s.ss = s.ds = s.es = {.selector = 0x10, .attributes = 0xc93, .limit = ~0u, .base = 0};
    engine.set(s);
  }
  // Runs to `until`, jumping over idle time.
  StopReason run(u64 until) {
    for (;;) {
      const StopReason reason = engine.run(until);
      if (reason != StopReason::idle || clock.next_alarm() == Clock::kNever) return reason;
      clock.advance_to(clock.next_alarm());
    }
  }
  u64 digest() const {
    u64 hash = 14695981039346656037ull;
    for (u64 i = 0; i < memory.size(); i += 8) {
      u64 word;
      std::memcpy(&word, memory.host() + i, 8);
      hash = (hash ^ word) * 1099511628211ull;
    }
    return hash;
  }

  Clock clock;
  GuestMemory memory = *GuestMemory::create(2 * kMiB);
  PortBus ports;
  MmioBus mmio;
  CpuContract contract = default_cpu_contract(1);
  LocalApic apic{clock, 0, contract.tsc_hz};
  SoftEngine engine{CpuBoard{memory, ports, mmio, clock, apic, contract}};
};

Bytes mix() { return {mix_start, static_cast<std::size_t>(mix_all_end - mix_start)}; }

TEST(SoftEngine, RunsAMixedProgramToItsEnd) {
  Guest guest(mix());
  ASSERT_EQ(guest.run(kNever), StopReason::idle) << guest.engine.failure();
  const VcpuState s = guest.engine.get();
  EXPECT_EQ(s.rip, kProgram + (s.rip - kProgram));
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.activity, Activity::halted);
  u64 value;
  std::memcpy(&value, guest.memory.host() + 0x100000, 8);
  EXPECT_TRUE(guest.engine.consistent());
  printf("retired %lu rip %lx rbx %lx r14 %lu r8 %lx r9 %lx r11 %lx r12 %lu\n", s.retired, s.rip, s.gpr[kRbx], s.gpr[kR14], s.gpr[kR8], s.gpr[kR9], s.gpr[kR11], s.gpr[kR12]);
}

TEST(SoftEngine, StoppingAnywhereChangesNothing) {
  Guest whole(mix());
  ASSERT_EQ(whole.run(kNever), StopReason::idle);
  const u64 end = whole.engine.retired();
  for (const u64 step : {1, 2, 3, 7, 50}) {
    SCOPED_TRACE(step);
    Guest parts(mix());
    for (u64 at = 0; at < end; at += step) {
      ASSERT_NE(parts.run(at), StopReason::failed) << parts.engine.failure();
      const VcpuState saved = parts.engine.get();
      parts.engine.set(saved);  // as a restored machine: nothing cached
      ASSERT_EQ(parts.engine.get(), saved) << at;
    }
    ASSERT_EQ(parts.run(kNever), StopReason::idle);
    EXPECT_EQ(parts.engine.get(), whole.engine.get());
    EXPECT_EQ(parts.digest(), whole.digest());
    EXPECT_EQ(parts.clock.now(), whole.clock.now());
    EXPECT_EQ(parts.apic.state(), whole.apic.state());
  }
}

}  // namespace
}  // namespace stasis::soft
