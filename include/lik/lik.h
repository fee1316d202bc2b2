/* lik.h: the public interface of late-interaction-kernels.
 *
 * The library computes one operation, the late-interaction score (MaxSim, Khattab and Zaharia
 * 2020):
 *
 *     score(q, d) = sum over query tokens s of w[s] * max over document tokens t of <q[s],d[t]>
 *
 * A call is made of four independent choices: how the tokens are stored (`dtype`, `scale`,
 * `normalize`), how they are laid out (padded with strides and an optional mask, or packed with
 * offsets), which query meets which document (`pairing`), and what comes back (scores, scores +
 * argmax, gradients, the k best). The similarity matrix [queries, documents, query tokens,
 * document tokens] never exists in memory.
 *
 * Rules that hold everywhere:
 * - Problem structs say what, `struct lik_exec` says how. Zero-initialize them and set
 *   `struct_size = sizeof(the struct)` in each, nested ones included; a field that is zero
 *   means its documented default. Later versions take their fields from `reserved` or add them
 *   at the end of structs that are never nested.
 * - Views are borrowed for the duration of the call. Sizes, strides and offsets are 64-bit;
 *   strides count elements.
 * - Operations allocate nothing, print nothing, start no thread and keep no pointer. Workspace
 *   is the caller's: `*_plan` says how much, or the run asks for it (`exec.get_workspace`).
 * - What can fail returns a `lik_status`; on error the calling thread's `lik_last_error()`
 *   names the argument and both values. Arguments are checked before anything is written.
 * - Scores are f32, accumulated in f32 in an order that depends on the query and the document
 *   alone: results are bitwise the same for any number of threads, any batch around the pair,
 *   packed or padded, with and without argmax. docs/numerics.md states the bounds. */
#ifndef LIK_H
#define LIK_H

#include <stddef.h>
#include <stdint.h>

#define LIK_VERSION_MAJOR 0
#define LIK_VERSION_MINOR 4
#define LIK_VERSION_PATCH 100

#if defined(LIK_STATIC)
#define LIK_API
#elif defined(_WIN32)
#define LIK_API __declspec(dllimport)
#else
#define LIK_API __attribute__((visibility("default")))
#endif

/* Compilers warn where a status is not looked at. */
#if defined(__GNUC__)
#define LIK_STATUS __attribute__((warn_unused_result)) int
#else
#define LIK_STATUS int
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum lik_status {
    LIK_OK = 0,
    LIK_EINVAL = -1,       /* an argument is wrong; the message names it */
    LIK_EUNSUPPORTED = -2, /* valid, but this backend or build does not do it */
    LIK_EWORKSPACE = -3,   /* the workspace is smaller than the plan said */
    LIK_ENOMEM = -4,       /* no memory, or no threads, for a context, a pool or lik_memory_alloc */
    LIK_EDEVICE = -5,      /* no such device, or the device failed */
};

enum lik_dtype {
    LIK_F32 = 1,
    LIK_F16,
    LIK_BF16,
    LIK_E4M3, /* OCP 8-bit float, 4 exponent bits, no infinities ("e4m3fn") */
    LIK_E5M2, /* OCP 8-bit float, 5 exponent bits */
    LIK_I8,
    LIK_I16, /* argmax only */
    LIK_I32, /* argmax and offsets only */
    LIK_I64, /* offsets only */
};

/* How the tokens of an operand are stored. One value today; compressed tokens (PLAID) and
 * hidden states follow. */
enum lik_storage {
    LIK_DENSE = 0, /* `data` holds the token vectors in `dtype` */
};

/* Which query meets which document, and the shape of the scores. */
enum lik_pairing {
    LIK_ALL = 0, /* every query x every document: [q.count, d.count] */
    /* query i x documents i*per_query ... i*per_query + per_query - 1: [q.count, per_query] */
    LIK_CANDIDATES,
    LIK_PAIRS, /* query i x document i: [q.count] */
    LIK_LIST,  /* query list_q[n] x document list_d[n]: [list_count] */
};

/* How accurately products may be taken, as torch.set_float32_matmul_precision says it. */
enum lik_precision {
    /* f32-accurate. On i8 documents a query not of i8 is rounded to 16-bit integers per
     * token */
    LIK_HIGHEST = 0,
    LIK_HIGH, /* tensor cores may use TF32; on CPUs the same as LIK_HIGHEST */
    /* tensor cores may use BF16; on i8 documents CPUs round such a query to 7-bit integers */
    LIK_MEDIUM,
};

/* Strides of a per-token array, in elements. `group` is used only where `group_size` is set. A
 * stride of zero is no default: it repeats the same entry. lik_tokens_padded and
 * lik_tokens_packed fill in contiguous ones. */
struct lik_strides {
    int64_t group, sequence, token;
};

/* A borrowed batch of token sequences, the queries or the documents.
 *
 * Padded (offsets == NULL): token t of sequence i is the `dim` elements, dim_stride apart, at
 *     data + i * strides.sequence + t * strides.token        for t in 0 ... len_max - 1;
 * with group_size > 0 (a candidate layout [queries, group_size, len_max, dim] with strides of
 * its own) at
 *     data + (i / group_size) * strides.group + (i % group_size) * strides.sequence
 *          + t * strides.token.
 * Packed (offsets != NULL): token t of sequence i is row offsets[i] + t, at
 *     data + (offsets[i] + t) * strides.token;
 * `offsets` has count + 1 ascending entries, none over `total`; only strides.token is used,
 * here and in the arrays below.
 *
 * mask, scale and weights are addressed in the same way with their own strides. Strides may be
 * zero or negative. */
struct lik_tokens {
    size_t struct_size;
    int32_t storage; /* enum lik_storage */
    int32_t dtype;   /* LIK_F32, F16, BF16, E4M3, E5M2 or I8 */
    int64_t count;   /* sequences */
    /* padded: tokens a sequence; packed: an upper bound of the sequences' lengths */
    int64_t len_max;
    int64_t dim;      /* elements a token */
    int64_t total;    /* packed: rows in `data`; padded: unused */
    const void *data; /* aligned to its element */
    struct lik_strides strides;
    int64_t dim_stride;    /* 1 for contiguous tokens (0 repeats the first element) */
    int64_t group_size;    /* 0, or sequences a group */
    const void *offsets;   /* NULL = padded */
    int32_t offsets_dtype; /* LIK_I32 or LIK_I64; 0 if padded */
    int32_t normalize;     /* non-zero: each token x counts as x / max(|x|, 1e-12) */
    const uint8_t *mask;   /* NULL, or non-zero = token kept; a dropped token is never read */
    struct lik_strides mask_strides;
    const float *scale; /* NULL, or factor of the stored values; all strides 0 = one for the tensor */
    struct lik_strides scale_strides;
    const float *weights; /* queries only: NULL, or factor of each query token's maximum */
    struct lik_strides weights_strides;
    const void *reserved[6]; /* zero: room for compressed and projected storage */
};

/* Scores, with the argmax if wanted.
 *
 * A document without kept tokens scores 0, and so does a query without. A NaN among the kept
 * tokens gives NaN in the scores it takes part in. Ties of the maximum go to the lowest
 * document token.
 *
 * argmax[n, s] is, for score n (counted row by row) and query token s, the index within its
 * document of the token that gave the maximum (the first NaN product if there is one); -1 where
 * the query token is dropped or past the query's end, or the document keeps no token. Shape
 * [scores, q.len_max], contiguous. */
struct lik_score {
    size_t struct_size;
    struct lik_tokens q, d;
    int32_t pairing;       /* enum lik_pairing */
    int32_t precision;     /* enum lik_precision */
    int64_t per_query;     /* LIK_CANDIDATES: documents a query */
    const int64_t *list_q; /* LIK_LIST: [list_count] */
    const int64_t *list_d; /* LIK_LIST: [list_count] */
    int64_t list_count;
    float *scores;           /* shape by pairing */
    int64_t scores_stride;   /* elements between rows (pairs, list: between scores); 0 = contiguous */
    void *argmax;            /* NULL = not wanted. An input of lik_grad_run */
    int32_t argmax_dtype;    /* LIK_I32, or LIK_I16 when d.len_max <= 32767 */
    int32_t reserved_i32;    /* zero */
    const void *reserved[3]; /* zero */
};

/* The k best documents of each query, without the full score matrix. LIK_ALL or LIK_CANDIDATES;
 * scores and argmax of the problem are not written and may be NULL. Ordered best first, ties by
 * lower id, NaN last; when fewer than k documents exist the rest is id -1, value NaN. ids count
 * documents from id_base (LIK_CANDIDATES: from the query's first). */
struct lik_topk {
    size_t struct_size;
    struct lik_score score;
    int64_t k;        /* >= 1 */
    int64_t id_base;  /* global id of this shard's first document */
    int32_t smallest; /* non-zero: the k lowest scores, ascending, NaN still last */
    float *values;    /* [q.count, k] */
    int64_t *ids;     /* [q.count, k] */
};

/* Gradients of a loss through lik_score, from its argmax: exact, deterministic, without
 * atomics.
 *
 * grad_q[s] = sum over documents of g * w[s] * d[argmax], grad_d[t] = sum over the query tokens
 * it won of g * w[s] * q[s], in f32, through scale and normalization to the stored elements,
 * rounded once to the operand's dtype. A normalized token whose norm is below 1e-12 gets
 * gradient 0. Each gradient is contiguous: [count, len_max, dim] if the operand is padded,
 * [total, dim] if packed (rows outside every sequence become 0). */
struct lik_grad {
    size_t struct_size;
    struct lik_score score;     /* the forward problem; argmax is read, scores are not used */
    const float *grad_scores;   /* shape of the scores */
    int64_t grad_scores_stride; /* as scores_stride */
    void *grad_q;               /* NULL = not wanted; q.dtype, which must be F32, F16 or BF16 */
    void *grad_d;               /* NULL = not wanted; d.dtype, likewise */
    /* NULL = not wanted; needs q.weights; [q.count, q.len_max] or [q.total], contiguous */
    float *grad_weights;
    int32_t accumulate; /* non-zero: add to the buffers instead of overwriting them */
};

/* How to run. A NULL exec is one without workspace and threads: enough for a plan, and for a
 * run whose plan asks for no workspace. */
struct lik_exec {
    size_t struct_size;
    void *stream; /* CUDA: cudaStream_t */
    /* at least the plan's bytes, aligned to 64 (CUDA: device memory, aligned to 256) */
    void *workspace;
    size_t workspace_bytes;
    int32_t threads; /* how many tasks may run at once; 0 = 1 */
    /* Calls task(arg, i) once for each i in 0 ... n - 1, at once or one after another, and
     * returns when all are done. */
    void (*parallel_for)(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg);
    void *pool; /* first argument of parallel_for */
    /* NULL, or asked for workspace, at most once a run and before it does anything, where
     * `workspace` is too small: memory of at least `bytes`, aligned like it and valid until the
     * run's work is done (on CUDA: until what it puts on the stream is); NULL if there is none.
     * With it a run needs no plan before it. */
    void *(*get_workspace)(void *lender, size_t bytes);
    void *lender; /* first argument of get_workspace */
};

/* What a run would do. Set struct_size; the rest is written. */
struct lik_plan {
    size_t struct_size;
    size_t workspace_bytes;
    char variant[64]; /* printable name of the code that will run, e.g. "score_f16_d128_avx2" */
};

/* A backend on one device, immutable: any number of threads may share it. */
struct lik_context;

/* device: "cpu" (the best this processor has, capped by the environment variable LIK_CPU),
 * "cpu:generic", "cpu:avx2" (that level or an error), "ref" (the scalar f64 oracle),
 * "cuda:N". */
LIK_API LIK_STATUS lik_context_create(const char *device, struct lik_context **out);
LIK_API void lik_context_destroy(struct lik_context *ctx);
LIK_API const char *lik_context_name(const struct lik_context *ctx); /* "cpu:avx2", "ref", "cuda:0" */

/* Memory that the context's operations read and write, and streams that order them, for callers
 * without a runtime of the device's own: device memory aligned to 256 on CUDA, host memory
 * aligned to 64 elsewhere. 0 bytes are NULL. lik_memory_copy copies in either direction, or
 * within that memory, and returns when it is done; it waits for no stream, so that it overlaps
 * with runs on streams made here. On CUDA lik_memory_free may wait for everything on the
 * device. lik_memory_info tells the device's free and total bytes; 0 and 0 where the memory is
 * the host's. */
LIK_API LIK_STATUS lik_memory_alloc(const struct lik_context *ctx, size_t bytes, void **out);
LIK_API void lik_memory_free(const struct lik_context *ctx, void *memory);
LIK_API LIK_STATUS lik_memory_copy(const struct lik_context *ctx, void *to, const void *from, size_t bytes);
LIK_API LIK_STATUS lik_memory_info(const struct lik_context *ctx, size_t *free_bytes, size_t *total_bytes);

/* A stream for lik_exec, independent of all others; NULL where operations run on the host, done
 * when they return. lik_stream_synchronize waits for what was put on it, and tells if that
 * failed. */
LIK_API LIK_STATUS lik_stream_create(const struct lik_context *ctx, void **out);
LIK_API LIK_STATUS lik_stream_synchronize(const struct lik_context *ctx, void *stream);
LIK_API void lik_stream_destroy(const struct lik_context *ctx, void *stream);

/* `exec` may be NULL; of it a plan looks at `threads` and `parallel_for` alone. */
LIK_API LIK_STATUS lik_score_plan(const struct lik_context *ctx, const struct lik_score *op,
                                  const struct lik_exec *exec, struct lik_plan *plan);
LIK_API LIK_STATUS lik_score_run(const struct lik_context *ctx, const struct lik_score *op,
                                 const struct lik_exec *exec);
LIK_API LIK_STATUS lik_topk_plan(const struct lik_context *ctx, const struct lik_topk *op,
                                 const struct lik_exec *exec, struct lik_plan *plan);
LIK_API LIK_STATUS lik_topk_run(const struct lik_context *ctx, const struct lik_topk *op,
                                const struct lik_exec *exec);
LIK_API LIK_STATUS lik_grad_plan(const struct lik_context *ctx, const struct lik_grad *op,
                                 const struct lik_exec *exec, struct lik_plan *plan);
LIK_API LIK_STATUS lik_grad_run(const struct lik_context *ctx, const struct lik_grad *op,
                                const struct lik_exec *exec);

/* Merges `parts` top-k results, values and ids [parts, queries, k_in] with global ids, into the
 * k best of each query, [queries, k], in the same order and with the same filler as lik_topk.
 * Entries with id < 0 are ignored; an id that is in two parts comes back twice. Pure. */
LIK_API LIK_STATUS lik_merge_topk(int64_t parts, int64_t queries, int64_t k_in, const float *values_in,
                                  const int64_t *ids_in, int64_t k, int32_t smallest, float *values,
                                  int64_t *ids);

/* A small explicit thread pool: `threads` >= 1 counts the calling thread. Pass
 * lik_pool_parallel_for, the pool and lik_pool_threads() in lik_exec. One call uses the pool at
 * a time; others that come meanwhile run on their own thread. After fork() the child's calls
 * run on the calling thread. The pool's threads block signals: those go to the caller's. */
struct lik_pool;
LIK_API LIK_STATUS lik_pool_create(int32_t threads, struct lik_pool **out);
LIK_API void lik_pool_destroy(struct lik_pool *pool);
LIK_API int32_t lik_pool_threads(const struct lik_pool *pool);
LIK_API void lik_pool_parallel_for(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg);

/* Contiguous views: padded [count, len, dim], packed [total, dim] with offsets [count + 1]. */
LIK_API struct lik_tokens lik_tokens_padded(const void *data, int32_t dtype, int64_t count, int64_t len,
                                            int64_t dim);
LIK_API struct lik_tokens lik_tokens_packed(const void *data, int32_t dtype, int64_t count, int64_t len_max,
                                            int64_t total, int64_t dim, const void *offsets,
                                            int32_t offsets_dtype);

/* Sequences first ... first + count - 1 of x as a view of their own, into the same memory; with
 * groups whole ones, or some of one. On an error *out stays as it was. */
LIK_API LIK_STATUS lik_tokens_slice(const struct lik_tokens *x, int64_t first, int64_t count,
                                    struct lik_tokens *out);

/* of the calling thread: "" if its last call that returns a status succeeded */
LIK_API const char *lik_last_error(void);
LIK_API const char *lik_status_name(int status);   /* "LIK_EINVAL", ... */
LIK_API const char *lik_version(void);             /* "0.4.100" */
LIK_API const char *lik_build_info(void);          /* compiler and backends, one line */
LIK_API size_t lik_dtype_bytes(int32_t dtype);     /* 0 for an unknown dtype */
LIK_API const char *lik_dtype_name(int32_t dtype); /* "f32", "bf16", ...; "?" for an unknown dtype */

#ifdef __cplusplus
}
#endif
#endif
