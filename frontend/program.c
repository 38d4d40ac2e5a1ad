/* program.c -- sorts the items of a file. */
#include "frontend/elab.h"

static Status add_model(Diag *diag, Program *prog, Ast *model)
{
    if (prog->model) {
        diag_error(diag, model->name_pos, E_MODEL, "a second model %s: a file describes one",
                   model->text);
        diag_note(diag, prog->model->name_pos, "model %s is here", prog->model->text);
        return ZM_FAIL;
    }
    prog->model = model;
    return ZM_OK;
}

Status program_sort(Arena *arena, Diag *diag, Ast *file, Program *prog)
{
    uint32_t n_errors = diag->n_errors;
    Status st = ZM_OK;
    if (file->n > MAX_NAMES)
        return diag_error(diag, file->kid[MAX_NAMES]->pos, E_LIMIT,
                          "more than %d declarations in a file", MAX_NAMES);
    for (uint32_t i = 0; i < file->n; i++) {
        Ast *item = file->kid[i];
        if (item->kind == AST_DIM || item->kind == AST_CONST || item->kind == AST_ASSERT)
            VEC_PUSH(arena, &prog->globals, item);
        else if (item->kind == AST_BLOCK)
            VEC_PUSH(arena, &prog->blocks, item);
        else if (item->kind == AST_SECTION)
            VEC_PUSH(arena, &prog->sections, item);
        else if (item->kind == AST_MODEL && add_model(diag, prog, item) != ZM_OK)
            st = ZM_FAIL;
    }
    /* After syntax errors a missing model may be one that could not be read. */
    if (prog->model || n_errors) return st;
    SrcPos end = {.source = file->pos.source, .line = 1, .col = 1, .len = 1};
    diag_error(diag, end, E_MODEL, "the file has no model");
    diag_help(diag, "write model name(x: [B, n], y: int[B]) { ... loss cross_entropy(logits, y) }");
    return ZM_FAIL;
}
