/* One operation on a GPU: memory of the process as buffers that kernels see, dispatches into a
 * command buffer, and the results back. Every function that returns int returns a
 * lik_status. */
#ifndef LIK_METAL_RUN_H
#define LIK_METAL_RUN_H

#include "metal/gpu.h"
#include "metal/plan.h"

#define LIK_METAL_REGIONS 32

/* Memory that kernels are handed addresses of: `bytes` from `begin` on. The key is the address
 * by which an array goes, its entry (0, 0, 0); with strides below zero it is not the
 * lowest. */
struct lik_metal_region {
    const void *key;
    char *begin;
    int64_t bytes;
    /* what of it is written, and the caller's; rows 0: nothing, -1: all, and nobody else's */
    int64_t rows, row_bytes, row_stride;
    int keep;       /* written: what is there is read too */
    int copied;     /* `buffer` holds a copy */
    objc_id buffer; /* NULL: no dispatch has asked for it */
    int64_t offset; /* of `begin` in it */
};

struct lik_metal_run {
    struct lik_metal_gpu *gpu;
    void *pool;
    objc_id commands, encoder; /* NULL before the first dispatch; both are the pool's */
    objc_id nothing;           /* a buffer for what a kernel declares and does not touch */
    struct lik_metal_region regions[LIK_METAL_REGIONS];
    int region_count;
};

/* LIK_EDEVICE in a process that was forked from the one that opened the GPU. A run that has
 * begun has to end, whatever happens between. */
int lik_metal_begin(struct lik_metal_run *run, const struct lik_context *ctx);
/* Waits, and brings back what was written; `status` is that of the dispatches. */
int lik_metal_end(struct lik_metal_run *run, int status);

/* What kernels read. NULL and nothing at all may be told too. */
void lik_metal_reads(struct lik_metal_run *run, const void *at, int64_t bytes);
void lik_metal_reads_tokens(struct lik_metal_run *run, const struct lik_tokens *x);
/* What kernels write: rows with gaps between that are not theirs. With `keep` they read it
 * too. */
void lik_metal_writes(struct lik_metal_run *run, void *at, int64_t rows, int64_t row_bytes,
                      int64_t row_stride, int keep);
/* Both, and nobody looks at it before or after. */
void lik_metal_scratch(struct lik_metal_run *run, void *at, int64_t bytes);

/* For struct lik_metal_queue; `host` is the run. */
int lik_metal_encode(void *host, const struct lik_metal_dispatch *dispatch);

#endif
