/* cli.h -- the command line. */
#ifndef ZM_RUNTIME_CLI_H
#define ZM_RUNTIME_CLI_H

#include "ir/base/arena.h"
#include "runtime/error.h"

typedef const char *OptionText; /* NULL: not given */
typedef int64_t OptionCount;    /* -1: not given */
typedef struct OptionSeed {
    bool is_given;
    uint64_t value;
} OptionSeed;
typedef bool OptionFlag;

typedef struct Options {
#define OPTION_TEXT OptionText
#define OPTION_COUNT OptionCount
#define OPTION_SEED OptionSeed
#define OPTION_FLAG OptionFlag
#define OPTION(MEMBER, RANKS, NAME, KIND, ARG, DOC) OPTION_##KIND MEMBER;
#include "runtime/options.def"
#undef OPTION
} Options;

/* "--name value" or "--name=value".  Anything else is refused with what is accepted. */
RtStatus options_parse(Options *o, int argc, char **argv, RtError *e);

/* What contradicts itself, before anything is opened. */
RtStatus options_check(const Options *o, RtError *e);

/* Option i of those that every rank must be given alike: its name, or NULL behind the last one.
 * value: as it was given, cut at n; hash: of the whole value. */
const char *options_shared(const Options *o, uint32_t i, char *value, size_t n, uint64_t *hash);

void options_help(Str *out, const char *program);

#endif
