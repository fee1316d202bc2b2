/* The interface between the front door (src/core) and the backends (src/ref, src/cpu,
 * src/cuda, src/metal).
 *
 * A backend sees only problems that the front door has checked and completed: structs of full
 * size, dtypes, pairing and ranks valid, sizes non-negative and their products in range, list
 * entries and host-side offsets in range, defaults filled in (scale_dtype, scores_stride,
 * grad_scores_stride, inv_norms_dtype, points_per_centroid, iterations, exec->threads >= 1,
 * exec->parallel_for set). `score.scores` may be NULL inside a top-k.
 *
 * There is one hook a verb. With a plan it says what a run would do: lik_workspace_plan, and
 * the variant's name. Without one it runs: it plans once, takes its workspace by
 * lik_workspace_take, and does or enqueues the work. */
#ifndef LIK_BACKEND_H
#define LIK_BACKEND_H

#include "base/error.h"
#include "base/layout.h"
#include "lik/lik.h"

struct lik_context {
    const struct lik_backend *backend;
    const void *kernels; /* the backend's own table for the chosen level */
    int32_t device;      /* device index */
    int32_t check;       /* $LIK_CHECK, on a device: look at offsets and lists there, wait for every run */
    char name[24];
    char hardware[64]; /* what the device calls itself; "" where nothing does */
};

struct lik_backend {
    const char *name;
    /* Non-zero: operands lie in host memory. The front door may read offsets, lists and masks
     * to check them, serves lik_memory_* and lik_stream_* itself, and the hooks for those are
     * NULL. */
    int host_memory;
    uint32_t storages; /* bit n: documents of storage n, of enum lik_storage, are taken */
    /* `level` is what follows the colon in the device string, or NULL. Fills kernels, device
     * and name. */
    int (*open)(struct lik_context *ctx, const char *level);
    int (*score)(const struct lik_context *, const struct lik_score *, struct lik_exec *, struct lik_plan *);
    int (*topk)(const struct lik_context *, const struct lik_topk *, struct lik_exec *, struct lik_plan *);
    int (*grad)(const struct lik_context *, const struct lik_grad *, struct lik_exec *, struct lik_plan *);
    /* NULL where the backend lacks the verb: the front door refuses it. */
    int (*decode)(const struct lik_context *, const struct lik_decode *, struct lik_exec *,
                  struct lik_plan *);
    int (*encode)(const struct lik_context *, const struct lik_encode *, struct lik_exec *,
                  struct lik_plan *);
    int (*train)(const struct lik_context *, const struct lik_train *, struct lik_exec *, struct lik_plan *);
    int (*quantize)(const struct lik_context *, const struct lik_quantize *, struct lik_exec *,
                    struct lik_plan *);
    int (*memory_alloc)(const struct lik_context *, size_t bytes, void **out); /* bytes > 0 */
    void (*memory_free)(const struct lik_context *, void *memory);
    int (*memory_copy)(const struct lik_context *, void *to, const void *from, size_t bytes); /* bytes > 0 */
    int (*memory_info)(const struct lik_context *, size_t *free_bytes, size_t *total_bytes);
    int (*stream_create)(const struct lik_context *, void **out);
    int (*stream_synchronize)(const struct lik_context *, void *stream);
    void (*stream_destroy)(const struct lik_context *, void *stream);
};

/* For the hooks: the bytes of a layout into plan->workspace_bytes. */
LIK_STATUS lik_workspace_plan(const struct lik_context *ctx, const struct lik_layout *layout,
                              struct lik_plan *plan);
/* For the hooks, once a run: memory for a layout, the caller's or what exec->get_workspace
 * gives, aligned to 64 bytes (256 on a device). */
LIK_STATUS lik_workspace_take(const struct lik_context *ctx, struct lik_exec *exec,
                              const struct lik_layout *layout, char **memory);

extern const struct lik_backend lik_backend_ref;
extern const struct lik_backend lik_backend_cpu;
#ifdef LIK_WITH_CUDA
extern const struct lik_backend lik_backend_cuda;
#endif
#ifdef LIK_WITH_METAL
extern const struct lik_backend lik_backend_metal;
#endif

#endif
