// The guest of the golden snapshots, started by the PVH note in 32-bit protected mode: it fills pages with numbers, clears
// some of them again, adds up with SSE and x87 on the way, counts ticks of the 8254, says a word on COM1, writes its results
// to 0x118000 and halts for ever. Changed, it is another guest: the golden files hold this one.
        .section .note.pvh, "a", @note
        .align  4
        .long   4, 4, 18
        .asciz  "Xen"
        .long   start

        .set    RESULTS, 0x118000       # pages, ticks, check sum; FXSAVE image at +0x200
        .set    PAGES, 0x120000
        .set    IDT, 0x30000
        .text
        .code32
        .globl  start
start:  cli
        cld
        mov     $0x90000, %esp
        mov     $tick, %eax
        movw    %ax, IDT + 0x20 * 8
        movw    $0x10, IDT + 0x20 * 8 + 2
        movw    $0x8e00, IDT + 0x20 * 8 + 4
        shr     $16, %eax
        movw    %ax, IDT + 0x20 * 8 + 6
        lidt    idt
        mov     %cr4, %eax
        or      $0x600, %eax
        mov     %eax, %cr4
        fninit
        fldpi
        movups  ones, %xmm0
        movups  ones, %xmm1
        mov     $pic, %esi              # pairs of port and value
        xor     %edx, %edx
1:      lodsb
        test    %al, %al
        jz      2f
        mov     %al, %dl
        lodsb
        outb    %al, %dx
        jmp     1b
2:      sti

        xor     %ebp, %ebp              # page under way
next:   mov     %ebp, %edi
        shl     $12, %edi
        add     $PAGES, %edi
        mov     %ebp, %eax
        and     $7, %eax                # every eighth is the same again
        mov     $1024, %ecx
        test    $1, %ebp
        jnz     same
1:      imul    $1103515245, %eax, %eax
        add     $12345, %eax
        stosl
        add     %eax, RESULTS + 8
        loop    1b
        jmp     filled
same:   rep stosl
filled: addps   %xmm0, %xmm1
        fadd    %st(0), %st(0)
        mov     %ebp, %eax
        xor     %edx, %edx
        mov     $5, %ecx
        div     %ecx
        cmp     $4, %edx
        jne     1f
        sub     $0x4000, %edi           # the page of three rounds ago becomes zero
        xor     %eax, %eax
        mov     $1024, %ecx
        rep stosl
1:      inc     %ebp
        mov     %ebp, RESULTS
        cmp     $40, %ebp
        jb      next

1:      cmpl    $12, RESULTS + 4
        jae     1f
        hlt
        jmp     1b
1:      cli
        mov     $0x30, %al              # the 8254 stops: a mode, and no count
        outb    %al, $0x43
        fxsave  RESULTS + 0x200
        mov     $word, %esi
        mov     $0x3f8, %dx
1:      lodsb
        test    %al, %al
        jz      done
        outb    %al, %dx
        jmp     1b
done:   hlt
        jmp     done

tick:   push    %eax
        incl    RESULTS + 4
        mov     $0x20, %al
        outb    %al, $0x20
        pop     %eax
        iret

        .align  16
ones:   .float  1, 2, 3, 4
        .word   0
idt:    .word   0x7ff
        .long   IDT
pic:    .byte   0x20, 0x11, 0x21, 0x20, 0x21, 0x04, 0x21, 0x01, 0xa0, 0x11, 0xa1, 0x28, 0xa1, 0x02, 0xa1, 0x01, 0xa1, 0xff, 0x21, 0xfe
        .byte   0x43, 0x34, 0x40, 20, 0x40, 0, 0  # the 8254: every 20 of its clocks
word:   .asciz  "done"
        .section .note.GNU-stack, "", @progbits
