/* space.c -- the memory that all ranks of a communicator share. */
#include "tests/gpusim/nccl/nccl.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t space_bytes(int n_ranks)
{
    return sizeof(Space) + (size_t)n_ranks * SLOT_BYTES;
}

Space *space_open(const char *name, int n_ranks, const char **why)
{
    int fd = shm_open(name, O_RDWR | O_CREAT, 0600), expected = 0;
    *why = "no shared memory";
    if (fd < 0) return NULL;
    void *at = MAP_FAILED;
    if (ftruncate(fd, (off_t)space_bytes(MAX_RANKS)) == 0)
        at = mmap(NULL, space_bytes(n_ranks), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) return NULL;
    Space *s = at;
    *why = "the ranks were given different numbers of ranks";
    if (atomic_compare_exchange_strong(&s->n_ranks, &expected, n_ranks) || expected == n_ranks)
        return s;
    space_close(s, n_ranks);
    return NULL;
}

void space_close(Space *s, int n_ranks)
{
    munmap(s, space_bytes(n_ranks));
}

uint8_t *space_slot(Space *s, int rank)
{
    return s->slots + (size_t)rank * SLOT_BYTES;
}
