/* target.c -- which x86-64 processor the code is for.
 *
 * Code uses one of three levels (the x86-64 psABI's v2, v3, v4), plus AVX512-BF16 where the
 * processor has it; a named or the native processor chooses the level and the cost tables only.  So
 * what an executable needs is a short, fixed list that it checks before its first step. */
#include <llvm-c/TargetMachine.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cpu/cpu.h"

typedef struct CpuName {
    const char *name;
    int level;
    bool has_bf16;
} CpuName;

static const CpuName cpu_names[] = {
    {"alderlake", 3, false},      {"arrowlake", 3, false},      {"broadwell", 3, false},
    {"cascadelake", 4, false},    {"cooperlake", 4, true},      {"emeraldrapids", 4, true},
    {"graniterapids", 4, true},   {"haswell", 3, false},        {"icelake-client", 4, false},
    {"icelake-server", 4, false}, {"ivybridge", 2, false},      {"nehalem", 2, false},
    {"sandybridge", 2, false},    {"sapphirerapids", 4, true},  {"sierraforest", 3, false},
    {"skylake", 3, false},        {"skylake-avx512", 4, false}, {"tigerlake", 4, false},
    {"westmere", 2, false},       {"x86-64-v2", 2, false},      {"x86-64-v3", 3, false},
    {"x86-64-v4", 4, false},      {"znver1", 3, false},         {"znver2", 3, false},
    {"znver3", 3, false},         {"znver4", 4, true},          {"znver5", 4, true},
};

#define NEEDS_V2 "popcnt,sse3,ssse3,sse4.1,sse4.2"
#define NEEDS_V3 NEEDS_V2 ",avx,avx2,bmi,bmi2,f16c,fma,lzcnt,movbe"
#define NEEDS_V4 NEEDS_V3 ",avx512f,avx512bw,avx512cd,avx512dq,avx512vl"

static const char *const level_features_v3[] = {"+avx2", "+bmi",   "+bmi2", "+f16c",
                                                "+fma",  "+lzcnt", "+movbe"};
static const char *const level_features_v4[] = {"+avx512f", "+avx512bw", "+avx512cd", "+avx512dq",
                                                "+avx512vl"};

/* Is `item` one of the comma-separated entries of list? */
static bool list_has(const char *list, const char *item)
{
    size_t n = strlen(item);
    for (const char *at = list; (at = strstr(at, item)) != NULL; at += n)
        if ((at == list || at[-1] == ',') && (at[n] == ',' || at[n] == '\0')) return true;
    return false;
}

static bool list_has_all(const char *list, const char *const *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!list_has(list, items[i])) return false;
    return true;
}

static int level_of_features(const char *features)
{
    if (!list_has(features, "+sse4.2") || !list_has(features, "+popcnt")) return 1;
    size_t n3 = sizeof level_features_v3 / sizeof *level_features_v3;
    size_t n4 = sizeof level_features_v4 / sizeof *level_features_v4;
    if (!list_has_all(features, level_features_v3, n3)) return 2;
    return list_has_all(features, level_features_v4, n4) ? 4 : 3;
}

static void target_fill(CpuTarget *t, int level, bool has_bf16)
{
    static const char *const names[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
    static const char *const needs[] = {NEEDS_V2, NEEDS_V3, NEEDS_V4};
    has_bf16 = has_bf16 && level == 4;
    t->cpu = names[level - 2];
    t->features = has_bf16 ? "+avx512bf16" : "";
    t->needs = has_bf16 ? NEEDS_V4 ",avx512bf16" : needs[level - 2];
    t->vector_bytes = level == 4 ? 64 : level == 3 ? 32 : 16;
    t->n_vector_regs = level == 4 ? 32 : 16;
    t->has_fma = t->has_f16c = t->has_avx2 = level >= 3;
    t->has_avx512 = level == 4;
    t->has_avx512bf16 = has_bf16;
    t->l1_bytes = 32 << 10;
    t->l2_bytes = 1 << 20;
}

static Status target_native(Arena *a, Diag *diag, CpuTarget *out)
{
    char *cpu = LLVMGetHostCPUName();
    char *features = LLVMGetHostCPUFeatures();
    int level = level_of_features(features);
    out->tune = arena_strdup(a, cpu);
    if (level >= 2) target_fill(out, level, list_has(features, "+avx512bf16"));
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(features);
    if (level >= 2) return ZM_OK;
    return diag_error(diag, (SrcPos){0}, E_CODEGEN,
                      "this processor (%s) lacks SSE4.2 or POPCNT, which every target of zmc needs",
                      out->tune);
}

Status cpu_target_from_name(Arena *a, Diag *diag, const char *name, CpuTarget *out)
{
    *out = (CpuTarget){.name = arena_strdup(a, name)};
    if (strcmp(name, "native") == 0) return target_native(a, diag, out);
    size_t n = sizeof cpu_names / sizeof *cpu_names;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(cpu_names[i].name, name) != 0) continue;
        out->tune = cpu_names[i].name;
        target_fill(out, cpu_names[i].level, cpu_names[i].has_bf16);
        return ZM_OK;
    }
    diag_error(diag, (SrcPos){0}, E_CODEGEN, "--cpu %s: no such processor", name);
    Str list = {0};
    for (size_t i = 0; i < n; i++) str_addf(&list, "%s%s", i ? ", " : "", cpu_names[i].name);
    diag_help(diag, "native, or one of %s", str_c(&list));
    str_free(&list);
    return ZM_FAIL;
}

bool cpu_target_runs_here(const CpuTarget *t)
{
    char *features = LLVMGetHostCPUFeatures();
    int level = level_of_features(features);
    bool has_bf16 = list_has(features, "+avx512bf16");
    LLVMDisposeMessage(features);
    int want = t->has_avx512 ? 4 : t->has_avx2 ? 3 : 2;
    return level >= want && (has_bf16 || !t->has_avx512bf16);
}
