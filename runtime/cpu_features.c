/* cpu_features.c -- may this CPU run the kernels?  Asked before the first kernel, so that a lacking
 * feature is a message and never SIGILL. */
#include "runtime/program.h"

#include <string.h>

#if defined(__x86_64__)
/* __builtin_cpu_supports takes a literal only: a table of questions. */
#define CPU_FEATURES(F)                                                                            \
    F("cmov")                                                                                      \
    F("mmx")                                                                                       \
    F("popcnt")                                                                                    \
    F("sse")                                                                                       \
    F("sse2")                                                                                      \
    F("sse3")                                                                                      \
    F("ssse3")                                                                                     \
    F("sse4.1")                                                                                    \
    F("sse4.2") F("avx") F("avx2") F("fma") F("f16c") F("bmi") F("bmi2") F("lzcnt") F("movbe")     \
        F("aes") F("pclmul") F("avx512f") F("avx512vl") F("avx512bw") F("avx512dq") F("avx512cd")  \
            F("avx512vbmi") F("avx512ifma") F("avx512vpopcntdq") F("avx512vbmi2") F("gfni")        \
                F("vpclmulqdq") F("vaes") F("avx512vnni") F("avx512bitalg") F("avx512bf16")        \
                    F("avx512vp2intersect") F("avx512fp16") F("avxvnni") F("fma4") F("xop")        \
                        F("sse4a") F("fsgsbase") F("rdrnd") F("rdseed") F("adx") F("sha")          \
                            F("clflushopt") F("clwb") F("x86-64-v2") F("x86-64-v3") F("x86-64-v4")

bool cpu_has(const char *feature, bool *is_known)
{
    *is_known = true;
    __builtin_cpu_init();
#define ASK(NAME)                                                                                  \
    if (strcmp(feature, NAME) == 0) return __builtin_cpu_supports(NAME) != 0;
    CPU_FEATURES(ASK)
#undef ASK
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
