/* diag.c -- see diag.h. */
#include "ir/base/diag.h"

#include <stdarg.h>
#include <string.h>

typedef struct DiagInfo {
    const char *code;
    const char *explain;
} DiagInfo;

static const DiagInfo diag_info[] = {
#define DIAG(ID, CODE, EXPLAIN) {CODE, EXPLAIN},
#include "ir/base/diag.def"
#undef DIAG
};
_Static_assert(sizeof diag_info / sizeof *diag_info == N_DIAG, "one entry per code");

const char *diag_code_text(DiagCode code)
{
    return diag_info[code].code;
}

const char *diag_code_explain(DiagCode code)
{
    return diag_info[code].explain;
}

uint32_t source_add(SourceSet *s, const char *name, const char *text, size_t n)
{
    Source src = {.name = arena_strdup(s->arena, name), .n = n};
    if (text) src.text = arena_strndup(s->arena, text, n);
    VEC_PUSH(s->arena, &s->all, src);
    return s->all.n - 1;
}

uint32_t source_find_or_add(SourceSet *s, const char *name)
{
    for (uint32_t i = 0; i < s->all.n; i++)
        if (strcmp(s->all.at[i].name, name) == 0) return i;
    return source_add(s, name, NULL, 0);
}

static void diag_add(Diag *d, Severity severity, DiagCode code, SrcPos pos, const char *fmt,
                     va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *text = arena_alloc(d->arena, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    DiagMsg msg = {severity, code, pos, text};
    VEC_PUSH(d->arena, &d->msgs, msg);
}

Status diag_error(Diag *d, SrcPos pos, DiagCode code, const char *fmt, ...)
{
    d->n_errors++;
    d->is_muted = d->n_errors > DIAG_MAX_ERRORS;
    if (d->is_muted) return ZM_FAIL;
    va_list ap;
    va_start(ap, fmt);
    diag_add(d, SEV_ERROR, code, pos, fmt, ap);
    va_end(ap);
    return ZM_FAIL;
}

void diag_warning(Diag *d, SrcPos pos, DiagCode code, const char *fmt, ...)
{
    d->is_muted = false;
    va_list ap;
    va_start(ap, fmt);
    diag_add(d, SEV_WARNING, code, pos, fmt, ap);
    va_end(ap);
}

void diag_note(Diag *d, SrcPos pos, const char *fmt, ...)
{
    if (d->is_muted) return;
    va_list ap;
    va_start(ap, fmt);
    diag_add(d, SEV_NOTE, 0, pos, fmt, ap);
    va_end(ap);
}

void diag_help(Diag *d, const char *fmt, ...)
{
    if (d->is_muted) return;
    va_list ap;
    va_start(ap, fmt);
    diag_add(d, SEV_HELP, 0, (SrcPos){0}, fmt, ap);
    va_end(ap);
}

bool diag_is_full(const Diag *d)
{
    return d->n_errors >= DIAG_MAX_ERRORS;
}

/* The text of a line of src, without its end; false when the source's text is not at hand. */
static bool source_line(const Source *src, uint32_t line, const char **at, size_t *n)
{
    if (!src->text) return false;
    const char *p = src->text;
    const char *end = src->text + src->n;
    for (uint32_t i = 1; i < line; i++) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (!p) return false;
        p++;
    }
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    *at = p;
    *n = (size_t)((stop ? stop : end) - p);
    return true;
}

/* Bytes of a UTF-8 character at p[0..n); 0 when they are none.  Overlong forms do not matter here.
 */
static size_t utf8_length(const char *p, size_t n)
{
    unsigned char c = (unsigned char)p[0];
    size_t want = c < 0x80                ? 1
                  : c >= 0xc2 && c < 0xe0 ? 2
                  : c >= 0xe0 && c < 0xf0 ? 3
                  : c >= 0xf0 && c < 0xf5 ? 4
                                          : 0;
    if (want == 0 || want > n) return 0;
    for (size_t i = 1; i < want; i++)
        if (((unsigned char)p[i] & 0xc0) != 0x80) return 0;
    return want;
}

enum { EXCERPT_BEFORE = 80, EXCERPT_BYTES = 160 };

/* The line, or of a long one a part around the place; what a terminal might obey or choke on
 * becomes '?'. */
static void print_excerpt(const Source *src, SrcPos pos, FILE *out)
{
    const char *at;
    size_t n;
    if (!source_line(src, pos.line, &at, &n)) return;
    size_t from = n > EXCERPT_BYTES && pos.col > EXCERPT_BEFORE ? pos.col - EXCERPT_BEFORE : 0;
    if (from > n) from = n;
    size_t to = n - from > EXCERPT_BYTES ? from + EXCERPT_BYTES : n;
    fprintf(out, "%5u | ", pos.line);
    for (size_t i = from, step; i < to; i += step) {
        step = utf8_length(at + i, to - i);
        bool is_plain = step > 1 || (step == 1 && at[i] >= 0x20 && at[i] != 0x7f);
        if (is_plain)
            fwrite(at + i, 1, step, out);
        else
            fputc(at[i] == '\t' || at[i] == '\r' ? ' ' : '?', out);
        if (step == 0) step = 1;
    }
    fprintf(out, "\n      | ");
    for (size_t i = from + 1; i < pos.col && i <= to; i++) fputc(' ', out);
    fputc('^', out);
    for (uint32_t i = 1; i < pos.len && pos.col + i <= to; i++) fputc('~', out);
    fputc('\n', out);
}

static const char *const severity_name[] = {"error", "warning", "note", "help"};

static void print_msg(const Diag *d, const DiagMsg *m, FILE *out)
{
    bool has_place = m->pos.line != 0 && m->pos.source < d->sources->all.n;
    if (has_place)
        fprintf(out, "%s:%u:%u: ", d->sources->all.at[m->pos.source].name, m->pos.line, m->pos.col);
    else if (m->severity == SEV_ERROR || m->severity == SEV_WARNING)
        fprintf(out, "zmc: ");
    fputs(severity_name[m->severity], out);
    if (m->severity == SEV_ERROR || m->severity == SEV_WARNING)
        fprintf(out, "[%s]", diag_code_text(m->code));
    fprintf(out, ": %s\n", m->text);
    if (has_place) print_excerpt(&d->sources->all.at[m->pos.source], m->pos, out);
}

void diag_print(const Diag *d, FILE *out)
{
    for (uint32_t i = 0; i < d->msgs.n; i++) print_msg(d, &d->msgs.at[i], out);
    if (d->n_errors > DIAG_MAX_ERRORS)
        fprintf(out, "zmc: %u more errors not shown\n", d->n_errors - DIAG_MAX_ERRORS);
}
