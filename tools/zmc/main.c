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

static Status check_output(Session *s, const char *option, const char *out, const char *input)
{
    if (!out || !input || !is_same_file(input, out)) return ZM_OK;
    return diag_error(&s->diag, (SrcPos){0}, E_USAGE, "%s %s would overwrite the input", option,
                      out);
}

/* What is written where, and by which command. */
static Status check_files(Session *s)
{
    const Options *o = &s->opt;
    ZM_TRY(check_output(s, "-o", o->out, o->input));
    ZM_TRY(check_output(s, "-o", o->out, o->vs));
    ZM_TRY(check_output(s, "--html", o->html, o->input));
    if (!s->is_plan && (o->html || o->vs)) {
        diag_error(&s->diag, (SrcPos){0}, E_USAGE, "%s is an option of zmc plan",
                   o->html ? "--html" : "--vs");
        diag_help(&s->diag, "zmc plan %s %s", o->input, o->html ? "--html FILE" : "--vs MODEL");
        return ZM_FAIL;
    }
    if (!o->html || !o->out) return ZM_OK;
    return diag_error(&s->diag, (SrcPos){0}, E_USAGE,
                      "--html %s with -o %s: the plan is written once, choose one of them", o->html,
                      o->out);
}

static int dispatch(Session *s)
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
    if (check_files(s) != ZM_OK) return EXIT_BAD_INPUT;
    return s->is_plan ? command_plan(s) : command_compile(s);
}

int main(int argc, char **argv)
{
    Session s = {0};
    s.sources.arena = &s.arena;
    s.diag.arena = &s.arena;
    s.diag.sources = &s.sources;
    s.self_dir = own_directory(&s.arena);
    if (argc >= 2 && strcmp(argv[1], "run") == 0) return command_run(argc - 2, argv + 2, &s);
    s.is_plan = argc >= 2 && strcmp(argv[1], "plan") == 0;
    int skip = s.is_plan ? 2 : 1;
    int code = EXIT_BAD_INPUT;
    if (options_parse(&s, argc - skip, argv + skip) == ZM_OK) code = dispatch(&s);
    session_print_messages(&s);
    arena_free(&s.arena);
    return code;
}
