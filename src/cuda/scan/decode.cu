/* Many queries: compressed documents are decoded a chunk at a time, into the workspace, and
 * scored from there by the Hopper loop. The tokens and the bits of their
 * scores are those of the scan. */
#include "cuda/scan/scan.cuh"

#define DECODE_BLOCKS 3 /* a processor */

struct decode_args {
    struct lik_tokens d;
    struct lik_codec codec;
    const char *centroids; /* struct scan_args */
    int32_t chunks;
    int32_t vector;       /* rows are of 128 elements, in pieces of 16 bytes */
    int64_t first, count; /* documents */
    uint16_t *tokens;     /* [count][len_max][dim] */
    float *factors;       /* [count][len_max], or NULL */
};

/* A lane's words of a token's residual: that of block b of 16 elements, of one bit of two
 * blocks. `vector`: the row is of 128 elements and in pieces of 16 bytes. */
template <int bits> struct residual_words {
    uint32_t word[bits == 0 ? 1 : bits == 1 ? BLOCKS / 2 : BLOCKS];

    LIK_MEMBER void load(const char *row, int chunks, bool vector)
    {
        const int t = (int)threadIdx.x & 3, each = bits == 1 ? 2 : 1; /* blocks of a word */
        if (bits && bits <= 2 && vector) {
#pragma unroll
            for (int i = 0; i < bits; i++) {
                const uint4 v = __ldg((const uint4 *)row + i);
                word[4 * i] = v.x, word[4 * i + 1] = v.y, word[4 * i + 2] = v.z, word[4 * i + 3] = v.w;
            }
            return;
        }
#pragma unroll
        for (int b = 0; b < BLOCKS && bits; b += each)
            if (b < 2 * chunks)
                word[b / each] = __ldg((const uint32_t *)(row + b * 2 * bits) + (bits == 4   ? t >> 1
                                                                                 : bits == 8 ? t
                                                                                             : 0));
    }

    /* The weights of elements 4 t ... 4 t + 3 of a block; `own`, half_shift as load_weights. */
    LIK_MEMBER void of_block(int b, const char *own, int half_shift, uint32_t (&w)[2]) const
    {
        const int t = (int)threadIdx.x & 3;
        auto byte = [&](uint32_t x, int n) { return __byte_perm(x, 0, 0x4440 | n); };
        auto pair = [&](uint32_t entry) { return *(const uint32_t *)(own + entry * 128); };
        if (bits == 1 || bits == 2) {
            const uint32_t entry =
                bits == 1 ? byte(word[b / 2], b % 2 * 2 + (t >> 1)) >> half_shift & 15u : byte(word[b], t);
            const uint2 v = *(const uint2 *)(own + entry * 128);
            w[0] = v.x;
            w[1] = v.y;
        } else if (bits == 4) {
            w[0] = pair(byte(word[b], (t & 1) * 2));
            w[1] = pair(byte(word[b], (t & 1) * 2 + 1));
        } else if (bits == 8) {
            w[0] = __byte_perm(pair(byte(word[b], 0)), pair(byte(word[b], 1)), 0x5410);
            w[1] = __byte_perm(pair(byte(word[b], 2)), pair(byte(word[b], 3)), 0x5410);
        }
    }
};

/* A warp takes 16 tokens at once, as the scan does, all that is read of them asked for before
 * any is used; all documents have len_max, and a chunk has less than 2^32 tokens. */
template <int dtype, int bits>
static __global__ void __launch_bounds__(256, DECODE_BLOCKS)
    decode(const __grid_constant__ struct decode_args a)
{
    extern __shared__ __align__(128) char memory[];
    const struct lik_tokens &d = a.d;
    const int lane = (int)threadIdx.x & 31, g = lane >> 2, t = lane & 3, dim = a.chunks * 32;
    const char *own = memory + (bits <= 2 ? lane % 16 * 8 : lane * 4);
    const int half_shift = (t & 1) != (a.codec.bit_order == LIK_BITS_COLBERT) ? 4 : 0;
    make_table<dtype, bits>(memory, a.codec);
    __syncthreads();
    const uint32_t total = (uint32_t)(a.count * d.len_max), length = (uint32_t)d.len_max;
    for (int64_t n = ((int64_t)blockIdx.x * 8 + threadIdx.x / 32) * 16; n < total;
         n += (int64_t)gridDim.x * 128) {
        uint4 centroid[2][BLOCKS / 2];
        struct residual_words<bits> words[2];
        float factor[2] = {0.0f, 0.0f}, scale[2] = {1.0f, 1.0f};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint32_t row = (uint32_t)min(n + g + 8 * r, (int64_t)total - 1), i = row / length;
            const int64_t document = a.first + i, token = row - i * length;
            int64_t code = lik_code_at(&d, lik_tokens_base(&d, &d.codes_strides, document) +
                                               token * d.codes_strides.token);
            words[r].load((const char *)d.data + lik_tokens_base(&d, &d.strides, document) +
                              token * d.strides.token,
                          a.chunks, a.vector);
            if (d.scale)
                scale[r] = coded_scale(d, lik_tokens_base(&d, &d.scale_strides, document), (int)token);
            if (code < 0 || code >= a.codec.centroid_count)
                code = a.codec.centroid_count;
            const uint4 *from = (const uint4 *)(a.centroids + code * (a.chunks * 64) + t * 16);
#pragma unroll
            for (int c = 0; c < BLOCKS / 2; c++)
                centroid[r][c] = c < a.chunks ? __ldg(from + c * 4) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint16_t *to = a.tokens + (n + g + 8 * r) * dim + t * 4;
            const int chunks = n + g + 8 * r < total ? a.chunks : 0;
#pragma unroll
            for (int c = 0; c < BLOCKS / 2; c++) {
                uint32_t x[4] = {centroid[r][c].x, centroid[r][c].y, centroid[r][c].z, centroid[r][c].w};
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    if (bits) {
                        uint32_t w[2];
                        words[r].of_block(2 * c + half, own, half_shift, w);
                        x[2 * half] = add_pairs<dtype>(x[2 * half], w[0]);
                        x[2 * half + 1] = add_pairs<dtype>(x[2 * half + 1], w[1]);
                    }
                    if (c < chunks)
                        *(uint2 *)(to + c * 32 + half * 16) = make_uint2(x[2 * half], x[2 * half + 1]);
                }
#pragma unroll
                for (int e = 0; e < 4 && d.normalize; e++)
                    if (c < a.chunks)
                        add_squares<dtype>(x[e], factor[r]);
            }
        }
        if (!a.factors)
            continue;
        float unit[4] = {factor[0], factor[1], 1.0f, 1.0f};
        if (d.normalize)
            unit_factors_of(unit);
        if (t < 2 && n + g + 8 * t < total)
            a.factors[n + g + 8 * t] = d.normalize ? t ? unit[1] : unit[0] : t ? scale[1] : scale[0];
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
    const unsigned most = DECODE_BLOCKS * (unsigned)gpu->limits.processors,
                   blocks = (unsigned)((tokens + 127) / 128);
    void *args = a;
    cudaLaunchKernel((const void *)kernel_of(d->dtype, a->codec.bits), blocks < most ? blocks : most, 256,
                     &args, (size_t)table_bytes(a->codec.bits), stream);
    int status = lik_cuda_launched("decode");
    struct lik_tokens decoded = lik_tokens_padded(a->tokens, d->dtype, a->count, d->len_max, d->dim);
    decoded.scale = a->factors;
    decoded.scale_strides = {0, d->len_max, 1};
    return status ? status : lik_cuda_score_chunk(gpu, score, plan, &decoded, a->first, stream);
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
    a.vector = d->dim == 16 * BLOCKS && plan->scan.copy_bytes == 16;
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
