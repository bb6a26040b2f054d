// The ceiling of background fill under TLS: one process sends so many MiB over loopback TCP under TLS 1.3, from memory it has written, another
// receives them into one buffer that it reuses. Prints the rate the receiver saw.
// usage: tls_stream MIB CERTIFICATE KEY
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RECORD (16UL << 10)

static void fail(const char *what)
{
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000UL + t.tv_nsec;
}

static SSL *begin_tls(const SSL_METHOD *method, int socket, char **files)
{
    SSL_CTX *context = SSL_CTX_new(method);
    if (files && (SSL_CTX_use_certificate_file(context, files[0], SSL_FILETYPE_PEM) != 1 || SSL_CTX_use_PrivateKey_file(context, files[1], SSL_FILETYPE_PEM) != 1))
        fail("certificate");
    // A client that ends with a ticket unread resets the connection.
    SSL_CTX_set_num_tickets(context, 0);
    SSL *tls = SSL_new(context);
    if (SSL_set_min_proto_version(tls, TLS1_3_VERSION) != 1 || SSL_set_fd(tls, socket) != 1 || (files ? SSL_accept(tls) : SSL_connect(tls)) != 1)
        fail("handshake");
    return tls;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    unsigned long total = strtoul(argv[1], 0, 0) << 20;
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
        SSL *tls = begin_tls(TLS_client_method(), client, 0);
        for (unsigned long sent = 0; sent < total; sent += RECORD)
            if (SSL_write(tls, memory + sent, RECORD) != RECORD)
                fail("send");
        _exit(0);
    }
    static char buffer[RECORD];
    SSL *tls = begin_tls(TLS_server_method(), accept(listener, 0, 0), argv + 2);
    uint64_t begin = 0;
    unsigned long received = 0;
    while (received < total) {
        int bytes = SSL_read(tls, buffer, RECORD);
        if (bytes <= 0)
            fail("receive");
        begin = begin ? begin : now();
        received += bytes;
    }
    uint64_t took = now() - begin;
    wait(0);
    printf("{\"mib_per_s\":%.1f}\n", received / 1048576.0 / (took / 1e9));
    return 0;
}
