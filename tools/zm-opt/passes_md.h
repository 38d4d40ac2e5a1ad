/* passes_md.h -- docs/passes.md from the tables of passes. */
#ifndef ZM_TOOLS_PASSES_MD_H
#define ZM_TOOLS_PASSES_MD_H

#include "ir/ir.h"

void passes_md_print(Str *out);

#endif
