/* comm_meet_file.c -- the file over which ranks find each other: one line with where rank 0
 * listens, locked by it as long as it waits. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/comm_meet.h"

#define FIRST_WORD "zmc-rendezvous"

struct MeetFile {
    char *path;
    int fd; /* locked */
};

static bool is_still_there(int fd, const char *path)
{
    struct stat here, there;
    return fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino &&
           here.st_dev == there.st_dev;
}

/* Empty, or what an earlier meeting left: no file of the user's is written over. */
static bool is_ours(int fd)
{
    char word[sizeof FIRST_WORD];
    ssize_t n = pread(fd, word, sizeof word - 1, 0);
    return n == 0 || (n == sizeof word - 1 && memcmp(word, FIRST_WORD, (size_t)n) == 0);
}

static MeetFound fail(int fd, const char *path, const char *why, RtError *e)
{
    if (fd >= 0) close(fd);
    rt_say(e, "--rendezvous %s: %s", path, why);
    return MEET_ERROR;
}

MeetFound meet_file_take(MeetFile **out, const char *path, RtError *e)
{
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) return fail(fd, path, strerror(errno), e);
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK)
                return fail(fd, path,
                            "its file system has no locks; give --rendezvous host:port, or a file "
                            "elsewhere",
                            e);
            close(fd);
            return MEET_TAKEN;
        }
        if (!is_still_there(fd, path)) { /* the last meeting's, removed just now */
            close(fd);
            continue;
        }
        if (!is_ours(fd))
            return fail(fd, path,
                        "the file exists and no meeting of ranks has made it; give a name that is "
                        "free",
                        e);
        if (ftruncate(fd, 0) != 0) return fail(fd, path, strerror(errno), e);
        MeetFile *f = calloc(1, sizeof *f);
        char *copy = strdup(path);
        if (!f || !copy) {
            free(f);
            free(copy);
            return fail(fd, path, "out of memory", e);
        }
        *f = (MeetFile){copy, fd};
        *out = f;
        return MEET_MINE;
    }
}

RtStatus meet_file_write(MeetFile *f, const MeetAddress *a, RtError *e)
{
    char line[256];
    int n = snprintf(line, sizeof line, FIRST_WORD " 1 ");
    for (size_t i = 0; i < sizeof a->key.bytes; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, "%02x", a->key.bytes[i]);
    n += snprintf(line + n, sizeof line - (size_t)n, " %016" PRIx64 " %s %d %d end\n", a->host,
                  a->name.text, a->port, a->pid);
    if (pwrite(f->fd, line, (size_t)n, 0) == n) return RT_OK;
    return RT_FAIL(e, RT_FAILED, "--rendezvous %s: cannot write: %s", f->path, strerror(errno));
}

bool meet_file_read(const char *path, MeetAddress *a)
{
    char line[256] = "", key[33], last[4] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0 || sscanf(line, FIRST_WORD " 1 %32[0-9a-f] %16" SCNx64 " %63s %d %d %3s", key,
                         &a->host, a->name.text, &a->port, &a->pid, last) != 6)
        return false;
    for (size_t i = 0; i < sizeof a->key.bytes; i++) {
        unsigned byte;
        if (sscanf(key + 2 * i, "%2x", &byte) != 1) return false;
        a->key.bytes[i] = (uint8_t)byte;
    }
    return strcmp(last, "end") == 0;
}

void meet_file_remove(MeetFile *f)
{
    if (!f) return;
    unlink(f->path); /* while it is locked: nobody else's */
    close(f->fd);
    free(f->path);
    free(f);
}
