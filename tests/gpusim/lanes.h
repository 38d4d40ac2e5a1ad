/* lanes.h -- variants of the instructions that lanes do together. */
#ifndef ZM_GPUSIM_LANES_H
#define ZM_GPUSIM_LANES_H

typedef enum { SHFL_UP, SHFL_DOWN, SHFL_BFLY, SHFL_IDX } ShflMode;
typedef enum { VOTE_ALL, VOTE_ANY, VOTE_UNI, VOTE_BALLOT } VoteMode;

#endif
