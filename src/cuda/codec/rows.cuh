/* Tokens of an operand by the rows of its contiguous array, as they count: what the codec's
 * verbs read. Eight neighboring lanes have a row, and each every eighth run of 8 elements.
 *
 * Nothing here trusts what lies in device memory: a row is within the array whatever the
 * offsets say, and a code out of range makes its token NaN. */
#ifndef LIK_CUDA_ROWS_CUH
#define LIK_CUDA_ROWS_CUH

#include "cuda/compressed.cuh"
#include "cuda/kernels.cuh"

#define ROW_LANES   8
#define ROW_THREADS 256

/* How tokens are stored, as the innermost loops need it: kernels are templates of it. */
enum row_storage {
    ROWS_DENSE,
    ROWS_WHOLE, /* compressed, every run of 8 elements in bytes of its own */
    ROWS_ODD,   /* compressed, of any dim */
};

struct row_source {
    struct lik_tokens x;
    int64_t rows;
    int32_t storage; /* enum row_storage */
    int32_t vector;  /* load_8; of compressed tokens: the bytes of 8 elements load at once */
    /* of compressed tokens: the codec, and its centroids as a document */
    int32_t centroids_vector;
    struct lik_codec codec;
    struct lik_tokens centroids;
};

/* Of three kernels the one for the storage. */
template <class Kernel>
static inline Kernel kernel_of_rows(const struct row_source &s, Kernel dense, Kernel whole, Kernel odd)
{
    return s.storage == ROWS_DENSE ? dense : s.storage == ROWS_WHOLE ? whole : odd;
}
#define KERNEL_OF_ROWS(source, kernel) \
    kernel_of_rows(source, kernel<ROWS_DENSE>, kernel<ROWS_WHOLE>, kernel<ROWS_ODD>)

/* Of an operand whose arrays are on the device. */
static inline struct row_source row_source_of(const struct lik_tokens *x)
{
    struct row_source s = {};
    s.x = *x;
    s.rows = lik_tokens_rows(x);
    s.vector = lik_cuda_vector_loads(x);
    if (x->storage == LIK_RESIDUAL) {
        const int64_t strides = x->strides.token | (x->offsets ? 0 : x->strides.sequence | x->strides.group);
        s.codec = *x->codec;
        s.centroids = lik_centroids(x->codec, x->dim);
        s.centroids_vector = lik_cuda_vector_loads(&s.centroids);
        s.storage = x->dim % 8 == 0 ? ROWS_WHOLE : ROWS_ODD;
        s.vector = s.codec.bits && ((int64_t)(uintptr_t)x->data | strides) % s.codec.bits == 0;
    }
    return s;
}

/* Blocks of ROW_THREADS for so many rows, which kernels stride over. */
static inline unsigned row_blocks(int64_t rows)
{
    return lik_cuda_blocks(rows * ROW_LANES);
}

/* Where a row's token stands; `kept` is false where there is none, or it is dropped. */
struct row_place {
    struct coded_token token;
    float scale;
    bool kept;
};

LIK_DEVICE struct row_place place_row(const struct row_source &s, int64_t row)
{
    const struct lik_tokens &x = s.x;
    struct row_place p = {{0, 0}, 1.0f, false};
    if (row < 0 || row >= s.rows)
        return p;
    int64_t i = 0, t = row;
    if (x.offsets) {
        if (row < lik_offset_at(&x, 0) || row >= lik_offset_at(&x, x.count))
            return p;
    } else {
        i = s.rows <= UINT32_MAX ? (int64_t)((uint32_t)row / (uint32_t)x.len_max) : row / x.len_max;
        t = row - i * x.len_max;
    }
    auto at = [&](const struct lik_strides &by) {
        return (x.offsets ? 0 : lik_tokens_base(&x, &by, i)) + t * by.token;
    };
    if (x.mask && !x.mask[at(x.mask_strides)])
        return p;
    p.kept = true;
    p.token.at = at(x.strides);
    if (x.storage == LIK_RESIDUAL) {
        p.token.code = lik_code_at(&x, at(x.codes_strides));
        if (p.token.code < 0 || p.token.code >= s.codec.centroid_count)
            p.token.code = -1;
    }
    if (x.scale)
        p.scale = load_element(x.scale, x.scale_dtype == LIK_F16 ? LIK_F16 : LIK_F32, at(x.scale_strides));
    return p;
}

/* What the elements of a kept row are multiplied by; its lanes call together. */
template <int storage> LIK_DEVICE float factor_of_row(const struct row_source &s, const struct row_place &p)
{
    if (!s.x.normalize)
        return p.scale;
    if (storage != ROWS_DENSE)
        return coded_unit_factor(s.x, s.codec, p.token, p.scale, (int)threadIdx.x & 3);
    return unit_factor(s.x, p.token.at, p.scale, (int)threadIdx.x & 7, s.vector);
}

/* The bytes of 8 elements, the first in the lowest bits: each byte of ColBERT's order is one of
 * the other in reverse. */
LIK_DEVICE uint2 order_bytes(uint2 bytes, int bit_order)
{
    if (bit_order == LIK_BITS_COLBERT) {
        bytes.x = __byte_perm(__brev(bytes.x), 0, 0x0123);
        bytes.y = __byte_perm(__brev(bytes.y), 0, 0x0123);
    }
    return bytes;
}

/* By how much such bytes, of which i is in one half with 8 bits, are shifted for element i. */
LIK_DEVICE int shift_of(int bits, int i)
{
    return bits == 8 ? i % 4 * 8 : i * bits;
}

LIK_DEVICE uint2 load_bytes(const uint8_t *from, int bits, bool vector)
{
    uint2 bytes = make_uint2(0, 0);
    if (!vector) {
        for (int b = 0; b < bits; b++)
            *(b < 4 ? &bytes.x : &bytes.y) |= (uint32_t)from[b] << b % 4 * 8;
        return bytes;
    }
    switch (bits) {
    case 1: bytes.x = *from; break;
    case 2: bytes.x = *(const uint16_t *)from; break;
    case 4: bytes.x = *(const uint32_t *)from; break;
    case 8: bytes = *(const uint2 *)from; break;
    }
    return bytes;
}

/* Elements k ... k + 7 of a kept row as they are stored or decoded, zeros past the dim.
 * `table`: of ROWS_WHOLE the weights, rounded to x.dtype. */
template <int storage>
LIK_DEVICE void load_row_8(const struct row_source &s, const struct row_place &p, int k, const float *table,
                           float (&v)[8])
{
    const int bits = s.codec.bits;
    if (storage == ROWS_DENSE)
        return load_8(s.x, p.token.at, k, s.vector, v);
    if (storage == ROWS_ODD)
        return decode_8(s.x, s.codec, p.token, k, v);
    const uint8_t *from = (const uint8_t *)s.x.data + p.token.at + k / 8 * bits;
    const uint2 bytes = order_bytes(load_bytes(from, bits, s.vector), s.codec.bit_order);
    const int64_t code = p.token.code < 0 ? 0 : p.token.code;
    load_8(s.centroids, code * s.centroids.strides.token, k, s.centroids_vector, v);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t half = bits == 8 && i >= 4 ? bytes.y : bytes.x;
        v[i] = round_to(s.x.dtype, v[i]);
        if (bits)
            v[i] = round_to(s.x.dtype, __fadd_rn(v[i], table[half >> shift_of(bits, i) & ((1 << bits) - 1)]));
        if (p.token.code < 0)
            v[i] = __uint_as_float(0x7fc00000u);
    }
}

/* Fills the table of load_row_8, 256 entries in shared memory; the block calls together. */
template <int storage> LIK_DEVICE void make_weight_table(const struct row_source &s, float *table)
{
    if (storage == ROWS_WHOLE && s.codec.bits)
        for (int n = (int)threadIdx.x; n < 1 << s.codec.bits; n += (int)blockDim.x)
            table[n] = round_to(s.x.dtype, load_element(s.codec.weights, s.codec.weights_dtype, n));
    __syncthreads();
}

/* A row's token as it counts: elements k ... k + 7. */
template <int storage>
LIK_DEVICE void load_counted_8(const struct row_source &s, const struct row_place &p, float factor, int k,
                               const float *table, float (&v)[8])
{
    load_row_8<storage>(s, p, k, table, v);
    if (s.x.scale || s.x.normalize)
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = __fmul_rn(v[i], factor);
}

/* The sum over the eight lanes of a row, in one order. */
LIK_DEVICE double add_lanes(double x)
{
    unsigned lanes = 0xffu << (threadIdx.x & 24u);
#pragma unroll
    for (int o = 1; o < ROW_LANES; o *= 2)
        x += __shfl_xor_sync(lanes, x, o);
    return x;
}

/* Copies rows, as they count, rounded once to a dtype; zeros where there is no kept token. Copy
 * n is of row first + n of the operand or, with a list, of row list[first + n]; past `count`,
 * and past *listed entries of the list, there are none. */
struct row_copy {
    struct row_source source;
    const int64_t *list, *listed;
    int64_t first, count, copies;
    void *out;
    int64_t stride; /* elements from one copy to the next; those past the dim, less than 8, are 0 */
    int32_t dtype;  /* LIK_F32, F16 or BF16 */
};

int lik_cuda_copy_rows(const struct row_copy *copy, cudaStream_t stream);

#endif
