/* sections_data.c -- section data: which source fills which input. */
#include "frontend/sections.h"
#include "frontend/suggest.h"
#include "ir/base/spans.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* ---- inputs ---- */

static int input_index(Elab *e, const Ast *ast)
{
    const Ast *args = e->prog->model->kid[0];
    for (uint32_t i = 0; i < args->n; i++)
        if (ast->kind == AST_NAME && args->kid[i]->text == ast->text) return (int)i;
    elab_error(e, ast->pos, E_DATA, "the source fills inputs of the model, and this is none");
    Suggest s = suggest_new(ast->text);
    for (uint32_t i = 0; i < args->n; i++) suggest_try(&s, args->kid[i]->text);
    if (s.best) elab_help(e, "did you mean %s?", s.best);
    return -1;
}

static Status feed_set(Elab *e, const Ast *ast, FeedKind kind, bool *is_fed)
{
    int i = input_index(e, ast);
    if (i < 0) return ZM_FAIL;
    if (is_fed[i]) {
        elab_error(e, ast->pos, E_DATA, "input %s is filled twice", ast->text);
        return ZM_FAIL;
    }
    is_fed[i] = true;
    e->m->feeds.at[i].kind = kind;
    return ZM_OK;
}

/* ---- sources ---- */

enum { MAX_INPUTS = 3, ANY_NUMBER = 0 };

typedef struct DataSource {
    const char *name, *usage;
    uint32_t n_inputs; /* ANY_NUMBER: tensors */
    uint32_t n_needed; /* those behind them may be left out */
    uint32_t n_same;   /* the last n_same inputs have one type */
    FeedKind kind[MAX_INPUTS];
} DataSource;

static const DataSource data_sources[] = {
    {"causal", "causal(tokens, targets)", 2, 2, 2, {FEED_TOKENS, FEED_TARGETS}},
    {"masked_lm",
     "masked_lm(tokens, targets, mask = ID, rate = 0.15)",
     2,
     2,
     2,
     {FEED_MASKED, FEED_MASK_TARGETS}},
    {"span_corruption",
     "span_corruption(inputs, targets, decoder, sentinel = ID, eos = 1, start = 0, density = 0.15, "
     "span = 3)",
     3,
     2,
     2,
     {FEED_SPAN_INPUTS, FEED_SPAN_TARGETS, FEED_SPAN_DECODER}},
    {"tensors", "tensors(x, ...)", ANY_NUMBER, 0, 0, {FEED_TENSOR}}};
enum { N_SOURCE = sizeof data_sources / sizeof *data_sources };

typedef struct DataArg {
    const char *source, *name;
    size_t offset; /* in Corruption */
    bool is_int;
    double otherwise, least, below; /* NAN: must be given */
} DataArg;

#define FIELD(NAME) offsetof(Corruption, NAME)
static const DataArg data_args[] = {
    {"masked_lm", "mask", FIELD(mask), true, NAN, 0, 0x1p31},
    {"masked_lm", "rate", FIELD(rate), false, 0.15, 0x1p-20, 1},
    {"span_corruption", "density", FIELD(rate), false, 0.15, 0x1p-20, 1},
    {"span_corruption", "eos", FIELD(eos), true, 1, 0, 0x1p31},
    {"span_corruption", "sentinel", FIELD(mask), true, NAN, 0, 0x1p31},
    {"span_corruption", "span", FIELD(span), false, 3, 1, 1000},
    {"span_corruption", "start", FIELD(start), true, 0, 0, 0x1p31},
};
#undef FIELD
enum { N_DATA_ARG = sizeof data_args / sizeof *data_args };

static Status arg_store(Elab *e, const DataArg *arg, double v, SrcPos pos)
{
    char *field = (char *)&e->m->corruption + arg->offset;
    bool is_whole = !arg->is_int || v == floor(v);
    if (!(v >= arg->least && v < arg->below) || !is_whole) {
        elab_error(e, pos, E_DATA, "%s of %s must be %s in [%g, %g), not %g", arg->name,
                   arg->source, arg->is_int ? "a whole number" : "a number", arg->least, arg->below,
                   v);
        return ZM_FAIL;
    }
    if (arg->is_int) {
        int64_t whole = (int64_t)v;
        memcpy(field, &whole, sizeof whole);
    } else {
        memcpy(field, &v, sizeof v);
    }
    return ZM_OK;
}

static const Ast *named_value(const Ast *values, const char *name)
{
    for (uint32_t i = 0; i < values->n; i++)
        if (values->kid[i]->kind == AST_NAMED && strcmp(values->kid[i]->text, name) == 0)
            return values->kid[i]->kid[0];
    return NULL;
}

static Status args_read(Elab *e, const DataSource *s, const Ast *source, const Ast *values)
{
    for (uint32_t k = 0; k < N_DATA_ARG; k++) {
        const DataArg *arg = &data_args[k];
        if (strcmp(arg->source, s->name) != 0) continue;
        const Ast *given = named_value(values, arg->name);
        double v = arg->otherwise;
        if (given) {
            Val val = elab_expr(e, given);
            if (val.kind == VAL_ERROR) return ZM_FAIL;
            if (!val_is_number(val)) {
                elab_error(e, given->pos, E_DATA, "%s of %s must be a number", arg->name, s->name);
                return ZM_FAIL;
            }
            v = val_real_of(val);
        } else if (isnan(v)) {
            elab_error(e, source->pos, E_DATA, "%s needs %s", s->name, arg->name);
            elab_help(e, "write %s", s->usage);
            return ZM_FAIL;
        }
        ZM_TRY(arg_store(e, arg, v, given ? given->pos : source->pos));
    }
    return ZM_OK;
}

static Status arg_names_check(Elab *e, const DataSource *s, const Ast *values)
{
    for (uint32_t i = 0; i < values->n; i++) {
        const Ast *a = values->kid[i];
        bool is_known = a->kind != AST_NAMED;
        for (uint32_t k = 0; k < N_DATA_ARG && !is_known; k++)
            is_known = strcmp(data_args[k].source, s->name) == 0 &&
                       strcmp(data_args[k].name, a->text) == 0;
        if (is_known) continue;
        elab_error(e, a->pos, E_DATA, "%s has no argument %s", s->name, a->text);
        elab_help(e, "write %s", s->usage);
        return ZM_FAIL;
    }
    return ZM_OK;
}

/* int[B, T] each of the n inputs; the last n_same of one type. */
static Status types_check(Elab *e, const DataSource *s, const Ast *source, const Ast *const *input,
                          uint32_t n)
{
    const Func *f = func_find(e->m, "train");
    const Type *t[MAX_INPUTS];
    for (uint32_t i = 0; i < n; i++) {
        t[i] = value_type(f, f->params.at[input_index(e, input[i])]);
        bool is_same = i + s->n_same <= s->n_inputs || t[i] == t[i - 1];
        bool is_tokens = t[i]->dtype == DT_I32 && t[i]->rank == 2;
        if (is_tokens && is_same && t[i]->dim[0] == t[0]->dim[0]) continue;
        elab_error(e, source->pos, E_DATA, "%s fills inputs int[B, T]%s, not %s and %s", s->name,
                   s->n_inputs == s->n_same ? " of one type" : ", targets and decoder of one type",
                   type_text(e->arena, t[i ? i - 1 : 0]), type_text(e->arena, t[i]));
        return ZM_FAIL;
    }
    return ZM_OK;
}

static Status source_read(Elab *e, const DataSource *s, const Ast *source, const Ast *values,
                          bool *is_fed)
{
    const Ast *input[MAX_INPUTS] = {0};
    uint32_t n = 0, n_given = 0;
    ZM_TRY(arg_names_check(e, s, values));
    for (uint32_t i = 0; i < values->n; i++) n_given += values->kid[i]->kind != AST_NAMED;
    if (s->n_inputs != ANY_NUMBER && (n_given < s->n_needed || n_given > s->n_inputs)) {
        const char *or_more =
            s->n_needed < s->n_inputs ? arena_printf(e->arena, " or %u", s->n_inputs) : "";
        elab_error(e, source->pos, E_DATA, "%s fills %u%s inputs, not %u", s->usage, s->n_needed,
                   or_more, n_given);
        return ZM_FAIL;
    }
    for (uint32_t i = 0; i < values->n; i++) {
        if (values->kid[i]->kind == AST_NAMED) continue;
        ZM_TRY(feed_set(e, values->kid[i], s->kind[s->n_inputs ? n : 0], is_fed));
        if (s->n_inputs != ANY_NUMBER) input[n++] = values->kid[i];
    }
    if (s->n_inputs == ANY_NUMBER) return ZM_OK;
    ZM_TRY(types_check(e, s, source, input, n));
    return args_read(e, s, source, values);
}

static Status data_source(Elab *e, const Ast *section, bool *is_fed)
{
    const Ast *s = section->n ? section->kid[0] : section;
    if (section->n != 1) {
        elab_error(e, s->pos, E_DATA, "the data section names one source, not %u", section->n);
        return ZM_FAIL;
    }
    for (size_t i = 0; i < N_SOURCE; i++)
        if (strcmp(s->text, data_sources[i].name) == 0)
            return source_read(e, &data_sources[i], s, s->kid[0], is_fed);
    elab_error(e, s->pos, E_DATA, "unknown data source %s", s->text);
    elab_help(e, "there are %s, %s, %s and %s", data_sources[0].usage, data_sources[1].usage,
              data_sources[2].usage, data_sources[3].usage);
    return ZM_FAIL;
}

Status data_read(Elab *e)
{
    const Ast *args = e->prog->model->kid[0], *section = section_find(e, "data");
    for (uint32_t i = 0; i < args->n; i++) {
        Feed feed = {.input = args->kid[i]->text, .kind = FEED_TENSOR};
        VEC_PUSH(e->m->arena, &e->m->feeds, feed);
    }
    if (!section) return ZM_OK;
    bool *is_fed = ARENA_ARRAY(e->arena, bool, args->n);
    ZM_TRY(data_source(e, section, is_fed));
    for (uint32_t i = 0; i < args->n; i++) {
        if (is_fed[i]) continue;
        elab_error(e, section->pos, E_DATA, "nothing fills input %s", args->kid[i]->text);
        elab_note(e, args->kid[i]->pos, "%s is declared here", args->kid[i]->text);
        return ZM_FAIL;
    }
    return ZM_OK;
}

/* ---- after the inputs' uses are known (index_range.c) ---- */

static Status corruption_id(Elab *e, const Ast *source, const char *what, int64_t id,
                            const Feed *feed)
{
    if (!feed->bound || (id >= 0 && id < feed->bound)) return ZM_OK;
    elab_error(e, source->pos, E_DATA, "%s is %lld, and input %s takes 0..%lld", what,
               (long long)id, feed->input, (long long)feed->bound - 1);
    return ZM_FAIL;
}

static Status ignore_check(Elab *e, const Ast *source, const Feed *f)
{
    if (f->has_ignore) return ZM_OK;
    elab_error(e, source->pos, E_DATA,
               "%s marks targets that carry no loss, and the loss ignores none of %s", source->text,
               f->input);
    elab_help(e, "write cross_entropy(logits, %s, ignore = -100)", f->input);
    return ZM_FAIL;
}

/* A tenth of the chosen becomes any token of the vocabulary, so its size must be known. */
static Status mask_check(Elab *e, const Ast *source, const Feed *f)
{
    if (f->bound) return corruption_id(e, source, "mask", e->m->corruption.mask, f);
    elab_error(e, source->pos, E_DATA,
               "masked_lm draws random tokens, and nothing says how many there are for input %s",
               f->input);
    elab_help(e, "look the tokens up in a table: embed(table, %s)", f->input);
    return ZM_FAIL;
}

static Status span_ids_check(Elab *e, const Ast *source, const Feed *f)
{
    const Corruption *c = &e->m->corruption;
    ZM_TRY(corruption_id(e, source, "sentinel", c->mask, f));
    ZM_TRY(corruption_id(e, source, "eos", c->eos, f));
    return f->kind == FEED_SPAN_TARGETS ? ZM_OK : corruption_id(e, source, "start", c->start, f);
}

/* Elements of a row of the input that is filled with `kind`. */
static int64_t row_length(const Elab *e, FeedKind kind)
{
    const Func *f = func_find(e->m, "train");
    for (uint32_t i = 0; i < e->m->feeds.n; i++)
        if (e->m->feeds.at[i].kind == kind) return value_type(f, f->params.at[i])->dim[1];
    return 0;
}

/* Do inputs, targets and sentinels suffice for one text? */
static Status span_sizes_check(Elab *e, const Ast *source)
{
    const Corruption *c = &e->m->corruption;
    int64_t n_in = row_length(e, FEED_SPAN_INPUTS), n_to = row_length(e, FEED_SPAN_TARGETS);
    SpanSizes s = span_sizes_fit(c->rate, c->span, n_in);
    int64_t last = c->mask - s.spans + 1;
    if (!s.text) {
        elab_error(e, source->pos, E_DATA, "no corrupted text fits into inputs of %lld tokens",
                   (long long)n_in);
        elab_help(e, "make them longer: the shortest are a token, a sentinel and eos");
    } else if (s.targets > n_to) {
        elab_error(
            e, source->pos, E_DATA,
            "inputs of %lld tokens drop %lld tokens in %lld spans: targets take %lld tokens, "
            "not %lld",
            (long long)n_in, (long long)s.noise, (long long)s.spans, (long long)s.targets,
            (long long)n_to);
        elab_help(e, "make the targets %lld long, or the inputs shorter", (long long)s.targets);
    } else if (last < 0 || (c->eos >= last && c->eos <= c->mask) ||
               (c->start >= last && c->start <= c->mask)) {
        elab_error(e, source->pos, E_DATA, "%lld spans take the sentinels %lld..%lld, which %s",
                   (long long)s.spans, (long long)last, (long long)c->mask,
                   last < 0 ? "end below 0" : "hold eos or start");
        elab_help(e, "give a first sentinel from which %lld ids count down", (long long)s.spans);
    } else {
        return ZM_OK;
    }
    return ZM_FAIL;
}

Status data_check(Elab *e)
{
    const Ast *section = section_find(e, "data");
    if (!section || section->n != 1) return ZM_OK;
    const Ast *source = section->kid[0];
    bool is_span = false;
    for (uint32_t i = 0; i < e->m->feeds.n; i++) {
        const Feed *f = &e->m->feeds.at[i];
        bool is_span_feed = f->kind == FEED_SPAN_INPUTS || f->kind == FEED_SPAN_TARGETS ||
                            f->kind == FEED_SPAN_DECODER;
        is_span = is_span || is_span_feed;
        if (f->kind == FEED_MASK_TARGETS || f->kind == FEED_SPAN_TARGETS)
            ZM_TRY(ignore_check(e, source, f));
        if (f->kind == FEED_MASKED) ZM_TRY(mask_check(e, source, f));
        if (is_span_feed) ZM_TRY(span_ids_check(e, source, f));
    }
    return is_span ? span_sizes_check(e, source) : ZM_OK;
}
