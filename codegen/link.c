/* link.c -- see link.h. */
#include "codegen/link.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ir/base/file.h"

extern char **environ;

Status link_dir_new(Arena *a, Diag *diag, const char **dir)
{
    const char *base = getenv("TMPDIR");
    char *path = arena_printf(a, "%s/zmc-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(path))
        return diag_error(diag, (SrcPos){0}, E_FILE, "cannot make a temporary folder %s: %s", path,
                          strerror(errno));
    *dir = path;
    return ZM_OK;
}

void link_dir_remove(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(dir);
}

/* Runs argv with its output going to the file at log.  Exit code, or -1 with errno when it cannot
 * be started. */
static int run_to_end(const char **argv, const char *log)
{
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 2, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files, 2, 1);
    pid_t pid;
    int err = posix_spawnp(&pid, argv[0], &files, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&files);
    errno = err;
    if (err) return -1;
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static Status linker_failed(Arena *a, Diag *diag, int code, const char *log)
{
    if (code < 0)
        return diag_error(diag, (SrcPos){0}, E_CODEGEN,
                          "cannot run cc to link the executable: %s; install a C compiler "
                          "(Debian: apt-get install gcc)",
                          strerror(errno));
    char *text = NULL;
    size_t n = 0;
    if (file_read(a, log, &text, &n) != 0 || n == 0) text = arena_strdup(a, "no message");
    while (n > 0 && text[n - 1] == '\n') text[--n] = '\0';
    diag_error(diag, (SrcPos){0}, E_CODEGEN, "cc could not link the executable (exit code %d)",
               code);
    diag_note(diag, (SrcPos){0}, "cc says: %s", text);
    return ZM_FAIL;
}

Status link_executable(Arena *a, Diag *diag, const char *const *objects, uint32_t n_objects,
                       const char *runtime_lib, const char *dir, const char *out_path)
{
    if (access(runtime_lib, R_OK) != 0)
        return diag_error(diag, (SrcPos){0}, E_FILE, "cannot read the runtime library %s: %s",
                          runtime_lib, strerror(errno));
    struct stat st;
    if (stat(out_path, &st) == 0 && !S_ISREG(st.st_mode)) /* /dev/null: rename would replace it */
        return diag_error(diag, (SrcPos){0}, E_FILE, "cannot write %s: it is not a regular file",
                          out_path);
    const char *made = arena_printf(a, "%s.zmc-%ld", out_path, (long)getpid());
    int fd = open(made, O_WRONLY | O_CREAT | O_EXCL, 0666); /* a clear message, before cc's */
    if (fd < 0)
        return diag_error(diag, (SrcPos){0}, E_FILE, "cannot write %s: %s", out_path,
                          strerror(errno));
    close(fd);
    const char **argv = ARENA_ARRAY(a, const char *, n_objects + 16);
    uint32_t n = 0;
    argv[n++] = "cc";
    argv[n++] = "-pie";
#ifdef __SANITIZE_ADDRESS__ /* then libzmrt.a is built with the sanitizers as well */
    argv[n++] = "-fsanitize=address,undefined";
#endif
    argv[n++] = "-o";
    argv[n++] = made;
    for (uint32_t i = 0; i < n_objects; i++) argv[n++] = objects[i];
    argv[n++] = runtime_lib;
    argv[n++] = "-lm";
    argv[n++] = "-lpthread";
    argv[n++] = "-ldl";
    const char *log = arena_printf(a, "%s/cc.log", dir);
    int code = run_to_end(argv, log);
    Status s = code == 0 ? ZM_OK : linker_failed(a, diag, code, log);
    if (s == ZM_OK && rename(made, out_path) != 0)
        s = diag_error(diag, (SrcPos){0}, E_FILE, "cannot write %s: %s", out_path, strerror(errno));
    if (s != ZM_OK) unlink(made);
    return s;
}

Status link_shared(Arena *a, Diag *diag, const char *const *objects, uint32_t n_objects,
                   const char *dir, const char *out_path)
{
    const char **argv = ARENA_ARRAY(a, const char *, n_objects + 8);
    uint32_t n = 0;
    argv[n++] = "cc";
    argv[n++] = "-shared";
    argv[n++] = "-o";
    argv[n++] = out_path;
    for (uint32_t i = 0; i < n_objects; i++) argv[n++] = objects[i];
    argv[n++] = "-lm";
    const char *log = arena_printf(a, "%s/cc.log", dir);
    int code = run_to_end(argv, log);
    return code == 0 ? ZM_OK : linker_failed(a, diag, code, log);
}
