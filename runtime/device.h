/* device.h -- where a program's arena lies when that is not the CPU's memory, and what runs its
 * commands there.  Exec.device is NULL for a program of the CPU.
 *
 * The host keeps a mirror of the arena: address space of the same layout, of which only touched
 * pages are memory.  The truth is on the device; the mirror is where inputs are put before a
 * function runs, and where numbers that the host wants to see are fetched to, or changed.  A
 * place is named by its address in the mirror.  Commands are enqueued in order and run later; a
 * read waits for all before it. */
#ifndef ZM_RUNTIME_DEVICE_H
#define ZM_RUNTIME_DEVICE_H

#include "runtime/comm.h"
#include "runtime/memory.h"
#include "runtime/program.h"

typedef struct Device Device;

/* The GPU that is this rank's among those of its machine (host NULL: the first): one allocation of
 * exactly the plan's arena with the variables zeroed, the program's kernels loaded.  `mirror` and
 * `host` outlive it. */
RtStatus device_open(Device **d, const Program *p, const Memory *mirror, Comm *host, RtError *e);
/* All ranks, once every one has opened its GPU: makes ready what runs collectives between GPUs. */
RtStatus device_join(Device *d, RtError *e);
/* ... and ends it, while the ranks can still talk; !is_well: what is in flight never ends. */
void device_leave(Device *d, bool is_well);
void device_close(Device *d); /* NULL: nothing */

/* What f reads as inputs, from the mirror; it may be written again at once.  limit_s: how long a
 * collective may wait for other ranks from now on, where that is longer than COMM_LIMIT_S. */
RtStatus device_feed(Device *d, const ZmpFunc *f, double limit_s, RtError *e);
/* Enqueues all commands of f; from the second time on as one graph ($ZMC_GRAPHS=0: never). */
RtStatus device_run_all(Device *d, const ZmpFunc *f, RtError *e);
/* One command, and waits for it: for who looks at what it did. */
RtStatus device_run(Device *d, uint32_t command, RtError *e);
/* All commands of f one by one, waited for at the end; ended_s[i]: when command i of f had ended,
 * in seconds of the GPU's clock from the start. */
RtStatus device_run_timed(Device *d, const ZmpFunc *f, double *ended_s, RtError *e);
/* How fast the GPU's memory copies, bytes read and written a second; 0: there is no room to measure
 * it.  Takes 512 MiB for a moment, or 1/32 of what is free. */
RtStatus device_copy_rate(Device *d, double *bytes_s, RtError *e);
/* Until all is done; what failed meanwhile comes out here. */
RtStatus device_wait(Device *d, RtError *e);
int64_t device_sent(const Device *d); /* bytes to other ranks, of all that was enqueued */

/* The scalars as they are after all that was enqueued; up to two notes may be on their way.  Taking
 * the oldest waits for it alone and puts it into the mirror: what is enqueued behind goes on. */
RtStatus device_note_step(Device *d, RtError *e);
RtStatus device_take_step(Device *d, RtError *e);

/* Device -> mirror: has happened when it returns.  Mirror -> device: before what is enqueued next;
 * the mirror may be written again at once.  A failure is kept for the next call that returns a
 * status. */
void device_fetch(Device *d, const void *at, size_t n_bytes);
void device_put(Device *d, const void *at, size_t n_bytes);
/* The scalar variables, unless they are in the mirror as the last function left them. */
void device_fetch_scalars(Device *d);
/* Gives back the mirror's whole pages within the range. */
void device_forget(Device *d, const void *at, size_t n_bytes);

#endif
