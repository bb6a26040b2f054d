// A process whose memory another one serves. It connects to the Unix socket at argv[1], sends a userfaultfd with the address of its
// memory (shared memory if argv[2] is "shared", else private), then does what each letter received says with the page whose number follows,
// and answers with two bytes: 'v' and a value, or 'b' for SIGBUS.
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

enum { PAGES = 8 };

static sigjmp_buf on_bus_error;

static void bus_error(int signal)
{
    (void)signal;
    siglongjmp(on_bus_error, 1);
}

static int send_with_descriptor(int socket, int fd, const void *bytes, size_t length)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    struct iovec vector = {(void *)bytes, length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    return sendmsg(socket, &message, 0) == (ssize_t)length ? 0 : -1;
}

int main(int count, char **arguments)
{
    size_t page = sysconf(_SC_PAGESIZE), length = PAGES * page;
    int is_shared = count > 2 && strcmp(arguments[2], "shared") == 0;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
    int control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(control, (struct sockaddr *)&address, sizeof address) != 0)
        return 2;

    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    api.features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_MISSING_SHMEM;
    if (ioctl(uffd, UFFDIO_API, &api) != 0)
        return 3;

    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | (is_shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);
    char *elsewhere = mmap(NULL, length, PROT_NONE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)memory, length}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &range) != 0)
        return 4;

    uint64_t where = (uintptr_t)memory;
    if (send_with_descriptor(control, uffd, &where, sizeof where) != 0)
        return 5;
    close(uffd);

    signal(SIGBUS, bus_error);
    char command[2];
    while (recv(control, command, sizeof command, MSG_WAITALL) == sizeof command) {
        volatile char answer[2] = {'v', 0};
        char *first = memory + command[1] * page;
        if (sigsetjmp(on_bus_error, 1) != 0) {
            answer[0] = 'b';
        } else if (command[0] == 'r') { // read a byte of the page
            answer[1] = *(volatile char *)first;
        } else if (command[0] == 'd') { // drop the page
            answer[1] = madvise(first, page, MADV_DONTNEED);
        } else if (command[0] == 'p') { // punch a hole at the page
            answer[1] = madvise(first, page, MADV_REMOVE);
        } else if (command[0] == 'u') { // unmap the page
            answer[1] = munmap(first, page);
        } else if (command[0] == 'm') { // move all of it elsewhere
            memory = mremap(memory, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere);
            answer[1] = memory != elsewhere;
        } else if (command[0] == 'f') { // the byte as a child finds it
            int status = 0;
            pid_t child = fork();
            if (child == 0)
                _exit(*(volatile unsigned char *)first);
            waitpid(child, &status, 0);
            answer[1] = WEXITSTATUS(status);
        }
        if (send(control, (const void *)answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer)
            break;
    }
    return 0;
}
