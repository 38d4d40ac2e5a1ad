/* ptx_parse.c -- PTX as NVRTC writes it, and what inline assembly adds: entries, .func, variables,
 * { } scopes whose registers hide outer ones, labels, instructions.  Directives that only a
 * debugger or ptxas needs are skipped; .loc is kept.  What an instruction means is decode.c's. */
#include "tests/gpusim/ptx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPERANDS = 16, MAX_ELEMENTS = 128 /* of { } */ };

typedef struct Declared { /* a register, or with is_range name0, name1, ... */
    const char *name;
    size_t n;
    bool is_range;
    int32_t reg;
} Declared;

typedef struct Label {
    const char *name;
    uint32_t scope, insn;
} Label;

typedef struct Scope {
    uint32_t parent, n_regs, n_symbols; /* what was declared before it opened */
} Scope;

typedef struct Parser {
    Lexer x;
    PtxModule *m;
    PtxFunc *f;
    VEC(Declared) regs;
    VEC(PtxSymbol *) symbols; /* innermost last */
    VEC(Scope) scopes;        /* all of the function; a scope is its number */
    VEC(Label) labels;
    VEC(Label) uses; /* insn: of the operand */
    uint32_t scope, loc;
    jmp_buf failed;
} Parser;

ZM_PRINTF(2, 3) static _Noreturn void fail(Parser *p, const char *fmt, ...)
{
    va_list args;
    int n = snprintf(p->m->error, sizeof p->m->error, "PTX line %u: ", p->x.line);
    va_start(args, fmt);
    vsnprintf(p->m->error + n, sizeof p->m->error - (size_t)n, fmt, args);
    va_end(args);
    longjmp(p->failed, 1);
}

static void expect(Parser *p, const char *text)
{
    if (!lex_accept(&p->x, text))
        fail(p, "expected '%s', found '%.*s'", text, (int)p->x.n, p->x.text);
}

static const char *take_name(Parser *p)
{
    if (p->x.kind != TOK_NAME) fail(p, "expected a name, found '%.*s'", (int)p->x.n, p->x.text);
    const char *name = arena_strndup(&p->m->arena, p->x.text, p->x.n);
    lex_next(&p->x);
    return name;
}

static uint64_t take_number(Parser *p)
{
    bool is_negative = lex_accept(&p->x, "-");
    if (p->x.kind != TOK_NUMBER) fail(p, "expected a number, found '%.*s'", (int)p->x.n, p->x.text);
    uint64_t v = p->x.value;
    lex_next(&p->x);
    return is_negative ? 0 - v : v;
}

/* ---- declarations ---- */

/* Of a type's name, ".b64"; 0: a predicate, -1: none. */
static int type_bytes(const char *type)
{
    if (strcmp(type, ".pred") == 0) return 0;
    const char *digits = type + strcspn(type, "0123456789");
    if (type[0] != '.' || !strchr("bufs", type[1]) || digits != type + 2) return -1;
    int bits = atoi(digits);
    return bits == 8 || bits == 16 || bits == 32 || bits == 64 || bits == 128 ? bits / 8 : -1;
}

static void parse_registers(Parser *p)
{
    int bytes = type_bytes(take_name(p));
    if (bytes < 0) fail(p, "unknown type of a register");
    do {
        const char *name = take_name(p);
        Declared d = {name, strlen(name), false, (int32_t)p->f->reg_bytes.n};
        uint64_t count = 1;
        if (lex_accept(&p->x, "<")) {
            d.is_range = true;
            count = take_number(p);
            expect(p, ">");
        }
        VEC_PUSH(&p->m->arena, &p->regs, d);
        for (uint64_t i = 0; i < count; i++)
            VEC_PUSH(&p->m->arena, &p->f->reg_bytes, (uint8_t)(bytes == 1 ? 2 : bytes));
    } while (lex_accept(&p->x, ","));
    expect(p, ";");
}

static void parse_init(Parser *p, PtxSymbol *s, uint32_t elem_bytes)
{
    bool is_list = lex_accept(&p->x, "{");
    uint32_t at = 0;
    s->init = ARENA_ARRAY(&p->m->arena, uint8_t, s->bytes);
    do {
        uint64_t v = take_number(p);
        if (at + elem_bytes > s->bytes) fail(p, "%s has too many initial values", s->name);
        memcpy(s->init + at, &v, elem_bytes);
        at += elem_bytes;
    } while (is_list && lex_accept(&p->x, ","));
    if (is_list) expect(p, "}");
    s->n_init = at;
}

/* .align N .b8 name[M] = {...}; after the space's name; `frame` is where it is allocated. */
static PtxSymbol *parse_variable(Parser *p, Space space, uint32_t *frame)
{
    PtxSymbol *s = ARENA_NEW(&p->m->arena, PtxSymbol);
    s->space = space;
    if (lex_accept(&p->x, ".align")) s->align = (uint32_t)take_number(p);
    uint32_t lanes = lex_accept(&p->x, ".v4") ? 4 : lex_accept(&p->x, ".v2") ? 2 : 1;
    int bytes = type_bytes(take_name(p));
    if (bytes <= 0) fail(p, "unknown type of a variable");
    if (!s->align) s->align = (uint32_t)bytes * lanes;
    if (lex_accept(&p->x, ".ptr")) { /* about what a pointer points to */
        while (p->x.kind == TOK_NAME && p->x.text[0] == '.') lex_next(&p->x);
        if (p->x.kind == TOK_NUMBER) lex_next(&p->x);
    }
    s->name = take_name(p);
    uint64_t count = 1;
    while (lex_accept(&p->x, "[")) {
        if (lex_is(&p->x, "]"))
            s->is_dynamic = true;
        else
            count *= take_number(p);
        expect(p, "]");
    }
    s->bytes = s->is_dynamic ? 0 : (uint32_t)(count * (uint64_t)bytes * lanes);
    if (lex_accept(&p->x, "=")) parse_init(p, s, (uint32_t)bytes);
    if (frame) {
        s->offset = (*frame + s->align - 1) / s->align * s->align;
        *frame = s->offset + s->bytes;
    }
    VEC_PUSH(&p->m->arena, &p->symbols, s);
    return s;
}

/* ---- lookup ---- */

static int32_t find_register(const Parser *p, const char *name, size_t n)
{
    size_t stem = n;
    while (stem > 0 && name[stem - 1] >= '0' && name[stem - 1] <= '9') stem--;
    for (uint32_t i = p->regs.n; i-- > 0;) {
        const Declared *d = &p->regs.at[i];
        if (d->n == n && !d->is_range && memcmp(d->name, name, n) == 0) return d->reg;
        if (d->n == stem && d->is_range && stem < n && memcmp(d->name, name, stem) == 0)
            return d->reg + atoi(name + stem);
    }
    return -1;
}

static PtxSymbol *find_symbol(const Parser *p, const char *name, size_t n)
{
    for (uint32_t i = p->symbols.n; i-- > 0;) {
        PtxSymbol *s = p->symbols.at[i];
        if (strlen(s->name) == n && memcmp(s->name, name, n) == 0) return s;
    }
    return NULL;
}

/* ---- operands ---- */

static PtxOperand parse_operand(Parser *p);

static PtxOperand parse_name(Parser *p)
{
    const char *name = p->x.text;
    size_t n = p->x.n;
    PtxOperand o = {.reg = find_register(p, name, n), .reg_b = -1};
    o.symbol = o.reg < 0 ? find_symbol(p, name, n) : NULL;
    o.name = take_name(p);
    if (o.reg >= 0)
        o.kind = OPD_REG;
    else if (o.symbol)
        o.kind = OPD_SYMBOL;
    else if (strcmp(o.name, "_") == 0)
        o.kind = OPD_SINK;
    else if (o.name[0] == '%' || strncmp(o.name, "WARP_SZ", 7) == 0)
        o.kind = OPD_SPECIAL;
    else
        o.kind = ptx_find(p->m, o.name) ? OPD_FUNC : OPD_LABEL;
    if (o.kind == OPD_REG && lex_accept(&p->x, "|")) {
        o.kind = OPD_PAIR;
        PtxOperand b = parse_operand(p);
        o.reg_b = b.kind == OPD_REG ? b.reg : -1;
    } else if (o.kind == OPD_SINK && lex_accept(&p->x, "|")) {
        PtxOperand b = parse_operand(p);
        o = (PtxOperand){.kind = OPD_PAIR, .reg = -1, .reg_b = b.reg};
    } else if ((o.kind == OPD_SYMBOL || o.kind == OPD_REG) && lex_accept(&p->x, "+"))
        o.imm = take_number(p);
    return o;
}

static PtxOperand parse_address(Parser *p)
{
    PtxOperand o = {.kind = OPD_ADDRESS, .reg = -1, .reg_b = -1};
    if (p->x.kind == TOK_NUMBER) {
        o.imm = take_number(p);
    } else {
        PtxOperand base = parse_operand(p);
        if (base.kind != OPD_REG && base.kind != OPD_SYMBOL) fail(p, "unknown address");
        o.reg = base.reg;
        o.symbol = base.symbol;
        o.imm = base.imm;
        if (lex_is(&p->x, "-")) o.imm += take_number(p);
    }
    expect(p, "]");
    return o;
}

static void add_use(Parser *p, uint32_t operand, const PtxOperand *o)
{
    if (o->kind == OPD_LABEL)
        VEC_PUSH(&p->m->arena, &p->uses, ((Label){o->name, p->scope, operand}));
}

/* Elements up to `close`, one after another among the function's operands. */
static PtxOperand parse_list(Parser *p, OperandKind kind, const char *close)
{
    PtxOperand elems[MAX_ELEMENTS], o = {.kind = kind, .reg = -1, .reg_b = -1};
    while (!lex_accept(&p->x, close)) {
        if (o.n == MAX_ELEMENTS) fail(p, "too many elements");
        elems[o.n++] = parse_operand(p);
        if (!lex_is(&p->x, close)) expect(p, ",");
    }
    o.first = p->f->operands.n;
    for (uint32_t i = 0; i < o.n; i++) {
        add_use(p, p->f->operands.n, &elems[i]);
        VEC_PUSH(&p->m->arena, &p->f->operands, elems[i]);
    }
    return o;
}

static PtxOperand parse_operand(Parser *p)
{
    if (lex_accept(&p->x, "!")) {
        PtxOperand o = parse_operand(p);
        o.is_not = true;
        return o;
    }
    if (lex_accept(&p->x, "[")) return parse_address(p);
    if (lex_accept(&p->x, "{")) return parse_list(p, OPD_VECTOR, "}");
    if (lex_accept(&p->x, "(")) return parse_list(p, OPD_NAMES, ")");
    if (p->x.kind == TOK_NUMBER || lex_is(&p->x, "-"))
        return (PtxOperand){.kind = OPD_IMM, .reg = -1, .reg_b = -1, .imm = take_number(p)};
    return parse_name(p);
}

/* ---- statements ---- */

static void parse_loc(Parser *p)
{
    const char *text;
    size_t n;
    char line[256]; /* of its own: sscanf() looks for the end of its text */
    PtxLoc loc = {0};
    unsigned file, at, caller;
    lex_rest_of_line(&p->x, &text, &n);
    snprintf(line, sizeof line, "%.*s", (int)n, text);
    if (sscanf(line, ".loc %u %u", &file, &at) == 2) loc.line = at;
    const char *inlined = strstr(line, "inlined_at");
    if (inlined && sscanf(inlined, "inlined_at %u %u", &file, &caller) == 2)
        loc.caller_line = caller;
    p->loc = p->m->locs.n;
    VEC_PUSH(&p->m->arena, &p->m->locs, loc);
}

static void parse_insn(Parser *p, const char *op, int32_t guard, bool guard_not)
{
    PtxOperand ops[MAX_OPERANDS];
    PtxInsn insn = {
        .op = op, .guard = guard, .guard_not = guard_not, .loc = p->loc, .ptx_line = p->x.line};
    while (!lex_accept(&p->x, ";")) {
        if (insn.n_ops == MAX_OPERANDS) fail(p, "too many operands");
        ops[insn.n_ops++] = parse_operand(p);
        if (!lex_is(&p->x, ";")) expect(p, ",");
    }
    insn.first = p->f->operands.n;
    for (uint32_t i = 0; i < insn.n_ops; i++) {
        add_use(p, p->f->operands.n, &ops[i]);
        VEC_PUSH(&p->m->arena, &p->f->operands, ops[i]);
    }
    VEC_PUSH(&p->m->arena, &p->f->insns, insn);
}

static void parse_guarded(Parser *p)
{
    bool is_not = lex_accept(&p->x, "!");
    int32_t reg = find_register(p, p->x.text, p->x.n);
    if (reg < 0 || p->f->reg_bytes.at[reg] != 0) fail(p, "the guard is no predicate");
    lex_next(&p->x);
    parse_insn(p, take_name(p), reg, is_not);
}

static void open_scope(Parser *p)
{
    Scope s = {p->scope, p->regs.n, p->symbols.n};
    VEC_PUSH(&p->m->arena, &p->scopes, s);
    p->scope = p->scopes.n - 1;
}

static void close_scope(Parser *p)
{
    const Scope *s = &p->scopes.at[p->scope];
    p->regs.n = s->n_regs;
    p->symbols.n = s->n_symbols;
    p->scope = s->parent;
}

static bool parse_directive(Parser *p)
{
    if (lex_is(&p->x, ".loc"))
        parse_loc(p);
    else if (lex_accept(&p->x, ".reg"))
        parse_registers(p);
    else if (lex_accept(&p->x, ".pragma"))
        while (!lex_accept(&p->x, ";")) lex_next(&p->x);
    else
        return false;
    return true;
}

static bool parse_local_variable(Parser *p)
{
    if (lex_accept(&p->x, ".shared"))
        parse_variable(p, SPACE_SHARED, &p->f->shared_bytes);
    else if (lex_accept(&p->x, ".local") || lex_accept(&p->x, ".param"))
        parse_variable(p, SPACE_LOCAL, &p->f->local_bytes);
    else
        return false;
    expect(p, ";");
    return true;
}

static void parse_statement(Parser *p)
{
    if (lex_accept(&p->x, "{")) {
        open_scope(p);
        while (!lex_accept(&p->x, "}")) {
            if (p->x.kind == TOK_END) fail(p, "a { is not closed");
            parse_statement(p);
        }
        close_scope(p);
        return;
    }
    if (lex_accept(&p->x, ";") || parse_local_variable(p) || parse_directive(p)) return;
    if (lex_accept(&p->x, "@")) {
        parse_guarded(p);
        return;
    }
    const char *name = take_name(p);
    if (lex_accept(&p->x, ":"))
        VEC_PUSH(&p->m->arena, &p->labels, ((Label){name, p->scope, p->f->insns.n}));
    else
        parse_insn(p, name, -1, false);
}

/* ---- functions ---- */

static int compare_labels(const void *a, const void *b)
{
    return strcmp(((const Label *)a)->name, ((const Label *)b)->name);
}

/* Of the innermost scope around the use that has one; labels are sorted by name. */
static uint32_t find_label(const Parser *p, const Label *use)
{
    const Label *all = p->labels.at,
                *found = all ? bsearch(use, all, p->labels.n, sizeof *all, compare_labels) : NULL;
    if (!found) return UINT32_MAX;
    while (found > all && strcmp(found[-1].name, use->name) == 0) found--;
    for (uint32_t scope = use->scope;; scope = p->scopes.at[scope].parent) {
        for (const Label *l = found; l < all + p->labels.n && strcmp(l->name, use->name) == 0; l++)
            if (l->scope == scope) return l->insn;
        if (scope == 0) return UINT32_MAX;
    }
}

static void resolve_labels(Parser *p)
{
    if (p->labels.n) qsort(p->labels.at, p->labels.n, sizeof p->labels.at[0], compare_labels);
    for (uint32_t i = 0; i < p->uses.n; i++) {
        uint32_t insn = find_label(p, &p->uses.at[i]);
        if (insn == UINT32_MAX)
            fail(p, "in %s: nothing is called '%s'", p->f->name, p->uses.at[i].name);
        p->f->operands.at[p->uses.at[i].insn].imm = insn;
    }
}

static void parse_params(Parser *p, bool is_result)
{
    if (!lex_accept(&p->x, "(")) return;
    PtxFunc *f = p->f;
    while (!lex_accept(&p->x, ")")) {
        expect(p, ".param");
        PtxSymbol *s = parse_variable(p, f->is_entry ? SPACE_PARAM : SPACE_LOCAL,
                                      f->is_entry ? &f->param_bytes : &f->local_bytes);
        if (is_result)
            VEC_PUSH(&p->m->arena, &f->results, s);
        else
            VEC_PUSH(&p->m->arena, &f->params, s);
        if (!lex_is(&p->x, ")")) expect(p, ",");
    }
}

/* Up to the body: .maxntid and the like. */
static void parse_bounds(Parser *p)
{
    while (p->x.kind == TOK_NAME && p->x.text[0] == '.') {
        bool is_max = lex_accept(&p->x, ".maxntid");
        if (!is_max) lex_next(&p->x);
        uint32_t product = 1;
        while (p->x.kind == TOK_NUMBER) {
            product *= (uint32_t)take_number(p);
            if (!lex_accept(&p->x, ",")) break;
        }
        if (is_max) p->f->max_threads = product;
    }
}

static void begin_function(Parser *p)
{
    p->regs.n = p->labels.n = p->uses.n = p->scopes.n = 0;
    p->scope = 0;
    VEC_PUSH(&p->m->arena, &p->scopes, ((Scope){0, 0, p->symbols.n}));
}

static void parse_function(Parser *p, bool is_entry)
{
    PtxFunc draft = {.is_entry = is_entry};
    uint32_t n_symbols = p->symbols.n;
    p->f = ARENA_NEW(&p->m->arena, PtxFunc);
    *p->f = draft;
    begin_function(p);
    parse_params(p, true);
    p->f->name = take_name(p);
    parse_params(p, false);
    parse_bounds(p);
    if (!lex_accept(&p->x, ";")) {
        for (uint32_t i = 0; i < p->m->funcs.n; i++) /* the definition of what was declared */
            if (strcmp(p->m->funcs.at[i]->name, p->f->name) == 0) p->m->funcs.at[i] = p->f;
        if (ptx_find(p->m, p->f->name) != p->f) VEC_PUSH(&p->m->arena, &p->m->funcs, p->f);
        p->loc = 0;
        if (!lex_is(&p->x, "{")) fail(p, "expected a body of %s", p->f->name);
        parse_statement(p);
        resolve_labels(p);
    } else if (!ptx_find(p->m, p->f->name))
        VEC_PUSH(&p->m->arena, &p->m->funcs, p->f);
    p->symbols.n = n_symbols;
    p->f = NULL;
}

/* ---- the module ---- */

static void parse_target(Parser *p)
{
    const char *text;
    size_t n;
    lex_rest_of_line(&p->x, &text, &n);
    const char *sm = strstr(text, "sm_");
    if (sm && sm < text + n) p->m->target = (uint32_t)atoi(sm + 3);
}

static void parse_file(Parser *p)
{
    const char *text;
    size_t n;
    lex_rest_of_line(&p->x, &text, &n);
    const char *open = memchr(text, '"', n);
    const char *close = open ? memchr(open + 1, '"', (size_t)(text + n - open - 1)) : NULL;
    if (close && !p->m->file[0])
        p->m->file = arena_strndup(&p->m->arena, open + 1, (size_t)(close - open - 1));
}

static void skip_braces(Parser *p)
{
    while (!lex_is(&p->x, "{")) {
        if (p->x.kind == TOK_END) fail(p, "expected '{'");
        lex_next(&p->x);
    }
    while (!lex_accept(&p->x, "}")) {
        if (p->x.kind == TOK_END) fail(p, "a { is not closed");
        lex_next(&p->x);
    }
}

static void parse_global(Parser *p, Space space)
{
    PtxSymbol *s = parse_variable(p, space, space == SPACE_SHARED ? &p->m->shared_bytes : NULL);
    s->is_module = true;
    if (space == SPACE_GLOBAL) VEC_PUSH(&p->m->arena, &p->m->globals, s);
    expect(p, ";");
}

static void parse_item(Parser *p)
{
    const char *text;
    size_t n;
    if (lex_accept(&p->x, ".visible") || lex_accept(&p->x, ".weak") ||
        lex_accept(&p->x, ".extern") || lex_accept(&p->x, ";"))
        return;
    if (lex_is(&p->x, ".target"))
        parse_target(p);
    else if (lex_is(&p->x, ".file"))
        parse_file(p);
    else if (lex_is(&p->x, ".version") || lex_is(&p->x, ".address_size"))
        lex_rest_of_line(&p->x, &text, &n);
    else if (lex_accept(&p->x, ".entry"))
        parse_function(p, true);
    else if (lex_accept(&p->x, ".func"))
        parse_function(p, false);
    else if (lex_accept(&p->x, ".global") || lex_accept(&p->x, ".const"))
        parse_global(p, SPACE_GLOBAL);
    else if (lex_accept(&p->x, ".shared"))
        parse_global(p, SPACE_SHARED);
    else if (lex_accept(&p->x, ".section"))
        skip_braces(p);
    else
        fail(p, "unknown directive '%.*s'", (int)p->x.n, p->x.text);
}

bool ptx_parse(PtxModule *m, const char *text)
{
    *m = (PtxModule){.file = ""};
    VEC_PUSH(&m->arena, &m->locs, ((PtxLoc){0}));
    Parser *p = ARENA_NEW(&m->arena, Parser);
    p->m = m;
    if (setjmp(p->failed)) return false;
    lex_start(&p->x, text);
    while (p->x.kind != TOK_END) parse_item(p);
    if (m->target == 0) fail(p, "no .target");
    return true;
}

void ptx_free(PtxModule *m)
{
    arena_free(&m->arena);
}

const PtxFunc *ptx_find(const PtxModule *m, const char *name)
{
    for (uint32_t i = 0; i < m->funcs.n; i++)
        if (strcmp(m->funcs.at[i]->name, name) == 0) return m->funcs.at[i];
    return NULL;
}
