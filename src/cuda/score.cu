/* The forward pass, as its plan says.
 *
 * Three launches at most, all on the caller's stream: the factors that normalize the documents,
 * where that is asked for, the main loop, and the sum of a query's strips where a query is
 * longer than a tile. */
#include "cuda/compressed.cuh"
#include "cuda/kernels.cuh"
#include "cuda/score.cuh"

/* What launches the paths that score; what plans them is in plan/score.c. */
static const struct score_path {
    int (*prepare)(struct lik_gpu *gpu);
    int (*launch)(const struct lik_gpu *gpu, const struct score_args *args, const struct score_plan *plan,
                  char *workspace, cudaStream_t stream);
} paths[SCORE_PATHS] = {
    {lik_cuda_look_up_prepare, lik_cuda_look_up_launch}, {lik_cuda_bytes_prepare, lik_cuda_bytes_launch},
    {lik_cuda_widened_prepare, lik_cuda_widened_launch}, {lik_cuda_sm90_prepare, lik_cuda_sm90_launch},
    {lik_cuda_decoded_prepare, lik_cuda_decoded_launch}, {lik_cuda_scan_prepare, lik_cuda_scan_launch},
    {lik_cuda_mma_prepare, lik_cuda_mma_launch},
};
static_assert(SCORE_LOOK_UP == 0 && SCORE_BYTES == 1 && SCORE_WIDENED == 2 && SCORE_SM90 == 3 &&
                  SCORE_DECODED == 4 && SCORE_SCAN == 5 && SCORE_MMA == 6 && SCORE_PATHS == 7,
              "the list's order");

/* Three blocks a processor: with the registers that ptxas takes unasked, 168, there is one. */
static __global__ void __launch_bounds__(256, 3)
    unit_factors(const __grid_constant__ struct lik_tokens x, int vector, float *out, int64_t rows)
{
    int64_t step = (int64_t)gridDim.x * (blockDim.x / 8);
    for (int64_t row = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 8; row < rows; row += step) {
        int64_t i = x.offsets            ? 0
                    : rows <= UINT32_MAX ? (int64_t)((uint32_t)row / (uint32_t)x.len_max)
                                         : row / x.len_max;
        int64_t t = x.offsets ? row : row - i * x.len_max;
        int64_t base = x.offsets ? 0 : lik_tokens_base(&x, &x.strides, i);
        int64_t scale_base = x.offsets ? 0 : lik_tokens_base(&x, &x.scale_strides, i);
        float own = x.scale ? x.scale[scale_base + t * x.scale_strides.token] : 1.0f;
        float factor = unit_factor(x, base + t * x.strides.token, own, (int)threadIdx.x & 7, vector);
        if ((threadIdx.x & 7) == 0)
            out[row] = factor;
    }
}

/* The same of compressed tokens, four lanes each. */
static __global__ void coded_factors(const __grid_constant__ struct lik_tokens x,
                                     const __grid_constant__ struct lik_codec codec, float *out, int64_t rows)
{
    int64_t step = (int64_t)gridDim.x * (blockDim.x / 4);
    for (int64_t row = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 4; row < rows; row += step) {
        int64_t i = x.offsets ? 0 : row / x.len_max, t = x.offsets ? row : row - i * x.len_max;
        int64_t base = x.offsets ? 0 : lik_tokens_base(&x, &x.strides, i);
        int64_t codes_base = x.offsets ? 0 : lik_tokens_base(&x, &x.codes_strides, i);
        int64_t scale_base = x.offsets ? 0 : lik_tokens_base(&x, &x.scale_strides, i);
        struct coded_token token = coded_token_at(x, codec, base, codes_base, t);
        float own = coded_scale(x, scale_base, (int)t);
        float factor = coded_unit_factor(x, codec, token, own, (int)threadIdx.x & 3);
        if ((threadIdx.x & 3) == 0)
            out[row] = factor;
    }
}

static __global__ void add_partials(const float *partial, int strips, int64_t columns, int64_t count,
                                    float *scores, int64_t stride)
{
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count;
         n += (int64_t)gridDim.x * blockDim.x) {
        float score = partial[n * strips];
        for (int b = 1; b < strips; b++)
            score = __fadd_rn(score, partial[n * strips + b]);
        scores[n / columns * stride + n % columns] = score;
    }
}

static __global__ void no_query_tokens(int64_t columns, int64_t count, float *scores, int64_t stride)
{
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count;
         n += (int64_t)gridDim.x * blockDim.x)
        scores[n / columns * stride + n % columns] = 0.0f;
}

unsigned lik_cuda_blocks(int64_t threads)
{
    int64_t blocks = (threads + 255) / 256;
    return (unsigned)(blocks < 65536 ? blocks : 65536);
}

/* What normalizes each token of x, one a row of its array. */
int lik_cuda_unit_factors(const struct lik_tokens *x, int vector, float *out, int64_t rows,
                          cudaStream_t stream)
{
    if (x->storage == LIK_RESIDUAL) {
        coded_factors<<<lik_cuda_blocks(rows * 4), 256, 0, stream>>>(*x, *x->codec, out, rows);
        return lik_cuda_launched("coded_factors");
    }
    unit_factors<<<lik_cuda_blocks(rows * 8), 256, 0, stream>>>(*x, vector, out, rows);
    return lik_cuda_launched("unit_factors");
}

/* The sums of a query's strips. */
int lik_cuda_add_partials(const struct score_args *a, cudaStream_t stream)
{
    const int64_t count = a->tiling.rows * a->columns;
    add_partials<<<lik_cuda_blocks(count), 256, 0, stream>>>(
        a->partial, a->tiling.strips_per_query, a->columns, count, a->op.scores, a->op.scores_stride);
    return lik_cuda_launched("add_partials");
}

/* Some of the documents of a problem, from `first` on, which stand in the workspace now. */
int lik_cuda_score_chunk(const struct lik_gpu *gpu, const struct score_args *score,
                         const struct score_plan *plan, const struct lik_tokens *d, int64_t first,
                         cudaStream_t stream)
{
    struct score_args b = *score;
    b.op.d = *d;
    b.op.scores += first;
    if (b.op.argmax)
        b.op.argmax =
            (char *)b.op.argmax + first * b.op.q.len_max * (int64_t)lik_dtype_bytes(b.op.argmax_dtype);
    if (b.partial)
        b.partial += first * b.tiling.strips_per_query;
    b.columns = d->count;
    return lik_cuda_sm90_launch(gpu, &b, plan, NULL, stream);
}

int lik_cuda_score_prepare(struct lik_gpu *gpu)
{
    int status = paths[SCORE_SM90].prepare(gpu); /* the first: it finds out whether there is wgmma */
    for (int i = 0; i < SCORE_PATHS && !status; i++)
        if (i != SCORE_SM90)
            status = paths[i].prepare(gpu);
    return status;
}

int lik_cuda_score_run(const struct lik_gpu *gpu, const struct lik_score *op, const struct score_plan *p,
                       char *workspace, cudaStream_t stream)
{
    if (p->scores == 0)
        return LIK_OK;
    if (op->q.len_max == 0) {
        no_query_tokens<<<lik_cuda_blocks(p->scores), 256, 0, stream>>>(p->columns, p->scores, op->scores,
                                                                        op->scores_stride);
        return lik_cuda_launched("no_query_tokens");
    }
    int status;
    struct score_args a = {};
    a.op = *op;
    a.tiling = p->tiling;
    a.columns = a.op.per_query = p->columns;
    a.q_vector = p->q_vector;
    a.d_vector = p->d_vector;
    if (p->factor_count) {
        float *factor = (float *)(workspace + p->factor);
        a.factor = factor;
        if ((status = lik_cuda_unit_factors(&op->d, a.d_vector, factor, p->factor_count, stream)) != LIK_OK)
            return status;
    }
    if (p->partial_count)
        a.partial = (float *)(workspace + p->partial);
    status = paths[p->path].launch(gpu, &a, p, workspace, stream);
    if (status || !p->partial_count)
        return status;
    return lik_cuda_add_partials(&a, stream);
}
