/* Rows copied as they count: all of decoding, and what encoding and training multiply. */
#include "cuda/codec/rows.cuh"

/* Elements k ... k + 7 of a row of `dim`, to entry `at` on; `vector`: 16 bytes at a time. */
LIK_DEVICE void store_8(void *out, int dtype, int64_t at, int n, bool vector, const float (&v)[8])
{
    if (dtype == LIK_F32) {
        float *to = (float *)out + at;
        if (vector && n >= 8) {
            ((float4 *)to)[0] = make_float4(v[0], v[1], v[2], v[3]);
            ((float4 *)to)[1] = make_float4(v[4], v[5], v[6], v[7]);
            return;
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < n)
                to[i] = v[i];
        return;
    }
    uint16_t *to = (uint16_t *)out + at;
    uint16_t half[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        half[i] = dtype == LIK_F16 ? __half_as_ushort(__float2half_rn(v[i]))
                                   : __bfloat16_as_ushort(__float2bfloat16_rn(v[i]));
    if (vector && n >= 8) {
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            word[i] = half[2 * i] | (uint32_t)half[2 * i + 1] << 16;
        *(uint4 *)to = make_uint4(word[0], word[1], word[2], word[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < n)
            to[i] = half[i];
}

template <int storage>
static __global__ void __launch_bounds__(ROW_THREADS)
    copy_rows(const __grid_constant__ struct row_copy a, int vector)
{
    __shared__ float table[256];
    const struct row_source &s = a.source;
    const int64_t listed = a.listed ? *a.listed : a.first + a.count;
    const int dim = (int)s.x.dim, lane = (int)threadIdx.x % ROW_LANES;
    make_weight_table<storage>(s, table);
    for (int64_t n = ((int64_t)blockIdx.x * ROW_THREADS + threadIdx.x) / ROW_LANES; n < a.copies;
         n += (int64_t)gridDim.x * (ROW_THREADS / ROW_LANES)) {
        int64_t row = n < a.count && a.first + n < listed ? a.first + n : -1;
        if (a.list && row >= 0)
            row = a.list[row];
        const struct row_place place = place_row(s, row);
        const float factor = place.kept ? factor_of_row<storage>(s, place) : 0.0f;
#pragma unroll 2
        for (int k = lane * 8; k < dim; k += ROW_LANES * 8) {
            float v[8] = {};
            if (place.kept)
                load_counted_8<storage>(s, place, factor, k, table, v);
            store_8(a.out, a.dtype, n * a.stride + k, (int)a.stride - k, vector, v);
        }
    }
}

int lik_cuda_copy_rows(const struct row_copy *copy, cudaStream_t stream)
{
    const int64_t bytes = copy->stride * (int64_t)lik_dtype_bytes(copy->dtype);
    const int vector = bytes % 16 == 0 && (uintptr_t)copy->out % 16 == 0;
    if (copy->copies == 0)
        return LIK_OK;
    const auto kernel = KERNEL_OF_ROWS(copy->source, copy_rows);
    kernel<<<row_blocks(copy->copies), ROW_THREADS, 0, stream>>>(*copy, vector);
    return lik_cuda_launched("copy_rows");
}

int lik_cuda_decode_run(const struct lik_decode *op, cudaStream_t stream)
{
    struct row_copy copy = {};
    copy.source = row_source_of(&op->x);
    copy.count = copy.copies = copy.source.rows;
    copy.out = op->out;
    copy.stride = op->x.dim;
    copy.dtype = op->out_dtype;
    return lik_cuda_copy_rows(&copy, stream);
}
