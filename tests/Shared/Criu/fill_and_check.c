// Fills its memory and goes over it for ever: finds each word as the last pass wrote it, and writes it anew. A page that is lost, comes twice, or comes
// after the process wrote it, shows. usage: fill_and_check REPORT MIB sequential|random [PROCESSES]
// With several processes each has memory of its own; they are a tree, and number i reports at place i.
#include "moving_process.h"
#include <pthread.h>
#include <string.h>

static struct report *report;

// Says each millisecond that the process runs, and remembers the longest time that it did not.
static void *stamp(void *unused)
{
    uint64_t last = now();
    for (;;) {
        usleep(1000);
        uint64_t time = now();
        if (time - last > report->longest_gap) {
            report->gap_end = time;
            report->longest_gap = time - last;
        }
        report->stamp = last = time;
    }
    return unused;
}

static void count_stall(uint64_t ns)
{
    int exponent = 63 - __builtin_clzll(ns | 8);
    report->stalls[exponent * 8 + (int)((ns >> (exponent - 3)) & 7)]++;
}

static void check(uint64_t *page, uint64_t first_word, uint64_t generation)
{
    uint64_t began = now();
    uint64_t bad = 0;
    for (int i = 0; i < WORDS; i++) {
        bad += page[i] != word_of(first_word + (uint64_t)i, generation);
        page[i] = word_of(first_word + (uint64_t)i, generation + 1);
    }
    report->bad += bad;
    count_stall(now() - began);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    size_t pages = strtoul(argv[2], NULL, 10) * (1 << 20) / PAGE;
    int random = strcmp(argv[3], "random") == 0;
    int processes = argc > 4 ? atoi(argv[4]) : 1;
    struct report *reports = begin(argv[1], processes);
    int number = 0;
    for (int child = 1; child <= 2; child++)
        if (2 * number + child < processes && fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            number = 2 * number + child;
            child = 0;
        }
    report = &reports[number];

    uint64_t *memory = map(pages);
    for (size_t i = 0; i < pages * WORDS; i++)
        memory[i] = word_of(i, 0);
    // A generator of full period goes over all pages once, and looks random.
    size_t period = 1;
    while (period < pages)
        period *= 2;

    pthread_t thread;
    report->stamp = now();
    if (pthread_create(&thread, NULL, stamp, NULL) != 0)
        return 3;
    report->ready = 1;
    for (uint64_t generation = 0;; generation++) {
        uint64_t at = 0;
        for (size_t i = 0; i < period; i++) {
            at = random ? (at * 1664525 + 1013904223) & (period - 1) : i;
            if (at < pages)
                check(memory + at * WORDS, at * WORDS, generation);
        }
        report->pass_ends[generation % PASSES_KEPT] = now();
        report->passes = generation + 1;
    }
}
