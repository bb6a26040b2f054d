// What a process that is moved tells, in a file that it maps shared: the mapping survives a dump, and the file is the same at both ends of a move on one
// machine. Times are of CLOCK_REALTIME, since a restored process's CLOCK_MONOTONIC goes on where the dump stopped it. MovingProcess.cs reads it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, PASSES_KEPT = 1024, STALL_BUCKETS = 512 };

struct report {
    volatile uint64_t ready;       // what is to be found has been filled in
    volatile uint64_t go;          // set by the test: do what is done once
    volatile uint64_t passes;      // that ended
    volatile uint64_t bad;         // words that were not what they should have been
    volatile uint64_t stamp;       // when the process last ran, ns
    volatile uint64_t longest_gap; // between two stamps, ns; the test sets it to 0
    volatile uint64_t gap_end;     // when that ended
    volatile uint64_t unused[505];
    volatile uint64_t pass_ends[PASSES_KEPT];
    volatile uint64_t stalls[STALL_BUCKETS]; // page checks by how long they took: 8 buckets for each power of 2 of ns
};

static inline uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static inline uint64_t word_of(uint64_t index, uint64_t generation)
{
    return (index + 1) * 0x9E3779B97F4A7C15 ^ (generation + 1) * 0xD1B54A32D192ED03;
}

// Has no terminal, no pipe and no session of others', as CRIU wants it.
static inline struct report *begin(const char *path, int processes)
{
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++)
        dup2(null, i);
    if (null > 2)
        close(null);
    int file = open(path, O_RDWR | O_CREAT, 0600);
    size_t length = (size_t)processes * sizeof(struct report);
    if (file < 0 || ftruncate(file, (off_t)length) != 0)
        _exit(3);
    struct report *reports = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (reports == MAP_FAILED)
        _exit(3);
    return reports;
}

static inline uint64_t *map(size_t pages)
{
    uint64_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        _exit(3);
    return memory;
}
