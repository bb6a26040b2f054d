// The ceiling of background fill: one process sends so many MiB over loopback TCP, from memory it has written, another receives them
// into one buffer that it reuses or, with "fresh", into a memfd of that size that nobody has touched: what any destination has to pay.
// The memory is sent twice, and the second time counts: where a hypervisor meets the first touch of a page by the kernel too, that is no matter of streams.
// Prints the rate the receiver saw.
// usage: stream MIB [fresh]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1UL << 20)

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

int main(int argc, char **argv)
{
    unsigned long total = (argc > 1 ? strtoul(argv[1], 0, 0) : 512) << 20;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, length) != 0 || listen(listener, 1) != 0)
        fail("listen");
    getsockname(listener, (struct sockaddr *)&at, &length);
    if (fork() == 0) {
        char *memory = malloc(total);
        memset(memory, 42, total);
        int client = socket(AF_INET, SOCK_STREAM, 0);

        // As Pageferry between two sides of one host: a congestion control that paces is slower.
        setsockopt(client, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
        if (connect(client, (struct sockaddr *)&at, length) != 0)
            fail("connect");
        for (unsigned long sent = 0; sent < 2 * total;) {
            unsigned long at = sent % total;
            ssize_t bytes = send(client, memory + at, total - at < CHUNK ? total - at : CHUNK, 0);
            if (bytes <= 0)
                fail("send");
            sent += bytes;
        }
        _exit(0);
    }
    int fresh = argc > 2;
    int file = memfd_create("stream", 0);
    if (file < 0 || ftruncate(file, total) != 0)
        fail("memfd");
    char *buffer = mmap(0, total, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (buffer == MAP_FAILED)
        fail("mmap");
    int server = accept(listener, 0, 0);
    static char warm[CHUNK];
    for (unsigned long received = 0; received < total;) {
        ssize_t bytes = recv(server, warm, total - received < CHUNK ? total - received : CHUNK, 0);
        if (bytes <= 0)
            fail("recv");
        received += bytes;
    }
    uint64_t begin = now();
    for (unsigned long received = 0; received < total;) {
        unsigned long room = total - received < CHUNK ? total - received : CHUNK;
        ssize_t bytes = recv(server, fresh ? buffer + received : buffer, room, 0);
        if (bytes <= 0)
            fail("recv");
        received += bytes;
    }
    uint64_t took = now() - begin;
    wait(0);
    printf("{\"mib_per_s\":%.1f}\n", total / 1048576.0 / (took / 1e9));
    return 0;
}
