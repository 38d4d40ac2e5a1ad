/* state_names.c -- see state_names.h. */
#include "passes/state_names.h"

#include <ctype.h>
#include <string.h>

#include "ir/base/program.h"

static const char *const scalars[] = {
    ZMP_S_STEP,       ZMP_S_UPDATE,     ZMP_S_LOSS_SUM, ZMP_S_COUNT,     ZMP_S_LOSS,
    ZMP_S_GRAD_NORM,  ZMP_S_LR,         ZMP_S_SKIPPED,  ZMP_S_SKIPS,     ZMP_S_SCALE,
    ZMP_S_SCALE_USED, ZMP_S_HYSTERESIS, ZMP_S_GOOD,     ZMP_S_EXHAUSTED, ZMP_S_EVAL_SUM,
    ZMP_S_EVAL_COUNT, ZMP_S_STOP,       ZMP_S_STOPS};
static const char *const slots[] = {STATE_MASTER, STATE_GRAD, STATE_EXP_AVG, STATE_EXP_AVG_SQ,
                                    STATE_MOMENTUM};

/* What follows "head." in path; NULL when it does not begin so. */
static const char *after_head(const char *path, const char *head)
{
    size_t n = strlen(head);
    return strncmp(path, head, n) == 0 && path[n] == '.' ? path + n + 1 : NULL;
}

static bool is_state_name(const char *path)
{
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        if (strcmp(path, scalars[i]) == 0) return true;
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        if (after_head(path, slots[i])) return true;
    const char *number = after_head(path, STATE_BUCKET);
    while (number && isdigit((unsigned char)*number)) number++;
    return number && !*number;
}

VarId state_scalar(Module *m, const char *name, DType dtype, double init, LocId loc)
{
    VarId have = var_find(m, name);
    if (var_ok(have)) return have;
    Var v = {.name = name,
             .type = type_get(m, dtype, 0, NULL),
             .kind = VK_SCALAR,
             .init = INIT_CONST,
             .init_a = init,
             .loc = loc};
    if (init == 0) v.init = INIT_ZEROS;
    return var_new(m, v);
}

Status state_names_check(PassCtx *cx)
{
    Status ok = ZM_OK;
    for (uint32_t i = 1; i < cx->m->vars.n; i++) {
        const Var *v = &cx->m->vars.at[i];
        if (v->kind != VK_PARAM || v->is_bucket || !is_state_name(v->name)) continue;
        ok = diag_error(cx->m->diag, loc_pos(cx->m, v->loc), E_STATE_NAME,
                        "a parameter may not have the path %s: it names state of the training step",
                        v->name);
        diag_help(cx->m->diag,
                  "rename it; a weights section can keep the published name: "
                  "rename \"%s\" = ...",
                  v->name);
    }
    return ok;
}

const char *repeat_instance(Module *m, const char *path, uint32_t depth)
{
    for (const char *p = path; p; p = strchr(p, '.') ? strchr(p, '.') + 1 : NULL) {
        const char *q = p;
        while (isdigit((unsigned char)*q)) q++;
        if (q > p && (*q == '.' || *q == '\0') && depth-- == 0)
            return intern_n(&m->strings, path, (size_t)(q - path));
    }
    return module_str(m, "");
}
