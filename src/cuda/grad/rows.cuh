/* The gradients' rows: which row an entry names and what it is multiplied by, how rows are
 * added up, and how a finished sum becomes a row of a gradient. See grad.cu. */
#ifndef LIK_CUDA_GRAD_ROWS_CUH
#define LIK_CUDA_GRAD_ROWS_CUH

#include "cuda/grad/entries.cuh"

/* What makes the vector that counts of token t of sequence i. */
LIK_DEVICE float factor_at(const struct lik_tokens &x, const float *factors, int64_t i, int t)
{
    return factors ? factors[lik_tokens_row(&x, i) + t]
                   : token_scale(x, lik_tokens_base(&x, &x.scale_strides, i), t);
}

/* One entry as a lane holds it: where its row begins, in vectors of 16 bytes, or GRAD_NO_ROW;
 * and its coefficient. */
template <int kind> struct entry {
    uint32_t at;
    float coefficient;
    LIK_MEMBER static struct entry none()
    {
        return {GRAD_NO_ROW, 0.0f};
    }
    LIK_MEMBER void set(int64_t element)
    {
        at = (uint32_t)(element / (kind == ROWS_OF_F32 ? 4 : 8));
    }
    LIK_MEMBER static bool is_row(uint32_t place)
    {
        return place != GRAD_NO_ROW;
    }
};

/* In elements, or LIK_NOWHERE. */
template <> struct entry<ROWS_OF_ANY> {
    int64_t at;
    float coefficient;
    LIK_MEMBER static struct entry none()
    {
        return {LIK_NOWHERE, 0.0f};
    }
    LIK_MEMBER void set(int64_t element)
    {
        at = element;
    }
    LIK_MEMBER static bool is_row(int64_t place)
    {
        return place != LIK_NOWHERE;
    }
};

/* The row that query token s of query i met in its n-th score. */
template <int kind>
LIK_DEVICE struct entry<kind> met_row(const struct grad_args &a, const struct incidence &in, int64_t n, int s)
{
    const struct lik_score &op = a.op.score;
    struct entry<kind> e = entry<kind>::none();
    int64_t row, column;
    incidence_at(in, n, row, column);
    int t = winner_at(op, in, n, s);
    int64_t j = lik_score_document(&op, row, column);
    if (t < 0 || t >= sequence_length(op.d, j))
        return e;
    e.set(lik_tokens_base(&op.d, &op.d.strides, j) + t * op.d.strides.token);
    e.coefficient =
        a.op.grad_scores[row * a.op.grad_scores_stride + column] * factor_at(op.d, a.d_factor, j, t);
    return e;
}

/* The query row of entry n * len_max + s of a document; none where the query has no such token,
 * which no argmax of ours names. */
template <int kind>
LIK_DEVICE struct entry<kind> winning_row(const struct grad_args &a, const struct incidence &in, int64_t at)
{
    const struct lik_tokens &q = a.op.score.q;
    int64_t n = at <= UINT32_MAX ? (int64_t)((uint32_t)at / (uint32_t)q.len_max) : at / q.len_max, row,
            column;
    int s = (int)(at - n * q.len_max);
    incidence_at(in, n, row, column);
    int64_t i = lik_score_query(&a.op.score, row);
    if (s >= sequence_length(q, i))
        return entry<kind>::none();
    float g = a.op.grad_scores[row * a.op.grad_scores_stride + column];
    if (q.weights)
        g *= q.weights[lik_tokens_base(&q, &q.weights_strides, i) + s * q.weights_strides.token];
    struct entry<kind> e;
    e.set(lik_tokens_base(&q, &q.strides, i) + s * q.strides.token);
    e.coefficient = g * factor_at(q, a.q_factor, i, s);
    return e;
}

/* 16 bytes, or zeros if not `here`. Else ptxas keeps those of the row before in registers of
 * their own. */
LIK_DEVICE uint4 load_if(bool here, const void *from)
{
    uint4 v;
    asm volatile(
        "{\n.reg .pred here;\nsetp.ne.s32 here, %5, 0;\nmov.u32 %0, 0;\nmov.u32 %1, 0;\nmov.u32 %2, 0;\n"
        "mov.u32 %3, 0;\n@here ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
        : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
        : "l"(from), "r"((int)here));
    return v;
}

/* Elements k ... k + 7 of the row at `at`, as the kind has them. */
template <int kind> struct eight {
    uint4 raw;
    LIK_MEMBER void load(bool here, const struct lik_tokens &x, uint32_t at, int k, bool)
    {
        raw = load_if(here, (const uint4 *)((const uint16_t *)x.data + k) + at);
    }
    LIK_MEMBER void unpack(float (&v)[8]) const
    {
        unpack_halves(raw, kind == ROWS_OF_BF16 ? LIK_BF16 : LIK_F16, v);
    }
};

template <> struct eight<ROWS_OF_F32> {
    uint4 raw[2];
    LIK_MEMBER void load(bool here, const struct lik_tokens &x, uint32_t at, int k, bool)
    {
        const uint4 *from = (const uint4 *)((const float *)x.data + k) + at;
        raw[0] = load_if(here, from);
        raw[1] = load_if(here, from + 1);
    }
    LIK_MEMBER void unpack(float (&v)[8]) const
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            v[4 * i] = __uint_as_float(raw[i].x);
            v[4 * i + 1] = __uint_as_float(raw[i].y);
            v[4 * i + 2] = __uint_as_float(raw[i].z);
            v[4 * i + 3] = __uint_as_float(raw[i].w);
        }
    }
};

template <> struct eight<ROWS_OF_ANY> {
    float v[8];
    LIK_MEMBER void load(bool here, const struct lik_tokens &x, int64_t at, int k, bool vector)
    {
        if (here)
            load_8(x, at, k, vector, v);
    }
    LIK_MEMBER void unpack(float (&out)[8]) const
    {
        for (int i = 0; i < 8; i++)
            out[i] = v[i];
    }
};

/* Adds the rows of the warp's entries (one a lane) from, from + step, ... below `to` to `sum`,
 * elements k ... k + 7 of them. Each group of lanes has its own such entries; the warp calls
 * together. */
template <int kind>
LIK_DEVICE void add_rows(const struct lik_tokens &x, bool vector, const struct entry<kind> &mine, int from,
                         int to, int step, int k, float (&sum)[8])
{
    const int batch = 2;
    bool inside = k < (int)x.dim;
    for (int first = from; __any_sync(~0u, first < to); first += batch * step) {
        struct eight<kind> rows[batch];
        bool here[batch];
#pragma unroll
        for (int u = 0; u < batch; u++) {
            int n = first + u * step;
            auto at = __shfl_sync(~0u, mine.at, n);
            here[u] = inside && n < to && entry<kind>::is_row(at);
            rows[u].load(here[u], x, at, k, vector);
        }
#pragma unroll
        for (int u = 0; u < batch; u++) {
            float coefficient = __shfl_sync(~0u, mine.coefficient, first + u * step);
            if (here[u]) {
                float v[8];
                rows[u].unpack(v);
#pragma unroll
                for (int i = 0; i < 8; i++)
                    sum[i] = __fmaf_rn(coefficient, v[i], sum[i]);
            }
        }
    }
}

/* The sum of the groups' sums, in all of them. */
template <int lanes> LIK_DEVICE void add_groups(float (&sum)[8])
{
#pragma unroll
    for (int o = lanes; o < 32; o *= 2)
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum[i] = __fadd_rn(sum[i], __shfl_xor_sync(~0u, sum[i], o));
}

LIK_DEVICE uint32_t pack_halves(int dtype, float x, float y)
{
    __nv_bfloat162 b = __floats2bfloat162_rn(x, y);
    __half2 h = __floats2half2_rn(x, y);
    return dtype == LIK_BF16 ? *(const uint32_t *)&b : *(const uint32_t *)&h;
}

/* Eight elements of a gradient, aligned, from element `at` on. */
LIK_DEVICE void store_vector(void *gradient, int dtype, int64_t at, const float (&v)[8])
{
    if (dtype == LIK_F32) {
        float4 *out = (float4 *)((float *)gradient + at);
        out[0] = make_float4(v[0], v[1], v[2], v[3]);
        out[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
        *(uint4 *)((uint16_t *)gradient + at) =
            make_uint4(pack_halves(dtype, v[0], v[1]), pack_halves(dtype, v[2], v[3]),
                       pack_halves(dtype, v[4], v[5]), pack_halves(dtype, v[6], v[7]));
    }
}

/* Eight elements of a gradient row, from element k of the row at `at` on. */
LIK_DEVICE void store_8(void *gradient, int dtype, int64_t dim, int64_t at, int k, bool accumulate,
                        float (&v)[8])
{
    int n = (int)dim - k;
    if (n <= 0)
        return;
    if (accumulate)
        for (int i = 0; i < 8; i++)
            if (i < n)
                v[i] += load_element(gradient, dtype, at + k + i);
    bool whole = n >= 8 && dim % 8 == 0 && (uintptr_t)gradient % 16 == 0;
    if (whole) {
        store_vector(gradient, dtype, at + k, v);
        return;
    }
    for (int i = 0; i < 8; i++)
        if (i < n) {
            if (dtype == LIK_F32)
                ((float *)gradient)[at + k + i] = v[i];
            else
                ((uint16_t *)gradient)[at + k + i] = (uint16_t)(pack_halves(dtype, v[i], 0.0f) & 0xffffu);
        }
}

/* Takes a finished sum (in `kept`, or in `sum` if that is NULL; `sum` is lost) of the vectors
 * that count to the gradient of the stored token t of sequence i, `row` of all, and writes it,
 * or leaves that to another group of lanes. Returns <sum, the token as it counts> where that is
 * needed: with normalize or `want_product`. The whole warp calls; a token whose norm is below
 * the clamp has no direction and gets 0. */
template <int lanes>
LIK_DEVICE float finish_row(const struct grad_args &a, const struct lik_tokens &x, bool vector,
                            const float *factors, int64_t i, int t, int64_t row, float (&sum)[8],
                            const float *kept, void *gradient, float times, bool want_product, bool writes)
{
    int k = ((int)threadIdx.x & (lanes - 1)) * 8;
    float own = 1.0f, factor = 1.0f, along = 0.0f;
    int64_t at = 0;
    if (x.scale)
        own = factor = token_scale(x, lik_tokens_base(&x, &x.scale_strides, i), t);
    if (factors)
        factor = factors[row];
    if (x.normalize || want_product) {
        at = lik_tokens_base(&x, &x.strides, i) + t * x.strides.token;
        for (int from = k; from < (int)x.dim; from += lanes * 8) {
            float v[8];
            load_8(x, at, from, vector, v);
#pragma unroll
            for (int e = 0; e < 8; e++)
                along = __fmaf_rn(kept ? kept[from + e] : sum[e], v[e] * factor, along);
        }
#pragma unroll
        for (int o = 1; o < lanes; o *= 2)
            along = __fadd_rn(along, __shfl_xor_sync(~0u, along, o));
    }
    if (!gradient || !writes)
        return along;
    bool lost = x.normalize && factor == __fdiv_rn(own, (float)LIK_NORM_MIN);
    for (int from = k; from < (int)x.dim; from += lanes * 8) {
        if (kept)
#pragma unroll
            for (int e = 0; e < 8; e++)
                sum[e] = kept[from + e];
        if (x.normalize) {
            float v[8];
            load_8(x, at, from, vector, v);
#pragma unroll
            for (int e = 0; e < 8; e++)
                sum[e] = lost ? 0.0f : (sum[e] - along * (v[e] * factor)) * factor * times;
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++)
                sum[e] *= factor * times;
        }
        store_8(gradient, x.dtype, x.dim, row * x.dim, from, a.op.accumulate, sum);
    }
    return along;
}

/* A gradient row of zeros, by `lanes` lanes of which the caller is number `lane`. */
LIK_DEVICE void store_zeros(void *gradient, int dtype, int64_t dim, int64_t row, int lane, int lanes)
{
    const int bytes = (int)dim * (dtype == LIK_F32 ? 4 : 2);
    char *out = (char *)gradient + row * bytes;
    if (bytes % 16 == 0 && (uintptr_t)gradient % 16 == 0)
        for (int v = lane; v < bytes / 16; v += lanes)
            ((uint4 *)out)[v] = make_uint4(0, 0, 0, 0);
    else
        for (int v = lane; v < bytes / 2; v += lanes)
            ((uint16_t *)out)[v] = 0;
}

#endif
