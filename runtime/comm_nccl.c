/* comm_nccl.c -- see comm_nccl.h.
 *
 * The communicator does not block: what takes time (coming together, the connections of the first
 * collectives) goes on in NCCL's own threads, while this one watches the peers through the host's
 * communicator, so that the limits hold.  Each collective is enqueued by such a thread, some tens
 * of microseconds: a step that is a graph pays them once.  The stream may be used again as soon as
 * NCCL says that it is through, so nccl_enqueue waits for that, not for the GPU. */
#include "runtime/comm_nccl.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/comm_host.h"
#include "runtime/comm_link.h"
#include "runtime/comm_sum.h"
#include "runtime/nccl_api.h"

struct Nccl {
    NcclLibrary l;
    Comm *host;
    NcclCommRef comm; /* NULL: not begun, or aborted */
};

#define SEE "; NCCL_DEBUG=INFO in the environment makes NCCL say more"

static RtStatus fail(const Nccl *n, int result, const char *what, RtError *e)
{
    const char *last = n->l.last_error ? n->l.last_error(n->comm) : NULL;
    bool has_last = last && *last;
    return RT_FAIL(e, RT_FAILED, "rank %d: NCCL %d.%d.%d failed in %s: %s%s%s" SEE,
                   comm_rank(n->host), n->l.number / 10000, n->l.number / 100 % 100,
                   n->l.number % 100, what, n->l.error_text(result), has_last ? ": " : "",
                   has_last ? last : "");
}

/* "all_gather of 'h.0.w' (m.zm:4:3)", "the start of NCCL". */
static void call_words(const CommCall *call, Str *out)
{
    if (call->kind == COMM_BARRIER)
        str_add(out, call->tensor);
    else
        str_addf(out, "%s of '%s' (%s)", comm_kind_name(call->kind),
                 call->tensor ? call->tensor : "", call->loc ? call->loc : "no line");
}

static RtStatus fail_call(const Nccl *n, int result, const CommCall *call, RtError *e)
{
    Str what = {0};
    call_words(call, &what);
    RtStatus s = fail(n, result, str_c(&what), e);
    str_free(&what);
    return s;
}

static RtStatus fail_late(const Nccl *n, double limit_s, const CommCall *call, RtError *e)
{
    Str what = {0};
    call_words(call, &what);
    rt_say(e,
           "rank %d: NCCL has not connected the %d ranks in %.0f s, in %s: look at what the other "
           "ranks wrote" SEE ", ZMC_MEETING_LIMIT=SECONDS waits longer",
           comm_rank(n->host), comm_size(n->host), limit_s, str_c(&what));
    str_free(&what);
    return RT_FAILED;
}

/* Until the last call is through in the background; the peers take part in it. */
static RtStatus settle(Nccl *n, const CommCall *call, RtError *e)
{
    double since = comm_now(), limit_s = comm_meeting_limit();
    for (int turns = 0;; comm_pause(&turns)) {
        int state = NCCL_OK, result = n->l.async_error(n->comm, &state);
        double idle_s = comm_now() - since;
        if (result == NCCL_OK && state == NCCL_OK) return RT_OK;
        RT_TRY(comm_watch(n->host, call, idle_s, e)); /* why a peer ended comes first */
        if (result != NCCL_OK || state != NCCL_IN_PROGRESS)
            return fail_call(n, result != NCCL_OK ? result : state, call, e);
        if (idle_s > limit_s) return fail_late(n, limit_s, call, e);
    }
}

/* ---- opening ---- */

typedef struct Card { /* the GPU of one rank */
    uint64_t host;
    char uuid[16];
    char name[40];
} Card;

static RtStatus card_find(Card *card, RtError *e)
{
    int (*context_device)(int *device) = NULL, (*uuid)(void *uuid, int device) = NULL;
    int (*name)(char *name, int n, int device) = NULL;
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    int device = 0;
    if (cuda) {
        *(void **)&context_device = dlsym(cuda, "cuCtxGetDevice");
        *(void **)&uuid = dlsym(cuda, "cuDeviceGetUuid_v2"); /* of the part of a GPU, under MIG */
        *(void **)&name = dlsym(cuda, "cuDeviceGetName");
    }
    *card = (Card){.host = host_number()};
    if (context_device && uuid && name && context_device(&device) == CU_OK &&
        uuid(card->uuid, device) == CU_OK && name(card->name, sizeof card->name, device) == CU_OK)
        return RT_OK;
    return RT_FAIL(e, RT_BAD,
                   "the NVIDIA driver does not say which GPU this rank has: it is too old for NCCL "
                   "with CUDA 12; install a current one (https://www.nvidia.com/drivers)");
}

static RtStatus cards_differ(const Card *all, int n, RtError *e)
{
    for (int b = 1; b < n; b++)
        for (int a = 0; a < b; a++) {
            if (all[a].host != all[b].host ||
                memcmp(all[a].uuid, all[b].uuid, sizeof all[a].uuid) != 0)
                continue;
            return RT_FAIL(e, RT_BAD,
                           "ranks %d and %d have one GPU (%.40s), and NCCL takes one rank a GPU: "
                           "start no more ranks on a machine than it has GPUs, and let each rank "
                           "see its own or all of them (CUDA_VISIBLE_DEVICES)",
                           a, b, all[a].name);
        }
    return RT_OK;
}

static RtStatus check_cards(Comm *host, RtError *e)
{
    Card mine;
    RT_TRY(card_find(&mine, e));
    size_t n = (size_t)comm_size(host);
    Card *all = calloc(n, sizeof *all);
    if (!all) return RT_FAIL(e, RT_FAILED, "out of memory for the GPUs of %zu ranks", n);
    CommCall call = {.kind = COMM_ALL_GATHER, .dtype = ZMP_I32, .in = &mine, .out = all};
    call.count = (int64_t)(n * sizeof mine / 4);
    call.tensor = "the ranks' GPUs";
    RtStatus s = comm_run(host, &call, e);
    if (s == RT_OK) s = cards_differ(all, (int)n, e);
    free(all);
    return s;
}

static RtStatus meet(Nccl *n, RtError *e)
{
    static const CommCall start = {.kind = COMM_BARRIER, .tensor = "the start of NCCL"};
    NcclId id = {{0}};
    NcclConfig config = nccl_config();
    int result = comm_rank(n->host) == 0 ? n->l.new_id(&id) : NCCL_OK;
    if (result != NCCL_OK) return fail(n, result, "ncclGetUniqueId", e);
    CommCall call = {.kind = COMM_BROADCAST, .dtype = ZMP_I32, .in = &id, .out = &id};
    call.count = sizeof id / 4;
    call.tensor = "NCCL's unique id";
    RT_TRY(comm_run(n->host, &call, e));
    result = n->l.init(&n->comm, comm_size(n->host), id, comm_rank(n->host), &config);
    if (result != NCCL_OK && result != NCCL_IN_PROGRESS)
        return fail(n, result, "ncclCommInitRankConfig", e);
    return settle(n, &start, e);
}

RtStatus nccl_open(Nccl **out, Comm *host, RtError *e)
{
    Nccl *n = calloc(1, sizeof *n);
    *out = NULL;
    if (!n) return RT_FAIL(e, RT_FAILED, "out of memory for NCCL");
    n->host = host;
    RtStatus s = nccl_library_open(&n->l, e);
    if (s == RT_OK) s = check_cards(host, e);
    if (s == RT_OK) s = meet(n, e);
    if (s == RT_OK) {
        *out = n;
        return s;
    }
    nccl_abort(n);
    free(n);
    return s;
}

/* ---- collectives ---- */

static int dtype_of(uint32_t dtype)
{
    switch (dtype) {
    case ZMP_I32: return NCCL_INT32;
    case ZMP_F16: return NCCL_FLOAT16;
    case ZMP_F32: return NCCL_FLOAT32;
    case ZMP_F64: return NCCL_FLOAT64;
    case ZMP_BF16: return NCCL_BFLOAT16;
    default: return -1;
    }
}

static RtStatus check_call(const Nccl *n, const CommCall *call, RtError *e)
{
    const char *name = comm_kind_name(call->kind), *tensor = call->tensor ? call->tensor : "";
    int size = comm_size(n->host);
    bool is_sharded = call->kind == COMM_ALL_GATHER || call->kind == COMM_REDUCE_SCATTER;
    if ((unsigned)call->kind >= COMM_BARRIER || dtype_of(call->dtype) < 0 || call->count < 0)
        return RT_FAIL(e, RT_BAD, "%s of '%s': NCCL has none of %" PRId64 " elements of dtype %u",
                       name, tensor, call->count, call->dtype);
    if (is_sharded && call->count % size != 0)
        return RT_FAIL(e, RT_BAD,
                       "%s of '%s': NCCL needs equal shards, and %d ranks do not divide %" PRId64
                       " elements",
                       name, tensor, size, call->count);
    if (call->kind == COMM_BROADCAST && (call->root < 0 || call->root >= size))
        return RT_FAIL(e, RT_BAD, "%s of '%s': there is no rank %d among %d", name, tensor,
                       call->root, size);
    if (!n->comm) return RT_FAIL(e, RT_FAILED, "%s of '%s': NCCL was aborted before", name, tensor);
    return RT_OK;
}

static int enqueue(Nccl *n, const CommCall *call, CuStreamRef stream)
{
    size_t count = (size_t)call->count, shard = count / (size_t)comm_size(n->host);
    int dtype = dtype_of(call->dtype);
    switch (call->kind) {
    case COMM_ALL_GATHER:
        return n->l.all_gather(call->in, call->out, shard, dtype, n->comm, stream);
    case COMM_REDUCE_SCATTER:
        return n->l.reduce_scatter(call->in, call->out, shard, dtype, NCCL_SUM, n->comm, stream);
    case COMM_ALL_REDUCE:
        return n->l.all_reduce(call->in, call->out, count, dtype, NCCL_SUM, n->comm, stream);
    case COMM_BROADCAST:
        return n->l.broadcast(call->in, call->out, count, dtype, call->root, n->comm, stream);
    case COMM_BARRIER:
    case COMM_N_KINDS: break;
    }
    return NCCL_OK;
}

RtStatus nccl_enqueue(Nccl *n, const CommCall *call, CuStreamRef stream, RtError *e)
{
    RT_TRY(check_call(n, call, e));
    int result = enqueue(n, call, stream);
    if (result == NCCL_OK) return RT_OK;
    return result == NCCL_IN_PROGRESS ? settle(n, call, e) : fail_call(n, result, call, e);
}

RtStatus nccl_check(Nccl *n, const CommCall *awaited, double idle_s, RtError *e)
{
    static const CommCall step = {.kind = COMM_BARRIER, .tensor = "the step"};
    int state = NCCL_OK, result = n->comm ? n->l.async_error(n->comm, &state) : NCCL_OK;
    RT_TRY(comm_watch(n->host, awaited, idle_s, e)); /* why a peer ended comes first */
    if (result == NCCL_OK && (state == NCCL_OK || state == NCCL_IN_PROGRESS)) return RT_OK;
    return fail_call(n, result != NCCL_OK ? result : state, awaited ? awaited : &step, e);
}

int64_t nccl_bytes(const Nccl *n, const CommCall *call)
{
    int64_t size = comm_size(n->host), first, elems = 0;
    int64_t own = comm_shard(call->count, comm_rank(n->host), (int)size, &first);
    switch (call->kind) {
    case COMM_ALL_GATHER: elems = own * (size - 1); break;
    case COMM_REDUCE_SCATTER: elems = call->count - own; break;
    case COMM_ALL_REDUCE: elems = call->count - own + own * (size - 1); break;
    case COMM_BROADCAST:
        elems = comm_rank(n->host) == call->root ? call->count * (size - 1) : 0;
        break;
    case COMM_BARRIER:
    case COMM_N_KINDS: break;
    }
    return elems * (int64_t)comm_elem_bytes(call->dtype);
}

/* ---- the end ---- */

void nccl_abort(Nccl *n)
{
    if (n->comm) (void)n->l.abort(n->comm); /* there is nothing else to do about it */
    n->comm = NULL;
}

void nccl_close(Nccl *n)
{
    static const CommCall end = {.kind = COMM_BARRIER, .tensor = "the end of NCCL"};
    RtError unused = {0};
    if (!n) return;
    if (n->comm) {
        int result = n->l.finalize(n->comm);
        bool is_through = result == NCCL_OK || result == NCCL_IN_PROGRESS;
        if (is_through && settle(n, &end, &unused) == RT_OK) {
            (void)n->l.destroy(n->comm);
            n->comm = NULL;
        }
        nccl_abort(n);
    }
    str_free(&unused.text);
    free(n);
}
