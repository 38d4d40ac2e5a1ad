/* comm_host.c -- see comm_host.h. */
#include "runtime/comm_host.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ir/base/str.h"

static uint64_t text_hash(uint64_t seed, const char *text, ssize_t n)
{
    return n > 0 ? hash_bytes(text, (size_t)n, seed) : seed;
}

uint64_t host_number(void)
{
    char text[256];
    uint64_t host = 1;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        host = text_hash(host, text, read(fd, text, sizeof text));
        close(fd);
    }
    if (gethostname(text, sizeof text) == 0)
        host = text_hash(host, text, (ssize_t)strnlen(text, sizeof text));
    return text_hash(host, text, readlink("/proc/self/ns/pid", text, sizeof text));
}

int process_open(int pid)
{
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, pid, 0);
#else
    (void)pid;
    return -1;
#endif
}

bool process_is_gone(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return fd >= 0 && poll(&p, 1, 0) == 1;
}
