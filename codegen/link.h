/* link.h -- from object files to an executable, by the system's cc. */
#ifndef ZM_CODEGEN_LINK_H
#define ZM_CODEGEN_LINK_H

#include "ir/base/diag.h"

/* A fresh folder for object files, under $TMPDIR or /tmp; E_FILE when there is none to be had. */
Status link_dir_new(Arena *a, Diag *diag, const char **dir);
void link_dir_remove(const char *dir); /* with the files in it */

/* Links objects and the runtime library into out_path (position-independent, dynamic libc).
 * out_path is replaced in one step, and only when all went well.  cc missing, or its complaints,
 * are diagnostics. */
Status link_executable(Arena *a, Diag *diag, const char *const *objects, uint32_t n_objects,
                       const char *runtime_lib, const char *dir, const char *out_path);

/* The same objects as a shared library, for this process to load. */
Status link_shared(Arena *a, Diag *diag, const char *const *objects, uint32_t n_objects,
                   const char *dir, const char *out_path);

#endif
