/* settings.c -- what the environment says about the devices: see driver.c.  A setting that means
 * nothing is told on stderr, and the driver does not start. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpusim/stream.h"

typedef struct Setting {
    const char *name, *kind; /* kind: of value, as a message says it */
    uint64_t otherwise, least, most;
    bool has_unit; /* K, M, G */
} Setting;

static bool number_parse(const Setting *k, const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || errno != 0) return false;
    int shift = !k->has_unit ? 0 : *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (shift) end++;
    if (*end || v > UINT64_MAX >> shift) return false;
    *value = v << shift;
    return *value >= k->least && *value <= k->most;
}

static bool setting_read(const Setting *k, uint64_t *value)
{
    const char *text = getenv(k->name);
    *value = k->otherwise;
    if (!text || !*text || number_parse(k, text, value)) return true;
    fprintf(stderr, "gpusim: %s=%s is no %s\n", k->name, text, k->kind);
    return false;
}

/* As CUDA: ordinals with commas between; what is none ends the list, one that comes twice leaves no
 * device. */
static void choose_devices(System *s)
{
    const char *at = getenv("CUDA_VISIBLE_DEVICES");
    int n_there = s->n_devices;
    bool is_taken[MAX_DEVICES] = {false};
    if (!at) return;
    s->n_devices = 0;
    while (isdigit((unsigned char)*at)) {
        char *end;
        unsigned long ordinal = strtoul(at, &end, 10);
        if ((*end && *end != ',') || ordinal >= (unsigned long)n_there) return;
        if (is_taken[ordinal]) s->n_devices = 0;
        if (is_taken[ordinal]) return;
        is_taken[ordinal] = true;
        s->devices[s->n_devices++].physical = (int)ordinal;
        if (!*end) return;
        at = end + 1;
    }
}

bool settings_read(System *s)
{
    static const Setting devices = {
        "GPUSIM_DEVICES", "number of devices from 1 to 8", 1, 1, MAX_DEVICES, false};
    static const Setting arch = {"GPUSIM_ARCH", "compute capability such as 80", 80, 50, 199,
                                 false};
    static const Setting memory = {"GPUSIM_MEMORY",  "number of bytes such as 512M, at most 64G",
                                   4ull << 30,       1,
                                   DEVICE_RANGE / 2, true};
    static const Setting seed = {"GPUSIM_SEED", "number such as 7", 0, 0, UINT64_MAX, false};
    uint64_t n_devices, sm, bytes, random;
    if (!setting_read(&devices, &n_devices) || !setting_read(&arch, &sm) ||
        !setting_read(&memory, &bytes) || !setting_read(&seed, &random))
        return false;
    s->n_devices = (int)n_devices;
    s->arch = (int)sm;
    s->memory.total_bytes = bytes;
    s->random = random * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < MAX_DEVICES; i++) s->devices[i].ordinal = s->devices[i].physical = i;
    choose_devices(s);
    return true;
}
