// The guest of the comparison with QEMU, the same bytes on both sides: CPL 3, 64-bit, IOPL 3, all memory mapped at its address, RDI the boot info.
// It fills its memory with incompressible data, then goes on until it is ended: every tick it writes a line to the console and makes pages dirty,
// and between ticks it touches pages in pseudo-random order and logs how long the slow touches took, by its own clock.
//
// 0x100010  what it is told, see parameters
// 0x200000  u64 ticks, slow touches, touches, pages dirtied, pages wrong
// 0x201000  a tick each: u64 time, slow touches so far, touches so far, pages dirtied so far
// 0x400000  a slow touch each: u64 time, how long it took
// 0x800000  the pages, to the end of memory
        .code64
        .globl _start
        .set    RESULTS, 0x200000
        .set    TICKS, 0x201000
        .set    TICKS_END, 0x400000
        .set    SLOW, 0x400000
        .set    SLOW_END, 0x800000
        .set    PAGES, 0x800000
        .set    INFO_MEMORY_SIZE, 16
        .set    GOLDEN, 0x9e3779b97f4a7c15
_start: jmp     start
        .balign 16
parameters:
share:          .quad 100       // percent of the pages that are filled; the others are never written
tick:           .quad 0         // cycles from tick to tick
dirty:          .quad 0         // pages made dirty each tick
gap:            .quad 0         // cycles from the end of a touch to the next; 0: no touches
threshold:      .quad 0         // cycles from which a touch is logged

start:  lea     stack_end(%rip), %rsp
        mov     INFO_MEMORY_SIZE(%rdi), %r15
        sub     $PAGES, %r15
        shr     $12, %r15               // pages
        lea     -1(%r15), %rcx
        bsr     %rcx, %rcx
        mov     $2, %r14d
        shl     %cl, %r14
        dec     %r14                    // a mask over their numbers

        xor     %ebx, %ebx
1:      call    is_filled
        jae     2f
        call    fill
2:      inc     %rbx
        cmp     %r15, %rbx
        jb      1b
        lea     filled(%rip), %rsi
        mov     $filled_end - filled, %ecx
        call    print

        xor     %ebp, %ebp              // the next page to make dirty
        xor     %r13d, %r13d            // the last page touched
        call    now
        mov     %rax, %r12              // the next tick
        mov     %rax, %r11              // the next touch
loop:   pause
        call    now
        cmp     %r12, %rax
        jae     on_tick
        cmpq    $0, gap(%rip)
        je      loop
        cmp     %r11, %rax
        jb      loop

// Touches the next page of those filled, in an order that comes to each once.
on_touch:
1:      imul    $1664525, %r13, %r13
        add     $1013904223, %r13
        and     %r14, %r13
        cmp     %r15, %r13
        jae     1b
        mov     %r13, %rbx
        call    is_filled
        jae     1b
        call    seed                    // what the page begins with
        mov     %rax, %r8
        mov     %r13, %rdi
        shl     $12, %rdi
        lfence
        call    now
        mov     %rax, %r9
        mov     PAGES(%rdi), %r10
        lfence
        call    now
        lea     RESULTS, %rsi
        cmp     %r8, %r10
        je      2f
        incq    32(%rsi)
2:      incq    16(%rsi)
        mov     %rax, %r11
        add     gap(%rip), %r11
        sub     %r9, %rax
        cmp     threshold(%rip), %rax
        jb      loop
        mov     8(%rsi), %rcx
        shl     $4, %rcx
        cmp     $SLOW_END - SLOW, %rcx
        jae     loop
        mov     %r9, SLOW(%rcx)
        mov     %rax, SLOW + 8(%rcx)
        incq    8(%rsi)
        jmp     loop

on_tick:
        lea     RESULTS, %rsi
        mov     (%rsi), %rcx
        shl     $5, %rcx
        cmp     $TICKS_END - TICKS, %rcx
        jae     1f
        mov     %rax, TICKS(%rcx)
        mov     8(%rsi), %rdx
        mov     %rdx, TICKS + 8(%rcx)
        mov     16(%rsi), %rdx
        mov     %rdx, TICKS + 16(%rcx)
        mov     24(%rsi), %rdx
        mov     %rdx, TICKS + 24(%rcx)
        incq    (%rsi)
        lea     ticked(%rip), %rsi
        mov     $ticked_end - ticked, %ecx
        call    print

// A tick that is late is made up for, unless it is very late: time may have jumped.
1:      call    now
        add     tick(%rip), %r12
        imul    $8, tick(%rip), %rcx
        add     %r12, %rcx
        cmp     %rcx, %rax
        jb      2f
        mov     %rax, %r12
2:      mov     dirty(%rip), %r8
3:      test    %r8, %r8
        jz      loop
        mov     %rbp, %rbx
        inc     %rbp
        cmp     %r15, %rbp
        jb      4f
        xor     %ebp, %ebp
4:      call    is_filled
        jae     3b
        call    rewrite
        incq    RESULTS + 24
        dec     %r8
        jmp     3b

// RAX: the time.
now:    rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        ret

// Carry: page RBX is one of those filled. The filled ones are spread over the memory.
is_filled:
        imul    $61, %rbx, %rax
        xor     %edx, %edx
        mov     $100, %ecx
        div     %rcx
        cmp     share(%rip), %rdx
        ret

// RAX: the first word of page RBX.
seed:   movabs  $GOLDEN, %rax
        lea     1(%rbx), %rdx
        imul    %rdx, %rax
        ret

// Fills page RBX: xorshift64 from its seed.
fill:   call    seed
        mov     %rbx, %rdi
        shl     $12, %rdi
        add     $PAGES, %rdi
        mov     %rax, (%rdi)
        jmp     fill_rest

// Fills page RBX with something else, apart from its first word.
rewrite:
        call    now
        bts     $63, %rax
        mov     %rbx, %rdi
        shl     $12, %rdi
        add     $PAGES, %rdi
fill_rest:
        mov     $511, %ecx
1:      mov     %rax, %rdx
        shl     $13, %rdx
        xor     %rdx, %rax
        mov     %rax, %rdx
        shr     $7, %rdx
        xor     %rdx, %rax
        mov     %rax, %rdx
        shl     $17, %rdx
        xor     %rdx, %rax
        add     $8, %rdi
        mov     %rax, (%rdi)
        dec     %ecx
        jnz     1b
        ret

// Writes RCX bytes at RSI to the console.
print:  mov     $0xe9, %edx
        cld
        rep outsb
        ret

filled: .ascii  "filled\n"
filled_end:
ticked: .ascii  ".\n"
ticked_end:
        .balign 16
stack:  .fill   512, 1, 0
stack_end:
