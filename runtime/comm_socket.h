/* comm_socket.h -- sockets of ranks that come together, all with a time at which patience ends,
 * as it does at a signal that asks for a stop (signals.h). */
#ifndef ZM_RUNTIME_COMM_SOCKET_H
#define ZM_RUNTIME_COMM_SOCKET_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SOCKET_NAME_BYTES = 64 };

typedef struct SocketName { /* "10.0.0.2", "node7" */
    char text[SOCKET_NAME_BYTES];
} SocketName;

/* A socket that listens at host (NULL: everywhere) and *port (0: one is chosen); -1: errno says
 * why, EADDRNOTAVAIL also for a name that is not known. */
int socket_listen(const char *host, int *port);
/* -1: nobody listens there now, or the name is not known. */
int socket_connect(const char *host, int port, double deadline);
/* A connection that somebody makes; -1: none until the deadline, or `watch` (-1: none) has
 * something to read first. */
int socket_accept(int listener, int watch, double deadline);
SocketName socket_peer(int fd);
bool socket_is_loopback(const SocketName *n);

/* All n bytes, or false: the other side ended, or the deadline passed. */
bool socket_send(int fd, const void *at, size_t n, double deadline);
bool socket_receive(int fd, void *at, size_t n, double deadline);
/* As poll, but until the deadline or a signal. */
int socket_poll(struct pollfd *fds, size_t n, double deadline);
bool socket_wait(int fd, bool is_write, double deadline);

#endif
