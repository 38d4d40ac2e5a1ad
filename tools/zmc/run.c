/* run.c -- `zmc run -n N [--restarts K] OUT ...`: launches an executable over mpirun, or over srun
 * inside an allocation of Slurm.  One rank needs no launcher; without mpirun the ranks are started
 * here, and meet over TCP (--rendezvous).
 *
 * The exit code is the program's.  After a failure (2, or ranks that were killed) a run with --save
 * is started again from its newest checkpoint, at most K times. */
#include "runtime/zmrt.h"
#include "tools/zmc/zmc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N_LAUNCHER = 16 };

typedef struct Launch {
    long n, restarts;
    char **program; /* OUT and its options, NULL behind the last one */
    int n_program;
    const char **argv;
    const char *meeting; /* file of ranks that are started here; NULL: a launcher starts them */
} Launch;

#define USAGE "usage: zmc run -n N [--restarts K] OUT [options of OUT]\n"

static int run_help(void)
{
    fputs(USAGE "  -n N          ranks to start: as many as OUT was compiled for\n"
                "  --restarts K  after a failure start again from the newest checkpoint of OUT's "
                "--save DIR,\n                at most K times\n"
                "OUT --help lists the options of OUT\n",
          stdout);
    return EXIT_DONE;
}

static bool ZM_PRINTF(1, 2) bad_use(const char *fmt, ...)
{
    va_list ap;
    fputs("zmc: run: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputs("\nzmc: " USAGE, stderr);
    return false;
}

static bool parse(Launch *l, int argc, char **argv)
{
    int at = 0;
    for (; at < argc && argv[at][0] == '-'; at += 2) {
        bool is_n = strcmp(argv[at], "-n") == 0;
        if (!is_n && strcmp(argv[at], "--restarts") != 0)
            return bad_use("unknown option %s", argv[at]);
        if (at + 1 >= argc) return bad_use("%s needs a value", argv[at]);
        char *end;
        long v = strtol(argv[at + 1], &end, 10);
        if (*end || end == argv[at + 1] || v < is_n || v > INT_MAX)
            return bad_use("%s takes a whole number from %d on, not '%s'", argv[at], is_n,
                           argv[at + 1]);
        *(is_n ? &l->n : &l->restarts) = v;
    }
    l->program = argv + at;
    l->n_program = argc - at;
    if (!l->n) return bad_use("-n N is missing: how many ranks to start");
    if (at >= argc) return bad_use("OUT is missing: the executable to start");
    return true;
}

/* The value of an option of the program; NULL: not given. */
static const char *option_of(const Launch *l, const char *name)
{
    size_t n = strlen(name);
    for (int i = 1; i < l->n_program; i++) {
        if (strncmp(l->program[i], name, n) != 0) continue;
        if (l->program[i][n] == '=') return l->program[i] + n + 1;
        if (!l->program[i][n] && i + 1 < l->n_program) return l->program[i + 1];
    }
    return NULL;
}

/* ---- the command ---- */

static int add(const char **argv, int n, const char *const *words, int n_words)
{
    for (int i = 0; i < n_words; i++) argv[n++] = words[i];
    return n;
}
#define ADD(...)                                                                                   \
    n = add(argv, n, (const char *const[]){__VA_ARGS__},                                           \
            (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

/* As many ranks as asked for, on whatever cores there are; they share them by themselves. */
static int add_launcher(Arena *a, const Launch *l, const char **argv)
{
    int n = 0;
    const char *ranks = arena_printf(a, "%ld", l->n);
    if (l->n == 1 || l->meeting) return 0;
    if (getenv("SLURM_JOB_ID"))
        ADD("srun", "-n", ranks, "--mpi=pmix", "--kill-on-bad-exit=1");
    else
        ADD("mpirun", "-n", ranks, "--oversubscribe", "--bind-to", "none", "--quiet");
    return n;
}

/* resume: a directory of checkpoints to go on from; it replaces --resume and --load. */
static const char **command_of(Arena *a, const Launch *l, const char *resume)
{
    const char **argv = ARENA_ARRAY(a, const char *, (size_t)l->n_program + N_LAUNCHER + 5);
    int n = add_launcher(a, l, argv);
    /* a name without a slash is a file here, as it is for one rank */
    argv[n++] = strchr(l->program[0], '/') ? l->program[0] : arena_printf(a, "./%s", l->program[0]);
    for (int i = 1; i < l->n_program; i++) {
        const char *word = l->program[i];
        bool is_start = strcmp(word, "--resume") == 0 || strcmp(word, "--load") == 0;
        if (resume && is_start && i + 1 < l->n_program) i++;
        bool is_joined = strncmp(word, "--resume=", 9) == 0 || strncmp(word, "--load=", 7) == 0;
        if (!resume || (!is_start && !is_joined)) argv[n++] = word;
    }
    if (resume) ADD("--resume", resume);
    if (l->meeting) ADD("--rendezvous", l->meeting);
    return argv;
}

/* ---- running ---- */

static volatile sig_atomic_t stopped, n_stopped, is_launcher;
static volatile sig_atomic_t child; /* process; negative: group; 0: none */

enum { AGAIN_S = 1 };

/* A launcher would end the ranks at once on SIGINT and SIGTERM; what it passes on to them is
 * SIGUSR1 and SIGUSR2 (runtime/signals.h).  The third signal is meant for the launcher; ranks
 * without one are killed by it. */
static void pass_on(void)
{
    if (child == 0) return;
    bool is_for_ranks = is_launcher && n_stopped < 3;
    int own = child < 0 ? SIGKILL : stopped;
    int number = !is_for_ranks ? own : stopped == SIGINT ? SIGUSR1 : SIGUSR2;
    kill((pid_t)child, number);
    if (is_for_ranks) alarm(AGAIN_S);
}

/* A launcher drops what comes before its ranks are there: it is told until it ends. */
static void on_alarm(int number)
{
    (void)number;
    pass_on();
}

static void on_signal(int number)
{
    stopped = number;
    ++n_stopped;
    pass_on();
}

/* Who was not ready for a signal of pass_on died of it. */
static int stopped_code(int code)
{
    if (stopped && (code == 128 + SIGUSR1 || code == 128 + SIGUSR2)) return 128 + stopped;
    return code;
}

/* In a group of its own (group 0), or in that of others, so that an interrupt from the terminal
 * comes here alone. */
static void become(const char *const *argv, pid_t group, int report)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (is_launcher) {
        setpgid(0, group);
        int null =
            open("/dev/null", O_RDONLY); /* a background process must not read the terminal */
        if (null >= 0) dup2(null, STDIN_FILENO);
    }
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    int err = errno;
    if (write(report, &err, sizeof err) < 0) _exit(127);
    _exit(127);
}

/* 0, or why argv cannot be run. */
static int start(const char *const *argv, pid_t group, pid_t *pid)
{
    int ends[2], err = 0;
    if (pipe2(ends, O_CLOEXEC) != 0) return errno;
    *pid = fork();
    if (*pid == 0) become(argv, group, ends[1]);
    if (*pid < 0) err = errno;
    close(ends[1]);
    if (*pid > 0 && read(ends[0], &err, sizeof err) > 0) waitpid(*pid, NULL, 0);
    close(ends[0]);
    return err;
}

static int cannot_start(const char *name, int err)
{
    if (err == ENOENT && strcmp(name, "srun") == 0)
        fputs("zmc: cannot run srun: it is not there, though SLURM_JOB_ID says that this is an "
              "allocation of Slurm; without that variable mpirun starts the ranks, or zmc itself\n",
              stderr);
    else
        fprintf(stderr, "zmc: cannot run %s: %s\n", name, strerror(err));
    return EXIT_BAD_INPUT;
}

/* Of the process, or 128 + the signal that ended it. */
static int code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The exit code. */
static int run_once(const char *const *argv)
{
    pid_t pid = -1;
    int err = start(argv, 0, &pid), status = 0;
    if (err) return cannot_start(argv[0], err);
    child = pid;
    if (stopped) pass_on(); /* it came before there was a child */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    child = 0;
    alarm(0);
    return stopped_code(code_of(status));
}

/* ---- ranks without a launcher ---- */

enum { LAST_WORDS_S = 15 }; /* for the ranks to hear of one that failed, and say so */

/* Starts them in one group; how many, fewer after an error. */
static long start_ranks(const char *const *argv, long n, pid_t *group, int *err)
{
    char text[32];
    pid_t pid = -1;
    long r = 0;
    snprintf(text, sizeof text, "%ld", n);
    setenv("ZMC_WORLD", text, 1);
    for (*group = 0; r < n; r++) {
        snprintf(text, sizeof text, "%ld", r);
        setenv("ZMC_RANK", text, 1);
        *err = start(argv, *group, &pid);
        if (*err) break;
        if (*group == 0) *group = pid;
        child = -*group;
    }
    return r;
}

/* The exit code of the first rank that fails, else 0; the others get some time after it. */
static int wait_for_ranks(long n, pid_t group)
{
    int code = 0, status;
    struct timespec nap = {0, 20000000};
    time_t end = 0;
    while (n > 0) {
        pid_t pid = waitpid(-group, &status, WNOHANG);
        if (pid > 0) {
            n--;
            if (code == 0 && (code = code_of(status)) != 0) end = time(NULL) + LAST_WORDS_S;
            continue;
        }
        if (pid < 0 && errno != EINTR) break;
        if (end && time(NULL) > end) kill(-group, SIGKILL);
        nanosleep(&nap, NULL);
    }
    return code;
}

static int run_ranks(const char *const *argv, long n)
{
    pid_t group;
    int err = 0;
    long n_started = start_ranks(argv, n, &group, &err);
    if (err && group) kill(-group, SIGKILL);
    if (stopped && !err) pass_on();
    int code = group ? wait_for_ranks(n_started, group) : 0;
    child = 0;
    alarm(0);
    return err ? cannot_start(argv[0], err) : stopped_code(code);
}

static bool is_in_path(const char *name)
{
    const char *path = getenv("PATH");
    char file[PATH_MAX];
    while (path && *path) {
        size_t n = strcspn(path, ":");
        snprintf(file, sizeof file, "%.*s/%s", (int)n, path, name);
        if (access(file, X_OK) == 0) return true;
        path += n + (path[n] == ':');
    }
    return false;
}

/* A file in a folder of its own, where there is no launcher; NULL: none is needed. */
static const char *meeting_of(Arena *a, const Launch *l)
{
    const char *tmp = getenv("TMPDIR");
    if (l->n == 1 || getenv("SLURM_JOB_ID") || is_in_path("mpirun")) return NULL;
    char *folder = arena_printf(a, "%s/zmc-run-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) return NULL;
    fprintf(stderr, "zmc: mpirun is not there: %ld ranks on this machine, over TCP\n", l->n);
    return arena_printf(a, "%s/meeting", folder);
}

static void remove_meeting(const char *meeting)
{
    char folder[PATH_MAX];
    unlink(meeting);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(meeting, '/') - meeting), meeting);
    rmdir(folder);
}

static void catch_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
}

/* Open MPI asks a root user, as in a container, to say so twice. */
static void allow_root(void)
{
    static const char *const names[] = {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
                                        "PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"};
    for (size_t i = 0; geteuid() == 0 && i < sizeof names / sizeof *names; i++)
        setenv(names[i], "1", 0);
}

/* 2 is the program's own failure, 137, 139 and the like a rank that was killed. */
static bool is_worth_again(int code)
{
    return !stopped && code != 128 + SIGINT && code != 128 + SIGTERM && (code == 2 || code > 128);
}

/* A run that ended before its first one starts over. */
static bool has_checkpoint(const char *dir)
{
    DIR *d = opendir(dir);
    bool is_found = false;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        is_found = is_found || strncmp(e->d_name, "step-", 5) == 0;
    if (d) closedir(d);
    return is_found;
}

static int run_launch(const Launch *l, const char *const *argv)
{
    return l->meeting ? run_ranks(argv, l->n) : run_once(argv);
}

static int run_restarting(Launch *l)
{
    Arena a = {0};
    l->meeting = meeting_of(&a, l);
    const char *save = option_of(l, "--save"), *resume = NULL;
    int code = run_launch(l, command_of(&a, l, resume));
    for (long k = 0; k < l->restarts && is_worth_again(code); k++) {
        resume = has_checkpoint(save) ? save : NULL;
        fprintf(stderr, "zmc: the run ended with exit code %d: restart %ld of %ld%s%s\n", code,
                k + 1, l->restarts, resume ? " from the newest checkpoint in " : "",
                resume ? resume : "");
        code = run_launch(l, command_of(&a, l, resume));
    }
    if (l->meeting) remove_meeting(l->meeting);
    arena_free(&a);
    return code;
}

int command_run(int argc, char **argv, const Session *s)
{
    (void)s;
    Launch l = {0};
    if (argc && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) return run_help();
    if (!parse(&l, argc, argv)) return EXIT_BAD_INPUT;
    if (l.restarts && !option_of(&l, "--save")) {
        fputs("zmc: --restarts goes on from the checkpoints of OUT --save DIR: add --save DIR and "
              "--save-every N\n",
              stderr);
        return EXIT_BAD_INPUT;
    }
    if (access(l.program[0], X_OK) != 0) return cannot_start(l.program[0], errno);
    is_launcher = l.n > 1;
    if (is_launcher) setenv(ZMRT_ALIKE, "1", 1);
    catch_signals();
    allow_root();
    return run_restarting(&l);
}
