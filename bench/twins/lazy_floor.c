// The floor of a lazy restore: what no daemon can save. Another process places all pages of this one from one buffer, reading nothing and answering no
// fault; only then this one goes over them, as fill_and_check.c does. Prints both times in milliseconds.
// usage: lazy_floor MIB
#include "../../tests/Shared/Criu/moving_process.h"
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

enum { PIECE = 1 << 20 };

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void place_all(int uffd, char *memory, size_t bytes)
{
    char *content = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(content, 1, PIECE);
    for (size_t done = 0; done < bytes;) {
        struct uffdio_copy copy = {.dst = (uintptr_t)(memory + done), .src = (uintptr_t)content, .len = PIECE, .mode = UFFDIO_COPY_MODE_DONTWAKE};
        if (ioctl(uffd, UFFDIO_COPY, &copy) != 0)
            fail("UFFDIO_COPY");
        done += PIECE;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    size_t bytes = strtoul(argv[1], NULL, 10) << 20;
    size_t pages = bytes / PAGE;
    uint64_t *memory = map(pages);
    madvise(memory, bytes, MADV_NOHUGEPAGE);

    int uffd = (int)syscall(SYS_userfaultfd, 0);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register area = {.range = {(uintptr_t)memory, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &area) != 0)
        fail("userfaultfd");

    uint64_t began = now();
    pid_t daemon = fork();
    if (daemon < 0)
        fail("fork");
    if (daemon == 0) {
        place_all(uffd, (char *)memory, bytes);
        _exit(0);
    }
    int status;
    if (waitpid(daemon, &status, 0) != daemon || status != 0)
        return 1;
    uint64_t placed = now();

    size_t period = 1;
    while (period < pages)
        period *= 2;
    uint64_t at = 0, bad = 0;
    for (size_t i = 0; i < period; i++) {
        at = (at * 1664525 + 1013904223) & (period - 1);
        if (at >= pages)
            continue;
        uint64_t *page = memory + at * WORDS;
        for (int word = 0; word < WORDS; word++) {
            bad += page[word] != word_of(at * WORDS + (uint64_t)word, 0);
            page[word] = word_of(at * WORDS + (uint64_t)word, 1);
        }
    }
    printf("{\"placing_ms\": %.1f, \"own_pass_ms\": %.1f, \"other_words\": %llu}\n", (double)(placed - began) / 1e6, (double)(now() - placed) / 1e6,
           (unsigned long long)bad);
    return 0;
}
