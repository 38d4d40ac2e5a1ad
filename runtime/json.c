/* json.c -- see json.h. */
#include "runtime/json.h"

RtStatus json_object_read(json_t **out, const char *text, size_t n, const char *what, RtError *e)
{
    json_error_t err;
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &err);
    if (!*out)
        return RT_FAIL(e, RT_BAD, "%s is not valid JSON: %s at byte %d", what, err.text,
                       err.position);
    if (json_is_object(*out)) return RT_OK;
    json_decref(*out);
    *out = NULL;
    return RT_FAIL(e, RT_BAD, "%s is not a JSON object", what);
}

bool json_get_text(const json_t *o, const char *key, const char **out)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v)) return false;
    *out = json_string_value(v);
    return true;
}

bool json_get_int(const json_t *o, const char *key, int64_t *out)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v)) return false;
    *out = json_integer_value(v);
    return true;
}
