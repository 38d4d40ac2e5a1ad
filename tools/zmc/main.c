/* main.c -- zmc: dispatch on the subcommand, print diagnostics, choose the exit code. */
#include "tools/zmc/zmc.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZMC_VERSION "0.1"

static const char *own_directory(Arena *a)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return ".";
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    return slash ? arena_strndup(a, path, (size_t)(slash - path)) : ".";
}

static int explain(Session *s)
{
    for (int code = 0; code < N_DIAG; code++)
        if (strcmp(diag_code_text((DiagCode)code), s->opt.explain) == 0) {
            printf("%s: %s\n", s->opt.explain, diag_code_explain((DiagCode)code));
            return EXIT_DONE;
        }
    diag_error(&s->diag, (SrcPos){0}, E_USAGE, "no diagnostic has the code '%s'", s->opt.explain);
    return EXIT_BAD_INPUT;
}

static bool is_same_file(const char *x, const char *y)
{
    struct stat a, b;
    return stat(x, &a) == 0 && stat(y, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int dispatch(Session *s, bool is_plan)
{
    if (s->opt.help) {
        options_help(stdout);
        return EXIT_DONE;
    }
    if (s->opt.version) {
        puts("zmc " ZMC_VERSION);
        return EXIT_DONE;
    }
    if (s->opt.explain) return explain(s);
    if (!s->opt.input) {
        diag_error(&s->diag, (SrcPos){0}, E_USAGE, "no input file");
        diag_help(&s->diag, "zmc MODEL.zm -o OUT; zmc --help lists the options");
        return EXIT_BAD_INPUT;
    }
    if (s->opt.out && is_same_file(s->opt.input, s->opt.out)) {
        diag_error(&s->diag, (SrcPos){0}, E_USAGE, "-o %s would overwrite the input", s->opt.out);
        return EXIT_BAD_INPUT;
    }
    return is_plan ? command_plan(s) : command_compile(s);
}

int main(int argc, char **argv)
{
    Session s = {0};
    s.sources.arena = &s.arena;
    s.diag.arena = &s.arena;
    s.diag.sources = &s.sources;
    s.self_dir = own_directory(&s.arena);
    if (argc >= 2 && strcmp(argv[1], "run") == 0) return command_run(argc - 2, argv + 2, &s);
    bool is_plan = argc >= 2 && strcmp(argv[1], "plan") == 0;
    int skip = is_plan ? 2 : 1;
    int code = EXIT_BAD_INPUT;
    if (options_parse(&s, argc - skip, argv + skip) == ZM_OK) code = dispatch(&s, is_plan);
    diag_print(&s.diag, stderr);
    arena_free(&s.arena);
    return code;
}
