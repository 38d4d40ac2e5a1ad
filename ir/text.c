/* text.c -- words and fields of textual IR (text.h). */
#include "ir/text.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

const char *const text_inits[] = {"zeros", "ones", "const", "normal", "uniform", NULL};
const char *const text_weight_rules[] = {"strip", "ignore", "alias", "rename", NULL};
const char *const text_feeds[] = {"tokens",       "targets",      "tensor",
                                  "masked",       "mask_targets", "span_inputs",
                                  "span_targets", "span_decoder", NULL};
const char *const text_schedules[] = {"constant", "linear", "cosine", NULL};
const char *const text_optimizers[] = {"none", "sgd", "adam", "adamw", "lion", NULL};
const char *const text_facts[] = {
#define FACT(ID, NAME, DOC_) NAME,
#include "ir/facts.def"
#undef FACT
    NULL};

#define COUNT(T) (sizeof(T) / sizeof *(T))
_Static_assert(COUNT(text_inits) == INIT_UNIFORM + 2, "one word per kind");
_Static_assert(COUNT(text_weight_rules) == WR_RENAME + 2, "one word per kind");
_Static_assert(COUNT(text_feeds) == N_FEED_KIND + 1, "one word per kind");
_Static_assert(COUNT(text_schedules) == SCHED_COSINE + 2, "one word per kind");
_Static_assert(COUNT(text_optimizers) == OPT_LION + 2, "one word per kind");

int text_word(const char *const *words, const char *at, size_t n)
{
    for (int i = 0; words[i]; i++)
        if (strlen(words[i]) == n && memcmp(words[i], at, n) == 0) return i;
    return WORD_NONE;
}

#define FIELD(NAME, MEMBER, KIND) {NAME, offsetof(TrainConfig, MEMBER), TF_##KIND}
const TrainField text_train_fields[] = {
    FIELD("optimizer", optimizer, OPTIMIZER),
    FIELD("lr", lr, FLOAT),
    FIELD("beta1", beta1, FLOAT),
    FIELD("beta2", beta2, FLOAT),
    FIELD("eps", eps, FLOAT),
    FIELD("decay", decay, FLOAT),
    FIELD("momentum", momentum, FLOAT),
    FIELD("nesterov", nesterov, BOOL),
    FIELD("schedule", schedule, SCHEDULE),
    FIELD("warmup", warmup, FLOAT),
    FIELD("total", total, FLOAT),
    FIELD("min", min_lr, FLOAT),
    FIELD("clip", clip, FLOAT),
    FIELD("accumulate", accumulate, INT),
    {NULL, 0, TF_INT},
};

bool text_is_plain_name(const char *name)
{
    if (!isalpha((unsigned char)*name) && *name != '_') return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '_' && *p != '.') return false;
    return name[strlen(name) - 1] != '.' && !strstr(name, "..");
}

bool text_attr_follows_type(const Attr *a, const Type *result)
{
    if (a->key == AT_DTYPE) return (DType)a->as.i == result->dtype;
    if (a->key != AT_SHAPE || (int)a->as.list.n != result->rank) return false;
    for (int i = 0; i < result->rank; i++)
        if (a->as.list.at[i] != result->dim[i]) return false;
    return true;
}
