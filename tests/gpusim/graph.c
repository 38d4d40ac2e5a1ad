/* graph.c -- capture of streams and launch of what was captured: see Graph in stream.h. */
#include <stdlib.h>
#include <string.h>

#include "tests/gpusim/stream.h"

static void *copy_bytes(const void *from, size_t n)
{
    void *to = malloc(n ? n : 1);
    if (to) memcpy(to, from, n);
    return to;
}

Task *task_copy(const Task *t)
{
    Task *c = copy_bytes(t, sizeof *t);
    if (!c) return NULL;
    size_t n_params = t->function ? t->function->code.func->param_bytes : 0;
    if (t->params) c->params = copy_bytes(t->params, n_params);
    if (t->staged) c->staged = copy_bytes(t->staged, t->bytes);
    if (t->ranges) c->ranges = copy_bytes(t->ranges, t->n_ranges * sizeof t->ranges[0]);
    bool is_whole =
        (!t->params || c->params) && (!t->staged || c->staged) && (!t->ranges || c->ranges);
    if (is_whole) return c;
    task_free(c);
    return NULL;
}

/* ---- what a capture does not allow ---- */

enum { CAPTURE_RELAXED = 2 };

CUresult capture_refuses(System *s, bool is_wait)
{
    CUresult rc = CUDA_SUCCESS;
    for (int i = 0; i < MAX_STREAMS; i++) {
        Graph *g = s->streams[i].capture;
        if (!g || !pthread_equal(g->thread, pthread_self()) || (g->is_relaxed && !is_wait))
            continue;
        g->is_invalid = true;
        rc = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return rc;
}

CUresult capture_refuses_stream(Stream *q)
{
    if (!q->capture) return CUDA_SUCCESS;
    if (q->capture->is_invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    q->capture->is_invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

/* The capture that the event was recorded in; NULL: it has ended. */
static Graph *capture_of(const System *s, const Event *e)
{
    for (int i = 0; i < MAX_STREAMS; i++) {
        Graph *g = s->streams[i].capture;
        if (g && g->number == e->capture) return g;
    }
    return NULL;
}

CUresult capture_refuses_event(System *s, const Event *e)
{
    Graph *g = capture_of(s, e);
    if (g) g->is_invalid = true;
    return e->capture ? CUDA_ERROR_CAPTURED_EVENT : CUDA_SUCCESS;
}

/* ---- capturing ---- */

static uint32_t add_action(Graph *g, const Stream *q, Action a)
{
    a.branch = q->capture_branch;
    VEC_PUSH(&g->arena, &g->actions, a);
    g->is_joined[a.branch] = a.branch == 0;
    return g->actions.n - 1;
}

CUresult graph_add_task(Graph *g, Stream *q, const Task *draft)
{
    if (g->is_invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    Task *t = task_copy(draft);
    if (!t) return CUDA_ERROR_OUT_OF_MEMORY;
    t->op.name = arena_strdup(&g->arena, draft->op.name);
    add_action(g, q, (Action){.kind = ACTION_TASK, .task = t});
    g->n_tasks++;
    return CUDA_SUCCESS;
}

CUresult graph_record(Stream *q, Event *e)
{
    if (q->capture->is_invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    bool was_joined = q->capture->is_joined[q->capture_branch];
    e->capture = q->capture->number;
    e->action = add_action(q->capture, q, (Action){.kind = ACTION_RECORD});
    q->capture->is_joined[q->capture_branch] = was_joined; /* a record is no work */
    e->is_recorded = true;
    return CUDA_SUCCESS;
}

/* Has branch b done nothing after the action? */
static bool is_last(const Graph *g, uint32_t action)
{
    for (uint32_t i = action + 1; i < g->actions.n; i++)
        if (g->actions.at[i].branch == g->actions.at[action].branch &&
            g->actions.at[i].kind != ACTION_RECORD)
            return false;
    return true;
}

CUresult graph_wait(System *s, Stream *q, Event *e)
{
    Graph *g = capture_of(s, e);
    if (!g || (q->capture && q->capture != g)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (g->is_invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (!q->capture) { /* the stream joins the capture */
        if (g->n_branches == MAX_STREAMS) return CUDA_ERROR_OUT_OF_MEMORY;
        q->capture = g;
        q->capture_branch = g->n_branches++;
    }
    uint32_t from = g->actions.at[e->action].branch;
    add_action(g, q, (Action){.kind = ACTION_WAIT, .record = e->action});
    /* Joining needs no way through other branches: each must be waited for by one that is joined.
     */
    if (from != 0 && is_last(g, e->action)) g->is_joined[from] = true;
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture_v2(CUstream handle, int mode)
{
    System *s = system_lock();
    Stream *q = stream_of(s, handle);
    if (!q || q->slot == LEGACY) return system_unlock(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (q->capture) return system_unlock(CUDA_ERROR_INVALID_VALUE);
    Graph *g = calloc(1, sizeof *g);
    if (!g) return system_unlock(CUDA_ERROR_OUT_OF_MEMORY);
    g->next = s->graphs;
    s->graphs = g;
    g->origin = q;
    g->number = ++s->n_captures;
    g->thread = pthread_self();
    g->is_relaxed = mode == CAPTURE_RELAXED;
    g->n_branches = 1;
    q->capture = g;
    q->capture_branch = 0;
    return system_unlock(CUDA_SUCCESS);
}

static void free_graph(System *s, Graph *g)
{
    Graph **at = &s->graphs;
    while (*at != g) at = &(*at)->next;
    *at = g->next;
    for (uint32_t i = 0; i < g->actions.n; i++)
        if (g->actions.at[i].task) task_free(g->actions.at[i].task);
    arena_free(&g->arena);
    free(g);
}

static void release_graph(System *s, Graph *g)
{
    if (--g->n_users == 0) free_graph(s, g);
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph)
{
    System *s = system_lock();
    Stream *q = stream_of(s, handle);
    Graph *g = q ? q->capture : NULL;
    *graph = NULL;
    if (!g || g->origin != q) return system_unlock(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    for (int i = 0; i < MAX_STREAMS; i++)
        if (s->streams[i].capture == g) s->streams[i].capture = NULL;
    if (g->is_invalid) {
        free_graph(s, g);
        return system_unlock(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    }
    g->n_users = 1;
    for (uint32_t b = 1; b < g->n_branches; b++) {
        if (g->is_joined[b]) continue;
        free_graph(s, g);
        return system_unlock(CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    }
    *graph = g;
    return system_unlock(CUDA_SUCCESS);
}

CUresult cuStreamIsCapturing(CUstream handle, int *status)
{
    System *s = system_lock();
    Stream *q = stream_of(s, handle);
    *status = !q || !q->capture ? 0 : q->capture->is_invalid ? 2 : 1;
    return system_unlock(q ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

/* ---- executing ---- */

CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, uint64_t flags)
{
    System *s = system_lock();
    (void)flags;
    GraphExec *e = calloc(1, sizeof *e);
    if (!graph || !e) {
        free(e);
        return system_unlock(graph ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE);
    }
    e->graph = graph;
    for (uint32_t b = 1; b < graph->n_branches; b++) {
        e->branches[b] = stream_new(s, false);
        if (e->branches[b] && system_current()) e->branches[b]->device = system_current()->ordinal;
        if (e->branches[b]) continue;
        while (--b > 0) e->branches[b]->is_used = false;
        free(e);
        return system_unlock(CUDA_ERROR_OUT_OF_MEMORY);
    }
    graph->n_users++;
    *out = e;
    return system_unlock(CUDA_SUCCESS);
}

static CUresult launch_actions(System *s, const GraphExec *e, Event *events)
{
    const Graph *g = e->graph;
    for (uint32_t i = 0; i < g->actions.n; i++) {
        const Action *a = &g->actions.at[i];
        Stream *q = e->branches[a->branch];
        CUresult rc = CUDA_SUCCESS;
        if (a->kind == ACTION_RECORD)
            memcpy(events[i].clock, q->clock, sizeof q->clock);
        else if (a->kind == ACTION_WAIT)
            clock_join(q->clock, events[a->record].clock);
        else
            rc = stream_push(s, q, a->task);
        if (rc != CUDA_SUCCESS) return rc;
    }
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec e, CUstream handle)
{
    System *s = system_lock();
    Stream *q = stream_of(s, handle);
    if (!q || !e) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    if (q->capture) return system_unlock(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    Event *events = calloc(e->graph->actions.n + 1, sizeof *events);
    if (!events) return system_unlock(CUDA_ERROR_OUT_OF_MEMORY);
    e->branches[0] = q;
    clock_join(q->clock, s->host_clock);
    CUresult rc = launch_actions(s, e, events);
    free(events);
    return system_unlock(rc);
}

CUresult cuGraphUpload(CUgraphExec e, CUstream stream)
{
    (void)stream;
    return e ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphGetNodes(CUgraph graph, void **nodes, size_t *n)
{
    if (!graph) return CUDA_ERROR_INVALID_VALUE;
    if (nodes) return CUDA_ERROR_NOT_SUPPORTED; /* their number only */
    *n = graph->n_tasks;
    return CUDA_SUCCESS;
}

/* What it launched goes on. */
CUresult cuGraphExecDestroy(CUgraphExec e)
{
    System *s = system_lock();
    if (!e) return system_unlock(CUDA_ERROR_INVALID_VALUE);
    for (uint32_t b = 1; b < e->graph->n_branches; b++) e->branches[b]->is_used = false;
    release_graph(s, e->graph);
    free(e);
    return system_unlock(CUDA_SUCCESS);
}

CUresult cuGraphDestroy(CUgraph graph)
{
    System *s = system_lock();
    if (!graph) return system_unlock(CUDA_ERROR_INVALID_VALUE);
    release_graph(s, graph);
    return system_unlock(CUDA_SUCCESS);
}

static bool graph_holds(const Graph *g, const void *arg)
{
    for (uint32_t i = 0; i < g->actions.n; i++) {
        const Task *t = g->actions.at[i].task;
        if (t && t->kind == TASK_POLL && t->arg == arg) return true;
    }
    return false;
}

int gpusim_is_captured(const void *arg)
{
    System *s = system_lock();
    bool is_held = false;
    for (const Graph *g = s->graphs; g && !is_held; g = g->next) is_held = graph_holds(g, arg);
    (void)system_unlock(CUDA_SUCCESS);
    return is_held;
}
