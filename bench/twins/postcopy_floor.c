// The floor of moving a guest that stands still by post-copy over one connection: one process sends so many MiB over loopback TCP, another receives them with
// two threads that take turns and places them with UFFDIO_COPY. No zeros are looked for, nothing has a digest or a header, nothing is asked for.
// Prints the rate from connecting to the last page, and the CPU time of each side.
// usage: postcopy_floor MIB memfd|anonymous
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 256 << 10, RECEIVERS = 2 };

static size_t bytes, next;
static char *placed;
static int uffd, connection;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_ms(struct rusage *used)
{
    return (used->ru_utime.tv_sec + used->ru_stime.tv_sec) * 1e3 + (used->ru_utime.tv_usec + used->ru_stime.tv_usec) / 1e3;
}

static char *map(int is_memfd, int *file)
{
    *file = is_memfd ? memfd_create("guest", MFD_CLOEXEC) : -1;
    if (is_memfd && (*file < 0 || ftruncate(*file, bytes) != 0))
        fail("memfd");
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, is_memfd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, *file, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

static void *receive(void *unused)
{
    (void)unused;
    char *content = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    for (;;) {
        pthread_mutex_lock(&turn);
        size_t at = next, got = 0;
        while (at < bytes && got < PIECE) {
            ssize_t some = recv(connection, content + got, PIECE - got, 0);
            if (some <= 0)
                fail("recv");
            got += some;
        }
        next += got;
        pthread_mutex_unlock(&turn);
        if (at >= bytes)
            return NULL;
        struct uffdio_copy copy = {.dst = (uintptr_t)(placed + at), .src = (uintptr_t)content, .len = PIECE, .mode = UFFDIO_COPY_MODE_DONTWAKE};
        if (ioctl(uffd, UFFDIO_COPY, &copy) != 0)
            fail("UFFDIO_COPY");
    }
}

// From memory that the guest, in this process, has written. What is sent was copied first, as Pageferry does it: where a hypervisor meets the first touch of a
// page by the kernel too, that costs less than to send memory that only this program has touched.
static void send_all(struct sockaddr_in *at, int is_memfd, int ready, int go)
{
    int file;
    char *memory = map(is_memfd, &file), *buffer = malloc(PIECE);
    memset(buffer, 42, PIECE);
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++)
        ((uint64_t *)memory)[i] = (i + 1) * 0x9e3779b97f4a7c15;
    char word = 0;
    if (write(ready, &word, 1) != 1 || read(go, &word, 1) != 1)
        fail("pipe");
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    int client = socket(AF_INET, SOCK_STREAM, 0);

    // As Pageferry between two sides of one host: a congestion control that paces is slower.
    setsockopt(client, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
    if (connect(client, (struct sockaddr *)at, sizeof *at) != 0)
        fail("connect");
    for (size_t sent = 0; sent < bytes; sent += PIECE) {
        if (!is_memfd)
            memcpy(buffer, memory + sent, PIECE);
        else if (pread(file, buffer, PIECE, sent) != PIECE)
            fail("pread");
        for (size_t of = 0; of < PIECE;) {
            ssize_t some = send(client, buffer + of, PIECE - of, 0);
            if (some <= 0)
                fail("send");
            of += some;
        }
    }
    getrusage(RUSAGE_SELF, &after);
    double took = cpu_ms(&after) - cpu_ms(&before);
    if (write(ready, &took, sizeof took) != sizeof took)
        fail("pipe");
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    bytes = strtoul(argv[1], NULL, 10) << 20;
    int is_memfd = strcmp(argv[2], "memfd") == 0, ready[2], go[2], file;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, length) != 0 || listen(listener, 1) != 0 || pipe(ready) != 0 || pipe(go) != 0)
        fail("listen");
    getsockname(listener, (struct sockaddr *)&at, &length);
    pid_t source = fork();
    if (source == 0)
        send_all(&at, is_memfd, ready[1], go[0]);

    char word;
    if (read(ready[0], &word, 1) != 1)
        fail("pipe");
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    double began = now();
    if (write(go[1], &word, 1) != 1)
        fail("pipe");
    connection = accept(listener, NULL, NULL);
    placed = map(is_memfd, &file);
    uffd = (int)syscall(SYS_userfaultfd, 0);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register area = {.range = {(uintptr_t)placed, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &area) != 0)
        fail("userfaultfd");
    pthread_t receivers[RECEIVERS];
    for (int i = 0; i < RECEIVERS; i++)
        if (pthread_create(&receivers[i], NULL, receive, NULL) != 0)
            fail("pthread_create");
    for (int i = 0; i < RECEIVERS; i++)
        pthread_join(receivers[i], NULL);
    double took = now() - began, source_ms;
    getrusage(RUSAGE_SELF, &after);
    int status;
    if (read(ready[0], &source_ms, sizeof source_ms) != sizeof source_ms || waitpid(source, &status, 0) != source || status != 0)
        return 1;
    double gib = bytes / 1073741824.0;
    printf("{\"mib_per_s\":%.1f,\"source_cpu_ms_per_gib\":%.1f,\"destination_cpu_ms_per_gib\":%.1f}\n", bytes / 1048576.0 / took, source_ms / gib,
           (cpu_ms(&after) - cpu_ms(&before)) / gib);
    return 0;
}
