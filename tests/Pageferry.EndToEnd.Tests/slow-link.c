// A link between two network namespaces that delays packets and loses some, as `tc netem` does, which not every kernel has.
// slow-link NAMESPACE NAMESPACE DELAY_MS LOSS_PER_MILLE makes a TUN device "slow" in each, says "ready", and carries packets until its input ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MOST_PACKETS = 4096, MOST_BYTES = 2048 };

struct packet {
    long long due;
    ssize_t bytes;
    unsigned char data[MOST_BYTES];
};

// Packets on their way, in the order in which they came: all wait equally long.
struct direction {
    int from;
    int to;
    unsigned first;
    unsigned count;
    struct packet packets[MOST_PACKETS];
};

static struct direction directions[2];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int open_device(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", name);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) != 0)
        fail(path);
    close(space);

    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
    strcpy(request.ifr_name, "slow");
    if (device < 0 || ioctl(device, TUNSETIFF, &request) != 0)
        fail("/dev/net/tun");
    return device;
}

static void take(struct direction *way, long long delay, int loss_per_mille)
{
    while (way->count < MOST_PACKETS) {
        struct packet *packet = &way->packets[(way->first + way->count) % MOST_PACKETS];
        packet->bytes = read(way->from, packet->data, MOST_BYTES);
        if (packet->bytes <= 0)
            return;
        packet->due = now() + delay;
        if (rand() % 1000 >= loss_per_mille)
            way->count++;
    }
}

// Returns how long the next packet has to wait yet.
static long long give(struct direction *way)
{
    while (way->count > 0) {
        struct packet *packet = &way->packets[way->first];
        long long left = packet->due - now();
        if (left > 0)
            return left;
        // A device that takes no more loses the packet, as a full queue does.
        (void)!write(way->to, packet->data, packet->bytes);
        way->first = (way->first + 1) % MOST_PACKETS;
        way->count--;
    }
    return 1000000000LL;
}

int main(int count, char **arguments)
{
    if (count != 5)
        return 2;
    int a = open_device(arguments[1]);
    int b = open_device(arguments[2]);
    directions[0].from = directions[1].to = a;
    directions[0].to = directions[1].from = b;
    long long delay = atoi(arguments[3]) * 1000000LL;
    int loss_per_mille = atoi(arguments[4]);
    puts("ready");
    fflush(stdout);

    struct pollfd input[3] = { { .fd = a, .events = POLLIN }, { .fd = b, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
    for (;;) {
        long long left = 1000000000LL;
        for (int i = 0; i < 2; i++) {
            take(&directions[i], delay, loss_per_mille);
            long long wait = give(&directions[i]);
            left = wait < left ? wait : left;
            input[i].fd = directions[i].count < MOST_PACKETS ? directions[i].from : -1;
        }
        struct timespec timeout = { left / 1000000000LL, left % 1000000000LL };
        if (ppoll(input, 3, &timeout, NULL) < 0)
            fail("ppoll");
        if (input[2].revents != 0)
            return 0;
    }
}
