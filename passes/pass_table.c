/* pass_table.c -- passes.def and pipelines.def as tables, and locations of ops that passes make
 * (pass.h). */
#include "passes/pass.h"

#include <string.h>

static const PassInfo pass_table[] = {
#define PASS(NAME, NEEDS, GIVES, BREAKS, DOC) {#NAME, pass_##NAME, (NEEDS), (GIVES), (BREAKS), DOC},
#include "passes/passes.def"
#undef PASS
};
_Static_assert(sizeof pass_table / sizeof *pass_table == N_PASS, "one entry per pass");

const PassInfo *pass_info(PassId id)
{
    ZM_CHECK(id < N_PASS);
    return &pass_table[id];
}

bool pass_find(const char *name, size_t n, PassId *id)
{
    for (int i = 0; i < N_PASS; i++)
        if (strlen(pass_table[i].name) == n && memcmp(pass_table[i].name, name, n) == 0) {
            *id = (PassId)i;
            return true;
        }
    return false;
}

const char *pipeline_text(const char *name)
{
    static const struct {
        const char *name, *text;
    } pipelines[] = {
#define PIPELINE(NAME, TEXT) {NAME, TEXT},
#include "passes/pipelines.def"
#undef PIPELINE
    };
    for (size_t i = 0; i < sizeof pipelines / sizeof *pipelines; i++)
        if (strcmp(pipelines[i].name, name) == 0) return pipelines[i].text;
    return NULL;
}

LocId pass_loc(PassCtx *cx, LocId parent, const char *why)
{
    return loc_derive(cx->m, parent, cx->pass->name, why);
}

ValueId func_result(const Func *f, const char *name)
{
    const Op *ret = op_ok(f->last) ? op_cget(f, f->last) : NULL;
    const char *names = ret && ret->code == OP_RETURN ? attr_str(ret->attrs, AT_NAMES) : NULL;
    size_t n = strlen(name);
    for (uint32_t i = 0; names && i < ret->n_in; i++) {
        size_t len = strcspn(names, ",");
        if (len == n && memcmp(names, name, n) == 0) return ret->in[i];
        names = names[len] ? names + len + 1 : NULL;
    }
    return (ValueId){0};
}
