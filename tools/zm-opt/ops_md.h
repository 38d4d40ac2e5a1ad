/* ops_md.h -- docs/ops.md from the op table. */
#ifndef ZM_TOOLS_OPS_MD_H
#define ZM_TOOLS_OPS_MD_H

#include "ir/ir.h"

void ops_md_print(Str *out);

#endif
