/* zmc.h -- the driver: command line to compiled executable, plan or dump. */
#ifndef ZM_TOOLS_ZMC_H
#define ZM_TOOLS_ZMC_H

#include "codegen/codegen.h"
#include "frontend/frontend.h"
#include "passes/memory/memory.h"
#include "passes/pass.h"

/* Exit codes; OVER_BUDGET: the plan exceeds --memory. */
enum { EXIT_DONE = 0, EXIT_BAD_INPUT = 1, EXIT_FAILED = 2, EXIT_OVER_BUDGET = 3 };

typedef const char *OptSTR;
typedef int64_t OptINT;  /* 0: not given */
typedef int64_t OptSIZE; /* 0: not given */
typedef bool OptFLAG;
typedef VEC(Define) OptPAIRS; /* each time that it is given */
typedef struct OptRANGE {
    int64_t from, to; /* from 0: not given */
} OptRANGE;

typedef struct Options {
#define OPTION(FIELD, NAME, KIND, ARG, HELP) Opt##KIND FIELD;
#include "tools/zmc/options.def"
#undef OPTION
    const char *input; /* MODEL.zm or FILE.zir */
    OptPAIRS defines;  /* -D */
    const char *command_line;
} Options;

/* One compilation: memory, sources, diagnostics. */
typedef struct Session {
    Arena arena;
    SourceSet sources;
    Diag diag;
    Options opt;
    bool is_plan;              /* `zmc plan`, not `zmc` */
    bool is_sweep;             /* --memory chooses among plans, it refuses none ... */
    int64_t arena_slack;       /* ... and an arena need not be the least: PassOptions */
    LossScale loss_scale;      /* of opt.loss_scale, when given */
    RecomputeReport recompute; /* steps only */
    const Module *without;     /* the model planned without recomputation; NULL: as it is */
    const char *self_dir;      /* where this program is: the runtime library stands beside it */
} Session;

/* argv[1..] without the subcommand.  Errors are in s->diag. */
Status options_parse(Session *s, int argc, char **argv);
/* Which values an option takes and which options go together (options_check.c). */
Status options_check(Session *s);
/* A range of ranks, or all stages: many plans. */
bool options_are_many(const Options *o);
Status options_error(Session *s, const char *text);
void options_help(FILE *out);

/* What --loss-scale means (loss_scale.c). */
Status loss_scale_parse(Session *s, const char *text, LossScale *out);

/* Reads and compiles s->opt.input through the training pipeline (a .zir: parses it and checks its
 * plan).  NULL after errors. */
Module *session_compile(Session *s, CodegenTarget *t);
/* From text to plan in arena a, with so many steps of recomputation and no budget; prints and dumps
 * nothing.  NULL after errors, whose text is lost.  found: out. */
Module *session_try(const Session *s, Arena *a, CodegenTarget *t, const char *text, size_t n,
                    int64_t steps, RecomputeSteps *found);
bool recompute_is_auto(const Session *s);
/* Steps for --recompute and --memory; sets s->recompute and s->without. */
int64_t recompute_choose(Session *s, CodegenTarget *t, const char *text, size_t n);
/* Of a module of session_compile; kept in s->arena. */
PlanReport session_plan_report(Session *s, const Module *m);
Status session_read_input(Session *s, char **text, size_t *n);
/* Exit code for a failed session: 3 when the plan is over budget. */
int session_exit_code(const Session *s);
/* Diagnostics that were not printed yet, to standard error. */
void session_print_messages(Session *s);
/* Writes text to -o or standard output. */
Status session_write_text(Session *s, const Str *text);

int command_compile(Session *s);
int command_plan(Session *s);
/* `zmc plan` of a range of ranks or all stages (sweep.c). */
int command_sweep(Session *s, CodegenTarget *t);
int command_run(int argc, char **argv, const Session *s);

#endif
