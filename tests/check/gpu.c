/* Problems of the check suite on a GPU: every array of a problem is copied to device memory,
 * placed like the host's (modulo 256 bytes) between guard bands of 0xff bytes, which read as
 * NaN; the operation runs there; outputs are copied back over the host's. The workspace holds
 * 0xee bytes, or nothing ever written with LIK_CHECK_RAW=1 (for initcheck). */
#include "check.h"

#include "shared/operand.h"

#ifdef LIK_WITH_CUDA
#include <cuda_runtime_api.h>
#include <pthread.h>

enum { GUARD = 1024, ARRAYS = 32 };

struct mirror {
    const unsigned char *host;
    unsigned char *base; /* of the device's allocation; the array starts at base + at */
    size_t at, bytes, allocated;
    int output;
};

static struct mirror mirrors[ARRAYS];
static int mirror_count;

static void need(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        printf("%s: %s\n", what, cudaGetErrorString(error));
        exit(2);
    }
}

static void *mirror_bytes(const void *host, size_t bytes, int output)
{
    if (!host)
        return NULL;
    struct mirror *m = &mirrors[mirror_count++];
    *m = (struct mirror){.host = host, .bytes = bytes, .output = output};
    m->at = GUARD + (uintptr_t)host % 256;
    m->allocated = m->at + bytes + GUARD;
    need(cudaMalloc((void **)&m->base, m->allocated), "cudaMalloc");
    need(cudaMemset(m->base, 0xff, m->at), "cudaMemset");
    need(cudaMemset(m->base + m->at + bytes, 0xff, GUARD), "cudaMemset");
    if (bytes)
        need(cudaMemcpy(m->base + m->at, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    return m->base + m->at;
}

/* Array n of x; returns the device's address of its entry (0, 0, 0). */
static void *mirror_array(const struct lik_tokens *x, int n)
{
    struct lik_operand_array array = lik_array_of(x, n);
    int64_t extents[4], low = 0, high = 1;
    const int64_t steps[4] = {array.strides.group, array.strides.sequence, array.strides.token,
                              array.inner_stride};
    if (!array.at)
        return NULL;
    lik_operand_extents(x, &array, extents);
    for (int i = 0; i < 4; i++) {
        if (extents[i] == 0)
            return mirror_bytes(array.at, 0, 0);
        *(steps[i] < 0 ? &low : &high) += (extents[i] - 1) * steps[i];
    }
    const unsigned char *first = (const unsigned char *)array.at + low * array.element_bytes;
    size_t bytes = (size_t)((high - low) * array.element_bytes);
    return (unsigned char *)mirror_bytes(first, bytes, 0) - low * array.element_bytes;
}

/* A codec of tokens of this dim, in host memory with its arrays on the device. */
static struct lik_codec mirror_codec(const struct lik_codec *host, int64_t dim)
{
    struct lik_codec codec = *host;
    int64_t stride = codec.centroid_stride ? codec.centroid_stride : dim;
    size_t elements = codec.centroid_count ? (size_t)((codec.centroid_count - 1) * stride + dim) : 0;
    codec.centroids = mirror_bytes(codec.centroids, elements * lik_dtype_bytes(codec.centroids_dtype), 0);
    codec.weights = mirror_bytes(codec.weights, lik_dtype_bytes(codec.weights_dtype) << codec.bits, 0);
    return codec;
}

static void mirror_tokens(struct lik_tokens *x)
{
    static struct lik_codec codec; /* of compressed documents */
    struct lik_tokens host = *x;
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++)
        lik_operand_move(x, n, mirror_array(&host, n));
    if (x->codec) {
        codec = mirror_codec(x->codec, x->dim);
        x->codec = &codec;
    }
    x->offsets =
        mirror_bytes(host.offsets, (size_t)(host.count + 1) * (host.offsets_dtype == LIK_I32 ? 4 : 8), 0);
}

static int64_t rows_of(const struct lik_tokens *x)
{
    return x->offsets ? x->total : x->count * x->len_max;
}

/* Scores of a problem, and the elements from the first to the last in rows `step` apart (0:
 * contiguous). */
static size_t scores_of(const struct lik_score *op, int64_t step, size_t *elements)
{
    int64_t columns = op->pairing == LIK_ALL          ? op->d.count
                      : op->pairing == LIK_CANDIDATES ? op->per_query
                                                      : 1;
    int64_t rows = op->pairing == LIK_LIST ? op->list_count : op->q.count;
    *elements = rows && columns ? (size_t)((rows - 1) * (step ? step : columns) + columns) : 0;
    return (size_t)(rows * columns);
}

/* The host's problem `op` in device memory, with its outputs if `outputs`; the argmax is an
 * input otherwise. */
static struct lik_score mirror_score(const struct lik_score *op, int outputs)
{
    struct lik_score gpu = *op;
    size_t elements, scores = scores_of(op, op->scores_stride, &elements);
    mirror_tokens(&gpu.q);
    mirror_tokens(&gpu.d);
    if (op->pairing == LIK_LIST) {
        gpu.list_q = mirror_bytes(op->list_q, (size_t)op->list_count * 8, 0);
        gpu.list_d = mirror_bytes(op->list_d, (size_t)op->list_count * 8, 0);
    }
    gpu.scores = outputs ? mirror_bytes(op->scores, elements * sizeof(float), 1) : NULL;
    size_t size = op->argmax_dtype == LIK_I16 ? 2 : 4;
    gpu.argmax = mirror_bytes(op->argmax, scores * (size_t)op->q.len_max * size, outputs);
    return gpu;
}

/* Copies the outputs back, looks at the guard bands, frees everything. */
static void mirror_close(void)
{
    static unsigned char band[2 * GUARD + 256];
    for (int i = 0; i < mirror_count; i++) {
        struct mirror *m = &mirrors[i];
        size_t touched = 0;
        need(cudaMemcpy(band, m->base, m->at, cudaMemcpyDeviceToHost), "cudaMemcpy");
        need(cudaMemcpy(band + m->at, m->base + m->at + m->bytes, GUARD, cudaMemcpyDeviceToHost),
             "cudaMemcpy");
        for (size_t b = 0; b < m->at + GUARD; b++)
            touched += band[b] != 0xff;
        check(touched == 0, "%zu bytes around array %d of %zu bytes were written", touched, i, m->bytes);
        if (m->output && m->bytes)
            need(cudaMemcpy((void *)(uintptr_t)m->host, m->base + m->at, m->bytes, cudaMemcpyDeviceToHost),
                 "cudaMemcpy");
        need(cudaFree(m->base), "cudaFree");
    }
    mirror_count = 0;
}

static struct lik_exec make_workspace(const struct lik_plan *plan)
{
    /* only its alignment counts */
    static const unsigned char *const place = (const unsigned char *)(uintptr_t)4096;
    struct lik_exec how = {.struct_size = sizeof how, .workspace_bytes = plan->workspace_bytes};
    struct mirror *m = &mirrors[mirror_count++];
    *m = (struct mirror){.host = place, .at = GUARD, .bytes = plan->workspace_bytes};
    m->allocated = 2 * GUARD + m->bytes;
    need(cudaMalloc((void **)&m->base, m->allocated), "cudaMalloc");
    need(cudaMemset(m->base, 0xff, GUARD), "cudaMemset");
    need(cudaMemset(m->base + m->at + m->bytes, 0xff, GUARD), "cudaMemset");
    const char *raw = getenv("LIK_CHECK_RAW");
    if (m->bytes && !(raw && *raw == '1'))
        need(cudaMemset(m->base + m->at, 0xee, m->bytes), "cudaMemset");
    how.workspace = m->base + m->at;
    return how;
}

/* Every tenth run is the first CUDA call of a fresh thread, as a server's worker has it. */
#define GPU_RUN(verb)                                                                              \
    struct verb##_call {                                                                           \
        const struct lik_context *ctx;                                                             \
        const struct lik_##verb *op;                                                               \
        const struct lik_exec *how;                                                                \
        int status;                                                                                \
        char error[512];                                                                           \
    };                                                                                             \
                                                                                                   \
    static void *call_##verb(void *argument)                                                       \
    {                                                                                              \
        struct verb##_call *c = argument;                                                          \
        c->status = lik_##verb##_run(c->ctx, c->op, c->how);                                       \
        snprintf(c->error, sizeof c->error, "%s", lik_last_error());                               \
        return NULL;                                                                               \
    }                                                                                              \
                                                                                                   \
    static int launch_##verb(const struct lik_context *ctx, const struct lik_##verb *gpu)          \
    {                                                                                              \
        struct lik_plan plan = {.struct_size = sizeof plan};                                       \
        int status = lik_##verb##_plan(ctx, gpu, NULL, &plan);                                     \
        if (!status) {                                                                             \
            struct lik_exec how = make_workspace(&plan);                                           \
            struct verb##_call call = {.ctx = ctx, .op = gpu, .how = &how};                        \
            pthread_t thread;                                                                      \
            if (totals.launched % 10 == 0 && !pthread_create(&thread, NULL, call_##verb, &call)) { \
                pthread_join(thread, NULL);                                                        \
                check(!call.status, "lik_" #verb "_run in a fresh thread: %s", call.error);        \
            } else {                                                                               \
                call_##verb(&call);                                                                \
            }                                                                                      \
            status = call.status;                                                                  \
            need(cudaDeviceSynchronize(), "lik_" #verb "_run");                                    \
            totals.launched++;                                                                     \
        }                                                                                          \
        mirror_close();                                                                            \
        return status;                                                                             \
    }

GPU_RUN(score)
GPU_RUN(topk)
GPU_RUN(grad)
GPU_RUN(decode)
GPU_RUN(encode)
GPU_RUN(train)
GPU_RUN(quantize)

int gpu_run_score(const struct lik_context *ctx, const struct lik_score *op)
{
    struct lik_score gpu = mirror_score(op, 1);
    return launch_score(ctx, &gpu);
}

int gpu_run_topk(const struct lik_context *ctx, const struct lik_topk *op)
{
    struct lik_topk gpu = *op;
    size_t entries = (size_t)(op->score.q.count * op->k);
    gpu.score = mirror_score(&op->score, 0);
    gpu.values = mirror_bytes(op->values, entries * sizeof(float), 1);
    gpu.ids = mirror_bytes(op->ids, entries * sizeof(int64_t), 1);
    return launch_topk(ctx, &gpu);
}

int gpu_run_grad(const struct lik_context *ctx, const struct lik_grad *op)
{
    const struct lik_score *score = &op->score;
    struct lik_grad gpu = *op;
    size_t elements;
    scores_of(score, op->grad_scores_stride, &elements);
    size_t q_bytes = (size_t)(rows_of(&score->q) * score->q.dim) * lik_dtype_bytes(score->q.dtype);
    size_t d_bytes = (size_t)(rows_of(&score->d) * score->d.dim) * lik_dtype_bytes(score->d.dtype);
    gpu.score = mirror_score(score, 0);
    gpu.grad_scores = mirror_bytes(op->grad_scores, elements * sizeof(float), 0);
    gpu.grad_q = mirror_bytes(op->grad_q, q_bytes, 1);
    gpu.grad_d = mirror_bytes(op->grad_d, d_bytes, 1);
    gpu.grad_weights = mirror_bytes(op->grad_weights, (size_t)rows_of(&score->q) * sizeof(float), 1);
    return launch_grad(ctx, &gpu);
}

int gpu_run_decode(const struct lik_context *ctx, const struct lik_decode *op)
{
    struct lik_decode gpu = *op;
    mirror_tokens(&gpu.x);
    gpu.out =
        mirror_bytes(op->out, (size_t)(rows_of(&op->x) * op->x.dim) * lik_dtype_bytes(op->out_dtype), 1);
    return launch_decode(ctx, &gpu);
}

int gpu_run_encode(const struct lik_context *ctx, const struct lik_encode *op)
{
    struct lik_encode gpu = *op;
    struct lik_codec codec = mirror_codec(op->codec, op->x.dim);
    size_t rows = (size_t)rows_of(&op->x), cutoffs = ((size_t)1 << codec.bits) - 1;
    mirror_tokens(&gpu.x);
    gpu.codec = &codec;
    gpu.cutoffs = mirror_bytes(op->cutoffs, cutoffs * sizeof(float), 0);
    gpu.codes = mirror_bytes(op->codes, rows * lik_dtype_bytes(op->codes_dtype), 1);
    gpu.residuals = mirror_bytes(op->residuals, rows * (((size_t)op->x.dim * (size_t)codec.bits + 7) / 8), 1);
    gpu.inv_norms = mirror_bytes(op->inv_norms, rows * (op->inv_norms_dtype == LIK_F16 ? 2 : 4), 1);
    return launch_encode(ctx, &gpu);
}

int gpu_run_train(const struct lik_context *ctx, const struct lik_train *op)
{
    struct lik_train gpu = *op;
    size_t buckets = sizeof(float) << op->bits;
    mirror_tokens(&gpu.x);
    gpu.centroids = mirror_bytes(op->centroids, (size_t)(op->centroid_count * op->x.dim) * sizeof(float), 1);
    gpu.cutoffs = mirror_bytes(op->cutoffs, buckets - sizeof(float), 1);
    gpu.weights = mirror_bytes(op->weights, buckets, 1);
    gpu.found = mirror_bytes(op->found, sizeof *op->found, 1);
    return launch_train(ctx, &gpu);
}

int gpu_run_quantize(const struct lik_context *ctx, const struct lik_quantize *op)
{
    struct lik_quantize gpu = *op;
    size_t rows = (size_t)rows_of(&op->x);
    mirror_tokens(&gpu.x);
    gpu.values = mirror_bytes(op->values, rows * (size_t)op->x.dim, 1);
    gpu.scales = mirror_bytes(op->scales, (op->one_scale ? 1 : rows) * sizeof(float), 1);
    return launch_quantize(ctx, &gpu);
}
#else
int gpu_run_score(const struct lik_context *ctx, const struct lik_score *op)
{
    return lik_score_run(ctx, op, NULL);
}

int gpu_run_topk(const struct lik_context *ctx, const struct lik_topk *op)
{
    return lik_topk_run(ctx, op, NULL);
}

int gpu_run_grad(const struct lik_context *ctx, const struct lik_grad *op)
{
    return lik_grad_run(ctx, op, NULL);
}

int gpu_run_decode(const struct lik_context *ctx, const struct lik_decode *op)
{
    return lik_decode_run(ctx, op, NULL);
}

int gpu_run_encode(const struct lik_context *ctx, const struct lik_encode *op)
{
    return lik_encode_run(ctx, op, NULL);
}

int gpu_run_train(const struct lik_context *ctx, const struct lik_train *op)
{
    return lik_train_run(ctx, op, NULL);
}

int gpu_run_quantize(const struct lik_context *ctx, const struct lik_quantize *op)
{
    return lik_quantize_run(ctx, op, NULL);
}
#endif
