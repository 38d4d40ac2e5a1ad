/* rt_agree.c -- one outcome for all ranks, and waits that are longer than the communicator's limit
 * where they were announced. */
#include <unistd.h>

#include "tests/unit/rt_ranks.h"

typedef struct Plan { /* which ranks fail, how long one sleeps first */
    unsigned failing;
    int sleeper;
    double sleep_s;
} Plan;

static void body_agree(OnRank *r, Comm *c)
{
    const Plan *p = r->self;
    RtStatus mine = RT_OK;
    if (r->rank == p->sleeper) usleep((useconds_t)(p->sleep_s * 1e6));
    if (p->failing >> r->rank & 1)
        mine =
            RT_FAIL(&r->error, r->rank % 2 ? RT_FAILED : RT_BAD, "cannot write file-%d", r->rank);
    r->status = comm_agree(c, mine, "the checkpoint", 1 << 20, &r->error);
    RtError later = {0};
    CHECK(comm_agree(c, RT_OK, "what comes after", 0, &later) == RT_OK); /* still together */
}

static void test_agree(void)
{
    for (int size = 1; size <= RANKS_MAX; size++)
        for (unsigned failing = 0; failing < 1u << size; failing++) {
            OnRank on[RANKS_MAX];
            Plan p = {failing, -1, 0};
            ranks_run(on, size, 0, body_agree, &p);
            int first = failing ? __builtin_ctz(failing) : 0;
            char text[64];
            snprintf(text, sizeof text, "cannot write file-%d", first);
            bool is_all = failing == (1u << size) - 1;
            for (int r = 0; failing && r < size; r++) {
                const char *said = str_c(&on[r].error.text);
                bool has_rank = !strncmp(said, "rank ", 5) && said[5] == '0' + first;
                CHECK(has_rank == !is_all);
            }
            ranks_all(on, size,
                      !failing    ? RT_OK
                      : first % 2 ? RT_FAILED
                                  : RT_BAD,
                      failing ? text : NULL);
        }
}

/* A rank that writes for longer than the communicator's limit, where that was announced. */
static void test_patience(void)
{
    OnRank on[RANKS_MAX];
    Plan p = {0, 1, 1.5};
    ranks_run(on, 3, 0.5, body_agree, &p);
    ranks_all(on, 3, RT_OK, NULL);
    CHECK(comm_patience_s(0) >= 10 && comm_patience_s(INT64_C(1) << 40) > 3600);
}

static void body_limit(OnRank *r, Comm *c)
{
    const Plan *p = r->self;
    if (r->rank == p->sleeper) usleep((useconds_t)(p->sleep_s * 1e6));
    CommCall call = {.kind = COMM_BARRIER, .tensor = "the save", .limit_s = 1};
    r->status = comm_run(c, &call, &r->error);
}

/* It still has an end. */
static void test_limit(void)
{
    OnRank on[RANKS_MAX];
    Plan p = {0, 1, 2.5};
    ranks_run(on, 3, 0.25, body_limit, &p);
    for (int r = 0; r < 3; r++) /* who comes late finds that all are there */
        CHECK(r == 1 || (on[r].status == RT_FAILED &&
                         strstr(str_c(&on[r].error.text), "rank 1 hangs: rank")));
    ranks_free(on, 3);
}

/* Who dies meanwhile is missed at once. */
static void body_leaves(OnRank *r, Comm *c)
{
    r->status = comm_agree(c, RT_OK, "the start", 0, &r->error); /* all have opened */
    if (r->rank == 1) {
        comm_fail(c, RT_FAILED, "cannot go on");
        r->status = RT_FAILED;
        return;
    }
    if (r->status == RT_OK)
        r->status = comm_agree(c, RT_OK, "the checkpoint", INT64_C(1) << 40, &r->error);
    CHECK(strstr(str_c(&r->error.text), "cannot go on") &&
          strstr(str_c(&r->error.text), "the checkpoint"));
}

static void body_tell(OnRank *r, Comm *c)
{
    char text[64] = "";
    if (r->rank == 0) strcpy(text, "step-00000010");
    r->status = comm_tell(c, text, sizeof text, "the name", &r->error);
    CHECK(strcmp(text, "step-00000010") == 0);
}

int main(void)
{
    OnRank on[RANKS_MAX];
    test_agree();
    test_patience();
    test_limit();
    ranks_run(on, 3, 0, body_leaves, NULL);
    for (int r = 0; r < 3; r++) CHECK(on[r].status == RT_FAILED);
    ranks_free(on, 3);
    for (int size = 1; size <= RANKS_MAX; size++) {
        ranks_run(on, size, 0, body_tell, NULL);
        ranks_all(on, size, RT_OK, NULL);
    }
    return 0;
}
