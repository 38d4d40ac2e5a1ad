/* rt_ranks.h -- a body run by ranks as threads of this process. */
#ifndef RT_RANKS_H
#define RT_RANKS_H

#include <pthread.h>
#include <string.h>

#include "runtime/comm_agree.h"
#include "tests/unit/check.h"

enum { RANKS_MAX = 4 };

typedef struct OnRank {
    pthread_t thread;
    CommGroup *group;          /* NULL: one rank without a communicator */
    pthread_barrier_t *opened; /* what a rank does at once must not meet another's opening */
    CommOptions options;
    int rank, size;
    void (*body)(struct OnRank *r, Comm *c);
    void *self; /* of the body */
    RtStatus status;
    RtError error;
} OnRank;

static inline void *ranks_main(void *arg)
{
    OnRank *r = arg;
    Comm *c = NULL;
    if (r->group) CHECK(comm_local_open(&c, r->group, r->rank, &r->options, &r->error) == RT_OK);
    if (r->group) pthread_barrier_wait(r->opened);
    r->body(r, c);
    comm_close(c);
    return NULL;
}

/* Leaves status and message of each rank in `on`; ranks_free them.  limit_s 0: none to be met. */
static inline void ranks_run(OnRank *on, int size, double limit_s, void (*body)(OnRank *r, Comm *c),
                             void *self)
{
    CommGroup *g = NULL;
    RtError e = {0};
    pthread_barrier_t opened;
    CHECK(pthread_barrier_init(&opened, NULL, (unsigned)size) == 0);
    if (size > 1) CHECK(comm_group_new(&g, size, &e) == RT_OK);
    for (int r = 0; r < size; r++) {
        on[r] = (OnRank){.group = g, .rank = r, .size = size, .body = body, .self = self};
        on[r].opened = &opened;
        on[r].options =
            (CommOptions){.program_hash = 7, .world = size, .limit_s = limit_s > 0 ? limit_s : 60};
        if (size > 1) CHECK(pthread_create(&on[r].thread, NULL, ranks_main, &on[r]) == 0);
    }
    if (size == 1) ranks_main(&on[0]);
    for (int r = 0; r < size && size > 1; r++) CHECK(pthread_join(on[r].thread, NULL) == 0);
    pthread_barrier_destroy(&opened);
    comm_group_free(g);
}

static inline void ranks_free(OnRank *on, int size)
{
    for (int r = 0; r < size; r++) str_free(&on[r].error.text);
}

/* All ranks ended with this status; what they say has `text` (NULL: nothing), the same on all. */
static inline void ranks_all(OnRank *on, int size, RtStatus status, const char *text)
{
    for (int r = 0; r < size; r++) {
        const char *said = str_c(&on[r].error.text);
        if (on[r].status != status || (text ? !strstr(said, text) : *said != 0)) {
            fprintf(stderr, "rank %d of %d: status %d, said \"%s\", not %d \"%s\"\n", r, size,
                    (int)on[r].status, said, (int)status, text ? text : "");
            CHECK(!"as all ranks should");
        }
        CHECK(!strcmp(said, str_c(&on[0].error.text)));
    }
    ranks_free(on, size);
}

#endif
