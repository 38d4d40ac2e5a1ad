/* cpu_features.c -- may this CPU run the kernels?  Asked before the first kernel, so that a lacking
 * feature is a message and never SIGILL. */
#include "runtime/program.h"

#include <string.h>

#if defined(__x86_64__)
bool cpu_has(const char *feature, bool *is_known)
{
    *is_known = true;
    __builtin_cpu_init();
#define CPU_FEATURE(NAME)                                                                          \
    if (strcmp(feature, NAME) == 0) return __builtin_cpu_supports(NAME) != 0;
#include "runtime/cpu_features.def"
#undef CPU_FEATURE
    *is_known = false;
    return false;
}
#else
bool cpu_has(const char *feature, bool *is_known)
{
    (void)feature;
    *is_known = false;
    return false;
}
#endif

RtStatus program_check_cpu(const Program *p, RtError *e)
{
    const char *list = program_str(p, p->h->cpu_features);
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ",");
        char name[64];
        if (n >= sizeof name) n = sizeof name - 1;
        memcpy(name, at, n);
        name[n] = '\0';
        bool is_known;
        if (n && !cpu_has(name, &is_known))
            return RT_FAIL(e, RT_BAD,
                           "this CPU %s %s, which the program was compiled to use (--cpu %s); "
                           "compile it again on this "
                           "machine, or with --cpu x86-64-v3 or x86-64-v2",
                           is_known ? "lacks" : "cannot be asked for", name,
                           program_str(p, p->h->cpu));
        at += strcspn(at, ",");
        if (*at == ',') at++;
    }
    return RT_OK;
}
