/* output.c -- see output.h. */
#include "runtime/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

RtStatus output_failed(const char *path, int err, RtError *e)
{
    bool is_full = err == ENOSPC || err == EDQUOT || err == EFBIG;
    return RT_FAIL(e, RT_FAILED, "cannot write %s: %s%s", path, strerror(err),
                   is_full ? "; free space there, or write to another place" : "");
}

RtStatus output_write(int fd, const void *at, size_t n, const char *path, RtError *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = write(fd, (const char *)at + done, n - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return output_failed(path, errno, e);
        done += (size_t)got;
    }
    return RT_OK;
}

RtStatus output_pwrite(int fd, const void *at, size_t n, int64_t offset, const char *path,
                       RtError *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pwrite(fd, (const char *)at + done, n - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return output_failed(path, errno, e);
        done += (size_t)got;
    }
    return RT_OK;
}

RtStatus output_sync_close(int fd, const char *path, RtError *e)
{
    int err = fsync(fd) != 0 && errno != EINVAL ? errno : 0; /* EINVAL: a pipe or a device */
    if (close(fd) != 0 && !err) err = errno;
    return err ? output_failed(path, err, e) : RT_OK;
}

RtStatus output_sync_dir(const char *dir, RtError *e)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return output_failed(dir, errno, e);
    return output_sync_close(fd, dir, e);
}

Replacement output_replace(Arena *a, const char *path)
{
    char real[PATH_MAX];
    struct stat st;
    bool is_link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && realpath(path, real);
    Replacement r = {.final = is_link ? arena_strdup(a, real) : path};
    r.beside = arena_printf(a, "%s.tmp-%ld", r.final, (long)getpid());
    return r;
}

RtStatus output_replace_end(const Replacement *r, RtStatus written, RtError *e)
{
    if (written == RT_OK && rename(r->beside, r->final) != 0)
        written = output_failed(r->final, errno, e);
    if (written != RT_OK) unlink(r->beside);
    return written;
}

static const char *dir_of(Arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? "." : slash == path ? "/" : arena_strndup(a, path, (size_t)(slash - path));
}

static RtStatus check_dir_of(Arena *a, const char *path, RtError *e)
{
    const char *dir = dir_of(a, path);
    if (access(dir, W_OK | X_OK) != 0)
        return RT_FAIL(e, RT_BAD, "cannot write %s: directory %s: %s", path, dir, strerror(errno));
    return RT_OK;
}

RtStatus output_check_file(Arena *a, const char *path, bool is_plain, RtError *e)
{
    struct stat st;
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return RT_FAIL(e, RT_BAD, "cannot write %s: it is a directory", path);
        if (is_plain && !S_ISREG(st.st_mode))
            return RT_FAIL(e, RT_BAD, "cannot write %s: it is not a regular file", path);
        if (access(path, W_OK) != 0)
            return RT_FAIL(e, RT_BAD, "cannot write %s: %s", path, strerror(errno));
        return is_plain ? check_dir_of(a, output_replace(a, path).final, e) : RT_OK;
    }
    return check_dir_of(a, path, e);
}

RtStatus output_check_apart(Arena *a, const char *path, const char *input, RtError *e)
{
    struct stat in, out;
    if (!path || !input || stat(input, &in) != 0) return RT_OK;
    bool is_dir = S_ISDIR(in.st_mode);
    if (!is_dir && !S_ISREG(in.st_mode)) return RT_OK;
    if (stat(is_dir ? dir_of(a, path) : path, &out) != 0) return RT_OK;
    if (in.st_dev != out.st_dev || in.st_ino != out.st_ino) return RT_OK;
    return RT_FAIL(e, RT_BAD, "cannot write %s: the run reads %s%s; give another name", path,
                   is_dir ? "all files of " : "it", is_dir ? input : "");
}

void output_guard_standard(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

RtStatus output_make_dir(const char *dir, RtError *e)
{
    char path[PATH_MAX];
    size_t n = strlen(dir);
    if (n == 0 || n >= sizeof path) return RT_FAIL(e, RT_BAD, "bad directory name \"%s\"", dir);
    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        char c = path[i];
        path[i] = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            return RT_FAIL(e, RT_BAD, "cannot make directory %s: %s", path, strerror(errno));
        path[i] = c;
    }
    struct stat st;
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return RT_FAIL(e, RT_BAD, "%s is not a directory", dir);
    if (access(dir, W_OK | X_OK) != 0)
        return RT_FAIL(e, RT_BAD, "cannot write in directory %s: %s", dir, strerror(errno));
    return RT_OK;
}

void output_remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) return;
    int fd = dirfd(d);
    for (struct dirent *entry; (entry = readdir(d));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (fd >= 0) unlinkat(fd, entry->d_name, 0);
    }
    closedir(d);
    rmdir(dir);
}
