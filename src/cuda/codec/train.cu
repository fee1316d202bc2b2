/* Training a codec: k-means, then quantiles.
 *
 * How many tokens are kept, which of them are looked at, how many clusters come out empty: all
 * of that is known on the device alone. It stands in a struct there, launches are made for as
 * many as there may be, and nothing waits. Clusters are summed in f64 in one order, no atomics:
 * points are sorted by keys of centroid and number, no two of which are equal. */
#include "cuda/codec/assign.cuh"
#include "cuda/codec/compact.cuh"
#include "cuda/sort.cuh"
#include "shared/sample.h"

#define GROUPS (ROW_THREADS / ROW_LANES) /* of lanes, a row each */
#define SPAN   128                       /* elements whose sums a group holds at once */
#define NO_KEY 0xffffffffffffffffull

struct train_state {
    int64_t kept, first_row;                 /* without a mask, kept token n is row first_row + n */
    int64_t held_out, points, bucket_tokens; /* of the shuffled tokens */
    int64_t with_direction;                  /* points that take part */
    int64_t next; /* of those, counted on and on: whom the next empty cluster gets */
    int64_t empty, reseeded;
};

static_assert(sizeof(struct train_state) <= 16 * 8, "what the plan leaves for it");

struct train_args {
    struct lik_train op;
    struct row_source source;
    struct train_state *state;
    int64_t *kept;       /* rows of kept tokens, where there is a mask */
    int64_t *row_of;     /* [placed], of the shuffled tokens; -1: it has no direction */
    int64_t *point_rows; /* [with_direction] */
    int32_t *codes;      /* of the points, at last of the bucket tokens */
    uint64_t *keys;      /* centroid above point; or residuals as numbers that sort likewise */
    double *sums;        /* [centroids, dim] */
    int8_t *is_new;      /* [centroids]: was left without points */
    int64_t *empty;      /* those centroids */
    double *squares;     /* [bucket_tokens]: of residuals, summed; -1: the token has no direction */
    struct train_plan plan;
};

/* ---- which tokens ---- */

struct kept_rows {
    struct row_source source;
    LIK_MEMBER int64_t operator()(int64_t row) const
    {
        return place_row(source, row).kept ? row : -1;
    }
};

struct rows_with_direction {
    const struct train_state *state;
    const int64_t *row_of;
    LIK_MEMBER int64_t operator()(int64_t p) const
    {
        return p < state->points ? row_of[state->held_out + p] : -1;
    }
};

struct empty_clusters {
    const int8_t *is_new;
    LIK_MEMBER int64_t operator()(int64_t c) const
    {
        return is_new[c] ? c : -1;
    }
};

static __global__ void begin_training(const __grid_constant__ struct train_args a)
{
    const struct lik_tokens &x = a.op.x;
    struct train_state s = {};
    s.kept = a.kept ? a.state->kept : a.source.rows;
    if (!a.kept && x.offsets) { /* all between the first and the last, wherever those are */
        int64_t from = lik_offset_at(&x, 0), to = lik_offset_at(&x, x.count);
        s.first_row = min(max(from, (int64_t)0), x.total);
        s.kept = max(min(to, x.total) - s.first_row, (int64_t)0);
    }
    s.held_out = lik_train_held_out(&a.op, s.kept);
    s.points = min(s.kept - s.held_out, a.plan.points);
    s.bucket_tokens = s.held_out ? s.held_out : min(s.points, (int64_t)LIK_HELD_OUT_MAX);
    *a.state = s;
}

/* Where the shuffled tokens are, and which of them have a direction. */
template <int storage>
static __global__ void __launch_bounds__(ROW_THREADS)
    place_tokens(const __grid_constant__ struct train_args a)
{
    __shared__ float table[256];
    const struct row_source &s = a.source;
    const struct train_state state = *a.state;
    make_weight_table<storage>(s, table);
    for (int64_t n = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES;
         n < a.plan.placed && n < state.held_out + state.points; n += (int64_t)gridDim.x * GROUPS) {
        int64_t row = lik_shuffled(n, state.kept, a.op.seed);
        row = a.kept ? a.kept[row] : state.first_row + row;
        const struct row_place place = place_row(s, row);
        double squares = 0.0;
        if (place.kept) {
            const float factor = factor_of_row<storage>(s, place);
            for (int k = (int)threadIdx.x % ROW_LANES * 8; k < (int)s.x.dim; k += ROW_LANES * 8) {
                float v[8];
                load_counted_8<storage>(s, place, factor, k, table, v);
#pragma unroll
                for (int i = 0; i < 8; i++)
                    squares += (double)v[i] * (double)v[i];
            }
        }
        const double norm = sqrt(add_lanes(squares));
        if (threadIdx.x % ROW_LANES == 0)
            a.row_of[n] = norm >= LIK_NORM_MIN && norm <= 3.402823466e38 ? row : -1;
    }
}

/* ---- k-means ---- */

/* Centroids begin from the next points that have a direction: all, or the empty ones. */
template <int storage>
static __global__ void __launch_bounds__(ROW_THREADS)
    begin_anew(const __grid_constant__ struct train_args a, int all)
{
    __shared__ float table[256];
    const struct row_source &s = a.source;
    const struct train_state state = *a.state;
    const int64_t count = all ? a.op.centroid_count : state.empty;
    const int dim = (int)s.x.dim, first = (int)threadIdx.x % ROW_LANES * 8;
    make_weight_table<storage>(s, table);
    for (int64_t n = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES; n < count;
         n += (int64_t)gridDim.x * GROUPS) {
        float *centroid = a.op.centroids + (all ? n : a.empty[n]) * dim, v[8];
        if (state.with_direction == 0) {
            for (int k = first; k < dim; k += ROW_LANES * 8)
                for (int i = k; i < min(k + 8, dim); i++)
                    centroid[i] = 0.0f;
            continue;
        }
        const struct row_place place = place_row(s, a.point_rows[(state.next + n) % state.with_direction]);
        const float factor = factor_of_row<storage>(s, place);
        double squares = 0.0;
        for (int k = first; k < dim; k += ROW_LANES * 8) {
            load_counted_8<storage>(s, place, factor, k, table, v);
#pragma unroll
            for (int i = 0; i < 8; i++)
                squares += (double)v[i] * (double)v[i];
        }
        const double unit = 1.0 / sqrt(add_lanes(squares));
        for (int k = first; k < dim; k += ROW_LANES * 8) {
            load_counted_8<storage>(s, place, factor, k, table, v);
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (k + i < dim)
                    centroid[k + i] = (float)((double)v[i] * unit);
        }
    }
}

static __global__ void count_begun(struct train_state *state, int64_t all)
{
    state->next += all ? all : state->empty;
    state->reseeded += all ? 0 : state->empty;
}

/* The points by centroid; past them NO_KEY, which stands there already. */
static __global__ void key_points(const __grid_constant__ struct train_args a)
{
    const int64_t count = a.state->with_direction;
    for (int64_t p = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; p < count;
         p += (int64_t)gridDim.x * blockDim.x)
        a.keys[p] = (uint64_t)(uint32_t)a.codes[p] << 32 | (uint64_t)p;
}

/* How many of the sorted keys are below one. */
LIK_DEVICE int64_t keys_below(const uint64_t *keys, int64_t count, uint64_t key)
{
    int64_t low = 0;
    while (low < count) {
        int64_t middle = low + (count - low) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            count = middle;
    }
    return low;
}

/* Sums of the clusters' points, a block each: a group of lanes adds up every GROUPS-th point,
 * and the groups' sums are added one after another. */
template <int storage>
static __global__ void __launch_bounds__(ROW_THREADS) add_points(const __grid_constant__ struct train_args a)
{
    __shared__ double sums[GROUPS][SPAN];
    __shared__ float table[256];
    __shared__ int64_t ends[2];
    const struct row_source &s = a.source;
    const int dim = (int)s.x.dim, t = (int)threadIdx.x, group = t / ROW_LANES, first = t % ROW_LANES * 8;
    make_weight_table<storage>(s, table);
    for (int64_t c = blockIdx.x; c < a.op.centroid_count; c += gridDim.x) {
        __syncthreads();
        if (t < 2)
            ends[t] = keys_below(a.keys, a.plan.point_keys, (uint64_t)(c + t) << 32);
        __syncthreads();
        for (int from = 0; from < dim; from += SPAN) {
            double own[SPAN / 64][8] = {};
#pragma unroll 2
            for (int64_t e = ends[0] + group; e < ends[1]; e += GROUPS) {
                const struct row_place place = place_row(s, a.point_rows[(uint32_t)a.keys[e]]);
                const float factor = factor_of_row<storage>(s, place);
#pragma unroll
                for (int part = 0; part < SPAN / 64; part++) {
                    const int k = from + part * 64 + first;
                    float v[8];
                    if (k >= dim)
                        continue;
                    load_counted_8<storage>(s, place, factor, k, table, v);
#pragma unroll
                    for (int i = 0; i < 8; i++)
                        own[part][i] += (double)v[i];
                }
            }
#pragma unroll
            for (int part = 0; part < SPAN / 64; part++)
#pragma unroll
                for (int i = 0; i < 8; i++)
                    sums[group][part * 64 + first + i] = own[part][i];
            __syncthreads();
            if (t < SPAN && from + t < dim) {
                double sum = 0.0;
                for (int g = 0; g < GROUPS; g++)
                    sum += sums[g][t];
                a.sums[c * dim + from + t] = sum;
            }
            __syncthreads();
        }
    }
}

/* Each centroid becomes the direction of its sum; 0 if that has none. */
static __global__ void __launch_bounds__(ROW_THREADS)
    take_directions(const __grid_constant__ struct train_args a)
{
    const int64_t dim = a.op.x.dim;
    const int lane = (int)threadIdx.x % ROW_LANES;
    for (int64_t c = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES; c < a.op.centroid_count;
         c += (int64_t)gridDim.x * GROUPS) {
        const double *sum = a.sums + c * dim;
        double squares = 0.0;
        for (int64_t k = lane; k < dim; k += ROW_LANES)
            squares += sum[k] * sum[k];
        squares = add_lanes(squares);
        const bool has = squares > 0.0 && squares <= 1.7976931348623157e308;
        const double unit = has ? 1.0 / sqrt(squares) : 0.0;
        for (int64_t k = lane; k < dim; k += ROW_LANES)
            a.op.centroids[c * dim + k] = has ? (float)(sum[k] * unit) : 0.0f;
        if (lane == 0)
            a.is_new[c] = !has;
    }
}

/* ---- buckets ---- */

LIK_DEVICE uint32_t order_of(float x)
{
    const uint32_t bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* Residuals of the tokens that make the buckets; NO_KEY stands where there are none. */
template <int storage>
static __global__ void __launch_bounds__(ROW_THREADS)
    take_residuals(const __grid_constant__ struct train_args a)
{
    __shared__ float table[256];
    const struct row_source &s = a.source;
    const int64_t count = a.state->bucket_tokens;
    const int dim = (int)s.x.dim, lane = (int)threadIdx.x % ROW_LANES;
    make_weight_table<storage>(s, table);
    for (int64_t n = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES; n < count;
         n += (int64_t)gridDim.x * GROUPS) {
        const struct row_place place = place_row(s, a.row_of[n]);
        if (!place.kept) {
            if (lane == 0)
                a.squares[n] = -1.0;
            continue;
        }
        const float factor = factor_of_row<storage>(s, place);
        const float *centroid = a.op.centroids + (int64_t)a.codes[n] * dim;
        double squares = 0.0;
        for (int k = lane * 8; k < dim; k += ROW_LANES * 8) {
            float v[8];
            load_counted_8<storage>(s, place, factor, k, table, v);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (k + i >= dim)
                    continue;
                const float element = __fsub_rn(v[i], centroid[k + i]);
                squares += (double)element * (double)element;
                if (a.op.bits)
                    a.keys[n * dim + k + i] = (uint64_t)order_of(element) << 32;
            }
        }
        squares = add_lanes(squares);
        if (lane == 0)
            a.squares[n] = squares;
    }
}

LIK_DEVICE float quantile(const uint64_t *keys, int64_t n, int64_t part, int64_t parts)
{
    int64_t below;
    if (n == 0)
        return 0.0f;
    auto value = [&](int64_t at) {
        const uint32_t order = (uint32_t)(keys[at] >> 32);
        return (double)__uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
    };
    const double share = lik_quantile_position(n, part, parts, &below), low = value(below);
    return (float)(share > 0.0 ? __dadd_rn(low, __dmul_rn(share, value(below + 1) - low)) : low);
}

/* One block. */
static __global__ void __launch_bounds__(ROW_THREADS)
    make_buckets(const __grid_constant__ struct train_args a)
{
    __shared__ double sums[ROW_THREADS];
    __shared__ int64_t counts[ROW_THREADS];
    const struct train_state state = *a.state;
    const int t = (int)threadIdx.x;
    double sum = 0.0;
    int64_t tokens = 0;
    for (int64_t n = t; n < state.bucket_tokens; n += ROW_THREADS)
        if (a.squares[n] >= 0.0) {
            sum += a.squares[n];
            tokens++;
        }
    sums[t] = sum;
    counts[t] = tokens;
    for (int half = ROW_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            sums[t] += sums[t + half];
            counts[t] += counts[t + half];
        }
    }
    __syncthreads();
    tokens = counts[0];
    const int64_t buckets = (int64_t)1 << a.op.bits;
    if (a.op.bits && t < buckets) {
        a.op.weights[t] = quantile(a.keys, tokens * a.op.x.dim, 2 * t + 1, 2 * buckets);
        if (t + 1 < buckets)
            a.op.cutoffs[t] = quantile(a.keys, tokens * a.op.x.dim, t + 1, buckets);
    }
    if (t == 0 && a.op.found) {
        struct lik_train_found found = {};
        found.points = state.points;
        found.held_out = state.held_out;
        found.reseeded = state.reseeded;
        found.mean_squared_residual = tokens ? sums[0] / (double)tokens : 0.0;
        *a.op.found = found;
    }
}

/* ---- the verb ---- */

/* The codes of as many as `list` has, at most p->tokens. */
static int assign(const struct lik_gpu *gpu, const struct train_args *a, const struct assign_plan *p,
                  const int64_t *list, const int64_t *listed, char *workspace, cudaStream_t stream)
{
    const struct lik_codec codec = lik_train_codec(&a->op);
    struct row_copy rows = {};
    rows.source = a->source;
    rows.list = list;
    rows.listed = listed;
    int status = lik_cuda_assign_begin(p, &codec, workspace, stream);
    for (; !status && rows.first < p->tokens; rows.first += rows.count) {
        rows.count = lik_min_i64(p->rows_per_chunk, p->tokens - rows.first);
        status = lik_cuda_assign_chunk(gpu, p, rows, workspace, a->codes + rows.first, stream);
    }
    return status;
}

static int clear_keys(const struct train_args *a, int64_t count, cudaStream_t stream)
{
    return lik_cuda_status(cudaMemsetAsync(a->keys, 0xff, (size_t)count * 8, stream), "cudaMemsetAsync");
}

static int find_tokens(const struct train_args *a, int64_t *blocks, cudaStream_t stream)
{
    int status = LIK_OK;
    if (a->kept)
        status =
            lik_cuda_compact(kept_rows{a->source}, a->plan.rows, blocks, a->kept, &a->state->kept, stream);
    if (status)
        return status;
    const auto place = KERNEL_OF_ROWS(a->source, place_tokens);
    const auto begin = KERNEL_OF_ROWS(a->source, begin_anew);
    begin_training<<<1, 1, 0, stream>>>(*a);
    place<<<row_blocks(a->plan.placed), ROW_THREADS, 0, stream>>>(*a);
    status = lik_cuda_compact(rows_with_direction{a->state, a->row_of}, a->plan.points, blocks, a->point_rows,
                              &a->state->with_direction, stream);
    begin<<<row_blocks(a->op.centroid_count), ROW_THREADS, 0, stream>>>(*a, 1);
    count_begun<<<1, 1, 0, stream>>>(a->state, a->op.centroid_count);
    return status ? status : lik_cuda_launched("find_tokens");
}

static int iterate(const struct lik_gpu *gpu, const struct train_args *a, int64_t *blocks, char *workspace,
                   cudaStream_t stream)
{
    const unsigned centroids = row_blocks(a->op.centroid_count);
    const auto add = KERNEL_OF_ROWS(a->source, add_points);
    const auto begin = KERNEL_OF_ROWS(a->source, begin_anew);
    int status = assign(gpu, a, &a->plan.assign, a->point_rows, &a->state->with_direction, workspace, stream);
    if (!status)
        status = clear_keys(a, a->plan.point_keys, stream);
    if (status)
        return status;
    key_points<<<lik_cuda_blocks(a->plan.points), 256, 0, stream>>>(*a);
    status = lik_cuda_sort(a->keys, a->plan.point_keys, 1, stream);
    if (status)
        return status;
    add<<<(unsigned)lik_min_i64(a->op.centroid_count, 1 << 20), ROW_THREADS, 0, stream>>>(*a);
    take_directions<<<centroids, ROW_THREADS, 0, stream>>>(*a);
    status = lik_cuda_compact(empty_clusters{a->is_new}, a->op.centroid_count, blocks, a->empty,
                              &a->state->empty, stream);
    begin<<<centroids, ROW_THREADS, 0, stream>>>(*a, 0);
    count_begun<<<1, 1, 0, stream>>>(a->state, 0);
    return status ? status : lik_cuda_launched("iterate");
}

static int find_buckets(const struct lik_gpu *gpu, const struct train_args *a, char *workspace,
                        cudaStream_t stream)
{
    const auto take = KERNEL_OF_ROWS(a->source, take_residuals);
    int status = assign(gpu, a, &a->plan.nearest, a->row_of, &a->state->bucket_tokens, workspace, stream);
    if (!status && a->op.bits)
        status = clear_keys(a, a->plan.element_keys, stream);
    if (status)
        return status;
    take<<<row_blocks(a->plan.bucket_tokens), ROW_THREADS, 0, stream>>>(*a);
    if (a->op.bits)
        status = lik_cuda_sort(a->keys, a->plan.element_keys, 1, stream);
    if (status)
        return status;
    make_buckets<<<1, ROW_THREADS, 0, stream>>>(*a);
    return lik_cuda_launched("make_buckets");
}

int lik_cuda_train_run(const struct lik_gpu *gpu, const struct lik_train *op, const struct train_plan *p,
                       char *workspace, cudaStream_t stream)
{
    struct train_args a = {};
    int64_t *blocks = (int64_t *)(workspace + p->blocks);
    char *assigning = workspace + p->assign_workspace;
    a.op = *op;
    a.plan = *p;
    a.source = row_source_of(&op->x);
    a.state = (struct train_state *)(workspace + p->state);
    a.kept = op->x.mask ? (int64_t *)(workspace + p->kept) : NULL;
    a.row_of = (int64_t *)(workspace + p->row_of);
    a.point_rows = (int64_t *)(workspace + p->point_rows);
    a.codes = (int32_t *)(workspace + p->codes);
    a.keys = (uint64_t *)(workspace + p->sorted);
    a.sums = (double *)(workspace + p->sums);
    a.is_new = (int8_t *)(workspace + p->is_new);
    a.empty = (int64_t *)(workspace + p->empty);
    a.squares = (double *)(workspace + p->squares);
    int status = find_tokens(&a, blocks, stream);
    for (int32_t i = 0; i < op->iterations && !status; i++)
        status = iterate(gpu, &a, blocks, assigning, stream);
    return status ? status : find_buckets(gpu, &a, assigning, stream);
}
