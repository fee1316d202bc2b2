/* The forward pass with mma.sync, for every GPU since sm_75, and for what the copy engine of
 * Hopper cannot take: any dtype, stride, dim and mixture of dtypes.
 *
 * A block of four warps owns a tile of query rows and a run of documents, and walks each
 * document in tiles of columns and chunks of 32 elements of the dim, chunk i + 1 being fetched
 * while chunk i is multiplied. Two shapes: 128 rows by 64 columns (each warp 32 rows), and 32
 * rows by 128 columns (each warp 32 columns) for one short query.
 *
 * Operands that no tensor core takes as they are become sums of bf16 planes, split while they
 * are copied to shared memory: i8, e4m3, e5m2 and bf16 are one plane exactly, f16 two, f32
 * three (two under LIK_HIGH, one under LIK_MEDIUM). Products of planes i and j are taken for i
 * + j < orders, the smallest first, in one f32 accumulator: with three orders what is left out
 * is less than the rounding of f32. An infinite f32 gives NaN there. sm_75 has f16 products
 * alone: everything else runs in f32 arithmetic, policy f32_arithmetic, which also is the exact
 * form of f32. */
#ifndef LIK_CUDA_MMA_LOOP_CUH
#define LIK_CUDA_MMA_LOOP_CUH

#include "cuda/mma/tile.cuh"

/* Row maxima of a lane: of the four rows m * 16 + lane / 4 + 8 h at [m * 2 + h]. */
struct maxima {
    float best[4];
    int at[4];
};

/* Takes the products of one column tile into the maxima. `token` is the tile's first document
 * token, `limit` the document's tokens, `general` says that columns may be dropped or have
 * factors. */
template <class P, int warp_rows, bool want_argmax>
static __device__ __forceinline__ void
take_products(struct maxima &best, const float (&acc)[2][layout<P, warp_rows>::warp_width / 8][4],
              int column0, int token, int limit, bool general, const float *factor, const int *kept)
{
#pragma unroll
    for (int n = 0; n < layout<P, warp_rows>::warp_width / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int column = column0 + n * 8 + ((int)threadIdx.x & 3) * 2 + e, t = token + column;
            bool counts = t < limit;
            float scale = 1.0f;
            if (general) {
                counts = counts && kept[column];
                scale = factor[column];
            }
            if (!counts)
                continue;
#pragma unroll
            for (int m = 0; m < 4; m++) {
                float x = acc[m >> 1][n][(m & 1) * 2 + e];
                if (general)
                    x = __fmul_rn(x, scale);
                if (want_argmax) {
                    if (best.at[m] < 0 || x > best.best[m] || (x != x && best.best[m] == best.best[m])) {
                        best.best[m] = x;
                        best.at[m] = t;
                    }
                } else {
                    best.best[m] = max_nan(best.best[m], x);
                }
            }
        }
}

/* One lane of the rows' four, and one warp of the columns' warps, ends with the maximum of each
 * row. */
template <class P, int warp_rows, bool want_argmax>
static __device__ void join_maxima(struct maxima &best, layout<P, warp_rows> &sm)
{
    int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int o = 1; o < 4; o *= 2) {
            float x = __shfl_xor_sync(~0u, best.best[m], o);
            if (want_argmax)
                keep_better(best.best[m], best.at[m], x, __shfl_xor_sync(~0u, best.at[m], o));
            else
                best.best[m] = max_nan(best.best[m], x);
        }
    if (warp_rows == 4)
        return;
    if ((lane & 3) == 0)
#pragma unroll
        for (int m = 0; m < 4; m++) {
            sm.best[warp * 32 + m * 8 + (lane >> 2)] = best.best[m];
            sm.best_at[warp * 32 + m * 8 + (lane >> 2)] = best.at[m];
        }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < 4; m++)
        for (int w = 0; w < 4; w++) {
            float x = sm.best[w * 32 + m * 8 + (lane >> 2)];
            if (want_argmax)
                keep_better(best.best[m], best.at[m], x, sm.best_at[w * 32 + m * 8 + (lane >> 2)]);
            else
                best.best[m] = max_nan(best.best[m], x);
        }
}

/* Weighs the row maxima of one document, writes the argmax, adds the rows of each strip and the
 * strips of each query. */
template <class P, int warp_rows, bool want_argmax>
static __device__ void finish_document(struct maxima &best, layout<P, warp_rows> &sm,
                                       const struct score_args &a, int64_t tile, int64_t column, int length,
                                       bool any_kept)
{
    int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, row_warp = warp_rows == 4 ? warp : 0;
    join_maxima<P, warp_rows, want_argmax>(best, sm);
    if (warp_rows == 4 || warp == 0) {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            struct strip_place place = locate_strip(a.tiling, tile, row_warp * 2 + m);
            float v[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int r = row_warp * 32 + m * 16 + h * 8 + (lane >> 2), s = sm.row_token[r];
                bool counts = sm.row_counts[r] && any_kept;
                v[h] = counts ? __fmul_rn(sm.row_weight[r], best.best[m * 2 + h]) : 0.0f;
                if (want_argmax && (lane & 3) == 0 && place.row >= 0 && s < a.op.q.len_max)
                    store_argmax(a.op, (place.row * a.columns + column) * a.op.q.len_max + s,
                                 counts && sm.row_at[r] != LIK_NOWHERE ? best.at[m * 2 + h] : -1);
            }
            float sum = add_strip(v[0], v[1]);
            if (sm.row_counts[row_warp * 32 + m * 16] && sm.row_at[row_warp * 32 + m * 16] == LIK_NOWHERE)
                sum = sm.row_weight[row_warp * 32 + m * 16]; /* the query is out of range */
            if (length < 0)
                sum = __uint_as_float(0x7fc00000u);
            if (lane == 0 && place.row >= 0) {
                if (a.partial)
                    a.partial[(place.row * a.columns + column) * a.tiling.strips_per_query + place.strip] =
                        sum;
                sm.strip_sum[row_warp * 2 + m] = sum;
            }
        }
    }
    __syncthreads();
    int strips = a.tiling.strips_per_query, queries = a.tiling.parts ? 1 : a.tiling.strips_per_tile / strips;
    if (!a.partial && (int)threadIdx.x < queries) {
        struct strip_place place = locate_strip(a.tiling, tile, (int)threadIdx.x * strips);
        if (place.row >= 0) {
            float score = sm.strip_sum[threadIdx.x * strips];
            for (int b = 1; b < strips; b++)
                score = __fadd_rn(score, sm.strip_sum[threadIdx.x * strips + b]);
            a.op.scores[place.row * a.op.scores_stride + column] = score;
        }
    }
    __syncthreads();
}

/* Reads what belongs to the tile's query rows, and the rows themselves if they stay. */
template <class P, int warp_rows>
static __device__ void load_queries(layout<P, warp_rows> &sm, const struct mma_args &a, int64_t tile)
{
    typedef layout<P, warp_rows> L;
    const struct lik_tokens &q = a.score.op.q;
    __syncthreads();
    if ((int)threadIdx.x < L::rows) {
        int r = (int)threadIdx.x;
        struct query_row row = locate_row(a.score, locate_strip(a.score.tiling, tile, r / 16), r & 15);
        sm.row_at[r] = row.at;
        sm.row_weight[r] = row.weight;
        sm.row_sign[r] = row.scale;
        sm.row_counts[r] = row.counts;
        sm.row_token[r] = row.token;
    }
    __syncthreads();
    for (int r = (int)threadIdx.x / 8; r < L::rows; r += THREADS / 8) {
        struct query_row row = {sm.row_at[r], 0, 1.0f, sm.row_sign[r], true};
        float factor = row_factor(a.score, row, (int)threadIdx.x & 7);
        __syncwarp();
        if ((threadIdx.x & 7) == 0) {
            sm.row_weight[r] = __fmul_rn(sm.row_weight[r], fabsf(factor));
            sm.row_sign[r] = factor < 0.0f ? -1.0f : 1.0f;
        }
    }
    __syncthreads();
    if (a.q_resident)
        fill<P>(
            sm.q, sm.q_stride, sm.q_plane, a.q_planes, a.q_raw, a.score.q_vector, q, L::rows, 0,
            (int)((q.dim + CHUNK - 1) / CHUNK) * (CHUNK / 8), [&](int r) { return sm.row_at[r]; },
            [&](int r) { return sm.row_sign[r]; });
}

/* Which columns of a column tile count and their factors; uniform: does any of them count? */
template <class P, int warp_rows, class A>
static __device__ void load_columns(layout<P, warp_rows> &sm, const A &args, int64_t j, int token, int length,
                                    int half)
{
    typedef layout<P, warp_rows> L;
    const struct score_args &a = args.score;
    const struct lik_tokens &d = a.op.d;
    for (int c = (int)threadIdx.x; c < L::columns; c += THREADS) {
        int t = token + c, kept = 0;
        float factor = 1.0f;
        if (t < length && token_kept(d, lik_tokens_base(&d, &d.mask_strides, j), t)) {
            kept = 1;
            factor = a.factor ? a.factor[lik_tokens_row(&d, j) + t]
                              : A::scale_of(d, lik_tokens_base(&d, &d.scale_strides, j), t);
            *sm.any_kept = 1;
        }
        sm.kept[half * L::columns + c] = kept;
        sm.factor[half * L::columns + c] = factor;
    }
}

/* Long because fetching, multiplying and taking maxima overlap, step by step. */
template <class A, class P, int warp_rows, bool want_argmax>
static __global__ void __launch_bounds__(THREADS) score_mma(const __grid_constant__ A a)
{
    typedef layout<P, warp_rows> L;
    extern __shared__ __align__(16) char shared[];
    L sm(shared, a);
    const struct lik_tokens &d = a.score.op.d;
    int warp = (int)threadIdx.x >> 5, chunks = (int)((d.dim + CHUNK - 1) / CHUNK);
    int row_warp = warp_rows == 4 ? warp : 0, column_warp = warp_rows == 4 ? 0 : warp;
    bool general = d.mask || d.scale || a.score.factor;
    int64_t held = -1;
    for (int64_t item = blockIdx.x; item < a.score.tiling.tiles * a.runs; item += gridDim.x) {
        int64_t tile = item / a.runs, first = (item - tile * a.runs) * a.documents_per_run;
        int64_t last =
            first + a.documents_per_run < a.score.columns ? first + a.documents_per_run : a.score.columns;
        if (tile != held)
            load_queries<P, warp_rows>(sm, a, tile);
        held = tile;
        for (int64_t column = first; column < last; column++) {
            struct strip_place place = locate_strip(a.score.tiling, tile, 0);
            int64_t j = lik_score_document(&a.score.op, place.row, column);
            int length = sequence_length(d, j);
            int64_t base = length > 0 ? lik_tokens_base(&d, &d.strides, j) : 0;
            int steps = length > 0 ? (length + L::columns - 1) / L::columns * chunks : 0;
            struct maxima best;
#pragma unroll
            for (int m = 0; m < 4; m++) {
                best.best[m] = -INFINITY;
                best.at[m] = -1;
            }
            if (threadIdx.x == 0)
                *sm.any_kept = 0;
            __syncthreads();
            auto fetch = [&](int step) {
                int token = step / chunks * L::columns, k = step % chunks * CHUNK, half = step & 1;
                if constexpr (A::compressed)
                    a.template fill_decoded<P>(sm.d + half * sm.d_stage, L::stride, sm.d_plane, L::columns, k,
                                               j, token, length);
                else
                    fill<P>(
                        sm.d + half * sm.d_stage, L::stride, sm.d_plane, a.d_planes, a.d_raw,
                        a.score.d_vector, d, L::columns, k, CHUNK / 8,
                        [&](int r) {
                            return token + r < length ? base + (token + r) * d.strides.token : LIK_NOWHERE;
                        },
                        [](int) { return 1.0f; });
                if (!a.q_resident)
                    fill<P>(
                        sm.q + half * sm.q_stage, sm.q_stride, sm.q_plane, a.q_planes, a.q_raw,
                        a.score.q_vector, a.score.op.q, L::rows, k, CHUNK / 8,
                        [&](int r) { return sm.row_at[r]; }, [&](int r) { return sm.row_sign[r]; });
                if (general && k == 0)
                    load_columns<P, warp_rows>(sm, a, j, token, length, token / L::columns & 1);
                copy_async_commit();
            };
            float acc[2][L::warp_width / 8][4];
            if (steps)
                fetch(0);
            for (int step = 0; step < steps; step++) {
                int chunk = step % chunks, tile_column = step / chunks, half = step & 1;
                copy_async_wait<0>();
                __syncthreads();
                if (step + 1 < steps)
                    fetch(step + 1);
                if (chunk == 0) {
#pragma unroll
                    for (int i = 0; i < 2 * (L::warp_width / 8) * 4; i++)
                        (&acc[0][0][0])[i] = 0.0f;
                }
                multiply_chunk<P, warp_rows>(
                    acc,
                    sm.q + (a.q_resident ? chunk * CHUNK : half * sm.q_stage) + row_warp * 32 * sm.q_stride,
                    sm.q_stride, sm.q_plane,
                    sm.d + half * sm.d_stage + column_warp * L::warp_width * L::stride, sm.d_plane,
                    a.q_planes, a.d_planes, a.orders);
                if (chunk == chunks - 1)
                    take_products<P, warp_rows, want_argmax>(
                        best, acc, column_warp * L::warp_width, tile_column * L::columns, length, general,
                        sm.factor + (tile_column & 1) * L::columns, sm.kept + (tile_column & 1) * L::columns);
            }
            __syncthreads();
            bool any_kept = length < 0 || (general ? *sm.any_kept != 0 : length > 0);
            finish_document<P, warp_rows, want_argmax>(best, sm, a.score, tile, column, length, any_kept);
        }
    }
}

template <class P, int warp_rows, class A>
static int launch(A *a, const struct lik_gpu *gpu, cudaStream_t stream)
{
    typedef layout<P, warp_rows> L;
    a->q_resident = 1;
    if (L::bytes(*a) > gpu->limits.resident_bytes)
        a->q_resident = 0;
    size_t bytes = L::bytes(*a);
    int64_t items = a->score.tiling.tiles * a->runs, grid = items < 65536 * 16 ? items : 65536 * 16;
    if (a->score.op.argmax)
        score_mma<A, P, warp_rows, true><<<(unsigned)grid, THREADS, bytes, stream>>>(*a);
    else
        score_mma<A, P, warp_rows, false><<<(unsigned)grid, THREADS, bytes, stream>>>(*a);
    return lik_cuda_launched("score_mma");
}

template <class P, class A> static int launch_rows(A *a, const struct lik_gpu *gpu, cudaStream_t stream)
{
    return a->score.tiling.strips_per_tile == 2 ? launch<P, 1>(a, gpu, stream) : launch<P, 4>(a, gpu, stream);
}

/* Launches what a plan says; `a` holds what the mma loop does not plan. */
template <class A>
static int launch_plan(A *a, const struct lik_gpu *gpu, const struct mma_plan *p, cudaStream_t stream)
{
    a->runs = p->runs;
    a->documents_per_run = p->documents_per_run;
    a->q_planes = p->q_planes;
    a->d_planes = p->d_planes;
    a->orders = p->orders;
    a->q_raw = p->q_raw;
    a->d_raw = p->d_raw;
    switch (p->products) {
    case MMA_BF16: return launch_rows<struct bf16_products>(a, gpu, stream);
    case MMA_F16: return launch_rows<struct f16_products>(a, gpu, stream);
    case MMA_F16_SM75: return launch_rows<struct f16_products_sm75>(a, gpu, stream);
    default: return launch_rows<struct f32_arithmetic>(a, gpu, stream);
    }
}

/* Lets the kernels of one policy use the shared memory they may need. */
template <class A, class P> static cudaError_t prepare_policy(int bytes)
{
    cudaError_t e;
    const void *kernels[] = {(const void *)score_mma<A, P, 1, false>, (const void *)score_mma<A, P, 1, true>,
                             (const void *)score_mma<A, P, 4, false>, (const void *)score_mma<A, P, 4, true>};
    for (const void *kernel : kernels)
        if ((e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) !=
            cudaSuccess)
            return e;
    return cudaSuccess;
}

template <class A> static int prepare(const struct lik_gpu *gpu)
{
    const int bytes = (int)gpu->limits.shared_bytes;
    cudaError_t e = gpu->limits.arch < 80 ? prepare_policy<A, struct f16_products_sm75>(bytes)
                                          : prepare_policy<A, struct f16_products>(bytes);
    if (e == cudaSuccess)
        e = gpu->limits.arch < 80 ? prepare_policy<A, struct f32_arithmetic>(bytes)
                                  : prepare_policy<A, struct bf16_products>(bytes);
    return lik_cuda_status(e, "cudaFuncSetAttribute");
}

#endif
