/* peaks_file.c -- stored measurements of the machine (peaks.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/base/file.h"
#include "runtime/json.h"
#include "runtime/metrics.h"
#include "runtime/peaks.h"

void peaks_path(char *out, size_t n)
{
    const char *file = getenv("ZMC_PEAKS"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (file)
        snprintf(out, n, "%s", file);
    else if (cache && *cache)
        snprintf(out, n, "%s/zmc/peaks.json", cache);
    else
        snprintf(out, n, home ? "%s/.cache/zmc/peaks.json" : "", home);
}

typedef struct PeakField {
    const char *key;
    size_t at;
    bool may_be_zero;
} PeakField;

static const PeakField FIELDS[] = {
    {"flops_one", offsetof(Peaks, flops_one), false},
    {"flops", offsetof(Peaks, flops), false},
    {"flops_bf16", offsetof(Peaks, flops_bf16), true},
    {"read_bytes_s", offsetof(Peaks, read_bytes_s), false},
    {"copy_bytes_s", offsetof(Peaks, copy_bytes_s), false},
    {"stream_bytes_s", offsetof(Peaks, stream_bytes_s), false},
};
enum { N_FIELDS = sizeof FIELDS / sizeof *FIELDS };

void peaks_add_json(Str *out, const Peaks *p)
{
    str_add(out, "{\"cpu\":");
    str_add_json(out, p->cpu);
    str_addf(out, ",\"threads\":%d", p->threads);
    for (int i = 0; i < N_FIELDS; i++) {
        str_addf(out, ",\"%s\":", FIELDS[i].key);
        json_add_number(out, *(const double *)(const void *)((const char *)p + FIELDS[i].at));
    }
    str_add(out, "}\n");
}

static bool fields_take(Peaks *p, const json_t *o)
{
    const char *cpu;
    int64_t threads;
    if (!json_get_text(o, "cpu", &cpu) || !json_get_int(o, "threads", &threads)) return false;
    snprintf(p->cpu, sizeof p->cpu, "%s", cpu);
    p->threads = (int)threads;
    for (int i = 0; i < N_FIELDS; i++) {
        double v = json_number_value(json_object_get(o, FIELDS[i].key));
        if (!(v > 0 || (v == 0 && FIELDS[i].may_be_zero))) return false;
        *(double *)(void *)((char *)p + FIELDS[i].at) = v;
    }
    return true;
}

bool peaks_read(Peaks *p, const char *path, int threads)
{
    Arena a = {0};
    char *text;
    size_t n;
    json_t *o = NULL;
    RtError unused = {0};
    char cpu[PEAKS_NAME_BYTES];
    peaks_cpu(cpu, sizeof cpu);
    bool is_ours = *path && file_read(&a, path, &text, &n) == 0 &&
                   json_object_read(&o, text, n, path, &unused) == RT_OK && fields_take(p, o) &&
                   p->threads == threads && strcmp(p->cpu, cpu) == 0 &&
                   (p->flops_bf16 > 0) == peaks_has_bf16();
    if (o) json_decref(o);
    str_free(&unused.text);
    arena_free(&a);
    return is_ours;
}
