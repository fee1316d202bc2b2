/* How an operation runs on Metal: which kernels, one after another, with which numbers and
 * buffers. Plain C that knows no Metal: the host (or the emulator of the tests) is handed
 * dispatches in order and carries them out.
 *
 * An operation is planned once, which says what workspace it takes, and then walks through its
 * dispatches. Each sees what those before it wrote: a serial compute encoder is what that
 * takes, and no barrier besides.
 *
 * A host must bind, for every dispatch, the arguments at LIK_AT_ARGS (at most 4096 bytes:
 * setBytes), and at n what buffers[n] points into, at that offset; where it is NULL the kernel
 * may declare buffer n, and does not touch it. Threadgroups have LIK_METAL_THREADS x 1 x 1
 * threads, the grid is one-dimensional, threadgroup memory is declared in the kernels, none is
 * set. threadExecutionWidth must be LIK_METAL_SIMD. */
#ifndef LIK_METAL_PLAN_H
#define LIK_METAL_PLAN_H

#include "base/layout.h"
#include "lik/lik.h"
#include "metal/layout.h"

enum lik_metal_kernel_number {
    LIK_METAL_FACTORS,
    LIK_METAL_SCORE_HALF, /* f16 by f16, multiplied as they are */
    LIK_METAL_SCORE_F32,  /* documents of this kind by queries of any, multiplied as f32 */
    LIK_METAL_SCORE_F16,
    LIK_METAL_SCORE_BF16,
    LIK_METAL_SCORE_E4M3,
    LIK_METAL_SCORE_E5M2,
    LIK_METAL_SCORE_I8,
    LIK_METAL_SCORE_RESIDUAL,
    LIK_METAL_SCORE_ONE_HOT, /* looked up, nothing multiplied */
    LIK_METAL_GRAD,
    LIK_METAL_GRAD_WEIGHTS,
    LIK_METAL_LIST_KEYS,
    LIK_METAL_SELECT,
    LIK_METAL_GATHER_KEYS,
    LIK_METAL_SORT_PASS,
    LIK_METAL_WRITE_BEST,
    LIK_METAL_KERNELS
};

struct lik_metal_kernel {
    const char *name;     /* its entry point */
    int32_t args_bytes;   /* of the struct at LIK_AT_ARGS */
    int32_t shared_bytes; /* threadgroup memory that it declares; a device has 32 KB */
    uint32_t buffers;     /* bit n: it declares buffer n */
    uint32_t writes;      /* bit n: it writes that one */
};

extern const struct lik_metal_kernel lik_metal_kernels[LIK_METAL_KERNELS];

struct lik_metal_dispatch {
    enum lik_metal_kernel_number kernel;
    int64_t threadgroups;
    const void *args; /* valid during the call */
    const void *buffers[LIK_METAL_BUFFERS];
};

/* Who carries dispatches out; a status that is not LIK_OK ends the run. */
struct lik_metal_queue {
    int (*dispatch)(void *host, const struct lik_metal_dispatch *dispatch);
    void *host;
};

/* A plan: offsets into the workspace and how the work is cut. Nothing in it depends on an
 * address but `quads`, which is looked at when the operation runs. */
struct lik_metal_score_plan {
    enum lik_metal_kernel_number kernel;
    int64_t queries_per_tile, columns_per_run, runs, items;
    int64_t q_factor_count, d_factor_count; /* 0: the operand has neither scale nor normalization */
    size_t q_factors, d_factors;
};

struct lik_metal_grad_plan {
    int64_t q_factor_count, d_factor_count;
    size_t q_factors, d_factors;
    int64_t key_count; /* of a list, for each operand: a power of two; 0: there is no list */
    size_t q_keys, d_keys;
};

struct lik_metal_topk_plan {
    struct lik_metal_score_plan score;
    int64_t queries_per_chunk, documents_per_chunk;
    int64_t sorted_keys; /* a power of two: keys a query, sorted in device memory; 0: runs */
    size_t scores, keys[2], best[2];
};

LIK_STATUS lik_metal_plan_score(const struct lik_score *op, struct lik_layout *layout,
                                struct lik_metal_score_plan *plan);
LIK_STATUS lik_metal_run_score(const struct lik_score *op, const struct lik_metal_score_plan *plan,
                               char *workspace, const struct lik_metal_queue *queue);
void lik_metal_name_score(const struct lik_score *op, const struct lik_metal_score_plan *plan, char *text,
                          size_t size);

LIK_STATUS lik_metal_plan_topk(const struct lik_topk *op, struct lik_layout *layout,
                               struct lik_metal_topk_plan *plan);
LIK_STATUS lik_metal_run_topk(const struct lik_topk *op, const struct lik_metal_topk_plan *plan,
                              char *workspace, const struct lik_metal_queue *queue);
void lik_metal_name_topk(const struct lik_topk *op, const struct lik_metal_topk_plan *plan, char *text,
                         size_t size);

LIK_STATUS lik_metal_plan_grad(const struct lik_grad *op, struct lik_layout *layout,
                               struct lik_metal_grad_plan *plan);
LIK_STATUS lik_metal_run_grad(const struct lik_grad *op, const struct lik_metal_grad_plan *plan,
                              char *workspace, const struct lik_metal_queue *queue);
void lik_metal_name_grad(const struct lik_grad *op, const struct lik_metal_grad_plan *plan, char *text,
                         size_t size);

#endif
