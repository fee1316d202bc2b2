/* Gradients of queries and of their tokens' weights against compressed documents, which have
 * none themselves.
 *
 * The scores of a query are cut into parts; a warp has a part of one query token's winners. It
 * finds 32 of them at once, one a lane, and puts those that are rows side by side in shared
 * memory. Then groups of lanes, eight elements a lane, decode and add them in turn, several
 * rows a group under way: 16 bytes of the centroid each, the bits of eight elements, and their
 * weights from a table of what a byte of residual may say. Where tokens are normalized a row's
 * norm is taken on the way. The parts' sums stand in the workspace, and a warp a query token
 * adds them in order.
 *
 * Where the parts begin follows from how many scores the queries have alone, and what a warp
 * adds in which order from the winners: the same bits in any layout, on any GPU. The blocks
 * that run at once have the same documents, whose residuals come from memory once. */
#include "cuda/compressed.cuh"
#include "cuda/grad/rows.cuh"
#include "cuda/kernels.cuh"

#define AT_ONCE  4           /* rows of a group of lanes */
#define NONE_MET 0xffffffffu /* the bits of a part's sum without a row: no NaN of ours has them */

struct compressed_args {
    struct grad_args grad;
    struct lik_codec codec;
    const char *centroids;   /* in the documents' dtype, rows aligned to 16 bytes */
    uint32_t centroid_bytes; /* from one to the next */
    float *partial;          /* [query tokens, parts, row_floats] */
    int32_t parts, lanes, row_floats;
    int32_t whole_bits; /* the bits of eight elements are one aligned load */
    int32_t take_norms; /* of rows, as they are met */
};

/* A row that a query token met: where its residual begins, its centroid, and what it is
 * multiplied by. */
struct __align__(16) met {
    int64_t at;
    uint32_t code;
    float coefficient;
};

LIK_DEVICE bool find_met(const struct compressed_args &args, const struct incidence &in, int64_t n, int s,
                         struct met &met)
{
    const struct grad_args &a = args.grad;
    const struct lik_score &op = a.op.score;
    const struct lik_tokens &d = op.d;
    int64_t row, column;
    incidence_at(in, n, row, column);
    int t = winner_at(op, in, n, s);
    int64_t j = lik_score_document(&op, row, column);
    if (t < 0 || t >= sequence_length(d, j))
        return false;
    struct coded_token token = coded_token_at(d, args.codec, lik_tokens_base(&d, &d.strides, j),
                                              lik_tokens_base(&d, &d.codes_strides, j), t);
    float factor = a.d_factor ? a.d_factor[lik_tokens_row(&d, j) + t]
                              : coded_scale(d, lik_tokens_base(&d, &d.scale_strides, j), t);
    met.at = token.at;
    met.code = (uint32_t)token.code;
    met.coefficient = a.op.grad_scores[row * a.op.grad_scores_stride + column] * factor;
    return token.code >= 0;
}

/* ---- Decoding ---- */

/* Of the table: the weights of the 8 / bits elements of a byte of residual, in words. */
template <int dtype, int bits> struct entry_of {
    static constexpr int bytes = (bits ? 8 / bits : 1) * (dtype == LIK_F32 ? 4 : 2);
};

template <int dtype, int bits> LIK_DEVICE void make_table(char *table, const struct lik_codec &codec)
{
    const int per_byte = bits ? 8 / bits : 1;
    for (int n = (int)threadIdx.x; bits && n < 256 * per_byte; n += (int)blockDim.x) {
        const uint8_t byte = (uint8_t)(n / per_byte);
        int bucket = lik_residual_bucket(&byte, n % per_byte, bits ? bits : 1, codec.bit_order);
        float weight = load_element(codec.weights, codec.weights_dtype, bucket);
        if (dtype == LIK_F32)
            ((float *)table)[n] = weight;
        else
            ((uint16_t *)table)[n] = (uint16_t)(pack_halves(dtype, weight, 0.0f) & 0xffffu);
    }
}

/* The bits of elements k ... k + 7, of which the row may have fewer. */
template <int bits> LIK_DEVICE uint64_t load_bits(const struct compressed_args &a, int64_t at, int k)
{
    if (!bits)
        return 0;
    const uint8_t *from = (const uint8_t *)a.grad.op.score.d.data + at + k / 8 * bits;
    if (a.whole_bits)
        return bits == 1   ? *from
               : bits == 2 ? *(const uint16_t *)from
               : bits == 4 ? *(const uint32_t *)from
                           : *(const uint64_t *)from;
    const int row_bytes = (int)lik_residual_bytes(a.grad.op.score.d.dim, bits) - k / 8 * bits;
    uint64_t all = 0;
#pragma unroll
    for (int i = 0; i < bits; i++)
        all |= i < row_bytes ? (uint64_t)from[i] << 8 * i : 0;
    return all;
}

/* The eight weights that these bits name, as words of the table. */
template <int dtype, int bits>
LIK_DEVICE void load_weights(const char *table, uint64_t all, uint32_t (&w)[dtype == LIK_F32 ? 8 : 4])
{
    const int bytes = entry_of<dtype, bits>::bytes;
#pragma unroll
    for (int i = 0; i < bits; i++) {
        const char *from = table + (uint32_t)(all >> 8 * i & 0xff) * bytes;
        if constexpr (bytes >= 16) {
#pragma unroll
            for (int v = 0; v < bytes / 16; v++) {
                const uint4 four = ((const uint4 *)from)[v];
                const int at = (i * bytes + v * 16) / 4;
                w[at] = four.x, w[at + 1] = four.y, w[at + 2] = four.z, w[at + 3] = four.w;
            }
        } else if constexpr (bytes == 8) {
            const uint2 two = *(const uint2 *)from;
            w[2 * i] = two.x, w[2 * i + 1] = two.y;
        } else if constexpr (bytes == 4) {
            w[i] = *(const uint32_t *)from;
        } else {
            const uint32_t half = *(const uint16_t *)from;
            w[i / 2] = i % 2 ? w[i / 2] | half << 16 : half;
        }
    }
}

/* Two halves and two others, each sum rounded once. */
template <int dtype> LIK_DEVICE uint32_t add_pairs(uint32_t a, uint32_t b)
{
    if constexpr (dtype == LIK_BF16) {
        __nv_bfloat162 sum = __hadd2_rn(*(const __nv_bfloat162 *)&a, *(const __nv_bfloat162 *)&b);
        return *(const uint32_t *)&sum;
    }
    __half2 sum = __hadd2_rn(*(const __half2 *)&a, *(const __half2 *)&b);
    return *(const uint32_t *)&sum;
}

/* Elements k ... k + 7 of a row as they were loaded. */
template <int dtype, int bits> struct coded_eight {
    uint4 centroid[dtype == LIK_F32 ? 2 : 1];
    uint64_t residual;

    LIK_MEMBER void load(const struct compressed_args &a, const struct met &row, int k)
    {
        const uint4 *from = (const uint4 *)(a.centroids + (uint64_t)row.code * a.centroid_bytes +
                                            k * (dtype == LIK_F32 ? 4 : 2));
#pragma unroll
        for (int i = 0; i < (dtype == LIK_F32 ? 2 : 1); i++)
            centroid[i] = __ldg(from + i);
        residual = load_bits<bits>(a, row.at, k);
    }

    LIK_MEMBER void decode(const char *table, float (&v)[8]) const
    {
        uint32_t w[dtype == LIK_F32 ? 8 : 4] = {};
        load_weights<dtype, bits>(table, residual, w);
        if constexpr (dtype == LIK_F32) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const uint4 &c = centroid[i / 4];
                const uint32_t word = i % 4 == 0 ? c.x : i % 4 == 1 ? c.y : i % 4 == 2 ? c.z : c.w;
                v[i] = bits ? __fadd_rn(__uint_as_float(word), __uint_as_float(w[i])) : __uint_as_float(word);
            }
        } else {
            uint4 sum = centroid[0];
            if (bits) {
                sum.x = add_pairs<dtype>(sum.x, w[0]);
                sum.y = add_pairs<dtype>(sum.y, w[1]);
                sum.z = add_pairs<dtype>(sum.z, w[2]);
                sum.w = add_pairs<dtype>(sum.w, w[3]);
            }
            unpack_halves(sum, dtype, v);
        }
    }
};

/* ---- The kernels ---- */

/* The sum of all lanes of the caller's group, or the largest. */
template <bool largest> LIK_DEVICE float over_group(float x, int lanes)
{
    for (int o = 1; o < lanes; o *= 2) {
        float other = __shfl_xor_sync(~0u, x, o);
        x = largest ? fmaxf(x, other) : __fadd_rn(x, other);
    }
    return x;
}

/* What makes a unit vector of a row of which the lane has these elements, and its group all. No
 * function of compressed.cuh: what calls anything has no registers left. */
LIK_DEVICE float norm_factor(const float (&v)[8], int lanes)
{
    float squares = 0.0f, scale = 1.0f;
#pragma unroll
    for (int e = 0; e < 8; e++)
        squares = __fmaf_rn(v[e], v[e], squares);
    squares = over_group<false>(squares, lanes);
    const bool lost = !(squares > 1e-20f && squares < 1e37f);
    if (__any_sync(~0u, lost)) { /* hardly ever: again with the elements scaled by a power of two */
        float largest = 0.0f, again = 0.0f;
#pragma unroll
        for (int e = 0; e < 8; e++)
            largest = fmaxf(largest, fabsf(v[e]));
        const int exponent = (int)(__float_as_uint(over_group<true>(largest, lanes)) >> 23);
        scale = lost ? __uint_as_float((uint32_t)max(254 - exponent, 1) << 23) : 1.0f;
#pragma unroll
        for (int e = 0; e < 8; e++)
            again = __fmaf_rn(v[e] * scale, v[e] * scale, again);
        squares = over_group<false>(again, lanes);
    }
    const float factor = rsqrtf(squares) * scale, most = 1.0f / (float)LIK_NORM_MIN;
    return factor > most ? most : factor;
}

/* Adds `count` rows, elements k ... k + 7 of them, to `sum`: each group of lanes every one of
 * its turn. A group has all of a row whose norm it takes. */
template <int dtype, int bits>
LIK_DEVICE void add_found(const struct compressed_args &a, const char *table, const struct met *rows,
                          int count, int k, float (&sum)[8])
{
    const int groups = 32 / a.lanes, group = ((int)threadIdx.x & 31) / a.lanes;
    const int left = (int)a.grad.op.score.d.dim - k; /* elements; lanes past the end load the first */
    for (int base = 0; base < count; base += groups * AT_ONCE) {
        struct coded_eight<dtype, bits> eight[AT_ONCE];
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++)
            eight[u].load(a, rows[min(base + u * groups + group, count - 1)], left > 0 ? k : 0);
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            const int n = base + u * groups + group;
            const bool here = n < count;
            float v[8], coefficient = rows[min(n, count - 1)].coefficient;
            eight[u].decode(table, v);
            if (left < 8)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    v[e] = e < left ? v[e] : 0.0f;
            if (a.take_norms)
                coefficient *= norm_factor(v, a.lanes);
            if (here)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    sum[e] = __fmaf_rn(coefficient, v[e], sum[e]);
        }
    }
}

/* Block: a part of the scores of GRAD_WARPS query tokens. */
template <int dtype, int bits>
static __global__ void __launch_bounds__(32 * GRAD_WARPS, dtype == LIK_F32 ? 2 : 4)
    add_met_rows(const __grid_constant__ struct compressed_args args)
{
    __shared__ __align__(16) char table[256 * entry_of<dtype, bits>::bytes];
    __shared__ struct met found[GRAD_WARPS][32];
    __shared__ struct incidence of_warps[GRAD_WARPS]; /* in shared memory to spare registers */
    const struct grad_args &a = args.grad;
    const struct lik_tokens &q = a.op.score.q;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x & 31;
    const int64_t tokens = q.count * q.len_max, blocks = (tokens + GRAD_WARPS - 1) / GRAD_WARPS;
    make_table<dtype, bits>(table, args.codec);
    __syncthreads();
    for (int64_t block = blockIdx.x; block < blocks * args.parts; block += gridDim.x) {
        const int64_t part = block / blocks, token = (block - part * blocks) * GRAD_WARPS + warp;
        const int64_t i = token / q.len_max;
        const int s = (int)(token - i * q.len_max);
        if (token >= tokens || s >= sequence_length(q, i))
            continue;
        struct incidence &in = of_warps[warp];
        __syncwarp();
        if (lane == 0)
            in = scores_of(a, true, i);
        __syncwarp();
        int64_t each = (in.count + args.parts - 1) / args.parts;
        if (args.parts > 1)
            each = (each + 31) / 32 * 32;
        const int64_t from = part * each, to = min(from + each, in.count);
        for (int first = 0; first < args.row_floats; first += args.lanes * 8) {
            const int k = first + (lane & (args.lanes - 1)) * 8;
            bool any = false;
            float sum[8] = {};
            for (int64_t n = from; n < to; n += 32) {
                struct met met;
                const bool is_row = n + lane < to && find_met(args, in, n + lane, s, met);
                const uint32_t all = __ballot_sync(~0u, is_row);
                if (is_row)
                    found[warp][__popc(all & ((1u << lane) - 1u))] = met;
                __syncwarp();
                if (all)
                    add_found<dtype, bits>(args, table, found[warp], __popc(all), k, sum);
                any = any || all;
                __syncwarp();
            }
            for (int o = args.lanes; o < 32; o *= 2)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    sum[e] = __fadd_rn(sum[e], __shfl_xor_sync(~0u, sum[e], o));
            if (lane >= args.lanes || k >= args.row_floats)
                continue;
            float4 *to_part = (float4 *)(args.partial + (token * args.parts + part) * args.row_floats + k);
            if (!any)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    sum[e] = __uint_as_float(NONE_MET);
            to_part[0] = make_float4(sum[0], sum[1], sum[2], sum[3]);
            to_part[1] = make_float4(sum[4], sum[5], sum[6], sum[7]);
        }
    }
}

/* Adds the parts of a lane's elements k ... k + 7; did any meet a row? */
LIK_DEVICE bool add_parts(const struct compressed_args &args, const float *partial, float (&sum)[8])
{
    bool any = false;
#pragma unroll
    for (int e = 0; e < 8; e++)
        sum[e] = 0.0f;
#pragma unroll 4
    for (int part = 0; part < args.parts; part++) {
        const float4 *from = (const float4 *)(partial + part * args.row_floats);
        const float4 low = from[0], high = from[1];
        if (__float_as_uint(low.x) == NONE_MET)
            continue;
        const float x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        any = true;
#pragma unroll
        for (int e = 0; e < 8; e++)
            sum[e] = __fadd_rn(sum[e], x[e]);
    }
    return any;
}

/* A warp a query token. */
static __global__ void __launch_bounds__(32 * GRAD_WARPS)
    finish_met_rows(const __grid_constant__ struct compressed_args args)
{
    const struct grad_args &a = args.grad;
    const struct lik_tokens &q = a.op.score.q;
    const int lane = (int)threadIdx.x & 31;
    const int64_t tokens = q.count * q.len_max, step = (int64_t)gridDim.x * GRAD_WARPS;
    for (int64_t token = (int64_t)blockIdx.x * GRAD_WARPS + threadIdx.x / 32; token < tokens; token += step) {
        const int64_t i = token / q.len_max;
        const int s = (int)(token - i * q.len_max);
        if (s >= sequence_length(q, i))
            continue;
        float *partial = args.partial + token * args.parts * args.row_floats, sum[8];
        bool any = false;
        for (int k = lane * 8; k < args.row_floats; k += 256) {
            any = add_parts(args, partial + k, sum);
            if (args.row_floats > 256)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    partial[k + e] = sum[e];
        }
        any = __any_sync(~0u, any);
        const int64_t out = lik_tokens_row(&q, i) + s;
        float product = 0.0f;
        if (any) {
            float weight =
                q.weights
                    ? q.weights[lik_tokens_base(&q, &q.weights_strides, i) + s * q.weights_strides.token]
                    : 1.0f;
            product = finish_row<32>(a, q, a.q_vector, a.q_factor, i, s, out, sum,
                                     args.row_floats > 256 ? partial : NULL, a.op.grad_q, weight,
                                     a.op.grad_weights != NULL, true);
        } else if (a.op.grad_q && !a.op.accumulate) {
            store_zeros(a.op.grad_q, q.dtype, q.dim, out, lane, 32);
        }
        if (a.op.grad_weights && lane == 0)
            a.op.grad_weights[out] = (a.op.accumulate ? a.op.grad_weights[out] : 0.0f) + product;
    }
}

/* Centroids as rows of so many floats in the documents' dtype. */
static __global__ void align_centroids(const __grid_constant__ struct lik_codec codec, int dtype, int dim,
                                       int row_floats, void *out)
{
    const int64_t stride = codec.centroid_stride ? codec.centroid_stride : dim;
    const int64_t count = codec.centroid_count * row_floats, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count; n += step) {
        const int64_t c = n / row_floats, k = n - c * row_floats;
        float x = k < dim ? load_element(codec.centroids, codec.centroids_dtype, c * stride + k) : 0.0f;
        if (dtype == LIK_F32)
            ((float *)out)[n] = x;
        else
            ((uint16_t *)out)[n] = (uint16_t)(pack_halves(dtype, x, 0.0f) & 0xffffu);
    }
}

/* ---- The host's side ---- */

#define KERNELS_OF(bits) \
    {add_met_rows<LIK_F32, bits>, add_met_rows<LIK_F16, bits>, add_met_rows<LIK_BF16, bits>}

typedef void (*compressed_kernel)(struct compressed_args);

static compressed_kernel kernel_of(int dtype, int bits)
{
    static const compressed_kernel kernels[][3] = {KERNELS_OF(0), KERNELS_OF(1), KERNELS_OF(2), KERNELS_OF(4),
                                                   KERNELS_OF(8)};
    return kernels[bits == 8 ? 4 : bits == 4 ? 3 : bits][dtype == LIK_BF16 ? 2 : dtype == LIK_F16];
}

int lik_cuda_grad_compressed(const struct grad_args *grad, const struct grad_plan *plan, char *workspace,
                             cudaStream_t stream)
{
    const struct lik_tokens *q = &grad->op.score.q, *d = &grad->op.score.d;
    const struct compressed_plan *p = &plan->compressed;
    const int64_t tokens = q->count * q->len_max, most = (int64_t)1 << 30;
    const int64_t blocks = (tokens + GRAD_WARPS - 1) / GRAD_WARPS, element = d->dtype == LIK_F32 ? 4 : 2;
    struct compressed_args a = {};
    int status = LIK_OK;
    a.grad = *grad;
    a.codec = *d->codec;
    a.centroids = (const char *)a.codec.centroids;
    a.centroid_bytes = (uint32_t)(lik_centroid_stride(d) * element);
    a.partial = (float *)(workspace + p->partial);
    a.parts = p->parts;
    a.lanes = plan->lanes_per_row;
    a.row_floats = p->row_floats;
    a.whole_bits = p->whole_bits;
    a.take_norms = d->normalize && !grad->d_factor;
    if (p->centroid_bytes) {
        a.centroids = workspace + p->centroids;
        a.centroid_bytes = (uint32_t)(p->row_floats * element);
        align_centroids<<<lik_cuda_blocks(a.codec.centroid_count * p->row_floats), 256, 0, stream>>>(
            a.codec, d->dtype, (int)d->dim, p->row_floats, workspace + p->centroids);
        status = lik_cuda_launched("align_centroids");
    }
    if (status)
        return status;
    const int64_t all = blocks * p->parts;
    kernel_of(d->dtype, a.codec.bits)<<<(unsigned)(all < most ? all : most), 32 * GRAD_WARPS, 0, stream>>>(a);
    status = lik_cuda_launched("add_met_rows");
    if (status)
        return status;
    finish_met_rows<<<(unsigned)(blocks < most ? blocks : most), 32 * GRAD_WARPS, 0, stream>>>(a);
    return lik_cuda_launched("finish_met_rows");
}
