/* loss_scale.h -- settings of loss scaling by name, their defaults and their limits, for the
 * language, the command line and textual IR.  What they do: docs/precision.md. */
#ifndef ZM_IR_LOSS_SCALE_H
#define ZM_IR_LOSS_SCALE_H

#include "ir/ir.h"

typedef enum { SK_REAL, SK_COUNT, SK_BOOL, SK_RULE } ScaleKeyKind;

/* A setting of a dynamic scale: `init = 65536`. */
typedef struct ScaleKey {
    const char *name;
    ScaleKeyKind kind;
    size_t offset; /* in LossScale */
} ScaleKey;

enum { N_SCALE_KEY = 6, MAX_SCALE_COUNT = INT32_MAX };
extern const ScaleKey scale_keys[N_SCALE_KEY];
const ScaleKey *scale_key_find(const char *name, size_t n); /* NULL: no such setting */

/* Does the rule look at that setting? */
bool scale_key_is_used(ScaleRule rule, const ScaleKey *key);

/* Finds a rule's name. */
bool scale_rule_find(const char *name, size_t n, ScaleRule *rule);
const char *scale_rule_name(ScaleRule rule);

/* A dynamic scale as its rule's authors set it up. */
LossScale loss_scale_dynamic(ScaleRule rule);

/* Why such a scale is refused, in a; NULL: it is fine. */
const char *loss_scale_refusal(Arena *a, const LossScale *s);

#endif
