/* The forward pass: picks the kernel and the tiles, lays out the workspace, launches.
 *
 * Three launches at most, all on the caller's stream: the factors that normalize the documents,
 * where that is asked for, the main loop, and the sum of a query's blocks where a query is
 * longer than a tile. */
#include "cuda/kernels.cuh"
#include "cuda/score.cuh"

#include <stdio.h>

/* How one problem runs. The workspace holds the documents' factors, then partial scores. */
struct score_plan {
    struct score_args args;
    struct sm90_shape shape;
    int hopper;
    int64_t factor_count, partial_count;
    size_t factor, partial; /* where they stand in the workspace */
};

static __global__ void unit_factors(const __grid_constant__ struct lik_tokens x, int vector, float *out,
                                    int64_t rows)
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

static __global__ void add_partials(const float *partial, int blocks, int64_t columns, int64_t count,
                                    float *scores, int64_t stride)
{
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count;
         n += (int64_t)gridDim.x * blockDim.x) {
        float score = partial[n * blocks];
        for (int b = 1; b < blocks; b++)
            score = __fadd_rn(score, partial[n * blocks + b]);
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

int lik_cuda_vector_loads(const struct lik_tokens *x)
{
    int64_t bytes = (int64_t)lik_dtype_bytes(x->dtype), unit = bytes == 1 ? 8 : 16;
    int64_t strides = x->strides.token | (x->offsets ? 0 : x->strides.sequence | x->strides.group);
    return x->dim_stride == 1 && (int64_t)(uintptr_t)x->data % unit == 0 && strides % (unit / bytes) == 0;
}

/* What normalizes each token of x, one a row of its array. */
int lik_cuda_unit_factors(const struct lik_tokens *x, int vector, float *out, int64_t rows,
                          cudaStream_t stream)
{
    unit_factors<<<lik_cuda_blocks(rows * 8), 256, 0, stream>>>(*x, vector, out, rows);
    return lik_cuda_launched("unit_factors");
}

/* Tiles of `tile_blocks` blocks: whole queries where they fit, pieces of the stream of all
 * queries' blocks where they don't and one query a tile would waste more. */
static void make_tiling(struct score_args *a, int tile_blocks)
{
    struct tiling *t = &a->tiling;
    t->rows = lik_score_rows(&a->op);
    t->blocks = (int32_t)((a->op.q.len_max + LIK_BLOCK_ROWS - 1) / LIK_BLOCK_ROWS);
    t->tile_blocks = tile_blocks;
    int one_query = a->op.pairing != LIK_ALL || (t->rows == 1 && t->blocks <= tile_blocks);
    if (one_query) {
        t->parts = (t->blocks + tile_blocks - 1) / tile_blocks;
        t->tiles = t->rows * t->parts;
    } else {
        t->parts = 0;
        t->tiles = (t->rows * t->blocks + tile_blocks - 1) / tile_blocks;
    }
}

static int make_plan(const struct lik_gpu *gpu, const struct lik_score *op, struct score_plan *p,
                     struct lik_layout *layout)
{
    *p = {};
    struct score_args *a = &p->args;
    a->op = *op;
    a->columns = lik_score_columns(op);
    a->q_vector = lik_cuda_vector_loads(&op->q);
    a->d_vector = lik_cuda_vector_loads(&op->d);
    int64_t rows = lik_score_rows(op), count = rows * a->columns;
    if (count == 0 || op->q.len_max == 0)
        return LIK_OK;
    int64_t blocks = (op->q.len_max + LIK_BLOCK_ROWS - 1) / LIK_BLOCK_ROWS;
    int64_t together = op->pairing == LIK_ALL ? rows * blocks : blocks;
    int whole; /* blocks of one query that a tile sums by itself */
    p->hopper = lik_score_sm90_takes(gpu, op);
    if (p->hopper) {
        p->shape = lik_score_sm90_shape(gpu, op, together);
        whole = 4 * p->shape.bands * p->shape.warpgroups;
    } else {
        whole = lik_score_mma_tile_blocks(together);
    }
    make_tiling(a, whole);
    if (a->tiling.tiles > INT32_MAX)
        return lik_fail(LIK_EUNSUPPORTED, "%lld tiles of queries, the CUDA backend takes %d",
                        (long long)a->tiling.tiles, INT32_MAX);
    if (a->tiling.parts ? blocks > whole : whole % blocks != 0)
        p->partial_count = count * blocks;
    if (op->d.normalize && !p->hopper) /* the Hopper loop takes norms as tokens pass */
        p->factor_count = lik_tokens_rows(&op->d);
    p->factor = lik_cuda_take(layout, p->factor_count, 4);
    p->partial = lik_cuda_take(layout, p->partial_count, 4);
    return LIK_OK;
}

int lik_cuda_score_plan(const struct lik_gpu *gpu, const struct lik_score *op, struct lik_layout *layout,
                        struct lik_plan *plan)
{
    struct score_plan p;
    int status = make_plan(gpu, op, &p, layout);
    if (status)
        return status;
    if (p.hopper)
        snprintf(plan->variant, sizeof plan->variant, "score_%s_d%lld_sm90_%dx%d",
                 lik_dtype_name(op->d.dtype), (long long)op->d.dim, 64 * p.shape.bands * p.shape.warpgroups,
                 8 * p.shape.blocks);
    else
        snprintf(plan->variant, sizeof plan->variant, "score_%s_%s_d%lld_%s", lik_dtype_name(op->q.dtype),
                 lik_dtype_name(op->d.dtype), (long long)op->d.dim, lik_score_mma_name(gpu, op));
    return LIK_OK;
}

int lik_cuda_score_run(const struct lik_gpu *gpu, const struct lik_score *op, char *workspace,
                       cudaStream_t stream)
{
    struct score_plan p;
    struct lik_layout layout = {};
    int status = make_plan(gpu, op, &p, &layout);
    struct score_args *a = &p.args;
    int64_t count = lik_score_rows(op) * a->columns;
    if (status || count == 0)
        return status;
    if (op->q.len_max == 0) {
        no_query_tokens<<<lik_cuda_blocks(count), 256, 0, stream>>>(a->columns, count, op->scores,
                                                                    op->scores_stride);
        return lik_cuda_launched("no_query_tokens");
    }
    if (p.factor_count) {
        float *factor = (float *)(workspace + p.factor);
        a->factor = factor;
        if ((status = lik_cuda_unit_factors(&op->d, a->d_vector, factor, p.factor_count, stream)) != LIK_OK)
            return status;
    }
    if (p.partial_count)
        a->partial = (float *)(workspace + p.partial);
    status = p.hopper ? lik_score_sm90_launch(gpu, a, p.shape, stream) : lik_score_mma_launch(gpu, a, stream);
    if (status || !p.partial_count)
        return status;
    add_partials<<<lik_cuda_blocks(count), 256, 0, stream>>>(a->partial, a->tiling.blocks, a->columns, count,
                                                             op->scores, op->scores_stride);
    return lik_cuda_launched("add_partials");
}
