// The floor of a lazy restore from local images: what no daemon can save. Another process fills this one's memory from a file, by two threads with pread
// and UFFDIO_COPY, and answers no fault: meanwhile this one goes over other memory of the same size, which it has. Only then it goes over what was filled, as
// fill_and_check.c does. Prints the CPU time of who fills, and how long the second way took, in milliseconds.
// usage: lazy_floor MIB FILE
#include "../../tests/Shared/Criu/moving_process.h"
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { PIECE = 1 << 20, FILLERS = 2, PAGES_PER_LOOK = 1024 };

static int uffd, file;
static char *filled;
static size_t bytes, next;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void *fill(void *unused)
{
    (void)unused;
    char *content = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    for (;;) {
        size_t at = __atomic_fetch_add(&next, PIECE, __ATOMIC_RELAXED);
        if (at >= bytes)
            return NULL;
        if (pread(file, content, PIECE, (off_t)at) != PIECE)
            fail("pread");
        struct uffdio_copy copy = {.dst = (uintptr_t)(filled + at), .src = (uintptr_t)content, .len = PIECE, .mode = UFFDIO_COPY_MODE_DONTWAKE};
        if (ioctl(uffd, UFFDIO_COPY, &copy) != 0)
            fail("UFFDIO_COPY");
    }
}

static void fill_all(void)
{
    pthread_t fillers[FILLERS];
    for (int i = 0; i < FILLERS; i++)
        if (pthread_create(&fillers[i], NULL, fill, NULL) != 0)
            fail("pthread_create");
    for (int i = 0; i < FILLERS; i++)
        pthread_join(fillers[i], NULL);
}

// In pseudo-random order, for ever once a child runs and until it has ended.
static uint64_t go_over(uint64_t *memory, size_t pages, pid_t child, struct rusage *used)
{
    size_t period = 1;
    while (period < pages)
        period *= 2;
    uint64_t at = 0, other = 0;
    for (size_t i = 0; child != 0 || i < period; i++) {
        if (child != 0 && i % PAGES_PER_LOOK == 0) {
            int status;
            pid_t ended = wait4(child, &status, WNOHANG, used);
            if (ended == child && status == 0)
                return other;
            if (ended != 0)
                exit(1);
        }
        at = (at * 1664525 + 1013904223) & (period - 1);
        if (at >= pages)
            continue;
        uint64_t *page = memory + at * WORDS;
        for (int word = 0; word < WORDS; word++) {
            other += page[word] != word_of(at * WORDS + (uint64_t)word, 0);
            page[word] = word_of(at * WORDS + (uint64_t)word, 1);
        }
    }
    return other;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    bytes = strtoul(argv[1], NULL, 10) << 20;
    file = open(argv[2], O_RDONLY);
    if (file < 0)
        fail(argv[2]);
    size_t pages = bytes / PAGE;
    uint64_t *own = map(pages), *lazy = map(pages);
    madvise(own, bytes, MADV_NOHUGEPAGE);
    madvise(own, bytes, MADV_DONTFORK); // to write to it is to copy nothing
    madvise(lazy, bytes, MADV_NOHUGEPAGE);
    filled = (char *)lazy;
    uint64_t other = go_over(own, pages, 0, NULL);

    uffd = (int)syscall(SYS_userfaultfd, 0);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register area = {.range = {(uintptr_t)lazy, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &area) != 0)
        fail("userfaultfd");

    pid_t daemon = fork();
    if (daemon < 0)
        fail("fork");
    if (daemon == 0) {
        fill_all();
        _exit(0);
    }
    struct rusage used;
    other += go_over(own, pages, daemon, &used);
    uint64_t began = now();
    other += go_over(lazy, pages, 0, NULL);
    uint64_t ended = now();
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e3 + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e3;
    printf("{\"filling_cpu_ms\": %.1f, \"own_pass_ms\": %.1f, \"other_words\": %llu}\n", cpu, (double)(ended - began) / 1e6, (unsigned long long)other);
    return 0;
}
