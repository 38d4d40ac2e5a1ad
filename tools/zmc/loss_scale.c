/* loss_scale.c -- `--loss-scale N | dynamic[:key=value,...]` (zmc.h). */
#include "tools/zmc/zmc.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/loss_scale.h"

/* "key=value" of the list. */
typedef struct Item {
    const char *text; /* of the whole list's copy, ended by 0 */
    const ScaleKey *key;
    const char *value;
} Item;

static Status refuse(Session *s, const char *why)
{
    diag_error(&s->diag, (SrcPos){0}, E_USAGE, "--loss-scale %s: %s", s->opt.loss_scale, why);
    diag_help(&s->diag,
              "--loss-scale takes a number above 0, or dynamic, or dynamic: and any of "
              "init=65536,window=1000,hysteresis=2,consecutive=0,min=1,rule=deepspeed|gradscaler");
    return ZM_FAIL;
}

/* NaN: not a number. */
static double real_of(const char *text)
{
    char *end;
    if (!*text || strspn(text, "+-.0123456789eE") != strlen(text)) return NAN;
    double v = strtod(text, &end);
    return *end ? NAN : v;
}

static bool count_of(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text && strspn(text, "-0123456789") == strlen(text) && !*end && !errno;
}

static bool bool_of(const char *text, bool *out)
{
    *out = strcmp(text, "1") == 0 || strcmp(text, "true") == 0;
    return *out || strcmp(text, "0") == 0 || strcmp(text, "false") == 0;
}

static Status set_item(Session *s, LossScale *to, const Item *item)
{
    void *field = (char *)to + item->key->offset;
    const char *v = item->value, *takes = NULL;
    switch (item->key->kind) {
    case SK_REAL:
        *(double *)field = real_of(v);
        if (isnan(*(double *)field)) takes = "a number";
        break;
    case SK_COUNT:
        if (!count_of(v, field)) takes = "an integer";
        break;
    case SK_BOOL:
        if (!bool_of(v, field)) takes = "0 or 1";
        break;
    case SK_RULE:
        if (!scale_rule_find(v, strlen(v), field)) takes = "deepspeed or gradscaler";
        break;
    }
    return takes ? refuse(s, arena_printf(&s->arena, "%s takes %s, not '%s'", item->key->name,
                                          takes, v))
                 : ZM_OK;
}

static Status split_item(Session *s, Item *item)
{
    const char *eq = strchr(item->text, '=');
    if (!eq) return refuse(s, arena_printf(&s->arena, "'%s' is not key=value", item->text));
    item->value = eq + 1;
    item->key = scale_key_find(item->text, (size_t)(eq - item->text));
    return item->key ? ZM_OK
                     : refuse(s, arena_printf(&s->arena, "unknown setting '%.*s'",
                                              (int)(eq - item->text), item->text));
}

/* What the rule does not look at. */
static void warn_unused(Session *s, const LossScale *scale, const Item *item)
{
    if (scale_key_is_used(scale->rule, item->key)) return;
    diag_warning(&s->diag, (SrcPos){0}, E_USAGE, "--loss-scale: rule %s has no %s: %s is not used",
                 scale_rule_name(scale->rule), item->key->name, item->text);
}

static Status parse_list(Session *s, const char *list, LossScale *out)
{
    Item item[N_SCALE_KEY];
    uint32_t n = 0;
    char *rest = arena_strdup(&s->arena, list);
    ScaleRule rule = SCALE_DEEPSPEED;
    for (char *next; rest; rest = next) {
        if ((next = strchr(rest, ','))) *next++ = '\0';
        Item it = {.text = rest};
        ZM_TRY(split_item(s, &it));
        for (uint32_t i = 0; i < n; i++)
            if (item[i].key == it.key)
                return refuse(s, arena_printf(&s->arena, "%s is given twice", it.key->name));
        if (it.key->kind == SK_RULE) scale_rule_find(it.value, strlen(it.value), &rule);
        item[n++] = it;
    }
    *out = loss_scale_dynamic(rule); /* the other defaults depend on it */
    for (uint32_t i = 0; i < n; i++) ZM_TRY(set_item(s, out, &item[i]));
    for (uint32_t i = 0; i < n; i++) warn_unused(s, out, &item[i]);
    return ZM_OK;
}

Status loss_scale_parse(Session *s, const char *text, LossScale *out)
{
    static const char head[] = "dynamic";
    const char *rest = strncmp(text, head, sizeof head - 1) == 0 ? text + sizeof head - 1 : NULL;
    if (rest && *rest == ':')
        ZM_TRY(parse_list(s, rest + 1, out));
    else if (rest && !*rest)
        *out = loss_scale_dynamic(SCALE_DEEPSPEED);
    else {
        *out = (LossScale){.init = real_of(text), .min = 1, .window = 1000, .hysteresis = 2};
        if (isnan(out->init)) return refuse(s, "neither a number nor dynamic:...");
    }
    const char *why = loss_scale_refusal(&s->arena, out);
    return why ? refuse(s, why) : ZM_OK;
}
