/* loss_scale.c -- see loss_scale.h. */
#include "ir/loss_scale.h"

#include <float.h>
#include <stddef.h>
#include <string.h>

static const char *const rules[] = {"deepspeed", "gradscaler"};

const ScaleKey scale_keys[N_SCALE_KEY] = {
    {"init", SK_REAL, offsetof(LossScale, init)},
    {"window", SK_COUNT, offsetof(LossScale, window)},
    {"hysteresis", SK_COUNT, offsetof(LossScale, hysteresis)},
    {"consecutive", SK_BOOL, offsetof(LossScale, consecutive)},
    {"min", SK_REAL, offsetof(LossScale, min)},
    {"rule", SK_RULE, offsetof(LossScale, rule)},
};

const ScaleKey *scale_key_find(const char *name, size_t n)
{
    for (int i = 0; i < N_SCALE_KEY; i++)
        if (strlen(scale_keys[i].name) == n && memcmp(scale_keys[i].name, name, n) == 0)
            return &scale_keys[i];
    return NULL;
}

bool scale_key_is_used(ScaleRule rule, const ScaleKey *key)
{
    return rule != SCALE_GRADSCALER || key->kind == SK_RULE || strcmp(key->name, "init") == 0 ||
           strcmp(key->name, "window") == 0;
}

bool scale_rule_find(const char *name, size_t n, ScaleRule *rule)
{
    for (int i = SCALE_DEEPSPEED; i <= SCALE_GRADSCALER; i++) {
        if (strlen(rules[i]) != n || memcmp(rules[i], name, n) != 0) continue;
        *rule = (ScaleRule)i;
        return true;
    }
    return false;
}

const char *scale_rule_name(ScaleRule rule)
{
    return rules[rule];
}

LossScale loss_scale_dynamic(ScaleRule rule)
{
    return (LossScale){.is_dynamic = true,
                       .rule = rule,
                       .init = 65536,
                       .min = 1,
                       .window = rule == SCALE_GRADSCALER ? 2000 : 1000,
                       .hysteresis = 2};
}

/* Scales are f32 on the device; subnormal ones have lost bits already. */
static const char *real_refusal(Arena *a, const char *name, double v)
{
    if (v >= FLT_MIN && v <= FLT_MAX) return NULL;
    return arena_printf(a, "%s must be a positive number from %.3g to %.3g, not %.12g", name,
                        (double)FLT_MIN, (double)FLT_MAX, v);
}

static const char *count_refusal(Arena *a, const char *name, int64_t v)
{
    if (v >= 1 && v <= MAX_SCALE_COUNT) return NULL;
    return arena_printf(a, "%s must be an integer from 1 to %d, not %lld", name, MAX_SCALE_COUNT,
                        (long long)v);
}

const char *loss_scale_refusal(Arena *a, const LossScale *s)
{
    const char *why = real_refusal(a, s->is_dynamic ? "init" : "the loss scale", s->init);
    if (why || !s->is_dynamic) return why;
    if ((why = count_refusal(a, "window", s->window))) return why;
    if (s->rule == SCALE_GRADSCALER) return NULL; /* knows no minimum and no hysteresis */
    if ((why = count_refusal(a, "hysteresis", s->hysteresis))) return why;
    if ((why = real_refusal(a, "min", s->min))) return why;
    if (s->min <= s->init) return NULL;
    return arena_printf(a, "min = %.12g is larger than init = %.12g", s->min, s->init);
}
