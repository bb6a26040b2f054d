// The floor of a vCPU's userfault: the guest of `pageferry bench demand-paging` under KVM, its faults answered by a thread per userfaultfd that
// reads them and resolves each with UFFDIO_COPY (missing) or UFFDIO_CONTINUE (minor). Each vCPU touches its own memory once, page by page, at CPL 3.
// Prints the wall time for each page of a vCPU in nanoseconds, and the percentiles of what the guest waited by its own clock.
// usage: demand_paging VCPUS MEBIBYTES_PER_VCPU missing|minor anonymous|memfd one|per-vcpu
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MOST_VCPUS 16
#define PORT_READY 0xF5
#define PORT_END 0xF4

// The guest's own memory: tables, stacks, code, counters.
#define OWN_BYTES (4UL << 20)
#define GDT 0x1000UL
#define PML4 0x20000UL
#define PDPT 0x21000UL
#define DIRECTORIES 0x22000UL
#define CODE 0x100000UL
#define COUNTERS_AT 0x200000UL
#define COUNTERS 1024

struct vcpu {
    int fd;
    struct kvm_run *run;
    uint64_t first_page, began, ended;
    pthread_t thread;
};

struct slice {
    char *guest, *host;
    uint64_t first_page, pages;
    int uffd, is_minor;
    pthread_t thread;
};

static struct vcpu vcpus[MOST_VCPUS];
static struct slice slices[MOST_VCPUS];
static uint64_t pages_per_vcpu;
static pthread_barrier_t start;

// rbx slice, r12 pages, rsi page, rdi steps, r8 sum of the first words, r10 counters; the order's mask, multiplier and increment in r13 to r15.
asm(".pushsection .rodata\n"
    "guest_begin:\n"
    "    mov $0xF5, %edx\n    out %eax, %dx\n"
    "1:  cmp %r12, %rsi\n    jae 2f\n"
    "    mov %rsi, %r11\n    shl $12, %r11\n    add %rbx, %r11\n"
    "    rdtsc\n    shl $32, %rdx\n    or %rdx, %rax\n    mov %rax, %r9\n"
    "    xor %ecx, %ecx\n    xadd %rcx, (%r11)\n    add %rcx, %r8\n"
    "    rdtsc\n    shl $32, %rdx\n    or %rdx, %rax\n    sub %r9, %rax\n"
    "    or $16, %rax\n    bsr %rax, %rcx\n    sub $4, %ecx\n    shr %cl, %rax\n    shl $4, %ecx\n"
    "    lea -16(%rax,%rcx), %eax\n    incl (%r10,%rax,4)\n"
    "2:  imul %r14, %rsi\n    add %r15, %rsi\n    and %r13, %rsi\n    dec %rdi\n    jne 1b\n"
    "    mov $0xF4, %edx\n    out %eax, %dx\n    ud2\n"
    "guest_end:\n"
    ".popsection");
extern const char guest_begin[], guest_end[];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int must(int result, const char *what)
{
    if (result < 0)
        fail(what);
    return result;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000UL + t.tv_nsec;
}

static void *handle(void *argument)
{
    struct slice *slice = argument;
    struct uffd_msg messages[256];
    char *content = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    memset(content, 42, PAGE);
    for (uint64_t answered = 0; answered < slice->pages;) {
        struct pollfd entry = { .fd = slice->uffd, .events = POLLIN };
        must(poll(&entry, 1, -1), "poll");
        ssize_t bytes = read(slice->uffd, messages, sizeof messages);
        for (ssize_t i = 0; i < bytes / (ssize_t)sizeof messages[0]; i++, answered++) {
            uint64_t at = messages[i].arg.pagefault.address & ~(PAGE - 1);
            if (slice->is_minor) {
                struct uffdio_continue map = { .range = { at, PAGE } };
                must(ioctl(slice->uffd, UFFDIO_CONTINUE, &map), "UFFDIO_CONTINUE");
            } else {
                *(uint64_t *)content = slice->first_page + (at - (uint64_t)slice->guest) / PAGE + 1;
                struct uffdio_copy copy = { .dst = at, .src = (uint64_t)content, .len = PAGE };
                must(ioctl(slice->uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
            }
        }
    }
    return 0;
}

static void make_slice(struct slice *slice, int is_memfd)
{
    uint64_t bytes = slice->pages * PAGE;
    struct uffdio_api api = { .api = UFFD_API };
    struct uffdio_register all = { .mode = UFFDIO_REGISTER_MODE_MISSING };
    if (is_memfd) {
        int file = must(memfd_create("twin", MFD_CLOEXEC), "memfd_create");
        must(ftruncate(file, bytes), "ftruncate");
        slice->guest = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        slice->host = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        api.features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM;
        all.mode |= UFFDIO_REGISTER_MODE_MINOR;
    } else {
        slice->guest = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (slice->guest == MAP_FAILED || slice->host == MAP_FAILED)
        fail("mmap");
    for (uint64_t page = 0; slice->is_minor && page < slice->pages; page++) {
        memset(slice->host + page * PAGE, 42, PAGE);
        *(uint64_t *)(slice->host + page * PAGE) = slice->first_page + page + 1;
    }
    slice->uffd = must(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), "userfaultfd");
    must(ioctl(slice->uffd, UFFDIO_API, &api), "UFFDIO_API");
    all.range.start = (uint64_t)slice->guest;
    all.range.len = bytes;
    must(ioctl(slice->uffd, UFFDIO_REGISTER, &all), "UFFDIO_REGISTER");
}

static void set_slot(int vm, int slot, uint64_t gpa, uint64_t bytes, void *at)
{
    struct kvm_userspace_memory_region region = { .slot = slot, .guest_phys_addr = gpa, .memory_size = bytes, .userspace_addr = (uint64_t)at };
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

// Identity-mapped by 2 MiB pages that CPL 3 may write; a code and a data segment of CPL 3.
static void write_tables(char *own, uint64_t end)
{
    uint64_t *directories = (uint64_t *)(own + DIRECTORIES);
    *(uint64_t *)(own + PML4) = PDPT | 0x67;
    for (uint64_t i = 0; i << 30 < end; i++)
        ((uint64_t *)(own + PDPT))[i] = (DIRECTORIES + i * PAGE) | 0x67;
    for (uint64_t i = 0; i << 21 < end; i++)
        directories[i] = i << 21 | 0xE7;
    ((uint64_t *)(own + GDT))[3] = 0x00CFF3000000FFFF;
    ((uint64_t *)(own + GDT))[4] = 0x00AFFB000000FFFF;
}

static void make_vcpu(int kvm, int vm, int id, uint64_t slice_gpa)
{
    struct vcpu *vcpu = &vcpus[id];
    vcpu->fd = must(ioctl(vm, KVM_CREATE_VCPU, id), "KVM_CREATE_VCPU");
    int bytes = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    vcpu->run = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[256];
    } cpuid = { .head.nent = 256 };
    must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
    must(ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
    struct kvm_sregs system;
    must(ioctl(vcpu->fd, KVM_GET_SREGS, &system), "KVM_GET_SREGS");
    struct kvm_segment data = { .limit = ~0U, .selector = 0x1B, .type = 3, .present = 1, .dpl = 3, .s = 1, .db = 1, .g = 1 };
    system.cr0 = 0x80050033;
    system.cr3 = PML4;
    system.cr4 = 0x20;
    system.efer = 0xD00;
    system.cs = (struct kvm_segment){ .limit = ~0U, .selector = 0x23, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1 };
    system.ds = system.es = system.fs = system.gs = system.ss = data;
    system.gdt.base = GDT;
    system.gdt.limit = 0x27;
    must(ioctl(vcpu->fd, KVM_SET_SREGS, &system), "KVM_SET_SREGS");
    struct kvm_regs registers = { .rip = CODE, .rflags = 0x3002, .rbx = slice_gpa, .r12 = pages_per_vcpu, .rdi = pages_per_vcpu,
                                  .r10 = COUNTERS_AT + id * COUNTERS * 4, .r13 = ~0UL, .r14 = 1, .r15 = 1 };
    must(ioctl(vcpu->fd, KVM_SET_REGS, &registers), "KVM_SET_REGS");
}

static void run_until(struct vcpu *vcpu, int port)
{
    must(ioctl(vcpu->fd, KVM_RUN, 0), "KVM_RUN");
    if (vcpu->run->exit_reason != KVM_EXIT_IO || vcpu->run->io.port != port) {
        fprintf(stderr, "exit reason %u\n", vcpu->run->exit_reason);
        exit(1);
    }
}

static void *run(void *argument)
{
    struct vcpu *vcpu = argument;
    run_until(vcpu, PORT_READY);
    pthread_barrier_wait(&start);
    vcpu->began = now();
    run_until(vcpu, PORT_END);
    vcpu->ended = now();
    struct kvm_regs registers;
    must(ioctl(vcpu->fd, KVM_GET_REGS, &registers), "KVM_GET_REGS");
    if (registers.r8 != pages_per_vcpu * (2 * vcpu->first_page + pages_per_vcpu + 1) / 2) {
        fprintf(stderr, "a page was missing or wrong\n");
        exit(1);
    }
    return 0;
}

// The middle of the counter that holds a rank, in nanoseconds.
static uint64_t at_rank(const uint32_t *counters, int count, uint64_t rank, uint64_t khz)
{
    uint64_t counts[COUNTERS] = { 0 }, seen = 0;
    for (int i = 0; i < count * COUNTERS; i++)
        counts[i % COUNTERS] += counters[i];
    for (int i = 0; i < COUNTERS; i++)
        if ((seen += counts[i]) > rank)
            return (16.5 + i % 16) * (1UL << i / 16) * 1e6 / khz;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 6 || atoi(argv[1]) < 1 || atoi(argv[1]) > MOST_VCPUS) {
        fprintf(stderr, "usage: demand_paging VCPUS MEBIBYTES_PER_VCPU missing|minor anonymous|memfd one|per-vcpu\n");
        return 2;
    }
    int count = atoi(argv[1]), is_minor = !strcmp(argv[3], "minor"), is_memfd = !strcmp(argv[4], "memfd");
    int slice_count = strcmp(argv[5], "one") ? count : 1;
    pages_per_vcpu = strtoul(argv[2], 0, 0) * 256;

    int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm"), vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    char *own = mmap(0, OWN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memcpy(own + CODE, guest_begin, guest_end - guest_begin);
    write_tables(own, OWN_BYTES + count * pages_per_vcpu * PAGE);
    set_slot(vm, 0, 0, OWN_BYTES, own);
    for (int i = 0; i < slice_count; i++) {
        slices[i].pages = pages_per_vcpu * count / slice_count;
        slices[i].first_page = i * slices[i].pages;
        slices[i].is_minor = is_minor;
        make_slice(&slices[i], is_memfd);
        set_slot(vm, i + 1, OWN_BYTES + slices[i].first_page * PAGE, slices[i].pages * PAGE, slices[i].guest);
        pthread_create(&slices[i].thread, 0, handle, &slices[i]);
    }
    pthread_barrier_init(&start, 0, count);
    for (int i = 0; i < count; i++) {
        vcpus[i].first_page = i * pages_per_vcpu;
        make_vcpu(kvm, vm, i, OWN_BYTES + vcpus[i].first_page * PAGE);
    }
    for (int i = 0; i < count; i++)
        pthread_create(&vcpus[i].thread, 0, run, &vcpus[i]);
    uint64_t began = UINT64_MAX, ended = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(vcpus[i].thread, 0);
        began = vcpus[i].began < began ? vcpus[i].began : began;
        ended = vcpus[i].ended > ended ? vcpus[i].ended : ended;
    }
    for (int i = 0; i < slice_count; i++)
        pthread_join(slices[i].thread, 0);
    uint64_t khz = must(ioctl(vcpus[0].fd, KVM_GET_TSC_KHZ, 0), "KVM_GET_TSC_KHZ"), touches = pages_per_vcpu * count;
    const uint32_t *counters = (uint32_t *)(own + COUNTERS_AT);
    double ns = (double)(ended - began) / pages_per_vcpu;
    printf("{\"ns_per_fault\":%.0f,\"us_per_fault\":%.3f,\"p50_ns\":%lu,\"p99_ns\":%lu}\n", ns, ns / 1000,
           at_rank(counters, count, touches / 2, khz), at_rank(counters, count, touches * 99 / 100, khz));
    return 0;
}
