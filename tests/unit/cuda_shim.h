// cuda_shim.h -- runs printed CUDA C on the CPU, for tests: every thread of a block is a coroutine;
// shuffles wait for the warp, __syncthreads for the block.  What it finds besides wrong numbers: a
// barrier that not every thread reaches, a shuffle whose lanes have left, results that depend on
// the order in which threads run (run twice, in opposite orders).
#ifndef ZM_TESTS_CUDA_SHIM_H
#define ZM_TESTS_CUDA_SHIM_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(N)

struct ShimDim {
    unsigned int x, y, z;
};
static ShimDim threadIdx, blockIdx, blockDim, gridDim;

static inline float __uint_as_float(unsigned int u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}
static inline float __int_as_float(int u)
{
    return __uint_as_float((unsigned int)u);
}
static inline unsigned int __float_as_uint(float v)
{
    unsigned int u;
    memcpy(&u, &v, sizeof u);
    return u;
}
static inline double __longlong_as_double(long long u)
{
    double v;
    memcpy(&v, &u, sizeof v);
    return v;
}
static inline long long __double_as_longlong(double v)
{
    long long u;
    memcpy(&u, &v, sizeof u);
    return u;
}

enum ShimState { SHIM_READY, SHIM_AT_WARP, SHIM_AT_BLOCK, SHIM_DONE };

struct ShimThread {
    ucontext_t context;
    ShimState state;
    double slot; // what this lane offers to a shuffle
    char *stack;
};

static const int SHIM_MAX_THREADS = 1024, SHIM_STACK = 32768;
static ShimThread shim_threads[SHIM_MAX_THREADS];
static ucontext_t shim_scheduler;
static int shim_current, shim_n_threads;

static void shim_fail(const char *what)
{
    fprintf(stderr, "cuda_shim: block %u, thread %d: %s\n", blockIdx.x, shim_current, what);
    abort();
}

static void shim_wait(ShimState state)
{
    ShimThread &me = shim_threads[shim_current];
    me.state = state;
    swapcontext(&me.context, &shim_scheduler);
}

static inline void __syncthreads()
{
    shim_wait(SHIM_AT_BLOCK);
}

template <typename T> static T __shfl_xor_sync(unsigned int mask, T v, int lanes)
{
    if (mask != 0xffffffffu) shim_fail("a shuffle of a part of the warp");
    int warp = shim_current / 32 * 32, lane = shim_current % 32;
    memcpy(&shim_threads[shim_current].slot, &v, sizeof v);
    shim_wait(SHIM_AT_WARP);
    memcpy(&v, &shim_threads[warp + (lane ^ lanes)].slot, sizeof v);
    shim_wait(SHIM_AT_WARP); // nobody offers the next value before all have read this one
    return v;
}

// From the lane that many below; a lane without one keeps its value.
template <typename T> static T __shfl_up_sync(unsigned int mask, T v, unsigned int lanes)
{
    if (mask != 0xffffffffu) shim_fail("a shuffle of a part of the warp");
    int warp = shim_current / 32 * 32, lane = shim_current % 32, from = lane - (int)lanes;
    memcpy(&shim_threads[shim_current].slot, &v, sizeof v);
    shim_wait(SHIM_AT_WARP);
    if (from >= 0) memcpy(&v, &shim_threads[warp + from].slot, sizeof v);
    shim_wait(SHIM_AT_WARP);
    return v;
}

// Threads run one at a time: memory is always up to date.
static inline void __threadfence()
{
}
static inline unsigned int atomicAdd(unsigned int *at, unsigned int v)
{
    unsigned int before = *at;
    *at += v;
    return before;
}
static inline unsigned int atomicExch(unsigned int *at, unsigned int v)
{
    unsigned int before = *at;
    *at = v;
    return before;
}

// Lets a group of threads that all wait at one kind of barrier go on.
static bool shim_release(int first, int n, ShimState state)
{
    int waiting = 0, done = 0;
    for (int i = first; i < first + n; i++) {
        waiting += shim_threads[i].state == state;
        done += shim_threads[i].state == SHIM_DONE;
    }
    if (waiting > 0 && waiting + done == n && done > 0)
        shim_fail("a barrier that some threads have passed by");
    if (waiting != n) return false;
    for (int i = first; i < first + n; i++) shim_threads[i].state = SHIM_READY;
    return true;
}

static bool shim_resume_ready(bool is_reversed)
{
    bool any = false;
    for (int i = 0; i < shim_n_threads; i++) {
        shim_current = is_reversed ? shim_n_threads - 1 - i : i;
        ShimThread &t = shim_threads[shim_current];
        if (t.state != SHIM_READY) continue;
        any = true;
        threadIdx = ShimDim{shim_current % blockDim.x, shim_current / blockDim.x, 0};
        swapcontext(&shim_scheduler, &t.context);
    }
    return any;
}

static void (*shim_call)(void **args);
static void **shim_args;

static void shim_enter()
{
    shim_call(shim_args);
    shim_threads[shim_current].state = SHIM_DONE;
}

static void shim_run_block(bool is_reversed)
{
    for (int i = 0; i < shim_n_threads; i++) {
        ShimThread &t = shim_threads[i];
        if (!t.stack) t.stack = (char *)malloc(SHIM_STACK);
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = t.stack;
        t.context.uc_stack.ss_size = SHIM_STACK;
        t.context.uc_link = &shim_scheduler;
        makecontext(&t.context, shim_enter, 0);
        t.state = SHIM_READY;
    }
    for (;;) {
        bool moved = shim_resume_ready(is_reversed), is_done = true;
        for (int w = 0; w < shim_n_threads; w += 32) moved |= shim_release(w, 32, SHIM_AT_WARP);
        moved |= shim_release(0, shim_n_threads, SHIM_AT_BLOCK);
        for (int i = 0; i < shim_n_threads; i++) is_done &= shim_threads[i].state == SHIM_DONE;
        if (is_done) return;
        if (!moved) shim_fail("threads wait for each other for ever");
    }
}

static void shim_launch(void (*call)(void **), void **args, int n_blocks, int threads_x,
                        int threads_y, bool is_reversed)
{
    shim_call = call;
    shim_args = args;
    shim_n_threads = threads_x * threads_y;
    gridDim = ShimDim{(unsigned int)n_blocks, 1, 1};
    blockDim = ShimDim{(unsigned int)threads_x, (unsigned int)threads_y, 1};
    for (int b = 0; b < n_blocks; b++) {
        blockIdx = ShimDim{(unsigned int)(is_reversed ? n_blocks - 1 - b : b), 0, 0};
        shim_run_block(is_reversed);
    }
}

// Calls a kernel with its arguments out of an array of pointers.
template <typename... P, size_t... I>
static void shim_apply(void (*kernel)(P...), void **args, std::index_sequence<I...>)
{
    kernel((P)args[I]...);
}
template <typename... P> static void shim_apply(void (*kernel)(P...), void **args)
{
    shim_apply(kernel, args, std::index_sequence_for<P...>());
}

// SHIM_EXPORT(k3): extern "C" run_k3(args, blocks, threads x, threads y, order)
#define SHIM_EXPORT(NAME)                                                                          \
    extern "C" void run_##NAME(void **args, int n_blocks, int x, int y, int is_reversed)           \
    {                                                                                              \
        shim_launch([](void **a) { shim_apply(NAME, a); }, args, n_blocks, x, y,                   \
                    is_reversed != 0);                                                             \
    }

#endif
