/* type.c -- element types and interned tensor types (ir.h). */
#include "ir/ir.h"

#include <math.h>
#include <string.h>

typedef struct DTypeInfo {
    const char *name;
    int64_t bytes;
    DTypeClass class;
} DTypeInfo;

static const DTypeInfo dtype_info[] = {
    [DT_NONE] = {"none", 0, DTC_NONE},
#define DTYPE(ID, NAME, BYTES, CLASS) [DT_##ID] = {NAME, BYTES, DTC_##CLASS},
#include "ir/dtypes.def"
#undef DTYPE
};
_Static_assert(sizeof dtype_info / sizeof *dtype_info == N_DTYPE, "one entry per dtype");

const char *dtype_name(DType dt)
{
    return dtype_info[dt].name;
}

int64_t dtype_bytes(DType dt)
{
    return dtype_info[dt].bytes;
}

DTypeClass dtype_class(DType dt)
{
    return dtype_info[dt].class;
}

DType dtype_from_name(const char *name, size_t n)
{
    for (int dt = DT_NONE + 1; dt < N_DTYPE; dt++)
        if (strlen(dtype_info[dt].name) == n && memcmp(dtype_info[dt].name, name, n) == 0)
            return (DType)dt;
    return DT_NONE;
}

/* v to a binary format with `digits` significant bits whose smallest normal exponent is min_exp:
 * nearest even. */
static double round_to(double v, int digits, int min_exp, double max)
{
    if (v == 0 || !isfinite(v)) return v;
    int e;
    frexp(v, &e); /* v = f * 2^e, 0.5 <= |f| < 1 */
    int unit = (e - 1 < min_exp ? min_exp : e - 1) - (digits - 1);
    double r = ldexp(nearbyint(ldexp(v, -unit)), unit); /* both scalings are exact */
    return fabs(r) > max ? copysign(INFINITY, v) : r;
}

double dtype_round(DType dt, double v)
{
    switch (dt) {
    case DT_NONE:
    case DT_F64: return v;
    case DT_F32: return (double)(float)v;
    case DT_BF16: return round_to(v, 8, -126, 0x1.fep127);
    case DT_F16: return round_to(v, 11, -14, 65504);
    case DT_I1: return v != 0;
    case DT_I32: return trunc(v);
    case N_DTYPE: break;
    }
    ZM_UNREACHABLE("dtype");
}

/* bf16: 8 bits, from 2^-133; one step of |a| is 2^(exponent - 8), frexp's exponent. */
double bf16_round_by(double a, double u)
{
    int exponent;
    if (!isfinite(a)) return a;
    (void)frexp(a, &exponent);
    double step = ldexp(1, exponent - 8 > -133 ? exponent - 8 : -133);
    double n = floor(fabs(a) / step + floor(u * 65536) / 65536);
    return copysign(n * step > 0x1.fep127 ? (double)INFINITY : n * step, a);
}

int64_t type_elems(const Type *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

int64_t type_bytes(const Type *t)
{
    return type_elems(t) * dtype_bytes(t->dtype);
}

bool type_same_shape(const Type *a, const Type *b)
{
    return a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

static const char *const axis_names[] = {
    "",
#define AXIS(ID, NAME, DOC) NAME,
#include "ir/mesh.def"
#undef AXIS
};

const char *mesh_axis_name(MeshAxis axis)
{
    return axis_names[axis];
}

MeshAxis mesh_axis_from_name(const char *name, size_t n)
{
    for (int i = MESH_NONE + 1; i < N_MESH_AXIS; i++)
        if (strlen(axis_names[i]) == n && memcmp(axis_names[i], name, n) == 0) return (MeshAxis)i;
    return MESH_NONE;
}

bool type_same_placing(const Type *a, const Type *b)
{
    return a->rank == b->rank && a->partial == b->partial &&
           memcmp(a->axis, b->axis, sizeof a->axis) == 0;
}

int64_t type_placing(const Type *t)
{
    int64_t packed = (int64_t)t->partial << 32;
    for (int i = 0; i < t->rank; i++) packed |= (int64_t)t->axis[i] << 4 * i;
    return packed;
}

bool type_is_sharded(const Type *t)
{
    static const uint8_t none[ZM_MAX_RANK];
    return memcmp(t->axis, none, sizeof none) != 0;
}

bool type_is_placed(const Type *t)
{
    return t->partial || type_is_sharded(t);
}

int64_t type_whole_elems(const Module *m, const Type *t)
{
    int64_t n = type_elems(t);
    for (int i = 0; i < t->rank; i++)
        if (t->axis[i] && m->mesh[t->axis[i]] > 1) n *= m->mesh[t->axis[i]];
    return n;
}

void type_put(const Type *t, char text[TYPE_TEXT_MAX])
{
    int n = snprintf(text, TYPE_TEXT_MAX, "%s[", dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++)
        n += snprintf(text + n, TYPE_TEXT_MAX - (size_t)n, "%s%s%s%lld", i ? "," : "",
                      axis_names[t->axis[i]], t->axis[i] ? ":" : "", (long long)t->dim[i]);
    n += snprintf(text + n, TYPE_TEXT_MAX - (size_t)n, "]");
    for (int i = MESH_NONE + 1; i < N_MESH_AXIS; i++)
        if (t->partial >> i & 1)
            n += snprintf(text + n, TYPE_TEXT_MAX - (size_t)n, "+%s", axis_names[i]);
}

const char *type_text(Arena *a, const Type *t)
{
    char text[TYPE_TEXT_MAX];
    type_put(t, text);
    return arena_strdup(a, text);
}

/* The kept type that equals t. */
/* Types are asked for by every op that is checked: words at a time, and no more than there are. */
static uint64_t type_hash(const Type *t, uint64_t seed)
{
    const uint64_t odd = 0x9e3779b97f4a7c15u;
    uint64_t axes = 0;
    memcpy(&axes, t->axis, sizeof t->axis);
    uint64_t h = seed ^ ((uint64_t)t->dtype << 16 | (uint64_t)t->rank << 8 | t->partial);
    h = (h * odd) ^ (h >> 29) ^ axes;
    for (int i = 0; i < t->rank; i++) {
        h = (h ^ (uint64_t)t->dim[i]) * odd;
        h ^= h >> 32;
    }
    return h * odd;
}

static const Type *type_intern(Module *m, const Type *t)
{
    for (uint64_t seed = 0;; seed++) { /* a colliding hash tries the next seed */
        uint64_t h = type_hash(t, seed);
        uint32_t i = map_get(&m->type_map, h);
        if (i == MAP_NONE) {
            Type *kept = ARENA_NEW(m->arena, Type);
            *kept = *t;
            map_put(&m->type_map, h, m->types.n);
            VEC_PUSH(m->arena, &m->types, kept);
            return kept;
        }
        const Type *have = m->types.at[i];
        if (have->dtype == t->dtype && type_same_shape(have, t) && type_same_placing(have, t))
            return have;
    }
}
_Static_assert(sizeof((Type){0}.axis) <= sizeof(int64_t), "axes fit into one word of the hash");
_Static_assert(N_MESH_AXIS <= 8, "partial holds a bit for each axis");

const Type *type_get(Module *m, DType dtype, int rank, const int64_t *dims)
{
    ZM_CHECK(dtype != DT_NONE && rank >= 0 && rank <= ZM_MAX_RANK);
    Type t = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++) {
        ZM_CHECK(dims[i] > 0);
        t.dim[i] = dims[i];
    }
    return type_intern(m, &t);
}

const Type *type_placed(Module *m, const Type *t, const uint8_t *axis, uint8_t partial)
{
    Type placed = *t;
    memset(placed.axis, 0, sizeof placed.axis);
    if (axis) memcpy(placed.axis, axis, (size_t)t->rank);
    placed.partial = partial;
    return type_same_placing(&placed, t) ? t : type_intern(m, &placed);
}

const Type *type_placed_by(Module *m, const Type *t, int64_t placing)
{
    uint8_t axis[ZM_MAX_RANK];
    for (int i = 0; i < t->rank; i++) axis[i] = (uint8_t)(placing >> 4 * i & 15);
    return type_placed(m, t, axis, (uint8_t)(placing >> 32));
}

const Type *type_plain(Module *m, const Type *t)
{
    return type_is_placed(t) ? type_placed(m, t, NULL, 0) : t;
}

const Type *type_with_dtype(Module *m, const Type *t, DType dtype)
{
    if (t->dtype == dtype) return t;
    Type other = *t;
    other.dtype = dtype;
    return type_intern(m, &other);
}
