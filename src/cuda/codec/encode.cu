/* Encoding: a chunk of rows gets its centroids, then what remains of each goes into buckets. */
#include "cuda/codec/assign.cuh"

struct encode_args {
    struct row_source source;
    struct lik_codec codec;
    struct lik_tokens centroids; /* of that codec, as a document */
    int32_t centroids_vector;
    int32_t residuals_vector; /* the bytes of 8 elements are stored at once */
    int64_t first, count;
    const int32_t *found; /* [count]: the nearest centroids */
    const float *cutoffs;
    int32_t codes_dtype, inv_norms_dtype;
    int64_t token_bytes;
    void *codes, *inv_norms;
    uint8_t *residuals;
};

/* What a block has of the buckets. */
struct buckets {
    float cutoffs[256], weights[256];
    float table[256]; /* of the tokens that are encoded */
};

template <int storage> LIK_DEVICE void load_buckets(const struct encode_args &a, struct buckets &b)
{
    const int bits = a.codec.bits;
    for (int n = (int)threadIdx.x; bits && n < 1 << bits; n += ROW_THREADS) {
        if (n + 1 < 1 << bits)
            b.cutoffs[n] = a.cutoffs[n];
        b.weights[n] = load_element(a.codec.weights, a.codec.weights_dtype, n);
    }
    make_weight_table<storage>(a.source, b.table); /* waits for all of them */
}

/* Puts n elements that remain into buckets, `v` becoming the weights of those; returns the
 * bytes. */
LIK_DEVICE uint2 put_into_buckets(const struct encode_args &a, const struct buckets &b, int n, float (&v)[8])
{
    const int bits = a.codec.bits;
    int below[8] = {};
    uint2 bytes = make_uint2(0, 0);
    for (int step = 1 << bits >> 1; step > 0; step >>= 1)
#pragma unroll
        for (int i = 0; i < 8; i++)
            below[i] += b.cutoffs[below[i] + step - 1] < v[i] ? step : 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        v[i] = b.weights[below[i]];
        if (i < n)
            *(bits == 8 && i >= 4 ? &bytes.y : &bytes.x) |= (uint32_t)below[i] << shift_of(bits, i);
    }
    return order_bytes(bytes, a.codec.bit_order);
}

/* The bytes of n elements. */
LIK_DEVICE void store_bytes(uint8_t *to, int bits, int n, bool vector, uint2 bytes)
{
    if (!vector || n < 8) {
        for (int b = 0; b < (min(n, 8) * bits + 7) / 8; b++)
            to[b] = (uint8_t)((b < 4 ? bytes.x : bytes.y) >> b % 4 * 8);
        return;
    }
    switch (bits) {
    case 1: *to = (uint8_t)bytes.x; break;
    case 2: *(uint16_t *)to = (uint16_t)bytes.x; break;
    case 4: *(uint32_t *)to = bytes.x; break;
    default: *(uint2 *)to = bytes; break;
    }
}

LIK_DEVICE void store_inv_norm(const struct encode_args &a, int64_t row, float value)
{
    if (a.inv_norms_dtype == LIK_F16)
        ((__half *)a.inv_norms)[row] = __float2half_rn(fminf(value, 65504.0f));
    else
        ((float *)a.inv_norms)[row] = value;
}

template <int storage>
static __global__ void __launch_bounds__(ROW_THREADS)
    encode_rows(const __grid_constant__ struct encode_args a)
{
    __shared__ struct buckets buckets;
    const struct row_source &s = a.source;
    const int dim = (int)s.x.dim, lane = (int)threadIdx.x % ROW_LANES, bits = a.codec.bits;
    load_buckets<storage>(a, buckets);
    for (int64_t n = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES; n < a.count;
         n += (int64_t)gridDim.x * (ROW_THREADS / ROW_LANES)) {
        const int64_t row = a.first + n;
        const struct row_place place = place_row(s, row);
        const float factor = place.kept ? factor_of_row<storage>(s, place) : 0.0f;
        const int64_t code = place.kept ? a.found[n] : 0;
        double squares = 0.0;
        for (int k = lane * 8; k < dim; k += ROW_LANES * 8) {
            float v[8], decoded[8];
            uint2 bytes = make_uint2(0, 0);
            if (place.kept) {
                load_8(a.centroids, code * a.centroids.strides.token, k, a.centroids_vector, decoded);
                if (bits) {
                    load_counted_8<storage>(s, place, factor, k, buckets.table, v);
#pragma unroll
                    for (int i = 0; i < 8; i++)
                        v[i] = __fsub_rn(v[i], decoded[i]);
                    bytes = put_into_buckets(a, buckets, dim - k, v);
                }
                if (a.inv_norms)
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        double x = bits ? __fadd_rn(decoded[i], v[i]) : decoded[i];
                        squares += k + i < dim ? x * x : 0.0;
                    }
            }
            if (bits)
                store_bytes(a.residuals + row * a.token_bytes + k / 8 * bits, bits, dim - k,
                            a.residuals_vector, bytes);
        }
        if (a.inv_norms)
            squares = add_lanes(squares);
        if (lane)
            continue;
        lik_code_put(a.codes, a.codes_dtype, row, code);
        const double norm = sqrt(squares);
        if (a.inv_norms)
            store_inv_norm(a, row,
                           place.kept ? (float)(1.0 / (norm < LIK_NORM_MIN ? LIK_NORM_MIN : norm)) : 0.0f);
    }
}

int lik_cuda_encode_run(const struct lik_gpu *gpu, const struct lik_encode *op, const struct encode_plan *p,
                        char *workspace, cudaStream_t stream)
{
    struct encode_args a = {};
    struct row_copy rows = {};
    int32_t *codes = (int32_t *)(workspace + p->codes);
    rows.source = a.source = row_source_of(&op->x);
    a.codec = *op->codec;
    a.centroids = lik_centroids(op->codec, op->x.dim);
    a.centroids_vector = lik_cuda_vector_loads(&a.centroids);
    a.found = codes;
    a.cutoffs = op->cutoffs;
    a.codes_dtype = op->codes_dtype;
    a.codes = op->codes;
    a.residuals = op->residuals;
    a.inv_norms = op->inv_norms;
    a.inv_norms_dtype = op->inv_norms_dtype;
    a.token_bytes = lik_residual_bytes(op->x.dim, a.codec.bits);
    a.residuals_vector =
        a.codec.bits && op->x.dim % 8 == 0 && (uintptr_t)a.residuals % (unsigned)a.codec.bits == 0;
    if (p->assign.tokens == 0)
        return LIK_OK;
    const auto kernel = KERNEL_OF_ROWS(a.source, encode_rows);
    int status = lik_cuda_assign_begin(&p->assign, op->codec, workspace, stream);
    for (; !status && a.first < p->assign.tokens; a.first += a.count) {
        a.count = lik_min_i64(p->assign.rows_per_chunk, p->assign.tokens - a.first);
        rows.first = a.first;
        rows.count = a.count;
        status = lik_cuda_assign_chunk(gpu, &p->assign, rows, workspace, codes, stream);
        if (status)
            return status;
        kernel<<<row_blocks(a.count), ROW_THREADS, 0, stream>>>(a);
        status = lik_cuda_launched("encode_rows");
    }
    return status;
}
