// The floor of a remote fetch: two processes on loopback TCP, one asks with 24 bytes, the other answers with 24 bytes and a page.
// Prints the percentiles of the round trip in nanoseconds.
// usage: ping_pong ROUNDS
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HEADER 24
#define ANSWER (HEADER + 4096)

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

static int receive(int fd, char *to, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t bytes = recv(fd, to + done, length - done, 0);
        if (bytes <= 0)
            return 0;
        done += bytes;
    }
    return 1;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], 0, 0) : 20000;
    static char request[HEADER], answer[ANSWER];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, length) != 0 || listen(listener, 1) != 0)
        fail("listen");
    getsockname(listener, (struct sockaddr *)&at, &length);
    if (fork() == 0) {
        int server = accept(listener, 0, 0);
        setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        while (receive(server, request, HEADER))
            if (send(server, answer, ANSWER, 0) != ANSWER)
                fail("send");
        _exit(0);
    }
    int client = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client, (struct sockaddr *)&at, length) != 0)
        fail("connect");
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    uint64_t *waits = malloc(rounds * sizeof *waits), begin = now();
    for (unsigned long i = 0; i < rounds; i++) {
        uint64_t start = now();
        if (send(client, request, HEADER, 0) != HEADER || !receive(client, answer, ANSWER))
            fail("round trip");
        waits[i] = now() - start;
    }
    uint64_t total = now() - begin;
    close(client);
    wait(0);
    qsort(waits, rounds, sizeof *waits, compare);
    printf("{\"mean_ns\":%lu,\"p50_ns\":%lu,\"p99_ns\":%lu}\n", total / rounds, waits[rounds / 2], waits[rounds * 99 / 100]);
    return 0;
}
