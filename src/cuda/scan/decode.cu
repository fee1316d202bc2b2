/* Many queries: compressed documents are decoded a chunk at a time, into the workspace, and
 * scored from there by the Hopper loop. The tokens and the bits of their
 * scores are those of the scan. */
#include "cuda/scan/scan.cuh"

struct decode_args {
    struct lik_tokens d;
    struct lik_codec codec;
    const char *centroids; /* struct scan_args */
    int32_t chunks;
    int64_t first, count; /* documents */
    uint16_t *tokens;     /* [count][len_max][dim] */
    float *factors;       /* [count][len_max], or NULL */
};

/* A warp takes 16 tokens at once, as the scan does; all documents have len_max. */
template <int dtype, int bits>
static __global__ void __launch_bounds__(256) decode(const __grid_constant__ struct decode_args a)
{
    extern __shared__ __align__(128) char memory[];
    const struct lik_tokens &d = a.d;
    const int lane = (int)threadIdx.x & 31, g = lane >> 2, t = lane & 3, dim = a.chunks * 32;
    const char *own = memory + (bits <= 2 ? lane % 16 * 8 : lane * 4);
    const int half_shift = (t & 1) != (a.codec.bit_order == LIK_BITS_COLBERT) ? 4 : 0;
    make_table<dtype, bits>((uint32_t *)memory, a.codec);
    __syncthreads();
    const int64_t total = a.count * d.len_max, step = (int64_t)gridDim.x * (blockDim.x / 32) * 16;
    for (int64_t n = ((int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * 16; n < total;
         n += step) {
        float factor[2] = {0.0f, 0.0f};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int64_t row = n + g + 8 * r;
            if (row >= total)
                continue;
            const uint32_t i =
                total <= UINT32_MAX ? (uint32_t)row / (uint32_t)d.len_max : (uint32_t)(row / d.len_max);
            const int64_t document = a.first + i, token = row - i * d.len_max;
            int64_t code = lik_code_at(&d, lik_tokens_base(&d, &d.codes_strides, document) +
                                               token * d.codes_strides.token);
            if (code < 0 || code >= a.codec.centroid_count)
                code = a.codec.centroid_count;
            const uint4 *from = (const uint4 *)(a.centroids + code * (a.chunks * 64) + t * 16);
            const char *bytes =
                (const char *)d.data + lik_tokens_base(&d, &d.strides, document) + token * d.strides.token;
            uint16_t *to = a.tokens + row * dim + t * 4;
#pragma unroll
            for (int c = 0; c < BLOCKS / 2; c++) {
                if (c >= a.chunks)
                    break;
                const uint4 centroid = __ldg(from + c * 4);
                uint32_t x[4] = {centroid.x, centroid.y, centroid.z, centroid.w};
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    if (bits) {
                        uint32_t w[2];
                        load_weights<bits>(bytes + (c * 2 + half) * 2 * bits, own, half_shift, w);
                        x[2 * half] = add_pairs<dtype>(x[2 * half], w[0]);
                        x[2 * half + 1] = add_pairs<dtype>(x[2 * half + 1], w[1]);
                    }
                    *(uint2 *)(to + c * 32 + half * 16) = make_uint2(x[2 * half], x[2 * half + 1]);
                }
#pragma unroll
                for (int e = 0; e < 4; e++)
                    add_squares<dtype>(x[e], factor[r]);
            }
            if (d.scale)
                factor[r] = coded_scale(d, lik_tokens_base(&d, &d.scale_strides, document), (int)token);
        }
        if (!a.factors)
            continue;
        float own[4] = {factor[0], factor[1], 1.0f, 1.0f};
        if (d.normalize)
            unit_factors_of(own);
        if (t < 2 && n + g + 8 * t < total)
            a.factors[n + g + 8 * t] = t ? own[1] : own[0];
    }
}

typedef void (*decode_kernel)(struct decode_args);

static decode_kernel kernel_of(int dtype, int bits)
{
    static const decode_kernel kernels[2][5] = {
        {decode<LIK_F16, 0>, decode<LIK_F16, 1>, decode<LIK_F16, 2>, decode<LIK_F16, 4>, decode<LIK_F16, 8>},
        {decode<LIK_BF16, 0>, decode<LIK_BF16, 1>, decode<LIK_BF16, 2>, decode<LIK_BF16, 4>,
         decode<LIK_BF16, 8>}};
    return kernels[dtype == LIK_BF16][bits == 8 ? 4 : bits == 4 ? 3 : bits];
}

int lik_cuda_decoded_prepare(struct lik_gpu *)
{
    return LIK_OK;
}

/* One chunk: documents first ... first + count - 1. */
static int score_chunk(const struct lik_gpu *gpu, struct decode_args *a, const struct score_args *score,
                       const struct score_plan *plan, cudaStream_t stream)
{
    const struct lik_tokens *d = &score->op.d;
    const int64_t tokens = a->count * d->len_max;
    const unsigned most = 8 * (unsigned)gpu->limits.processors, blocks = (unsigned)((tokens + 127) / 128);
    void *args = a;
    cudaLaunchKernel((const void *)kernel_of(d->dtype, a->codec.bits), blocks < most ? blocks : most, 256,
                     &args, (size_t)table_bytes(a->codec.bits), stream);
    int status = lik_cuda_launched("decode");
    struct score_args b = *score;
    b.op.d = lik_tokens_padded(a->tokens, d->dtype, a->count, d->len_max, d->dim);
    b.op.d.normalize = a->factors != NULL;
    b.op.scores += a->first;
    b.columns = a->count;
    b.factor = a->factors;
    if (!status)
        status = lik_cuda_sm90_launch(gpu, &b, plan, NULL, stream);
    if (status || !b.partial)
        return status;
    return lik_cuda_add_partials(&b, stream);
}

int lik_cuda_decoded_launch(const struct lik_gpu *gpu, const struct score_args *score,
                            const struct score_plan *plan, char *workspace, cudaStream_t stream)
{
    const struct decoded_plan *p = &plan->decoded;
    const struct lik_tokens *d = &score->op.d;
    struct decode_args a = {};
    a.d = *d;
    a.codec = *d->codec;
    a.centroids = workspace + plan->centroids;
    a.chunks = (int32_t)(d->dim / 32);
    a.tokens = (uint16_t *)(workspace + plan->tokens);
    if (d->normalize || d->scale)
        a.factors = (float *)(workspace + plan->tokens + p->token_bytes);
    int status = lik_cuda_lay_out_centroids(d, workspace + plan->centroids, stream);
    struct score_plan last = *plan;
    last.sm90 = p->last;
    for (; !status && a.first < d->count; a.first += a.count) {
        a.count = d->count - a.first < p->documents_per_chunk ? d->count - a.first : p->documents_per_chunk;
        status = score_chunk(gpu, &a, score, a.count == p->documents_per_chunk ? plan : &last, stream);
    }
    return status;
}
