/* Row streams, and the loaders that make a storage's tokens rows.
 *
 * A stream is up to plan.stream_rows kept tokens of consecutive documents. It names them by
 * segment (a document) and index (the token's number in it); a loader turns that into a row the
 * kernels read. Where documents store such rows the stream points to them as it is filled;
 * elsewhere `load` makes them, segment by segment. */
#ifndef LIK_CPU_STREAM_H
#define LIK_CPU_STREAM_H

#include "cpu/driver.h"

struct lik_cpu_stream {
    int64_t count, segments;
    const void *rows[LIK_STREAM_ROWS_MAX + 2 * LIK_TILE_ROWS_MAX];
    int32_t index[LIK_STREAM_ROWS_MAX + 2 * LIK_TILE_ROWS_MAX];
    float row_scale[LIK_STREAM_ROWS_MAX + 2 * LIK_TILE_ROWS_MAX];
    float norm[LIK_STREAM_ROWS_MAX]; /* of normalized rows */
    float unit[LIK_STREAM_ROWS_MAX]; /* of rows that a loader made integers */
    /* of rows that `decode` makes */
    const void *centroid[LIK_STREAM_ROWS_MAX + LIK_DECODE_AHEAD];
    const uint8_t *residual[LIK_STREAM_ROWS_MAX];
    int64_t made; /* rows that are there, with their factors */
    int32_t ends[LIK_STREAM_ROWS_MAX + 1];
    int64_t column[LIK_STREAM_ROWS_MAX + 1];
    int8_t kept[LIK_STREAM_ROWS_MAX + 1]; /* has the document kept a token, in this stream or before? */
    int last_complete;                    /* did the last segment's document end? */
};

/* What happens to a row on its way into a kernel, and so how many f32 rows of scratch there
 * are. */
enum lik_cpu_rows {
    LIK_ROWS_READ,    /* read as it is: none */
    LIK_ROWS_WIDENED, /* the first panel's kernel widens it: two tiles, or all where later panels read f32 */
    LIK_ROWS_RING,    /* every panel's kernel widens it: two tiles */
    LIK_ROWS_LOADED,  /* `load` writes it there: all */
};

/* How document tokens of a storage reach the kernels. */
struct lik_cpu_loader {
    const char *suffix; /* of the variant's name */
    int (*takes)(const struct lik_score *op);
    /* elements of a lane that lie together: 1, f32; 2 or 4, integers or bf16; 0: queries are
     * not packed, rows are products (look_up) */
    int32_t query_group;
    int32_t element_bytes;  /* of a row, as kernels of query_group 1 read it */
    enum lik_cpu_rows rows; /* see there */
    size_t kernels;         /* where its kernels stand in struct lik_cpu_kernels */
    /* Bytes of an element of `gathered`, whose rows `load` writes; 0: none. */
    int32_t gathered_bytes;
    int32_t bf16;  /* queries are packed as bf16, with their factors in the weights, as those of integers */
    int32_t units; /* its rows are integers: each has a unit, and its norm where rows have one */
    /* NULL: rows are where documents store them. Else makes rows from ... to - 1 of the stream,
     * which are tokens index[r] of document j. */
    void (*load)(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                 struct lik_cpu_stream *stream, struct lik_cpu_slot *slot);
    /* NULL, or makes rows from ... to - 1, at rows[from] and behind it, of what `load`
     * found. */
    void (*decode)(const struct lik_cpu_job *job, int64_t from, int64_t to, struct lik_cpu_stream *stream,
                   struct lik_cpu_slot *slot);
};

/* Rows of a turn of `decode`, fewer where a stream ends. Where kernels ask for rows there is
 * room for two turns: what they read stays in L1. */
#define LIK_CPU_MADE_AT_ONCE LIK_TILE_ROWS_MAX

/* The first that takes the problem and has kernels at this level; the last takes every one. */
const struct lik_cpu_loader *lik_cpu_find_loader(const struct lik_cpu_kernels *kernels,
                                                 const struct lik_score *op);

/* Does it use the level's f32 kernels? */
static inline int lik_cpu_is_f32(const struct lik_cpu_loader *loader)
{
    return loader->kernels == offsetof(struct lik_cpu_kernels, f32);
}

/* Does `load` meet centroids as struct lik_cpu_rounded? */
int lik_cpu_rounds_centroids(const struct lik_cpu_loader *loader);
/* Rounds centroids into job->rounded, those that other slots leave. */
void lik_cpu_round_centroids(struct lik_cpu_job *job, struct lik_cpu_slot *slot);

/* A walk over the tokens of documents column ... column_end - 1 of one row of the score
 * matrix. */
struct lik_cpu_cursor {
    int64_t column, column_end;
    int64_t token, length; /* of the current document */
    int64_t base;
    const uint8_t *mask;
    int open; /* is the current document entered? */
};

/* Lists the next rows of the walk. `carried_kept`: the first segment continues a document that
 * has kept a token. */
void lik_cpu_fill_stream(const struct lik_score *op, int64_t row, const struct lik_cpu_plan *plan,
                         struct lik_cpu_cursor *at, int carried_kept, struct lik_cpu_stream *stream);

/* Loads the stream's rows where the loader does, and takes their factors; or finds what a
 * loader's `decode` makes both of. Returns whether factors count. */
int lik_cpu_load_stream(const struct lik_cpu_job *job, int64_t row, struct lik_cpu_stream *stream,
                        struct lik_cpu_slot *slot);

/* Makes those of a loaded stream's rows before `to` that are not there yet. */
struct lik_cpu_maker {
    const struct lik_cpu_job *job;
    struct lik_cpu_stream *stream;
    struct lik_cpu_slot *slot;
};
void lik_cpu_make_rows(void *maker, int64_t to);

#endif
