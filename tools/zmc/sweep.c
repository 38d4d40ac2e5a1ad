/* sweep.c -- `zmc plan --ranks 1..1024 --zero all`: one plan for each number of ranks and stage.
 *
 * Each is a compilation of its own to its plan, in one of as many processes as there are cores:
 * what they find stands in memory that they share.  The first is made here, so that what is wrong
 * with the model is told once, as always.
 */
#include <malloc.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/zmc/zmc.h"

enum {
    N_STAGES = 4,
    MAX_ROWS = 17 * N_STAGES, /* 2^0 ... 2^16 ranks */
    ARENA_SLACK = 128         /* the least arena takes half of the time: within so much of it */
};

typedef struct Shared {
    uint32_t next; /* row that nobody works at; atomic */
    SweepRow row[MAX_ROWS];
} Shared;

typedef struct Sweep {
    Session *s;
    CodegenTarget *t;
    Shared *shared;
    uint32_t n;
} Sweep;

static const char *const stage_text[N_STAGES] = {"0", "1", "2", "3"};

static void list_rows(Sweep *w)
{
    const Options *o = &w->s->opt;
    bool is_all = o->zero && strcmp(o->zero, "all") == 0;
    int first = is_all || !o->zero ? 0 : *o->zero - '0', last = is_all ? N_STAGES - 1 : first;
    int64_t from = o->ranks.from ? o->ranks.from : 1, to = o->ranks.from ? o->ranks.to : 1;
    for (int64_t ranks = from; ranks <= to; ranks *= 2)
        for (int zero = first; zero <= last; zero++)
            w->shared->row[w->n++] =
                (SweepRow){.ranks = ranks, .zero = zero, .why = "the planning process ended"};
}

/* A session of its own for one plan. */
static Session row_session(const Session *s, const SweepRow *r)
{
    Session b = {.opt = s->opt, .is_plan = true, .is_sweep = true, .loss_scale = s->loss_scale};
    b.opt.ranks = (OptRANGE){r->ranks, r->ranks};
    b.opt.zero = stage_text[r->zero];
    b.self_dir = s->self_dir;
    return b;
}

/* b stays where it is while it is in use. */
static void session_begin(Session *b)
{
    b->sources.arena = &b->arena;
    b->diag = (Diag){.arena = &b->arena, .sources = &b->sources};
}

static void fill_row(const PlanReport *p, SweepRow *r)
{
    for (int i = 0; i < PLAN_N_CATEGORIES; i++) r->cat[i] = p->cat[i].bytes;
    r->padding = p->padding;
    r->states = p->states;
    r->closed_form = p->closed_form;
    r->peak_live = p->peak_live;
    r->lower_bound = p->lower_bound;
    r->arena = p->arena;
    r->comm_bytes = p->comm.bytes;
    r->is_planned = true;
}

/* The first error, and what to do about it. */
static void fill_why(const Diag *d, SweepRow *r)
{
    uint32_t i = 0, n = d->msgs.n;
    while (i < n && d->msgs.at[i].severity != SEV_ERROR) i++;
    if (i == n) return;
    bool has_help = i + 1 < n && d->msgs.at[i + 1].severity == SEV_HELP;
    snprintf(r->why, sizeof r->why, "%s%s%s", d->msgs.at[i].text, has_help ? "; " : "",
             has_help ? d->msgs.at[i + 1].text : "");
}

static void plan_within(const Sweep *w, int64_t slack, SweepRow *r)
{
    Session b = row_session(w->s, r);
    session_begin(&b);
    b.arena_slack = slack;
    const Module *m = session_compile(&b, w->t);
    if (m) {
        PlanReport p = plan_report(m, &b.arena);
        fill_row(&p, r);
        r->is_exact = !slack;
    } else
        fill_why(&b.diag, r);
    arena_free(&b.arena);
}

/* The least arena, where that tells whether it is at most `bytes`. */
static void decide_row(const Sweep *w, int64_t bytes, SweepRow *r)
{
    if (r->is_planned && !r->is_exact && r->arena > bytes && r->lower_bound <= bytes)
        plan_within(w, 0, r);
}

static void plan_row(const Sweep *w, SweepRow *r)
{
    if (r->ranks == 1) { /* nothing is shared: the first row, whatever the stage */
        int64_t zero = r->zero;
        *r = w->shared->row[0];
        r->zero = zero;
        return;
    }
    plan_within(w, ARENA_SLACK, r);
    if (w->s->opt.memory) decide_row(w, w->s->opt.memory, r);
}

static void plan_rows(const Sweep *w)
{
    for (;;) {
        uint32_t i = __atomic_fetch_add(&w->shared->next, 1, __ATOMIC_RELAXED);
        if (i >= w->n) return;
        plan_row(w, &w->shared->row[i]);
    }
}

static int n_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* The rows from the second on.  A process that cannot be made is one fewer. */
static void plan_in_processes(const Sweep *w)
{
    pid_t child[MAX_ROWS];
    int n = 0, most = n_cores();
    if (most > (int)w->n) most = (int)w->n;
    fflush(NULL);
    while (n < most - 1) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (pid == 0) {
            plan_rows(w);
            _exit(0);
        }
        child[n++] = pid;
    }
    plan_rows(w);
    for (int i = 0; i < n; i++) waitpid(child[i], NULL, 0);
}

/* The whole of one row's plan, as a page. */
static Status print_page(Sweep *w, const PlanSweep *all, Str *text)
{
    Session b = row_session(w->s, sweep_best(all));
    session_begin(&b);
    const Module *m = session_compile(&b, w->t);
    if (m) {
        Arena scratch = {0};
        PlanReport r = session_plan_report(&b, m);
        r.sweep = all;
        plan_print_html(m, &r, &scratch, text);
        arena_free(&scratch);
    }
    arena_free(&b.arena);
    return m ? ZM_OK : ZM_FAIL;
}

/* The plan that is the answer as it is alone; where nothing fits: the smallest of all arenas. */
static void settle_best(const Sweep *w, const PlanSweep *all)
{
    SweepRow *row = w->shared->row, *best = &row[sweep_best(all) - all->row];
    if (!best->is_exact) plan_within(w, 0, best);
    for (uint32_t i = 0; i < w->n && !sweep_fits(all, best); i++)
        decide_row(w, sweep_best(all)->arena, &row[i]);
}

static Status print_sweep(Sweep *w, const PlanSweep *all)
{
    Session *s = w->s;
    Str text = {0};
    Status st = ZM_OK;
    if (s->opt.html) {
        s->opt.out = s->opt.html;
        st = print_page(w, all, &text);
    } else
        (s->opt.json  ? sweep_print_json
         : s->opt.csv ? sweep_print_csv
                      : sweep_print_table)(all, &text);
    if (st == ZM_OK) st = session_write_text(s, &text);
    str_free(&text);
    return st;
}

/* When nothing fits: the smallest budget that would do. */
static int exit_code(Session *s, const PlanSweep *all)
{
    const SweepRow *best = sweep_best(all);
    if (sweep_fits(all, best)) return EXIT_DONE;
    diag_error(&s->diag, (SrcPos){0}, E_PLAN_BUDGET,
               "none of the %u plans fits: the smallest, --ranks %lld --zero %lld, needs %s, "
               "--memory allows %s",
               all->n, (long long)best->ranks, (long long)best->zero,
               plan_bytes_text(&s->arena, best->arena), plan_bytes_text(&s->arena, all->memory));
    diag_help(&s->diag,
              "the smallest budget that fits is %lld bytes; more ranks, --recompute auto or a "
              "smaller micro-batch with --accumulate need less",
              (long long)best->arena);
    return EXIT_OVER_BUDGET;
}

static int sweep_run(Sweep *w)
{
    Session *s = w->s;
    SweepRow *row = w->shared->row;
    list_rows(w);
    Session first = row_session(s, &row[0]);
    session_begin(&first);
    const Module *m = session_compile(&first, w->t);
    diag_print(&first.diag, stderr);
    int code = EXIT_BAD_INPUT;
    if (m) {
        PlanReport r = plan_report(m, &first.arena);
        fill_row(&r, &row[0]);
        row[0].is_exact = true;
        w->shared->next = 1;
        plan_in_processes(w);
        PlanSweep all = {.model = m->name,
                         .precision = precision_name(m->train.precision),
                         .params = r.params,
                         .batch = m->batch,
                         .accumulate = m->train.accumulate,
                         .memory = s->opt.memory,
                         .row = row,
                         .n = w->n};
        settle_best(w, &all);
        if (print_sweep(w, &all) == ZM_OK) code = exit_code(s, &all);
    }
    arena_free(&first.arena);
    return code;
}

int command_sweep(Session *s, CodegenTarget *t)
{
    Sweep w = {.s = s, .t = t};
    mallopt(M_MMAP_THRESHOLD, 1 << 30); /* what one plan frees is the next one's: */
    mallopt(M_TRIM_THRESHOLD, 1 << 30); /* a tenth of the time */
    w.shared =
        mmap(NULL, sizeof *w.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w.shared == MAP_FAILED) {
        diag_error(&s->diag, (SrcPos){0}, E_FILE, "cannot share %zu bytes between processes",
                   sizeof *w.shared);
        return EXIT_FAILED;
    }
    int code = sweep_run(&w);
    munmap(w.shared, sizeof *w.shared);
    return code;
}
