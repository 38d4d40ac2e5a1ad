/* comm_host.h -- processes that share a machine. */
#ifndef ZM_RUNTIME_COMM_HOST_H
#define ZM_RUNTIME_COMM_HOST_H

#include <stdbool.h>
#include <stdint.h>

/* Equal: one kernel, one process table, one /dev/shm. */
uint64_t host_number(void);

/* A descriptor that tells when a process ends (-1: none), and whether it has. */
int process_open(int pid);
bool process_is_gone(int fd);

#endif
