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

static const char *const precisions[] = {"fp32", "bf16", "fp16", NULL};
static const char *const amp_modes[] = {"master", "autocast", NULL};
static const char *const scale_rules[] = {"deepspeed", "gradscaler", NULL};
_Static_assert(COUNT(precisions) == PREC_FP16 + 2, "one word per kind");
_Static_assert(COUNT(amp_modes) == AMP_AUTOCAST + 2, "one word per kind");
_Static_assert(COUNT(scale_rules) == SCALE_GRADSCALER + 2, "one word per kind");
_Static_assert(sizeof(PrecisionKind) == sizeof(int) && sizeof(OptimizerKind) == sizeof(int),
               "fields of kind WORD are read as int");

#define FIELD(NAME, MEMBER, KIND) {NAME, offsetof(TrainConfig, MEMBER), TF_##KIND, NULL, NULL}
#define WORDS(NAME, MEMBER, LIST, WHAT) {NAME, offsetof(TrainConfig, MEMBER), TF_WORD, LIST, WHAT}
const TrainField text_train_fields[] = {
    WORDS("optimizer", optimizer, text_optimizers, "an optimizer"),
    FIELD("lr", lr, FLOAT),
    FIELD("beta1", beta1, FLOAT),
    FIELD("beta2", beta2, FLOAT),
    FIELD("eps", eps, FLOAT),
    FIELD("decay", decay, FLOAT),
    FIELD("momentum", momentum, FLOAT),
    FIELD("nesterov", nesterov, BOOL),
    WORDS("schedule", schedule, text_schedules, "a schedule"),
    FIELD("warmup", warmup, FLOAT),
    FIELD("total", total, FLOAT),
    FIELD("min", min_lr, FLOAT),
    FIELD("clip", clip, FLOAT),
    FIELD("accumulate", accumulate, INT),
    WORDS("precision", precision, precisions, "a precision"),
    WORDS("amp", amp, amp_modes, "a mode of mixed precision"),
    FIELD("grad_low", grad_low, BOOL),
    FIELD("moments_bf16", moments_bf16, BOOL),
    FIELD("pure", pure, BOOL),
    FIELD("zero", zero, INT),
    FIELD("comm_low", comm_low, BOOL),
    FIELD("reduce_at_step", reduce_at_step, BOOL),
    FIELD("scale_dynamic", scale.is_dynamic, BOOL),
    WORDS("scale_rule", scale.rule, scale_rules, "a rule of loss scaling"),
    FIELD("scale_init", scale.init, FLOAT),
    FIELD("scale_window", scale.window, INT),
    FIELD("scale_hysteresis", scale.hysteresis, INT),
    FIELD("scale_consecutive", scale.consecutive, BOOL),
    FIELD("scale_min", scale.min, FLOAT),
    {NULL, 0, TF_INT, NULL, NULL},
};

const TrainConfig train_defaults = {
    .accumulate = 1,
    .scale = {.init = 1, .min = 1, .window = 1000, .hysteresis = 2},
};

DType precision_dtype(PrecisionKind p)
{
    if (p == PREC_FP32) return DT_NONE;
    return p == PREC_BF16 ? DT_BF16 : DT_F16;
}

const char *precision_name(PrecisionKind p)
{
    return precisions[p];
}

const char *amp_mode_name(AmpMode a)
{
    return amp_modes[a];
}

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
    if (a->key == AT_SHARD) return a->as.i == type_placing(result);
    if (a->key != AT_SHAPE || (int)a->as.list.n != result->rank) return false;
    for (int i = 0; i < result->rank; i++)
        if (a->as.list.at[i] != result->dim[i]) return false;
    return true;
}
