/* text.h -- what the printer and the parser of textual IR share: words and fields (docs/ir.md). */
#ifndef ZM_IR_TEXT_H
#define ZM_IR_TEXT_H

#include "ir/ir.h"

/* Words of enums, in enum order; NULL-terminated. */
extern const char *const text_inits[],
    *const text_weight_rules[],
        *const text_feeds[], *const text_schedules[], *const text_optimizers[], *const text_facts[];

enum { WORD_NONE = -1 };
int text_word(const char *const *words, const char *at, size_t n); /* index or WORD_NONE */

/* Fields of TrainConfig that the text holds; a field that has its default is not printed. */
typedef enum { TF_FLOAT, TF_INT, TF_BOOL, TF_WORD } TrainFieldKind;
typedef struct TrainField {
    const char *name;
    size_t offset;
    TrainFieldKind kind;
    const char *const *words; /* WORD: an enum's, in its order; what = "a schedule" */
    const char *what;
} TrainField;
extern const TrainField text_train_fields[]; /* ends with name NULL */

/* May name stand without quotes?  [A-Za-z_][A-Za-z0-9_.]* */
bool text_is_plain_name(const char *name);

/* Is `shape` (or `dtype`) of the op what its result's type says?  Then the text leaves it out. */
bool text_attr_follows_type(const Attr *a, const Type *result);

#endif
