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

#include "runtime/memory.h"
#include "runtime/program.h"

typedef struct Device Device;

/* The first GPU: one allocation of exactly the plan's arena with the variables zeroed, the
 * program's kernels loaded.  `mirror` outlives it. */
RtStatus device_open(Device **d, const Program *p, const Memory *mirror, RtError *e);
void device_close(Device *d); /* NULL: nothing */

/* What f reads as inputs, from the mirror; it may be written again at once. */
RtStatus device_feed(Device *d, const ZmpFunc *f, RtError *e);
/* Enqueues a KERNEL, COPY or ZERO.  waits: until it is done, so that what fails is known to be it.
 */
RtStatus device_run(Device *d, uint32_t command, bool waits, RtError *e);
/* Until all is done; what failed meanwhile comes out here. */
RtStatus device_wait(Device *d, RtError *e);

/* Device -> mirror, mirror -> device; both have happened when they return.  A failure is kept for
 * the next call that returns a status. */
void device_fetch(Device *d, const void *at, size_t n_bytes);
void device_put(Device *d, const void *at, size_t n_bytes);
/* The scalar variables, unless they are in the mirror as the last function left them. */
void device_fetch_scalars(Device *d);
/* Gives back the mirror's whole pages within the range. */
void device_forget(Device *d, const void *at, size_t n_bytes);

#endif
