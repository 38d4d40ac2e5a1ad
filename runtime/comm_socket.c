/* comm_socket.c -- see comm_socket.h. */
#include "runtime/comm_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/comm_link.h"
#include "runtime/signals.h"

enum { BACKLOG = 1024 };
#define SLICE_S 0.1 /* a signal may come between the look for it and the wait */

int socket_poll(struct pollfd *fds, size_t n, double deadline)
{
    for (;;) {
        double s = deadline - comm_now();
        bool is_last = s < SLICE_S || signal_pending();
        double wait_s = signal_pending() || s <= 0 ? 0 : is_last ? s : SLICE_S;
        int k = poll(fds, (nfds_t)n, wait_s > 0 ? (int)(wait_s * 1000) + 1 : 0);
        if (k > 0 || (k == 0 && is_last)) return k;
        if (k < 0 && errno != EINTR) return k;
    }
}

static struct addrinfo *addresses(const char *host, int port, int flags)
{
    struct addrinfo wish = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV}, *found;
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    return getaddrinfo(host, text, &wish, &found) == 0 ? found : NULL;
}

static int new_socket(const struct addrinfo *a)
{
    return socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } at;
    socklen_t n = sizeof at;
    if (getsockname(fd, &at.any, &n) != 0) return 0;
    return ntohs(at.any.sa_family == AF_INET6 ? at.six.sin6_port : at.four.sin_port);
}

static int listen_at(const struct addrinfo *a)
{
    int fd = new_socket(a), yes = 1, no = 0;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes,
               sizeof yes); /* past an earlier run's last words */
    if (a->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

int socket_listen(const char *host, int *port)
{
    int fd = -1, error = EADDRNOTAVAIL;
    struct addrinfo *all = addresses(host, *port, AI_PASSIVE);
    /* the sixth version first: it takes the fourth along */
    for (int want_six = host == NULL; want_six >= 0 && fd < 0; want_six--)
        for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
            if (host == NULL && (a->ai_family == AF_INET6) != want_six) continue;
            fd = listen_at(a);
            if (fd < 0) error = errno;
        }
    if (all) freeaddrinfo(all);
    if (fd >= 0) *port = port_of(fd);
    errno = error;
    return fd;
}

bool socket_wait(int fd, bool is_write, double deadline)
{
    struct pollfd p = {.fd = fd, .events = is_write ? POLLOUT : POLLIN};
    return socket_poll(&p, 1, deadline) == 1;
}

static bool is_connected(int fd, double deadline)
{
    int error = 0;
    socklen_t n = sizeof error;
    return socket_wait(fd, true, deadline) &&
           getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0;
}

int socket_connect(const char *host, int port, double deadline)
{
    int fd = -1;
    struct addrinfo *all = addresses(host, port, 0);
    for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
        fd = new_socket(a);
        if (fd < 0) continue;
        bool is_begun = connect(fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS;
        if (is_begun && is_connected(fd, deadline)) break;
        close(fd);
        fd = -1;
    }
    if (all) freeaddrinfo(all);
    return fd;
}

int socket_accept(int listener, int watch, double deadline)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = listener, .events = POLLIN}, {.fd = watch, .events = POLLIN}};
        int n = socket_poll(p, watch < 0 ? 1 : 2, deadline);
        if (n <= 0 || (watch >= 0 && p[1].revents)) return -1;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) return fd;
    }
}

SocketName socket_peer(int fd)
{
    SocketName name = {""};
    union {
        struct sockaddr any;
        struct sockaddr_in6 six;
    } at;
    socklen_t n = sizeof at;
    if (getpeername(fd, &at.any, &n) == 0)
        getnameinfo(&at.any, n, name.text, sizeof name.text, NULL, 0, NI_NUMERICHOST);
    if (strncmp(name.text, "::ffff:", 7) == 0) /* of the fourth version */
        memmove(name.text, name.text + 7, strlen(name.text + 7) + 1);
    return name;
}

bool socket_is_loopback(const SocketName *n)
{
    return strncmp(n->text, "127.", 4) == 0 || strcmp(n->text, "::1") == 0;
}

bool socket_send(int fd, const void *at, size_t n, double deadline)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = send(fd, (const char *)at + done, n - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k > 0)
            done += (size_t)k;
        else if ((errno != EAGAIN && errno != EINTR) || !socket_wait(fd, true, deadline))
            return false;
    }
    return true;
}

bool socket_receive(int fd, void *at, size_t n, double deadline)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = recv(fd, (char *)at + done, n - done, MSG_DONTWAIT);
        if (k > 0)
            done += (size_t)k;
        else if (k == 0 || (errno != EAGAIN && errno != EINTR) || !socket_wait(fd, false, deadline))
            return false;
    }
    return true;
}
