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
 * document tokens] never exists in memory. Beside it stands what makes and reads compressed
 * tokens, lik_train, lik_encode, lik_decode, and 8-bit ones, lik_quantize.
 *
 * Rules that hold everywhere:
 * - Problem structs say what, `struct lik_exec` says how. Zero-initialize them and set
 *   `struct_size = sizeof(the struct)` in each, nested ones included; a field that is zero
 *   means its documented default. Later versions take their fields from `reserved` or add them
 *   at the end of structs that are never nested.
 *   The macros LIK_SCORE_INIT and their like do that: struct lik_topk op = LIK_TOPK_INIT;
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
#elif defined(_WIN32) && defined(LIK_BUILDING)
#define LIK_API __declspec(dllexport)
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
    LIK_I16, /* argmax and codes only */
    LIK_I32, /* argmax, offsets and codes only */
    LIK_I64, /* offsets and codes only */
};

/* How the tokens of an operand are stored. */
enum lik_storage {
    LIK_DENSE = 0, /* `data` holds the token vectors in `dtype` */
    /* documents only: `data` holds what a few bits an element add to a centroid, see
     * struct lik_codec */
    LIK_RESIDUAL,
    /* documents only: a token is the unit vector of its code, so that its product with a query
     * token is that token's element of this number, looked up */
    LIK_ONE_HOT,
};

/* Which bits of a byte of residuals belong to which element. */
enum lik_bit_order {
    LIK_BITS_LOW_FIRST = 0, /* the byte's first element has the lowest bits */
    /* the first element has the highest bits, each group's in reverse: what the files of
     * ColBERT, fast-plaid and next-plaid hold (numpy.packbits of numbers whose lowest bit comes
     * first) */
    LIK_BITS_COLBERT,
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
    /* tensor cores may use BF16; on i8 documents CPUs round such a query to 7-bit integers;
     * tokens of LIK_RESIDUAL may be met as 8-bit integers, about 1e-3 of a score */
    LIK_MEDIUM,
};

/* Strides of a per-token array, in elements. `group` is used only where `group_size` is set. A
 * stride of zero is no default: it repeats the same entry. lik_tokens_padded and
 * lik_tokens_packed fill in contiguous ones. */
struct lik_strides {
    int64_t group, sequence, token;
};

/* What the compressed tokens of a collection have in common (the residual compression of
 * ColBERTv2, Santhanam et al. 2022). Element k of a token is element k of the token's centroid
 * plus the weight of the bucket that its residual bits name. A token has
 * (dim * bits + 7) / 8 bytes of residual. */
struct lik_codec {
    size_t struct_size;
    int32_t bits;          /* an element: 1, 2, 4 or 8; 0: tokens are their centroids */
    int32_t bit_order;     /* enum lik_bit_order */
    const void *centroids; /* [centroid_count, dim], aligned to their element */
    int64_t centroid_count;
    int64_t centroid_stride; /* elements from one centroid to the next; 0 = dim */
    int32_t centroids_dtype; /* LIK_F32, F16 or BF16 */
    int32_t weights_dtype;   /* LIK_F32, F16 or BF16 */
    const void *weights;     /* [1 << bits]; NULL with 0 bits */
    const void *reserved[4]; /* zero */
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
 * mask, scale, weights and codes are addressed in the same way with their own strides. Strides
 * may be zero or negative.
 *
 * With LIK_RESIDUAL `data` are bytes, a token's one after the other, and `dtype` is what tokens
 * are decoded to: F32, the sum of centroid and weight in f32; F16 or BF16, both rounded to it,
 * and their sum. A decoded token then counts as a dense one would. `scale` may hold the inverse
 * norms of tokens that are to be normalized, in f32 or f16, `normalize` being zero.
 *
 * With LIK_ONE_HOT a query token is a table of products, with each of `dim` centroids for
 * example (PLAID's approximate score, Santhanam et al. 2022), and a document token is the
 * number of one of them, 0 to dim - 1. dim may be up to 2^31 - 1. Of the documents `dtype` is
 * F32, `data`, `codec` and `scale` are NULL, `normalize` is zero, strides and dim_stride count
 * for nothing; queries are F32 with neither `scale` nor `normalize`. Elements that no kept
 * token names are not read. Fast is the order that has all query tokens of an element
 * together: that of a table [dim, len] with strides.token 1 and dim_stride len. There are no
 * gradients. */
struct lik_tokens {
    size_t struct_size;
    int32_t storage; /* enum lik_storage */
    int32_t dtype;   /* LIK_F32, F16, BF16, E4M3, E5M2 or I8 */
    int64_t count;   /* sequences */
    /* padded: tokens a sequence; packed: an upper bound of the sequences' lengths, or 0: found,
     * where the offsets are in host memory (not of queries whose argmax is wanted) */
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
    const struct lik_codec *codec; /* LIK_RESIDUAL: in host memory, its arrays where `data` is */
    const void *codes;             /* LIK_RESIDUAL: numbers of centroids; LIK_ONE_HOT: of elements */
    struct lik_strides codes_strides;
    int32_t codes_dtype; /* where there are codes: LIK_I16 (0 to 65535), LIK_I32 or LIK_I64 */
    int32_t scale_dtype; /* 0 = LIK_F32; with LIK_RESIDUAL LIK_F16 as well (scale points to those) */
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

/* Tokens as rows of floats: what each counts as, scale and normalization applied, rounded once
 * to out_dtype. Rows of dropped tokens and those outside every sequence become 0. */
struct lik_decode {
    size_t struct_size;
    struct lik_tokens x; /* of any storage; no weights */
    int32_t out_dtype;   /* LIK_F32, F16 or BF16 */
    void *out;           /* contiguous: [count, len_max, dim] if x is padded, [total, dim] if packed */
};

/* Tokens to codes and residual bytes, which LIK_RESIDUAL reads.
 *
 * A token's code is the lowest centroid with the largest product, the argmax of lik_score with
 * the centroids as one document (on CUDA to rounding: docs/numerics.md); each element of what
 * then remains, in f32, goes into bucket number (cutoffs below it). `rows` are [count, len_max]
 * if x is padded, [total] if packed; those of dropped tokens and outside every sequence become
 * 0 in every output. */
struct lik_encode {
    size_t struct_size;
    struct lik_tokens x;           /* no weights */
    const struct lik_codec *codec; /* in host memory, its arrays where `data` is */
    const float *cutoffs;          /* [(1 << bits) - 1], ascending; NULL with 0 bits */
    int32_t precision;             /* enum lik_precision, of the products that choose the centroid */
    int32_t codes_dtype;           /* LIK_I32, I64, or I16 with at most 65536 centroids */
    void *codes;                   /* [rows] */
    uint8_t *residuals;            /* [rows, (dim * bits + 7) / 8]; NULL with 0 bits */
    /* NULL = not wanted, or [rows]: 1 / max(|decoded token|, 1e-12), the token decoded in f32;
     * at most 65504 in f16. What `scale` of compressed tokens takes */
    void *inv_norms;
    int32_t inv_norms_dtype; /* LIK_F32 or F16; 0 = F32 */
};

/* Tokens as 8-bit numbers with scales: token ~ values * scale, what `scale` of dense tokens
 * takes.
 *
 * A token's scale is its largest |element|, or 1e-12 (1e-6 of 8-bit floats) if that is more,
 * divided by the largest number of values_dtype: 127, 448 or 57344. Its values are the elements
 * divided by it, to the nearest, ties to even; a NaN is a NaN, or 0 in I8. With x.normalize the
 * values are the same, and the scale is divided by max(|token|, 1e-12): what is stored stands
 * for a unit vector. Rows of dropped tokens and outside every sequence become 0 in both. */
struct lik_quantize {
    size_t struct_size;
    struct lik_tokens x;  /* of any storage; no weights */
    int32_t values_dtype; /* LIK_I8, E4M3 or E5M2 */
    int32_t one_scale;    /* non-zero: one for all tokens, of the largest element of all; no x.normalize */
    void *values;         /* contiguous: [count, len_max, dim] if x is padded, [total, dim] if packed */
    float *scales;        /* [count, len_max] or [total]; with one_scale [1] */
};

/* What training found. */
struct lik_train_found {
    int64_t points;   /* tokens that k-means saw */
    int64_t held_out; /* tokens that it did not see, and whose residuals made the buckets */
    int64_t reseeded; /* clusters that came out empty and began anew from a token */
    /* squares of a residual's elements, summed, on average over the tokens that made the
     * buckets */
    double mean_squared_residual;
};

/* A codec from a sample of tokens: centroids by spherical k-means, buckets by quantiles, as
 * ColBERTv2 trains them.
 *
 * The seed shuffles the kept tokens, whatever their layout. The first twentieth of them, at
 * most 50,000, is held out; k-means begins from the next centroid_count tokens and sees those
 * and more, up to points_per_centroid times as many. Each iteration gives a token to the
 * centroid with the largest product, the lowest of equals, and makes each centroid the
 * direction of its tokens' sum; one without tokens, or whose sum is 0, begins anew from the
 * next of the shuffled tokens. Then cutoff i is quantile (i + 1) / 2^bits and weight i quantile
 * (i + 1/2) / 2^bits of the elements of the held-out tokens' residuals, all together,
 * interpolated linearly. Where so few tokens are kept that none can be held out, those that
 * k-means saw make the buckets. Tokens without a direction (shorter than 1e-12, or not finite)
 * take no part; where all are such, what is trained is 0.
 *
 * The results are the same for any number of threads and any layout of the same tokens. */
struct lik_train {
    size_t struct_size;
    struct lik_tokens x;         /* no weights */
    int64_t centroid_count;      /* 1 to the number of kept tokens */
    int64_t points_per_centroid; /* 0 = 256 */
    int32_t iterations;          /* 0 = 4 */
    int32_t bits;                /* an element: 0, 1, 2, 4 or 8 */
    uint64_t seed;
    /* enum lik_precision, of the products that choose centroids in k-means; with LIK_MEDIUM
     * CPUs may round both factors to 8-bit integers */
    int32_t precision;
    float *centroids;              /* [centroid_count, dim], of length 1 */
    float *cutoffs;                /* [(1 << bits) - 1], ascending; NULL with 0 bits */
    float *weights;                /* [1 << bits], ascending; NULL with 0 bits */
    struct lik_train_found *found; /* NULL = not wanted; where the outputs are */
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

/* Initializers, the sizes of nested structs set (C, and C++ from 20 on). */
#define LIK_SCORE_INIT {.struct_size = sizeof(struct lik_score)}
#define LIK_TOPK_INIT  {.struct_size = sizeof(struct lik_topk), .score = LIK_SCORE_INIT}
#define LIK_GRAD_INIT  {.struct_size = sizeof(struct lik_grad), .score = LIK_SCORE_INIT}
#define LIK_EXEC_INIT  {.struct_size = sizeof(struct lik_exec)}
#define LIK_PLAN_INIT  {.struct_size = sizeof(struct lik_plan)}

/* What a run would do. Set struct_size; the rest is written.
 *
 * A plan is made of sizes: counts, len_max, dim, k, dtypes, pairing, threads, and of packed
 * tokens where their offsets begin and end. It does not depend on what data, masks, lists and
 * the offsets between hold: another query or collection of the same sizes is covered by it.
 * Where len_max is 0 the longest sequence is one of the sizes.
 * Other sizes, smaller ones too, may take more. A run never overruns what it is given: where
 * that is too little it asks get_workspace or fails with LIK_EWORKSPACE before it writes.
 *
 * Serving. Least time for one query: threads inside it (a pool in exec). Most queries a second,
 * each with the least wait: a query a thread, exec.threads 1, every thread with a workspace of
 * its own, all with one context and the same documents. Most in all: a batch, many queries in
 * one call, which reads the documents once for all of them. A pool serves one call at a time.
 * examples/serve.c measures the three. */
struct lik_plan {
    size_t struct_size;
    size_t workspace_bytes;
    char variant[64]; /* printable name of the code that will run, e.g. "score_f16_d128_avx2" */
};

/* A backend on one device, immutable: any number of threads may share it. */
struct lik_context;

/* device: "cpu" (the best this processor has, capped by the environment variable LIK_CPU),
 * "cpu:generic", "cpu:avx2", ... (that level or an error; see lik_cpu_level), "ref" (the scalar
 * f64 oracle), "cuda:N", "metal:N" (a GPU of Apple's, "metal" the first; it reads and writes
 * the host's memory). */
LIK_API LIK_STATUS lik_context_create(const char *device, struct lik_context **out);
LIK_API void lik_context_destroy(struct lik_context *ctx);
LIK_API const char *lik_context_name(const struct lik_context *ctx); /* "cpu:avx2", "ref", "cuda:0" */
/* What the device calls itself, "Apple M2 Max" for example; "" of one that says nothing. */
LIK_API const char *lik_context_hardware(const struct lik_context *ctx);

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

/* Compressed and 8-bit tokens: see the structs. A backend may lack one of these
 * (LIK_EUNSUPPORTED). */
LIK_API LIK_STATUS lik_decode_plan(const struct lik_context *ctx, const struct lik_decode *op,
                                   const struct lik_exec *exec, struct lik_plan *plan);
LIK_API LIK_STATUS lik_decode_run(const struct lik_context *ctx, const struct lik_decode *op,
                                  const struct lik_exec *exec);
LIK_API LIK_STATUS lik_encode_plan(const struct lik_context *ctx, const struct lik_encode *op,
                                   const struct lik_exec *exec, struct lik_plan *plan);
LIK_API LIK_STATUS lik_encode_run(const struct lik_context *ctx, const struct lik_encode *op,
                                  const struct lik_exec *exec);
LIK_API LIK_STATUS lik_train_plan(const struct lik_context *ctx, const struct lik_train *op,
                                  const struct lik_exec *exec, struct lik_plan *plan);
LIK_API LIK_STATUS lik_train_run(const struct lik_context *ctx, const struct lik_train *op,
                                 const struct lik_exec *exec);
LIK_API LIK_STATUS lik_quantize_plan(const struct lik_context *ctx, const struct lik_quantize *op,
                                     const struct lik_exec *exec, struct lik_plan *plan);
LIK_API LIK_STATUS lik_quantize_run(const struct lik_context *ctx, const struct lik_quantize *op,
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
 * run on the calling thread. The pool's threads block signals: those go to the caller's. A
 * build for WebAssembly has no pool. */
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

/* A contiguous view whose data are the residual bytes of compressed tokens, decoded to its
 * dtype; `codes` lie as the tokens do, one each. */
LIK_API struct lik_tokens lik_tokens_compressed(struct lik_tokens contiguous, const struct lik_codec *codec,
                                                const void *codes, int32_t codes_dtype);

/* Sequences first ... first + count - 1 of x as a view of their own, into the same memory; with
 * groups whole ones, or some of one. On an error *out stays as it was. */
LIK_API LIK_STATUS lik_tokens_slice(const struct lik_tokens *x, int64_t first, int64_t count,
                                    struct lik_tokens *out);

/* of the calling thread: "" if its last call that returns a status succeeded */
LIK_API const char *lik_last_error(void);
LIK_API const char *lik_status_name(int status); /* "LIK_EINVAL", ... */
LIK_API const char *lik_version(void);           /* "0.4.100" */
LIK_API const char *lik_build_info(void);        /* compiler and backends, one line */
/* The name of the n-th instruction-set level of the CPU backend, from the baseline up; NULL
 * past the last. `why` (may be NULL): whether "cpu" takes it here, in words. */
LIK_API const char *lik_cpu_level(int32_t n, const char **why);
LIK_API size_t lik_dtype_bytes(int32_t dtype);     /* 0 for an unknown dtype */
LIK_API const char *lik_dtype_name(int32_t dtype); /* "f32", "bf16", ...; "?" for an unknown dtype */

#ifdef __cplusplus
}
#endif
#endif
