/* error.c -- see error.h. */
#include "runtime/error.h"

#include <stdarg.h>
#include <stdio.h>

RtStatus rt_fail(RtError *e, RtStatus status, const char *fmt, ...)
{
    if (e->text.n) return status;
    char buf[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    str_add(&e->text, buf);
    return status;
}
