// A process whose memory is somewhere else: it registers some with a userfaultfd, hands that over, and then touches and changes its memory as it is told.
// usage: foreign SOCKET PAGES. Each command is a letter and two numbers, a first page and how many; the answer is a number.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };

struct command {
    uint64_t letter, first, count;
};

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        _exit(3);
    return fd;
}

static void hand_over(int to, int fd, uint64_t address)
{
    union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
    struct iovec bytes = { &address, sizeof address };
    struct msghdr message = { .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_len = CMSG_LEN(sizeof(int));
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(to, &message, 0) != sizeof address)
        _exit(3);
}

// Moves pages to where there is room, or to where others were.
static int move(char **at, uint64_t count, char *room)
{
    char *moved = mremap(at[0], count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    for (uint64_t i = 0; i < count; i++)
        at[i] = moved + i * PAGE;
    return moved == room ? 0 : 1;
}

struct leaving {
    char **at, *room;
    uint64_t count;
};

static void *leave(void *argument)
{
    struct leaving *pages = argument;
    return move(pages->at, pages->count, pages->room) == 0 ? NULL : argument;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int peer = connect_to(argv[1]);
    uint64_t pages = strtoul(argv[2], NULL, 10);

    // As much again is not handed over as having content, but registered, so it faults too.
    char *memory = mmap(NULL, 2 * pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char **at = calloc(2 * pages, sizeof *at);
    for (uint64_t i = 0; i < 2 * pages; i++)
        at[i] = memory + i * PAGE;

    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP };
    struct uffdio_register range = { .range = { (uintptr_t)memory, 2 * pages * PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
    if (ioctl(fd, UFFDIO_API, &api) != 0 || ioctl(fd, UFFDIO_REGISTER, &range) != 0)
        return 4;
    hand_over(peer, fd, (uintptr_t)memory);
    close(fd);

    struct command told;
    while (read(peer, &told, sizeof told) == sizeof told) {
        uint64_t answer = 0;
        char *start = at[told.first];
        switch (told.letter) {
        case 'r': // the word that all of them have times the number of pages, or something else
            for (uint64_t i = told.first; i < told.first + told.count; i++)
                for (int word = 0; word < WORDS; word += 64)
                    answer += ((volatile uint64_t *)at[i])[word];
            break;
        case 'b': // the same of every second page, from behind: each touched page brings those behind it
            for (uint64_t i = told.count; i-- > 0;)
                for (int word = 0; word < WORDS; word += 64)
                    answer += ((volatile uint64_t *)at[told.first + 2 * i])[word];
            break;
        case 'w':
            for (uint64_t i = told.first; i < told.first + told.count; i++)
                *(volatile uint64_t *)at[i] = 1;
            break;
        case 'd':
            answer = (uint64_t)madvise(start, told.count * PAGE, MADV_DONTNEED);
            break;
        case 'u':
            answer = (uint64_t)munmap(start, told.count * PAGE);
            break;
        case 'n': // maps memory anew where some was unmapped; it belongs to no userfaultfd
            answer = mmap(start, told.count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == start ? 0 : 1;
            break;
        case 'p': // splits the mapping
            answer = (uint64_t)mprotect(start, told.count * PAGE, PROT_READ);
            break;
        case 'm': {
            char *room = mmap(NULL, told.count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            answer = (uint64_t)move(at + told.first, told.count, room);
            break;
        }
        case 'o': { // moves as many pages again, those behind, to where these were, before these have been told of
            struct leaving pages = { at + told.first, mmap(NULL, told.count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), told.count };
            pthread_t thread;
            void *failed;
            unsigned char resident[1];
            pthread_create(&thread, NULL, leave, &pages);
            while (mincore(start, PAGE, resident) == 0)
                usleep(1000);
            answer = (uint64_t)move(at + told.first + told.count, told.count, start);
            pthread_join(thread, &failed);
            answer += failed == NULL ? 0 : 1;
            break;
        }
        case 'f':
            if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                peer = connect_to(argv[1]);
                continue;
            }
            break;
        }
        if (write(peer, &answer, sizeof answer) != sizeof answer)
            break;
    }
    return 0;
}
