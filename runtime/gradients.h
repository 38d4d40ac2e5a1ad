/* gradients.h -- what the program's PROBE commands show: --dump-grads writes it, --fault puts an
 * infinity into it. */
#ifndef ZM_RUNTIME_GRADIENTS_H
#define ZM_RUNTIME_GRADIENTS_H

#include "runtime/shared_file.h"
#include "runtime/state.h"

/* ---- --dump-grads: f32, unscaled, one tensor a parameter path, full shape.  All ranks open it,
 * write what they have of each gradient, and close it. ---- */

typedef struct GradDump {
    SharedFile file;
    SafeEntry *entries;   /* one per parameter */
    const ZmpVar **param; /* of each entry */
    uint32_t n;
} GradDump;

/* Refuses a program without gradients to show. */
RtStatus grad_dump_open(GradDump *g, Arena *a, const Exec *x, const char *path, RtError *e);
Observer grad_dump_observer(GradDump *g); /* during one step's @last */
RtStatus
grad_dump_close(GradDump *g,
                RtError *e); /* a parameter that the loss does not depend on has gradient 0 */

/* ---- --fault nonfinite@STEP[:RANK],... ---- */

typedef struct FaultPlan {
    struct Fault {
        int64_t step;
        int64_t rank; /* -1: every rank */
    } at[32];
    uint32_t n;
    uint32_t command; /* after this one the first gradient is there ... */
    bool is_before;   /* ... or before this one, which sends it to the other ranks */
    uint32_t arg;
    uint32_t dtype;
} FaultPlan;

RtStatus fault_parse(FaultPlan *f, const char *text, const Exec *x, RtError *e);
bool fault_is_due(const FaultPlan *f, int64_t step, int64_t rank);
Observer fault_observer(FaultPlan *f); /* during a step that is due */

#endif
