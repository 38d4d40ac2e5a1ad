/* comm_tcp_link.h -- links over TCP: between two ranks a connection for data and one for what a
 * rank has to say of itself, which so never waits behind data.
 *
 * A process that ends closes its connections: the other side knows at once, unless its machine is
 * out of reach. */
#ifndef ZM_RUNTIME_COMM_TCP_LINK_H
#define ZM_RUNTIME_COMM_TCP_LINK_H

#include "runtime/comm_link.h"

enum { TCP_BUFFER_BYTES = 256 * 1024, TCP_WORD_BYTES = 1024 };

typedef struct TcpWord { /* of a rank about itself; a beat is a byte of PEER_RUNS alone */
    uint8_t state, status;
    char text[COMM_TEXT_BYTES];
} TcpWord;

typedef struct TcpLink {
    int data, words;                  /* sockets; -1: not open */
    bool is_data_over, is_words_over; /* the peer has closed */
    char *out, *in;                   /* TCP_BUFFER_BYTES each */
    size_t out_from, out_to, in_from, in_to;
    char say[TCP_WORD_BYTES]; /* to be sent */
    size_t n_say;
    TcpWord theirs; /* the first n_theirs bytes have come */
    size_t n_theirs;
    PeerState state;
    bool has_told;
    double beat_at;
    uint64_t n_beats; /* of the peer */
} TcpLink;

/* Takes the two connected sockets over, also when it fails. */
RtStatus tcp_link_open(TcpLink *l, int data, int words, RtError *e);
Link tcp_link(TcpLink *l);
/* What was sent is on its way afterwards; is_orderly: the peers close too, and are waited for a
 * moment. */
void tcp_links_close(TcpLink *l, int n, bool is_orderly);

#endif
