/* The mma.sync loop: a launch's arguments, the products a policy takes, and how operands come
 * to shared memory and are multiplied there. */
#ifndef LIK_CUDA_MMA_TILE_CUH
#define LIK_CUDA_MMA_TILE_CUH

#include "cuda/kernels.cuh"
#include "cuda/mma.cuh"
#include "cuda/score.cuh"

#define THREADS 128
#define CHUNK   MMA_CHUNK

struct mma_args {
    struct score_args score;
    int64_t runs, documents_per_run; /* struct mma_plan; so are the next but the last */
    int32_t q_planes, d_planes, orders;
    int32_t q_raw, d_raw;
    int32_t q_resident; /* the whole rows of the query tile stay in shared memory */

    enum { compressed = 0 }; /* of documents; those that are: score_compressed.cu */

    LIK_MEMBER static float scale_of(const struct lik_tokens &d, int64_t base, int t)
    {
        return token_scale(d, base, t);
    }
};

/* Policies: element in shared memory, elements of padding a row (so that eight rows meet all
 * banks), products. */
struct bf16_products {
    typedef uint16_t element;
    enum { padding = 8, tensor = 1, asynchronous = 1 };
    static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                    uint32_t b1)
    {
        mma_bf16(c, a, b0, b1);
    }
};

struct f16_products {
    typedef uint16_t element;
    enum { padding = 8, tensor = 1, asynchronous = 1 };
    static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                    uint32_t b1)
    {
        mma_f16(c, a, b0, b1);
    }
};

struct f16_products_sm75 {
    typedef uint16_t element;
    enum { padding = 8, tensor = 1, asynchronous = 0 };
    static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                    uint32_t b1)
    {
        mma_f16_k8(c, a[0], a[1], b0);
        mma_f16_k8(c, a[2], a[3], b1);
    }
};

struct f32_arithmetic {
    typedef float element;
    enum { padding = 4, tensor = 0, asynchronous = 0 };
    static __device__ __forceinline__ void multiply(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t)
    {
    }
};

/* Where things lie in the block's shared memory. */
template <class P, int warp_rows> struct layout {
    enum {
        rows = 32 * warp_rows, /* of queries */
        warp_columns = 4 / warp_rows,
        columns = warp_rows == 4 ? 64 : 128,
        warp_width = columns / warp_columns, /* columns of a warp */
        stride = CHUNK + P::padding,         /* of a staged row, in elements */
    };
    typename P::element *q, *d;
    int64_t *row_at;
    float *row_weight, *row_sign, *factor, *best, *strip_sum;
    int *row_counts, *row_token, *kept, *best_at, *any_kept;
    int q_stride, q_plane, d_plane, q_stage, d_stage;

    static __host__ __device__ int q_row(const struct mma_args &a)
    {
        return a.q_resident ? (int)((a.score.op.q.dim + CHUNK - 1) / CHUNK * CHUNK) + P::padding
                            : (int)stride;
    }

    static __host__ __device__ size_t bytes(const struct mma_args &a)
    {
        size_t q = (size_t)rows * q_row(a) * a.q_planes * (a.q_resident ? 1 : 2);
        size_t d = (size_t)columns * stride * a.d_planes * 2;
        return (q + d) * sizeof(typename P::element) + rows * (8 + 16) + 2 * columns * 8 + 4 * 32 * 8 +
               16 * 4 + 16;
    }

    __device__ layout(char *p, const struct mma_args &a)
    {
        q_stride = q_row(a);
        q_plane = rows * q_stride;
        d_plane = columns * stride;
        q_stage = a.q_resident ? 0 : q_plane * a.q_planes;
        d_stage = d_plane * a.d_planes;
        q = (typename P::element *)p;
        d = q + (a.q_resident ? q_plane * a.q_planes : 2 * q_stage);
        row_at = (int64_t *)(d + 2 * d_stage);
        row_weight = (float *)(row_at + rows);
        row_sign = row_weight + rows;
        row_counts = (int *)(row_sign + rows);
        row_token = row_counts + rows;
        factor = (float *)(row_token + rows); /* of two column tiles */
        kept = (int *)(factor + 2 * columns);
        best = (float *)(kept + 2 * columns); /* of each warp's 32 rows */
        best_at = (int *)(best + 4 * 32);
        strip_sum = (float *)(best_at + 4 * 32);
        any_kept = (int *)(strip_sum + 16);
    }
};

/* Copies elements k0 ... k0 + 8 * runs_of_8 - 1 of `rows` tokens to shared memory; `at(r)` is a
 * token's element offset or LIK_NOWHERE for zeros, `sign(r)` multiplies it. */
template <class P, class At, class Sign>
static __device__ __forceinline__ void fill(typename P::element *to, int stride, int plane, int planes,
                                            bool raw, bool vector, const struct lik_tokens &x, int rows,
                                            int k0, int runs_of_8, At at, Sign sign)
{
    for (int i = (int)threadIdx.x; i < rows * runs_of_8; i += THREADS) {
        int r = i / runs_of_8, c = (i - r * runs_of_8) * 8, k = k0 + c, n = (int)x.dim - k;
        int64_t from = at(r);
        typename P::element *out = to + r * stride + c;
        if (P::tensor && raw && vector && (from == LIK_NOWHERE || n <= 0 || n >= 8)) {
            bool copy = from != LIK_NOWHERE && n > 0;
            const uint16_t *in = (const uint16_t *)x.data + (copy ? from + k : 0);
            if (P::asynchronous)
                copy_async_16(out, in, copy ? 16 : 0);
            else
                *(uint4 *)out = copy ? *(const uint4 *)in : make_uint4(0, 0, 0, 0);
            continue;
        }
        if (P::tensor && raw) {
            uint16_t *halves = (uint16_t *)out;
#pragma unroll
            for (int e = 0; e < 8; e++)
                halves[e] = from != LIK_NOWHERE && e < n
                                ? ((const uint16_t *)x.data)[from + (k + e) * x.dim_stride]
                                : 0;
            continue;
        }
        float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (from != LIK_NOWHERE) {
            load_8(x, from, k, vector, v);
            float s = sign(r);
#pragma unroll
            for (int e = 0; e < 8; e++)
                v[e] *= s;
        }
        if constexpr (!P::tensor) {
            *(float4 *)out = make_float4(v[0], v[1], v[2], v[3]);
            *(float4 *)(out + 4) = make_float4(v[4], v[5], v[6], v[7]);
        } else {
            for (int p = 0; p < planes; p++) {
                uint32_t word[4];
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    uint32_t low = take_plane(v[2 * e], p == planes - 1);
                    word[e] = low | (uint32_t)take_plane(v[2 * e + 1], p == planes - 1) << 16;
                }
                *(uint4 *)(out + p * plane) = make_uint4(word[0], word[1], word[2], word[3]);
            }
        }
    }
}

/* acc += q chunk x d chunk: 32 rows by warp_width columns. */
template <class P, int warp_rows>
static __device__ __forceinline__ void
multiply_chunk(float (&acc)[2][layout<P, warp_rows>::warp_width / 8][4], const typename P::element *q,
               int q_stride, int q_plane, const typename P::element *d, int d_plane, int q_planes,
               int d_planes, int orders)
{
    typedef layout<P, warp_rows> L;
    int lane = (int)threadIdx.x & 31;
    if constexpr (P::tensor) {
        const uint16_t *qa = q + (lane & 15) * q_stride + (lane >> 4) * 8;
        const uint16_t *da = d + ((lane & 7) + (lane >> 4) * 8) * L::stride + (lane >> 3 & 1) * 8;
        for (int order = orders - 1; order >= 0; order--)
            for (int i = 0; i <= order && i < q_planes; i++) {
                int j = order - i;
                if (j >= d_planes)
                    continue;
#pragma unroll
                for (int k = 0; k < CHUNK; k += 16) {
                    uint32_t a[2][4];
                    load_matrix_4(a[0], qa + i * q_plane + k);
                    load_matrix_4(a[1], qa + i * q_plane + 16 * q_stride + k);
#pragma unroll
                    for (int n = 0; n < L::warp_width / 8; n += 2) {
                        uint32_t b[4];
                        load_matrix_4(b, da + j * d_plane + n * 8 * L::stride + k);
#pragma unroll
                        for (int m = 0; m < 2; m++) {
                            P::multiply(acc[m][n], a[m], b[0], b[1]);
                            P::multiply(acc[m][n + 1], a[m], b[2], b[3]);
                        }
                    }
                }
            }
    } else {
        const float *qa = (const float *)q + (lane >> 2) * q_stride;
        const float *da = (const float *)d + (lane & 3) * 2 * L::stride;
#pragma unroll 1
        for (int k = 0; k < CHUNK; k += 4) {
            float4 a[4];
#pragma unroll
            for (int m = 0; m < 4; m++)
                a[m] = *(const float4 *)(qa + m * 8 * q_stride + k);
#pragma unroll
            for (int n = 0; n < L::warp_width / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float4 b = *(const float4 *)(da + (n * 8 + e) * L::stride + k);
#pragma unroll
                    for (int m = 0; m < 4; m++) {
                        float &c = acc[m >> 1][n][(m & 1) * 2 + e];
                        c = __fmaf_rn(a[m].x, b.x, c);
                        c = __fmaf_rn(a[m].y, b.y, c);
                        c = __fmaf_rn(a[m].z, b.z, c);
                        c = __fmaf_rn(a[m].w, b.w, c);
                    }
                }
        }
    }
}

#endif
