/* fault.c -- failures by $GPUSIM_NCCL_FAULT. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpusim/nccl/nccl.h"

static const char *const names[N_FAULTS] = {"absent", "error", "die", "hang", "slow", "refuse"};

bool fault_is_set(Fault fault, uint64_t call, int rank, double *seconds)
{
    const char *text = getenv("GPUSIM_NCCL_FAULT");
    while (text && *text) {
        char kind[16];
        unsigned long at = 0;
        int who = 0;
        *seconds = 1;
        int n = sscanf(text, "%15[a-z]@%lu:%d:%lf", kind, &at, &who, seconds);
        if (n >= 3 && strcmp(kind, names[fault]) == 0 && at == call && who == rank) return true;
        text = strchr(text, ',');
        if (text) text++;
    }
    return false;
}
