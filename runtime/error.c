/* error.c -- see error.h. */
#include "runtime/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void rt_say(RtError *e, const char *fmt, ...)
{
    if (e->text.n) return;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *text = n >= 0 ? malloc((size_t)n + 1) : NULL;
    if (text) vsnprintf(text, (size_t)n + 1, fmt, ap);
    va_end(ap);
    str_add(&e->text, text ? text : fmt);
    free(text);
}
