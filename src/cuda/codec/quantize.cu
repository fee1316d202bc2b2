/* Tokens as 8-bit numbers with scales: one pass over memory, a row's elements standing in the
 * registers of its eight lanes between the largest of them and what they become. Longer rows
 * are read again. The bits are those of the CPU's quantizer (src/cpu/quantize.c). */
#include "cuda/codec/rows.cuh"

#include "shared/quantize.h"

/* Elements of the rows that kernels keep in registers: a lane has so many runs of eight. */
#define HELD_RUNS_MOST 8

/* Rows that are held: dense, loaded in vectors, of a multiple of 8 elements. */
enum held {
    HALF_ROWS,  /* f16 or bf16 */
    FLOAT_ROWS, /* f32 */
};

struct quantize_args {
    struct row_source source; /* not normalized: the values are the same */
    int32_t dtype;            /* of the values */
    int32_t normalize;
    int32_t one_scale; /* scales[0] is of all rows */
    int32_t vector;    /* 8 values are stored at once */
    int32_t plain;     /* rows are strides.token apart, each a token that counts as it is stored */
    uint8_t *values;
    float *scales;
};

/* As the CPU finds the largest |element|: NaN is more than any. */
LIK_DEVICE float larger(float most, float x)
{
#if __CUDA_ARCH__ >= 800
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(most), "f"(fabsf(x)));
    return most;
#else
    const int bits = max(__float_as_int(most), __float_as_int(x) & INT32_MAX);
    return __int_as_float(bits);
#endif
}

LIK_DEVICE unsigned lanes_of_row()
{
    return 0xffu << (threadIdx.x & 24u);
}

LIK_DEVICE float largest_of_row(float most)
{
#pragma unroll
    for (int o = 1; o < ROW_LANES; o *= 2)
        most = larger(most, __shfl_xor_sync(lanes_of_row(), most, o));
    return most;
}

/* What divides by `scale`: its reciprocal, correctly rounded, and refinement by the remainder.
 * After the first one a quotient may be off by an ulp, but not where two 8-bit numbers part
 * (tests/check/quantize.c); after the second it is the quotient, but for the sign of a zero. */
struct divisor {
    float scale, reciprocal;
};

template <int refinements> LIK_DEVICE float divide(float x, const struct divisor &by)
{
    float q = __fmul_rn(x, by.reciprocal);
#pragma unroll
    for (int i = 0; i < refinements; i++)
        q = __fmaf_rn(__fmaf_rn(-q, by.scale, x), by.reciprocal, q);
    return q;
}

/* v as a number of the dtype. |v| passes the largest one by a rounding at most. */
LIK_DEVICE uint8_t value_of(float v, int dtype)
{
    const float most = lik_quantize_most(dtype);
    const float within = fminf(fmaxf(v, -most), most);
    if (isnan(v))
        return dtype == LIK_I8 ? 0 : 0x7f;
    return dtype == LIK_I8     ? lik_as_i8(within)
           : dtype == LIK_E4M3 ? lik_as_e4m3(within)
                               : lik_as_e5m2(within);
}

/* Eight quotients of x, none NaN, as values: the first in the lowest bits. */
template <int dtype> LIK_DEVICE uint2 values_of(const float (&x)[8], float (&v)[8])
{
    if (dtype != LIK_I8)
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = copysignf(v[i], x[i]);
    uint32_t word[2];
#pragma unroll
    for (int w = 0; w < 2; w++) {
        if (dtype == LIK_I8) { /* 127 and a rounding is 127 */
            uint32_t bits[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                bits[i] = __float_as_uint(__fadd_rn(v[4 * w + i], 12582912.0f));
            word[w] = __byte_perm(__byte_perm(bits[0], bits[1], 0x0040),
                                  __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
        } else {
#if __CUDA_ARCH__ >= 890
            const __nv_fp8_interpretation_t kind = dtype == LIK_E4M3 ? __NV_E4M3 : __NV_E5M2;
            const uint32_t low =
                __nv_cvt_float2_to_fp8x2(make_float2(v[4 * w], v[4 * w + 1]), __NV_SATFINITE, kind);
            const uint32_t high =
                __nv_cvt_float2_to_fp8x2(make_float2(v[4 * w + 2], v[4 * w + 3]), __NV_SATFINITE, kind);
            word[w] = low | high << 16;
#else
            word[w] = 0;
#pragma unroll
            for (int i = 0; i < 4; i++)
                word[w] |= (uint32_t)value_of(v[4 * w + i], dtype) << 8 * i;
#endif
        }
    }
    return make_uint2(word[0], word[1]);
}

/* v are the quotients of x. */
LIK_DEVICE uint2 values_of(const float (&x)[8], float (&v)[8], int dtype)
{
    return dtype == LIK_I8     ? values_of<LIK_I8>(x, v)
           : dtype == LIK_E4M3 ? values_of<LIK_E4M3>(x, v)
                               : values_of<LIK_E5M2>(x, v);
}

/* Elements k ... k + 7 of a row become values; returns the sum of the squared quotients. A row
 * with NaN or an infinity has a scale like them, and is divided as it is. */
LIK_DEVICE void quantize_8(const struct quantize_args &a, int64_t row, int k, const struct divisor &by,
                           const float (&x)[8], float (&squares)[8])
{
    const int dim = (int)a.source.x.dim, n = dim - k;
    uint8_t *to = a.values + row * dim + k;
    float v[8];
    uint2 bytes = make_uint2(0, 0);
    if (!isfinite(by.scale)) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v[i] = __fdiv_rn(x[i], by.scale);
            *(i < 4 ? &bytes.x : &bytes.y) |= (uint32_t)value_of(v[i], a.dtype) << i % 4 * 8;
        }
    } else if (a.normalize) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = divide<2>(x[i], by);
        bytes = values_of(x, v, a.dtype);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = divide<1>(x[i], by);
        bytes = values_of(x, v, a.dtype);
    }
    if (a.normalize)
#pragma unroll
        for (int i = 0; i < 8; i++)
            squares[i] = __fadd_rn(squares[i], __fmul_rn(v[i], v[i]));
    if (a.vector) {
        *(uint2 *)to = bytes;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < n)
            to[i] = (uint8_t)((i < 4 ? bytes.x : bytes.y) >> i % 4 * 8);
}

/* The scale of a row of these squares with its length folded in: LIK_QUANTIZE_SUMS has the
 * order. */
LIK_DEVICE float unit_scale(float scale, const float (&squares)[8])
{
    float sum = __fadd_rn(__fadd_rn(__fadd_rn(squares[0], squares[1]), __fadd_rn(squares[2], squares[3])),
                          __fadd_rn(__fadd_rn(squares[4], squares[5]), __fadd_rn(squares[6], squares[7])));
#pragma unroll
    for (int o = 1; o < ROW_LANES; o *= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(lanes_of_row(), sum, o));
    const float length = __fsqrt_rn(sum);
    return __fmul_rn(length, scale) < (float)LIK_NORM_MIN ? __fdiv_rn(scale, (float)LIK_NORM_MIN)
                                                          : __fdiv_rn(1.0f, length);
}

/* The runs of a row that a lane holds, zeros past the dim and of a row that is not kept. */
template <int held, int runs>
LIK_DEVICE void hold_row(const struct row_source &s, const struct row_place &p, bool scaled, int lane,
                         float (&x)[runs][8])
{
    const int dim = (int)s.x.dim;
    if (held == HALF_ROWS) {
        uint4 raw[runs];
#pragma unroll
        for (int r = 0; r < runs; r++) {
            const int k = (r * ROW_LANES + lane) * 8;
            raw[r] = p.kept && k < dim ? *(const uint4 *)((const uint16_t *)s.x.data + p.token.at + k)
                                       : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int r = 0; r < runs; r++)
            unpack_halves(raw[r], s.x.dtype, x[r]);
    } else {
#pragma unroll
        for (int r = 0; r < runs; r++) {
            const int k = (r * ROW_LANES + lane) * 8;
            float4 half[2] = {};
            if (p.kept && k < dim) {
                const float4 *from = (const float4 *)((const float *)s.x.data + p.token.at + k);
                half[0] = from[0], half[1] = from[1];
            }
            x[r][0] = half[0].x, x[r][1] = half[0].y, x[r][2] = half[0].z, x[r][3] = half[0].w;
            x[r][4] = half[1].x, x[r][5] = half[1].y, x[r][6] = half[1].z, x[r][7] = half[1].w;
        }
    }
    if (scaled)
#pragma unroll
        for (int r = 0; r < runs; r++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                x[r][i] = __fmul_rn(x[r][i], p.scale);
}

LIK_DEVICE struct divisor divisor_of(const struct quantize_args &a, bool kept, float largest)
{
    struct divisor by;
    by.scale = a.one_scale && kept ? a.scales[0] : lik_quantize_scale(a.dtype, largest);
    by.reciprocal = __fdiv_rn(1.0f, by.scale);
    return by;
}

LIK_DEVICE void store_scale(const struct quantize_args &a, int64_t row, bool kept, int lane, float scale,
                            const float (&squares)[8])
{
    if (a.one_scale)
        return;
    if (a.normalize)
        scale = unit_scale(scale, squares);
    if (lane == 0)
        a.scales[row] = kept ? scale : 0.0f;
}

template <int held, int runs, bool plain>
static __global__ void __launch_bounds__(ROW_THREADS)
    quantize_held(const __grid_constant__ struct quantize_args a)
{
    const struct row_source &s = a.source;
    const int dim = (int)s.x.dim, lane = (int)threadIdx.x % ROW_LANES;
    for (int64_t row = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES; row < s.rows;
         row += (int64_t)gridDim.x * (ROW_THREADS / ROW_LANES)) {
        const struct row_place as_stored = {{row * s.x.strides.token, 0}, 1.0f, true};
        const struct row_place place = plain ? as_stored : place_row(s, row);
        float x[runs][8], squares[8] = {}, largest = 0.0f;
        hold_row<held, runs>(s, place, !plain && s.x.scale, lane, x);
        if (!a.one_scale) {
#pragma unroll
            for (int r = 0; r < runs; r++)
#pragma unroll
                for (int i = 0; i < 8; i++)
                    largest = larger(largest, x[r][i]);
            largest = largest_of_row(largest);
        }
        const struct divisor by = divisor_of(a, place.kept, largest);
#pragma unroll
        for (int r = 0; r < runs; r++) {
            const int k = (r * ROW_LANES + lane) * 8;
            if (k < dim)
                quantize_8(a, row, k, by, x[r], squares);
        }
        store_scale(a, row, place.kept, lane, by.scale, squares);
    }
}

/* Elements k ... k + 7 with the token's scale, zeros of a row that is not kept. */
template <int storage>
LIK_DEVICE void load_scaled_8(const struct row_source &s, const struct row_place &p, int k,
                              const float *table, float (&x)[8])
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = 0.0f;
    if (p.kept)
        load_counted_8<storage>(s, p, p.scale, k, table, x);
}

template <int storage>
LIK_DEVICE float largest_of_any_row(const struct row_source &s, const struct row_place &p, int lane,
                                    const float *table)
{
    float largest = 0.0f;
    for (int k = lane * 8; k < (int)s.x.dim; k += ROW_LANES * 8) {
        float x[8];
        load_scaled_8<storage>(s, p, k, table, x);
#pragma unroll
        for (int i = 0; i < 8; i++)
            largest = larger(largest, x[i]);
    }
    return largest_of_row(largest);
}

template <int storage>
static __global__ void __launch_bounds__(ROW_THREADS)
    quantize_rows(const __grid_constant__ struct quantize_args a)
{
    __shared__ float table[256];
    const struct row_source &s = a.source;
    const int lane = (int)threadIdx.x % ROW_LANES;
    make_weight_table<storage>(s, table);
    for (int64_t row = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES; row < s.rows;
         row += (int64_t)gridDim.x * (ROW_THREADS / ROW_LANES)) {
        const struct row_place place = place_row(s, row);
        const float largest = a.one_scale ? 0.0f : largest_of_any_row<storage>(s, place, lane, table);
        const struct divisor by = divisor_of(a, place.kept, largest);
        float squares[8] = {};
        for (int k = lane * 8; k < (int)s.x.dim; k += ROW_LANES * 8) {
            float x[8];
            load_scaled_8<storage>(s, place, k, table, x);
            quantize_8(a, row, k, by, x, squares);
        }
        store_scale(a, row, place.kept, lane, by.scale, squares);
    }
}

/* scales[0]: bits of the largest |element| of all, 0 before; as integers they are in the order
 * of the numbers, NaN last. */
template <int storage>
static __global__ void __launch_bounds__(ROW_THREADS)
    find_largest(const __grid_constant__ struct quantize_args a)
{
    __shared__ float table[256];
    const struct row_source &s = a.source;
    const int lane = (int)threadIdx.x % ROW_LANES;
    float most = 0.0f;
    make_weight_table<storage>(s, table);
    for (int64_t row = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES; row < s.rows;
         row += (int64_t)gridDim.x * (ROW_THREADS / ROW_LANES))
        most = larger(most, largest_of_any_row<storage>(s, place_row(s, row), lane, table));
    if (lane == 0)
        atomicMax((int *)a.scales, __float_as_int(most) & INT32_MAX);
}

static __global__ void finish_scale(float *scale, int dtype)
{
    *scale = lik_quantize_scale(dtype, *scale);
}

typedef void (*quantize_kernel)(struct quantize_args);

template <int held, bool plain> static quantize_kernel kernel_of_runs(int64_t runs)
{
    return runs <= 1   ? quantize_held<held, 1, plain>
           : runs <= 2 ? quantize_held<held, 2, plain>
           : runs <= 4 ? quantize_held<held, 4, plain>
                       : quantize_held<held, HELD_RUNS_MOST, plain>;
}

/* Do the rows of the contiguous array lie strides.token apart, with nothing said of each? */
static bool is_plain(const struct lik_tokens &x)
{
    const bool together =
        x.count <= 1 || (!x.group_size && x.strides.sequence == x.len_max * x.strides.token);
    return !x.offsets && !x.mask && !x.scale && together;
}

static quantize_kernel kernel_of(const struct quantize_args &a)
{
    const struct lik_tokens &x = a.source.x;
    const int64_t runs = (x.dim + 8 * ROW_LANES - 1) / (8 * ROW_LANES);
    const bool held = x.storage == LIK_DENSE && a.source.vector && x.dim % 8 == 0 && runs <= HELD_RUNS_MOST;
    if (held && x.dtype == LIK_F32)
        return a.plain ? kernel_of_runs<FLOAT_ROWS, true>(runs) : kernel_of_runs<FLOAT_ROWS, false>(runs);
    if (held && (x.dtype == LIK_F16 || x.dtype == LIK_BF16))
        return a.plain ? kernel_of_runs<HALF_ROWS, true>(runs) : kernel_of_runs<HALF_ROWS, false>(runs);
    return KERNEL_OF_ROWS(a.source, quantize_rows);
}

int lik_cuda_quantize_run(const struct lik_quantize *op, cudaStream_t stream)
{
    struct lik_tokens x = op->x;
    struct quantize_args a = {};
    x.normalize = 0;
    a.source = row_source_of(&x);
    a.dtype = op->values_dtype;
    a.normalize = op->x.normalize;
    a.one_scale = op->one_scale;
    a.values = (uint8_t *)op->values;
    a.scales = op->scales;
    a.vector = x.dim % 8 == 0 && (uintptr_t)op->values % 8 == 0;
    a.plain = is_plain(x);
    const unsigned blocks = row_blocks(a.source.rows);
    if (op->one_scale) {
        int status =
            lik_cuda_status(cudaMemsetAsync(a.scales, 0, sizeof *a.scales, stream), "cudaMemsetAsync");
        if (status)
            return status;
        if (a.source.rows)
            KERNEL_OF_ROWS(a.source, find_largest)<<<blocks, ROW_THREADS, 0, stream>>>(a);
        finish_scale<<<1, 1, 0, stream>>>(a.scales, a.dtype);
    }
    if (a.source.rows)
        kernel_of(a)<<<blocks, ROW_THREADS, 0, stream>>>(a);
    return lik_cuda_launched("quantize");
}
