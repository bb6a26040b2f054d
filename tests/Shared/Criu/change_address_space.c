// Changes its address space as soon as it is told to, which a test does while the process lies in images: forks, and in parent and child gives memory back,
// moves it, unmaps it and writes it, while what is in it has not arrived. Both then check every word; passes is 1 when it is done.
// usage: change_address_space REPORT MIB
#include "moving_process.h"

enum { KEPT, GIVEN_BACK, MOVED, UNMAPPED, CUT, AREAS };

static struct report *report;
static size_t pages;
static uint64_t *areas[AREAS];

static void fill(int area, uint64_t generation)
{
    for (size_t i = 0; i < pages * WORDS; i++)
        areas[area][i] = word_of((uint64_t)area * pages * WORDS + i, generation);
}

static uint64_t check(int area, size_t first_page, size_t end_page, uint64_t generation)
{
    uint64_t bad = 0;
    for (size_t i = first_page * WORDS; i < end_page * WORDS; i++)
        bad += areas[area][i] != word_of((uint64_t)area * pages * WORDS + i, generation);
    return bad;
}

static uint64_t change(uint64_t generation)
{
    size_t half = pages / 2;
    uint64_t bad = 0;
    madvise((char *)areas[GIVEN_BACK] + half * PAGE, half * PAGE, MADV_DONTNEED);

    void *room = map(pages);
    areas[MOVED] = mremap(areas[MOVED], pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    if (areas[MOVED] == MAP_FAILED)
        _exit(3);
    munmap(areas[UNMAPPED], pages * PAGE);
    munmap((char *)areas[CUT] + PAGE, (pages - 2) * PAGE);

    // What stands where something was unmapped is new memory.
    uint64_t *anew = mmap(areas[UNMAPPED], pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (anew == MAP_FAILED)
        _exit(3);
    for (size_t i = 0; i < pages * WORDS; i++)
        bad += anew[i] != 0;

    bad += check(GIVEN_BACK, 0, half, 0);
    for (size_t i = half * WORDS; i < pages * WORDS; i++)
        bad += areas[GIVEN_BACK][i] != 0;
    bad += check(MOVED, 0, pages, 0) + check(CUT, 0, 1, 0) + check(CUT, pages - 1, pages, 0);

    // The other process must not see what this one writes.
    for (size_t i = 0; i < half * WORDS; i++)
        areas[KEPT][i] = word_of(i, generation);
    usleep(50000);
    return bad + check(KEPT, 0, half, generation) + check(KEPT, half, pages, 0);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    report = begin(argv[1], 1);
    pages = strtoul(argv[2], NULL, 10) * (1 << 20) / PAGE;
    for (int area = 0; area < AREAS; area++) {
        areas[area] = map(pages);
        fill(area, 0);
        // So that one unmapping or moving is not of its neighbours.
        map(1);
    }
    report->ready = 1;
    while (!report->go)
        usleep(1000);

    pid_t child = fork();
    uint64_t bad = change(child == 0 ? 1 : 2);
    if (child == 0)
        _exit(bad == 0 ? 0 : 4);
    int status = -1;
    waitpid(child, &status, 0);
    report->bad = bad + (status != 0 ? 1 : 0);
    report->passes = 1;
    for (;;)
        pause();
}
