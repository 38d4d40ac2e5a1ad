/* sections.h -- what the readers of sections share. */
#ifndef ZM_FRONTEND_SECTIONS_H
#define ZM_FRONTEND_SECTIONS_H

#include "frontend/elab.h"

/* Settings of the section `name`; NULL when the file has none. */
const Ast *section_find(const Elab *e, const char *name);
/* The setting's one value; NULL when the section or setting is absent.  An error when it is given
 * twice. */
const Ast *setting_value(Elab *e, const Ast *section, const char *name);

Status train_read(Elab *e);                        /* sections_train.c */
Status loss_scale_read(Elab *e, const Ast *train); /* sections_scale.c */
void loss_scale_settings_each(Arena *a, void (*visit)(void *cx, const char *name), void *cx);
/* sections_data.c: the feeds; without the section every input is a tensor of its name. */
Status data_read(Elab *e);
Status data_check(Elab *e); /* once the feeds' bounds are known */

#endif
