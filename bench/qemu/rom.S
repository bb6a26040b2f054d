// The firmware that starts guest.S in QEMU: from the reset vector to 64-bit mode at CPL 3, with the memory that Pageferry's own loader writes.
// It lies at the end of the ROM, whose beginning says what goes where: u32 number of pages, then for each u32 where to, u32 where from.
// As short and plain as can be: a software KVM emulates all of it.
        .set    ROM, 0xfffe0000
        .set    SEGMENT, 0xffff0000     // the base of CS after a reset
        .set    COPY, 0x8000            // where this code goes too
        .globl  _start
_start:
        .code16
real:   cli
        lgdtl   %cs:(gdtr - SEGMENT)
        mov     %cr0, %eax
        or      $1, %eax
        mov     %eax, %cr0
        ljmpl   $0x08, $protected

        .code32
protected:
        mov     $0x10, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        cld
        mov     $ROM, %ebx
        mov     (%ebx), %edx
1:      mov     4(%ebx), %edi
        mov     8(%ebx), %esi
        mov     $1024, %ecx
        rep movsl
        add     $8, %ebx
        dec     %edx
        jnz     1b
        mov     $(enter - _start + COPY), %eax
        jmp     *%eax

// From here on in the copy: the page tables map memory only.
enter:  lgdt    guest_gdtr - _start + COPY
        mov     $0x620, %eax            // OSXMMEXCPT, OSFXSR, PAE
        mov     %eax, %cr4
        mov     $0x20000, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx
        mov     $0x900, %eax            // NXE, LME
        xor     %edx, %edx
        wrmsr
        mov     $0x80010033, %eax       // PG, WP, NE, ET, MP, PE
        mov     %eax, %cr0
        ljmpl   $0x08, $(long - _start + COPY)

        .code64
long:   lidt    guest_idtr(%rip)
        movb    $0x89, 0x102d           // the TSS is not busy yet
        mov     $0x28, %eax
        ltr     %ax
        mov     $0x1b, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     $0x10000, %edi          // the boot info
        mov     $COPY, %esp
        pushq   $0x1b
        pushq   $COPY
        pushq   $0x3002                 // IOPL 3
        pushq   $0x23
        pushq   $0x100000
        iretq

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff
        .quad   0x00cf93000000ffff
gdtr:   .word   23
        .long   gdt
guest_gdtr: .word 0x37
        .quad   0x1000
guest_idtr: .word 0xfff
        .quad   0x4000

        .org    0xff0
        .code16
        jmp     real
        .org    0x1000
