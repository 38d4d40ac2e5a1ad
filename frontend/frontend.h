/* frontend.h -- a .zm file to a Module.  The language: docs/language.md. */
#ifndef ZM_FRONTEND_FRONTEND_H
#define ZM_FRONTEND_FRONTEND_H

#include "ir/ir.h"

typedef struct Define { /* -D name=value */
    const char *name, *value;
    bool used; /* set by frontend_compile */
} Define;

typedef struct FrontendOptions {
    Define *defines;
    uint32_t n_defines;
    Define *overrides; /* of the precision: NAME=f32|low, NAME a block, an instance's path (a glob)
                          or an op; of two for one op the later holds */
    uint32_t n_overrides;
} FrontendOptions;

/* Parses, checks and lowers one .zm file into a new Module: variables of kind param, weight_rules,
 * feeds, train, batch, items, and the functions
 *   @train(%<input>..., %rng: i32[4])  returns loss, weight: f32 items of the loss and 1 where an
 * item counts, 0 where it is ignored.  %rng only when something draws random numbers.
 *   @eval(%<input>...)                 the same without dropout
 *   @generate(%<input>...)             the outputs by name, with a batch of 1 and only the inputs
 * that they need; exists when the model has outputs and dimension 0 of every input is one plain
 * `dim` NULL after errors; warnings may be in diag also on success.  `file` is the path as shown in
 * messages.  opt may be NULL. */
Module *frontend_compile(Arena *arena, SourceSet *sources, Diag *diag, const char *file,
                         const char *text, size_t n, FrontendOptions *opt);

/* The syntax tree, one node a line (zmc --emit ast).  ZM_FAIL after syntax errors. */
Status frontend_print_ast(Arena *arena, SourceSet *sources, Diag *diag, const char *file,
                          const char *text, size_t n, Str *out);

#endif
