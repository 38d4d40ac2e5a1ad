/* comm_meet.h -- ranks that no launcher has connected come together: over a file that all see, or
 * at a host's port.
 *
 * Rank 0 listens; the others say who they are, are seated, and told where everybody is as soon as
 * all have come.  The connections to rank 0 stay until the ranks are connected among each other:
 * one that ends before is missed at once. */
#ifndef ZM_RUNTIME_COMM_MEET_H
#define ZM_RUNTIME_COMM_MEET_H

#include "runtime/comm.h"
#include "runtime/comm_socket.h"

typedef struct MeetKey { /* random, of one meeting; all zero at a host's port */
    uint8_t bytes[16];
} MeetKey;

typedef struct Seat { /* of a rank */
    uint64_t host;    /* host_number */
    int32_t port, pid;
    SocketName at; /* as rank 0 sees it; loopback: on rank 0's machine */
} Seat;

typedef struct Meeting {
    const char *place; /* as it was given */
    int rank, size;    /* rank -1 before: in order of arrival */
    bool is_told;      /* its failure: by rank 0 to all that have come */
    RtStatus refusal;  /* at rank 0: who comes now is told so */
    double deadline, limit_s;
    MeetKey key;
    int listener, port;
    SocketName root; /* as this rank sees rank 0 */
    Seat *seat;      /* of every rank */
    int *control;    /* to every rank at rank 0, elsewhere [0] only; -1: none */
    struct MeetFile *file;
} Meeting;

/* place: FILE or host:port; rank: -1 only with a file.  RT_BAD: the ranks do not fit together, said
 * by all of them. */
RtStatus meeting_open(Meeting *m, const char *place, int rank, const CommOptions *o, RtError *e);

/* At rank 0: the meeting has failed, which all that have come are told.  Returns the status. */
RtStatus meeting_fail(Meeting *m, RtStatus status, RtError *e);
/* Elsewhere: what rank 0 has to say; RT_OK: all is well. */
RtStatus meeting_listen(Meeting *m, RtError *e);
/* At rank 0: all is well. */
void meeting_confirm(Meeting *m);
void meeting_close(Meeting *m);

/* ---- comm_meet_file.c ---- */

typedef struct MeetAddress { /* what the file says */
    MeetKey key;
    uint64_t host;
    SocketName name;
    int port, pid;
} MeetAddress;

typedef struct MeetFile MeetFile;
typedef enum MeetFound {
    MEET_MINE,  /* this process holds the file: it is rank 0 */
    MEET_TAKEN, /* another one does, which lives */
    MEET_ERROR
} MeetFound;

/* Who holds the file's lock is rank 0; the lock ends with its process, so what an earlier run left
 * behind is known, and replaced. */
MeetFound meet_file_take(MeetFile **f, const char *path, RtError *e);
RtStatus meet_file_write(MeetFile *f, const MeetAddress *a, RtError *e);
bool meet_file_read(const char *path, MeetAddress *a); /* false: not there, or not whole */
void meet_file_remove(MeetFile *f);                    /* NULL: nothing */

#endif
