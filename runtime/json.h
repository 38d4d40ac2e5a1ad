/* json.h -- JSON read from a file's bytes, with errors that name the file and the place. */
#ifndef ZM_RUNTIME_JSON_H
#define ZM_RUNTIME_JSON_H

#include <jansson.h>

#include "runtime/error.h"

/* An object; json_decref it.  what: "header of x.safetensors". */
RtStatus json_object_read(json_t **out, const char *text, size_t n, const char *what, RtError *e);

/* false when absent or of another kind. */
bool json_get_text(const json_t *o, const char *key, const char **out);
bool json_get_int(const json_t *o, const char *key, int64_t *out);

#endif
