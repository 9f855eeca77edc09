// The tiny guests' programs.
#include "guests.hpp"

#include <elf.h>

#include <cstring>

// All are linked to run at 1 MiB, in flat 32-bit protected mode, stack below 0x90000, IDT at 0x30000.
asm(R"(
.pushsection .rodata
.set BASE, 0x100000
.code32

.macro begin name
  .balign 16
  .global tiny_\name\()_start
  tiny_\name\()_start:
.endm
.macro finish name
  .global tiny_\name\()_end
  tiny_\name\()_end:
.endm

# gate VECTOR, HANDLER, START: an interrupt gate
.macro gate vector, handler, start
  movl $(\handler - \start + BASE), %eax
  movw %ax, 0x30000 + \vector*8
  movw $0x10, 0x30002 + \vector*8
  movw $0x8e00, 0x30004 + \vector*8
  shrl $16, %eax
  movw %ax, 0x30006 + \vector*8
.endm
.macro outbyte port, value
  movb $\value, %al
  outb %al, $\port
.endm
# The 8259 pair at vectors 0x20 and 0x28, all masked but IRQ 0.
.macro start_pic
  outbyte 0x20, 0x11
  outbyte 0x21, 0x20
  outbyte 0x21, 0x04
  outbyte 0x21, 0x01
  outbyte 0xa0, 0x11
  outbyte 0xa1, 0x28
  outbyte 0xa1, 0x02
  outbyte 0xa1, 0x01
  outbyte 0xa1, 0xff
  outbyte 0x21, 0xfe
.endm
.macro start_pit mode, low, high
  outbyte 0x43, \mode
  outbyte 0x40, \low
  outbyte 0x40, \high
.endm

begin events
  cli
  movl $0x90000, %esp
  gate 2, events_nmi, tiny_events_start
  gate 6, events_ud, tiny_events_start
  gate 0x20, events_tick, tiny_events_start
  lidtl events_idt - tiny_events_start + BASE
  movl %cr4, %eax
  orl $0x600, %eax
  movl %eax, %cr4
  fninit
  fldcw events_fcw - tiny_events_start + BASE
  fldpi
  fldl2e
  fld1
  fldz
  fdivrp %st, %st(1)              # 1 / 0: ZE is set, and masked
  ldmxcsr events_mxcsr - tiny_events_start + BASE
  movups events_data - tiny_events_start + BASE, %xmm0
  movups events_data + 16 - tiny_events_start + BASE, %xmm1
  movaps %xmm0, %xmm7
  paddd %xmm1, %xmm7
  mulps %xmm1, %xmm0
  start_pic
  start_pit 0x30, 2, 0            # one shot, due while interrupts are off
  movl $2600, %ecx
1: loop 1b
  movl $0, 0xfee00310
  movl $0x4400, 0xfee00300        # NMI to itself
  nop
  sti
  nop                             # the interrupt shadow
  nop
  ud2
  movw %ds, %ax
  movw %ax, %ss                   # another kind of shadow
  movl $0x90000, %esp
  cld
  movl $BASE, %esi
  movl $0x150000, %edi
  movl $70, %ecx
  rep movsb
  movl $0x12345678, %eax
  movl $33, %ecx
  rep stosl
  cli
  start_pit 0x30, 40, 0
  sti
  hlt                             # the tick ends it
  fxsave 0x180000
  movl 0x160000, %eax
  movl %eax, 0x180200
  movl 0x160004, %eax
  movl %eax, 0x180204
  movl 0x160008, %eax
  movl %eax, 0x180208
  cli
2: hlt
  jmp 2b
events_tick:
  incl 0x160000
  pushl %eax
  outbyte 0x20, 0x20
  popl %eax
  iretl
events_nmi:
  incl 0x160004
  cmpl $1, 0x160004
  jne 3f
  movl $0x4400, 0xfee00300        # a second one, which waits for the IRET
  nop
3: iretl
events_ud:
  incl 0x160008
  addl $2, (%esp)
  iretl
events_idt: .word 0x7ff
  .long 0x30000
  .balign 4
events_fcw: .word 0x27f
  .balign 4
events_mxcsr: .long 0x9fa0
events_data: .long 0x3f800000, 0x40490fdb, 0xc2f6e979, 0x00000001
  .long 0x12345678, 0x9abcdef0, 0x3fc00000, 0x7f7fffff
finish events

begin clocks
  cli
  movl $0x90000, %esp
  gate 0x20, clocks_tick, tiny_clocks_start
  lidtl clocks_idt - tiny_clocks_start + BASE
  start_pic
  start_pit 0x34, 0, 0            # a tick each 54.9 ms
  movl $0x140000, %edi
  movl $0x608, %edx
  inl %dx, %eax
  movl %eax, %ebx
1: inl %dx, %eax                  # the PM timer only goes forward
  movl %eax, %ecx
  subl %ebx, %ecx
  js 2f
  movl %eax, %ebx
  sti
  hlt
  jmp 1b
2: movl $0x33, %eax
  outl %eax, $0xf4
  hlt
clocks_tick:
  pushl %eax
  inl %dx, %eax
  movl %eax, (%edi)
  outbyte 0x70, 0
  inb $0x71, %al
  movb %al, 4(%edi)
  outbyte 0x43, 0                 # latch channel 0
  inb $0x40, %al
  movb %al, 5(%edi)
  inb $0x40, %al
  movb %al, 6(%edi)
  addl $8, %edi
  andl $0x14ffff, %edi
  outbyte 0x20, 0x20
  popl %eax
  iretl
clocks_idt: .word 0x7ff
  .long 0x30000
finish clocks

begin tables
  cld
  movl $0xe0000, %edi
  movl $0x4000, %ecx
  movl $0x55555555, %eax
  rep stosl
  cli
1: hlt
  jmp 1b
finish tables

begin ioapic
  movl $0, 0xfec00000
  movl $0x0b000000, 0xfec00010
  movl $0x14, 0xfec00000
  movl $0x1a037, 0xfec00010
  cli
1: hlt
  jmp 1b
finish ioapic

begin serial
  movw $0x3fa, %dx
  movb $0xc7, %al                 # FIFO on, cleared, trigger at 14
  outb %al, %dx
  movw $0x3fc, %dx
  movb $0x0b, %al
  outb %al, %dx
  movw $0x3f9, %dx
  movb $0x0f, %al
  outb %al, %dx
  cli
1: jmp 1b
finish serial

begin spin
  cli
1: jmp 1b
finish spin

begin halt
  cli
1: hlt
  jmp 1b
finish halt

begin waiting
  cli
  movl $0x22, 0xfee00320   # the timer: one shot, vector 0x22
  movl $0x0b, 0xfee003e0   # ticks of 1 ns
  movl $1000, 0xfee00380
1: hlt
  jmp 1b
finish waiting

begin rep
  cli
  cld
1: movl $0xffffffff, %ecx
  movl $0x100000, %esi
  rep lodsb
  jmp 1b
finish rep

# Page tables: identity, 0 to 4 MiB for all, the devices' 4 MiB for the kernel.
begin long_mode
  cli
  movl $0x90000, %esp
  movl $0x41007, 0x40000
  movl $0x42007, 0x41000
  movl $0x43007, 0x41018
  movl $0x00000087, 0x42000
  movl $0x00200087, 0x42008
  movl $0xfec00083, 0x43000 + 0x1f6*8
  movl $0xfee00083, 0x43000 + 0x1f7*8
  movl $0x40000, %eax
  movl %eax, %cr3
  movl $0x620, %eax
  movl %eax, %cr4
  movl $0xc0000080, %ecx
  movl $0x901, %eax
  xorl %edx, %edx
  wrmsr
  movl $0x80010033, %eax
  movl %eax, %cr0
  lgdtl long_gdtr - tiny_long_mode_start + BASE
  ljmpl $8, $(long_64 - tiny_long_mode_start + BASE)
.code64
long_64:
  movl $0x10, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  movl $(long_gdt - tiny_long_mode_start + BASE + 0x30), %eax
  movw $0x67, (%rax)
  movl $0x34000, %edx
  movw %dx, 2(%rax)
  movb $3, 4(%rax)
  movb $0x89, 5(%rax)
  movl $0x80000, 0x34004          # RSP0
  movl $0x30, %eax
  ltr %ax
  # Every vector leads back to the loop; a few have handlers of their own.
  movl $0x30000, %edi
  xorl %ecx, %ecx
1: movl $(long_fault - tiny_long_mode_start + BASE), %eax
  cmpl $0x40, %ecx
  jne 2f
  movl $(long_tick - tiny_long_mode_start + BASE), %eax
2: movw %ax, (%rdi)
  movw $8, 2(%rdi)
  movw $0xee00, 4(%rdi)
  shrl $16, %eax
  movw %ax, 6(%rdi)
  movl $0, 8(%rdi)
  addl $16, %edi
  incl %ecx
  cmpl $256, %ecx
  jne 1b
  lidt long_idt - tiny_long_mode_start + BASE
  movl $0xfee00000, %ebx
  movl $0x1ff, 0xf0(%rbx)
  movl $0xb, 0x3e0(%rbx)
  movl $0x20040, 0x320(%rbx)      # periodic
  movl $700, 0x380(%rbx)
  movl $0xc0000081, %ecx
  xorl %eax, %eax
  movl $0x00180008, %edx
  wrmsr
  incl %ecx
  movl $(long_fault - tiny_long_mode_start + BASE), %eax
  xorl %edx, %edx
  wrmsr
  # Every clock runs and interrupts: HPET timer 0 periodic and 1 one-shot by level, RTC, 8254, PM timer; COM1 listens.
  movl $0x284c, -0x100000 + 0x100(%rbx)
  movl $1000, -0x100000 + 0x108(%rbx)
  movl $1000, -0x100000 + 0x108(%rbx)
  movl $0x2a06, -0x100000 + 0x120(%rbx)
  movl $5000, -0x100000 + 0x128(%rbx)
  movl $1, -0x100000 + 0x10(%rbx)
  movl $0x38, -0x200000(%rbx)
  movl $0x41, -0x200000 + 0x10(%rbx)
  movl $0x3a, -0x200000(%rbx)
  movl $0x8042, -0x200000 + 0x10(%rbx)
  start_pic
  outbyte 0x21, 0xea              # 8254, cascade, COM1
  outbyte 0xa1, 0xfc              # RTC, SCI
  start_pit 0x34, 0, 4
  outbyte 0x70, 0x0b
  outbyte 0x71, 0x72
  outbyte 0xb2, 2
  movl $0x602, %edx
  movl $0x101, %eax
  outw %ax, %dx
  movl $0x3fa, %edx
  movb $0x47, %al
  outb %al, %dx
  movl $0x3fc, %edx
  movb $0x0b, %al
  outb %al, %dx
  movl $0x3f9, %edx
  movb $0x0f, %al
  outb %al, %dx
long_loop:
  movl $0x90000, %esp
  movl $0xfee00000, %ebx
  sti
  movl $20, %ecx
3: imulq $77, %rax, %rax
  pushq %rax
  popq %rdx
  adcq %rdx, %r8
  decl %ecx
  jnz 3b
  cld
  movl $0x100000, %esi
  movl $0x150000, %edi
  movl $50, %ecx
  rep movsb
  movaps %xmm0, %xmm1
  addps %xmm0, %xmm1
  fninit
  fldpi
  fstp %st
  rdtsc
  xorl %eax, %eax
  cpuid
  movl $0xfee00000, %ebx
  movl $0x608, %edx
  inl %dx, %eax
  movl -0xfff10(%rbx), %eax
  movl $0x10, -0x200000(%rbx)
  movl -0x1ffff0(%rbx), %eax
  movl $0x40040, 0x300(%rbx)       # a vector to itself
  lock incl 0x151000
  xchgl %eax, 0x151004
  xorl %eax, %eax
  movl %eax, %fs
  movq %cr3, %rax
  movq %rax, %cr3
  hlt
  pushq $0x23                     # user data, stack, flags, user code
  pushq $0x120000
  pushq $0x202
  pushq $0x2b
  pushq $(long_user - tiny_long_mode_start + BASE)
  iretq
long_user:
  movl $30, %ecx
4: addq %rcx, %r9
  loop 4b
  call 5f
5: popq %rax
  syscall
long_tick:
  pushq %rdi
  movl $0xfee00000, %edi
  movl $0, 0xb0(%rdi)
  popq %rdi
  iretq
long_fault:
  movl $0xfee00000, %edi
  movl $0, 0xb0(%rdi)
  outbyte 0xa0, 0x20
  outbyte 0x20, 0x20
  movl $0x3f8, %edx
  inb %dx, %al
  outb %al, %dx
  outbyte 0x70, 0x0c
  inb $0x71, %al
  jmp long_loop
  .balign 8
long_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0x00cff3000000ffff, 0x00affb000000ffff, 0, 0
long_gdtr: .word 0x3f
  .long long_gdt - tiny_long_mode_start + BASE, 0
long_idt: .word 0xfff
  .quad 0x30000
finish long_mode
.popsection
)");

#define TINY_GUEST(name)                                                             \
  extern "C" const unsigned char tiny_##name##_start[], tiny_##name##_end[];         \
  namespace stasis::tiny {                                                           \
  Bytes name() { return {tiny_##name##_start, static_cast<std::size_t>(tiny_##name##_end - tiny_##name##_start)}; } \
  }

TINY_GUEST(events)
TINY_GUEST(clocks)
TINY_GUEST(tables)
TINY_GUEST(ioapic)
TINY_GUEST(serial)
TINY_GUEST(spin)
TINY_GUEST(halt)
TINY_GUEST(waiting)
TINY_GUEST(rep)
TINY_GUEST(long_mode)

namespace stasis::tiny {
namespace {

constexpr u32 kLoadAddress = 0x10'0000;
struct Note {
  Elf64_Nhdr header{.n_namesz = 4, .n_descsz = 4, .n_type = 18};  // XEN_ELFNOTE_PHYS32_ENTRY
  char name[4] = {'X', 'e', 'n', 0};
  u32 entry = kLoadAddress;
};
struct Headers {
  Elf64_Ehdr file{};
  Elf64_Phdr segment{}, note_segment{};
  Note note{};
};

}  // namespace

BootImages images(Bytes program) {
  Headers h;
  std::memcpy(h.file.e_ident, ELFMAG, SELFMAG);
  h.file.e_ident[EI_CLASS] = ELFCLASS64;
  h.file.e_ident[EI_DATA] = ELFDATA2LSB;
  h.file.e_ident[EI_VERSION] = EV_CURRENT;
  h.file.e_type = ET_EXEC;
  h.file.e_machine = EM_X86_64;
  h.file.e_phoff = offsetof(Headers, segment);
  h.file.e_phentsize = sizeof(Elf64_Phdr);
  h.file.e_phnum = 2;
  h.segment = {.p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_offset = sizeof h, .p_vaddr = kLoadAddress, .p_paddr = kLoadAddress,
               .p_filesz = program.size(), .p_memsz = program.size(), .p_align = 1};
  h.note_segment = {.p_type = PT_NOTE, .p_flags = PF_R, .p_offset = offsetof(Headers, note), .p_vaddr = 0, .p_paddr = 0,
                    .p_filesz = sizeof(Note), .p_memsz = sizeof(Note), .p_align = 4};
  BootImages out;
  out.kernel.resize(sizeof h);
  std::memcpy(out.kernel.data(), &h, sizeof h);
  out.kernel.insert(out.kernel.end(), program.begin(), program.end());
  return out;
}

}  // namespace stasis::tiny
