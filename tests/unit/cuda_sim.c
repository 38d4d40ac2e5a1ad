/* cuda_sim.c -- the harness of cuda_sim.h sees what is wrong: kernels that compute something a
 * little else than the reference, that write less, or elsewhere.  Each runs in a process of its
 * own, since an error leaves the device unusable. */
#include <fcntl.h>
#include <sys/wait.h>

#include "tests/unit/cuda_kernels.h"
#include "tests/unit/cuda_sim_attention.h"

enum { EXIT_SKIP = 77, N = 65 };

typedef struct Form { /* out[i + shift] = x[i] * factor, or sums of rows of x[N, N] times factor */
    double factor;
    int64_t n, shift;
    DType dt;
    bool is_sum;
} Form;

static Kernel *make(Arena *a, Form f)
{
    int64_t step = f.is_sum ? N : 1;
    Kernel *k = ref_kernel(a, KK_NEST, "planted", 1);
    ref_loop(k, LOOP_PAR, f.n);
    if (f.is_sum) ref_loop(k, LOOP_RED, N);
    int x = ref_in(k, f.dt, N * step), out = ref_out(k, f.dt, N, -1);
    int v = ref_load(k, x, 0, STRIDES(step, 1));
    if (f.is_sum) v = ref_reduce(k, OP_REDUCE_SUM, v, 0);
    v = ref_bin(k, OP_MUL, v, ref_const(k, f.dt, f.factor));
    ref_store(k, v, out, f.shift, STRIDES(1, 0));
    return k;
}

static Kernel *make_product(Arena *a, int64_t depth)
{
    Kernel *k = ref_kernel(a, KK_CONTRACT, "planted", 1);
    ref_loop(k, LOOP_M, 17);
    ref_loop(k, LOOP_N, 9);
    ref_loop(k, LOOP_K, depth);
    int x = ref_in(k, DT_F16, 17 * N), y = ref_in(k, DT_F16, N * 9),
        out = ref_out(k, DT_F32, 17 * 9, -1);
    k->node_a = ref_load(k, x, 0, STRIDES(N, 0, 1));
    k->node_b = ref_load(k, y, 0, STRIDES(0, 1, 9));
    ref_store(k, ref_acc(k, DT_F32), out, 0, STRIDES(9, 1, 0));
    return k;
}

/* The number of failures that the harness counts, 100 when the process dies of it. */
static int seen(Sim *s, SimCase c)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        int quiet = open("/dev/null", O_WRONLY);
        dup2(quiet, STDERR_FILENO);
        driver_open(&s->driver);
        sim_check(s, "compute_80", &c, 1);
        _exit(n_failures > 99 ? 99 : n_failures);
    }
    ZM_CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) && WEXITSTATUS(status) < 100 ? WEXITSTATUS(status) : 100;
}

static void expect(Sim *s, const char *name, const Kernel *k, const Kernel *printed, bool is_wrong)
{
    s->instead = printed;
    int n = seen(s, (SimCase){.name = name, .k = k});
    if ((n > 0) != is_wrong) FAIL("%s: %d failures", name, n);
    s->n_kernels++;
}

int main(void)
{
    const Form plain = {3, N, 0, DT_F32, false}, sum = {3, N, 0, DT_F32, true},
               half = {3, N, 0, DT_BF16, false};
    Form f;
    Sim s;
    if (!sim_open_library(&s, "cuda_sim")) return EXIT_SKIP;
    Arena *a = &s.arena;
    expect(&s, "plain", make(a, plain), NULL, false);
    f = plain, f.factor = nextafterf(3, 4);
    expect(&s, "an ulp of f32", make(a, plain), make(a, f), true);
    f = half, f.factor = 3 + 0x1p-6;
    expect(&s, "an ulp of bf16", make(a, half), make(a, f), true);
    expect(&s, "sums", make(a, sum), NULL, false);
    f = sum, f.factor = 3 + 3 * N * 8 * 0x1p-24; /* the sum's bound is N u sum |x|, |x| < 2 */
    expect(&s, "sums a little off", make(a, sum), make(a, f), true);
    f = plain, f.n = N - 1;
    expect(&s, "an element that is not written", make(a, plain), make(a, f), true);
    Form fewer = f;
    expect(&s, "an element that stays", make(a, fewer), NULL, false);
    expect(&s, "an element too many", make(a, fewer), make(a, plain), true);
    f = plain, f.shift = 1;
    expect(&s, "behind the end", make(a, plain), make(a, f), true);
    f.shift = -1;
    expect(&s, "before the beginning", make(a, plain), make(a, f), true);
    expect(&s, "product", make_product(a, N), NULL, false);
    expect(&s, "a term less", make_product(a, N), make_product(a, N - 1), true);
    return sim_close(&s);
}
