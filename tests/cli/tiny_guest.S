// A guest of a few instructions, started by the PVH note in 32-bit protected mode: it greets on COM1, echoes what it
// reads there, and does what some letters say.
//   Q power off   R reset   C triple fault   D debug exit with 0x2a   E 'E' to port 0xE9
//   H halt for ever   F 256 KiB of 'x' and a line end   W fill 8 MiB of RAM at 16 MiB with a pattern
        .section .note.pvh, "a", @note
        .align  4
        .long   4, 4, 18
        .asciz  "Xen"
        .long   start

        .text
        .code32
        .globl  start
start:  cli
        mov     $0x90000, %esp
        mov     $greeting, %esi
1:      lodsb
        test    %al, %al
        jz      loop
        call    put
        jmp     1b

loop:   call    get
        cmp     $'Q', %al
        je      power_off
        cmp     $'R', %al
        je      reset
        cmp     $'C', %al
        je      crash
        cmp     $'D', %al
        je      debug_exit
        cmp     $'E', %al
        je      debug_console
        cmp     $'H', %al
        je      halt
        cmp     $'F', %al
        je      flood
        cmp     $'W', %al
        je      fill
        call    put
        jmp     loop

power_off:
        mov     $0x604, %dx
        mov     $0x3400, %ax
        outw    %ax, %dx
        jmp     halt
reset:  mov     $0xcf9, %dx
        mov     $6, %al
        outb    %al, %dx
        jmp     halt
crash:  lidt    no_table
        ud2
debug_exit:
        mov     $0x2a, %eax
        outl    %eax, $0xf4
        jmp     loop
debug_console:
        mov     $'E', %al
        outb    %al, $0xe9
        jmp     loop
halt:   hlt
        jmp     halt
flood:  mov     $262144, %ecx
1:      mov     $'x', %al
        call    put
        loop    1b
        mov     $'\n', %al
        call    put
        jmp     loop
fill:   mov     $16 << 20, %edi
        mov     $2 << 20, %ecx
        cld
1:      imul    $1103515245, %eax, %eax
        add     $12345, %eax
        stosl
        loop    1b
        mov     $'W', %al
        call    put
        jmp     loop

put:    push    %eax
        mov     $0x3fd, %dx
1:      inb     %dx, %al
        test    $0x20, %al
        jz      1b
        pop     %eax
        mov     $0x3f8, %dx
        outb    %al, %dx
        ret
get:    mov     $0x3fd, %dx
1:      pause
        inb     %dx, %al
        test    $1, %al
        jz      1b
        mov     $0x3f8, %dx
        inb     %dx, %al
        ret

        .align  4
no_table:
        .word   0
        .long   0
greeting:
        .asciz  "tiny\n"
        .section .note.GNU-stack, "", @progbits
