/* safetensors.h -- files of named tensors (https://huggingface.co/docs/safetensors): 8 bytes length
 * of the header, the header in JSON, the bytes of the tensors.  Read through a mapping, written in
 * order of the list.
 *
 * A set of shards (`model.safetensors.index.json`) is opened as one list. */
#ifndef ZM_RUNTIME_SAFETENSORS_H
#define ZM_RUNTIME_SAFETENSORS_H

#include "ir/base/file.h"
#include "ir/base/program.h"
#include "ir/base/vec.h"
#include "runtime/error.h"

typedef enum SafeDType {
    SAFE_BOOL,
    SAFE_U8,
    SAFE_I8,
    SAFE_I16,
    SAFE_U16,
    SAFE_I32,
    SAFE_U32,
    SAFE_I64,
    SAFE_U64,
    SAFE_F16,
    SAFE_BF16,
    SAFE_F32,
    SAFE_F64,
    SAFE_OTHER,
    N_SAFE_DTYPE
} SafeDType;

typedef struct SafeTensor {
    const char *name, *dtype_text, *file; /* file: path that holds it */
    SafeDType dtype;
    uint32_t rank;
    int64_t dim[ZMP_MAX_RANK];
    int64_t elems;
    const unsigned char *at;
    size_t n_bytes;
} SafeTensor;

typedef struct SafeFile {
    const char *path;
    VEC(SafeTensor) all;
    VEC(MappedFile) maps;
} SafeFile;

/* path: a .safetensors file, an index.json of shards, or a directory with one of them.  Damage is
 * refused with the file, the tensor and what is wrong with it. */
RtStatus safe_open(SafeFile *f, Arena *a, const char *path, RtError *e);
void safe_close(SafeFile *f);
const SafeTensor *safe_find(const SafeFile *f, const char *name);
bool safe_is_float(SafeDType dtype);
bool safe_is_integer(SafeDType dtype);     /* with bool */
int64_t safe_dtype_bytes(SafeDType dtype); /* 0: SAFE_OTHER */
uint32_t safe_zmp_dtype(SafeDType dtype);  /* of a float */
int64_t safe_integer(const SafeTensor *t,
                     int64_t element); /* U64 above INT64_MAX reads as INT64_MAX */
/* Lets go of the pages of a mapping that hold these bytes: read once, they need not count as
 * resident. They are read from the file again when touched. */
void pages_forget(const void *at, size_t n_bytes);
enum { PAGES_CHUNK_BYTES = 4 << 20 }; /* how much to read between two calls */

/* ---- writing ---- */

typedef struct SafeEntry { /* what is to be written */
    const char *name;
    uint32_t dtype; /* ZmpDType */
    uint32_t rank;
    int64_t dim[ZMP_MAX_RANK];
    int64_t offset;  /* out: byte of the file where its data starts */
    int64_t n_bytes; /* out */
} SafeEntry;

typedef struct SafeWriter {
    const char *path;
    int fd;
    int64_t n_bytes; /* of the whole file */
} SafeWriter;

/* Creates path, writes the header, sets each entry's offset.  metadata: JSON object or NULL. */
RtStatus safe_create(SafeWriter *w, Arena *a, const char *path, SafeEntry *entries, uint32_t n,
                     const char *metadata, RtError *e);
/* Opens the file that another rank created with the same entries. */
RtStatus safe_join(SafeWriter *w, Arena *a, const char *path, SafeEntry *entries, uint32_t n,
                   const char *metadata, RtError *e);
RtStatus safe_put(SafeWriter *w, int64_t offset, const void *at, size_t n_bytes, RtError *e);
RtStatus safe_finish(SafeWriter *w, RtError *e); /* full size, synced, closed */
void safe_abandon(SafeWriter *w);                /* closed and removed */

#endif
