/* comm-bench.c -- collectives of runtime/comm.h beside MPI's own, in one alternating run.
 *
 *     ninja -C build comm-bench
 *     mpirun -n 2 build/comm-bench [MB [ROUNDS]]
 *
 * Rank 0 prints, for each collective over a tensor of MB (f32), the median and the best rate of
 * both as bytes of the tensor by seconds of the slowest rank.  ZMC_SHM=0: messages of MPI alone. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/comm.h"

enum { MAX_ROUNDS = 99, N_KINDS = 3 };

typedef struct Bench {
    Comm *c;
    int rank, size;
    int64_t count;
    float *in, *out;
    double time[N_KINDS][2][MAX_ROUNDS];
} Bench;

static const CommKind kinds[N_KINDS] = {COMM_ALL_REDUCE, COMM_REDUCE_SCATTER, COMM_ALL_GATHER};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void run_own(const Bench *b, CommKind kind)
{
    RtError e = {0};
    CommCall call = {kind, ZMP_F32, 0, b->count, b->in, b->out, "tensor", "", 0};
    if (comm_run(b->c, &call, &e) == RT_OK) return;
    fprintf(stderr, "%s\n", str_c(&e.text));
    MPI_Abort(MPI_COMM_WORLD, 2);
}

static void run_mpi(const Bench *b, CommKind kind)
{
    int n = (int)b->count, each = n / b->size;
    if (kind == COMM_ALL_REDUCE)
        MPI_Allreduce(b->in, b->out, n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    else if (kind == COMM_REDUCE_SCATTER)
        MPI_Reduce_scatter_block(b->in, b->out, each, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    else
        MPI_Allgather(b->in, each, MPI_FLOAT, b->out, each, MPI_FLOAT, MPI_COMM_WORLD);
}

static double timed(const Bench *b, CommKind kind, int is_mpi)
{
    double worst, start;
    MPI_Barrier(MPI_COMM_WORLD);
    start = MPI_Wtime();
    if (is_mpi)
        run_mpi(b, kind);
    else
        run_own(b, kind);
    double took = MPI_Wtime() - start;
    MPI_Allreduce(&took, &worst, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return worst;
}

static void report(Bench *b, int rounds)
{
    double bytes = (double)b->count * 4;
    printf("%d ranks, %.0f MB, %s; GB/s median (best) of %d: ours, MPI's\n", b->size, bytes / 1e6,
           comm_transport(b->c), rounds);
    for (int k = 0; k < N_KINDS; k++) {
        for (int is_mpi = 0; is_mpi < 2; is_mpi++)
            qsort(b->time[k][is_mpi], (size_t)rounds, sizeof(double), by_value);
        printf("%-15s %6.2f (%.2f)  %6.2f (%.2f)\n", comm_kind_name(kinds[k]),
               bytes / b->time[k][0][rounds / 2] / 1e9, bytes / b->time[k][0][0] / 1e9,
               bytes / b->time[k][1][rounds / 2] / 1e9, bytes / b->time[k][1][0] / 1e9);
    }
}

int main(int argc, char **argv)
{
    static Bench b;
    RtError e = {0};
    double mb = argc > 1 ? atof(argv[1]) : 100;
    int rounds = argc > 2 ? atoi(argv[2]) : 9;
    if (mb <= 0 || mb > 8000 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: comm-bench [MB, at most 8000 [ROUNDS, at most %d]]\n", MAX_ROUNDS);
        return 1;
    }
    MPI_Init(&argc, &argv);
    MPI_Comm_size(MPI_COMM_WORLD, &b.size);
    MPI_Comm_rank(MPI_COMM_WORLD, &b.rank);
    CommOptions o = {.world = b.size, .limit_s = 60};
    b.count = (int64_t)(mb * 250000) / b.size * b.size;
    b.in = calloc((size_t)b.count, sizeof *b.in);
    b.out = calloc((size_t)b.count, sizeof *b.out);
    if (!b.in || !b.out || comm_mpi_open(&b.c, NULL, &o, &e) != RT_OK) {
        fprintf(stderr, "comm-bench: %s\n", e.text.n ? str_c(&e.text) : "out of memory");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    for (int64_t i = 0; i < b.count; i++) b.in[i] = b.out[i] = (float)(i % 7);
    for (int k = 0; k < N_KINDS; k++) /* once to warm up */
        for (int round = -1; round < rounds; round++)
            for (int is_mpi = 0; is_mpi < 2; is_mpi++) {
                double took = timed(&b, kinds[k], is_mpi);
                if (round >= 0) b.time[k][is_mpi][round] = took;
            }
    if (b.rank == 0) report(&b, rounds);
    comm_close(b.c);
    MPI_Finalize();
    return 0;
}
