// keep_sse, keep_avx, keep_avx512 (const Kept* in, Kept* out, long spins): load every register, wait, store every register.
// The offsets are those of struct Kept in keep.c.
  .set GPR, 0
  .set X87, 96
  .set FCW, 224
  .set MXCSR, 228
  .set MASKS, 232
  .set PKRU, 296
  .set VECTORS, 320

.macro enter
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  fninit
  fldcw FCW(%rdi)
  ldmxcsr MXCSR(%rdi)
  .irp n, 7,6,5,4,3,2,1,0
  fldt X87+16*\n(%rdi)
  .endr
.endm

.macro wait_a_while
  mov GPR+0(%rdi), %rax
  mov GPR+8(%rdi), %rbx
  mov GPR+16(%rdi), %rcx
  mov GPR+24(%rdi), %rbp
  mov GPR+32(%rdi), %r8
  mov GPR+40(%rdi), %r9
  mov GPR+48(%rdi), %r10
  mov GPR+56(%rdi), %r11
  mov GPR+64(%rdi), %r12
  mov GPR+72(%rdi), %r13
  mov GPR+80(%rdi), %r14
  mov GPR+88(%rdi), %r15
1: dec %rdx
  jnz 1b
  mov %rax, GPR+0(%rsi)
  mov %rbx, GPR+8(%rsi)
  mov %rcx, GPR+16(%rsi)
  mov %rbp, GPR+24(%rsi)
  mov %r8, GPR+32(%rsi)
  mov %r9, GPR+40(%rsi)
  mov %r10, GPR+48(%rsi)
  mov %r11, GPR+56(%rsi)
  mov %r12, GPR+64(%rsi)
  mov %r13, GPR+72(%rsi)
  mov %r14, GPR+80(%rsi)
  mov %r15, GPR+88(%rsi)
.endm

.macro leave_
  stmxcsr MXCSR(%rsi)
  .irp n, 0,1,2,3,4,5,6,7
  fstpt X87+16*\n(%rsi)
  .endr
  fnstcw FCW(%rsi)
  fninit
  movl $0x1F80, -4(%rsp)
  ldmxcsr -4(%rsp)
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
.endm

  .text
  .globl keep_sse
keep_sse:
  enter
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  movups VECTORS+64*\n(%rdi), %xmm\n
  .endr
  wait_a_while
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  movups %xmm\n, VECTORS+64*\n(%rsi)
  .endr
  leave_

  .globl keep_avx
keep_avx:
  enter
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  vmovups VECTORS+64*\n(%rdi), %ymm\n
  .endr
  wait_a_while
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  vmovups %ymm\n, VECTORS+64*\n(%rsi)
  .endr
  vzeroupper
  leave_

  .globl keep_avx512
keep_avx512:
  enter
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
  vmovups VECTORS+64*\n(%rdi), %zmm\n
  .endr
  .irp n, 0,1,2,3,4,5,6,7
  kmovw MASKS+8*\n(%rdi), %k\n
  .endr
  wait_a_while
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
  vmovups %zmm\n, VECTORS+64*\n(%rsi)
  .endr
  .irp n, 0,1,2,3,4,5,6,7
  kmovw %k\n, MASKS+8*\n(%rsi)
  .endr
  vzeroupper
  leave_

  .section .note.GNU-stack,"",@progbits
