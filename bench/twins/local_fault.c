// The floor of a local fault: a thread touches missing pages of a memfd one after the other; another thread reads the fault, writes the page
// through a second mapping, and maps it with UFFDIO_CONTINUE. Prints the percentiles of the toucher's wait in nanoseconds.
// usage: local_fault PAGES
#define _GNU_SOURCE
#include <fcntl.h>
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

static char *guest, *host;
static unsigned long pages;
static int uffd;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000UL + t.tv_nsec;
}

static void *handle(void *unused)
{
    static char content[PAGE];
    struct uffd_msg messages[16];
    unsigned long answered = 0;
    memset(content, 42, PAGE);
    while (answered < pages) {
        struct pollfd entry = { .fd = uffd, .events = POLLIN };
        if (poll(&entry, 1, -1) < 0)
            fail("poll");
        ssize_t bytes = read(uffd, messages, sizeof messages);
        for (ssize_t i = 0; i < bytes / (ssize_t)sizeof messages[0]; i++) {
            unsigned long at = messages[i].arg.pagefault.address & ~(PAGE - 1);
            memcpy(host + (at - (unsigned long)guest), content, PAGE);
            struct uffdio_continue map = { .range = { at, PAGE } };
            if (ioctl(uffd, UFFDIO_CONTINUE, &map) != 0)
                fail("UFFDIO_CONTINUE");
            answered++;
        }
    }
    return unused;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    pages = argc > 1 ? strtoul(argv[1], 0, 0) : 32768;
    int memory = memfd_create("twin", MFD_CLOEXEC);
    if (ftruncate(memory, pages * PAGE) != 0)
        fail("ftruncate");
    guest = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory, 0);
    host = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory, 0);
    uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM };
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0)
        fail("userfaultfd");
    struct uffdio_register all = { .range = { (unsigned long)guest, pages * PAGE },
                                   .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };
    if (ioctl(uffd, UFFDIO_REGISTER, &all) != 0)
        fail("UFFDIO_REGISTER");
    pthread_t handler;
    pthread_create(&handler, 0, handle, 0);

    uint64_t *waits = malloc(pages * sizeof *waits), begin = now();
    for (unsigned long page = 0; page < pages; page++) {
        uint64_t start = now();
        (void)*(volatile char *)(guest + page * PAGE);
        waits[page] = now() - start;
    }
    uint64_t total = now() - begin;
    pthread_join(handler, 0);
    qsort(waits, pages, sizeof *waits, compare);
    printf("{\"mean_ns\":%lu,\"p50_ns\":%lu,\"p99_ns\":%lu}\n", total / pages, waits[pages / 2], waits[pages * 99 / 100]);
    return 0;
}
