/* The mma.sync loop's kernels for compressed documents: decoded while they are copied to shared
 * memory, then what dense tokens of their dtype are. */
#include "cuda/compressed.cuh"
#include "cuda/mma/loop.cuh"

struct compressed_args : mma_args {
    struct lik_codec codec;

    enum { compressed = 1 };

    LIK_MEMBER static float scale_of(const struct lik_tokens &d, int64_t base, int t)
    {
        return coded_scale(d, base, t);
    }

    /* As fill: elements k0 ... k0 + CHUNK - 1 of the tokens token ... token + rows - 1 of
     * document j, zeros past its length. */
    template <class P>
    LIK_MEMBER void fill_decoded(typename P::element *to, int stride, int plane, int rows, int k0, int64_t j,
                                 int token, int length) const
    {
        const struct lik_tokens &d = score.op.d;
        const int64_t base = lik_tokens_base(&d, &d.strides, j);
        const int64_t codes_base = lik_tokens_base(&d, &d.codes_strides, j);
        for (int i = (int)threadIdx.x; i < rows * (CHUNK / 8); i += THREADS) {
            int r = i / (CHUNK / 8), c = i % (CHUNK / 8) * 8;
            typename P::element *out = to + r * stride + c;
            float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            if (token + r < length)
                decode_8(d, codec, coded_token_at(d, codec, base, codes_base, token + r), k0 + c, v);
            if constexpr (!P::tensor) {
                *(float4 *)out = make_float4(v[0], v[1], v[2], v[3]);
                *(float4 *)(out + 4) = make_float4(v[4], v[5], v[6], v[7]);
            } else if (d_raw && d.dtype == LIK_F16) {
#pragma unroll
                for (int e = 0; e < 8; e += 2)
                    *(__half2 *)(out + e) = __floats2half2_rn(v[e], v[e + 1]);
            } else {
                for (int p = 0; p < d_planes; p++) {
                    uint32_t word[4];
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        uint32_t low = take_plane(v[2 * e], p == d_planes - 1);
                        word[e] = low | (uint32_t)take_plane(v[2 * e + 1], p == d_planes - 1) << 16;
                    }
                    *(uint4 *)(out + p * plane) = make_uint4(word[0], word[1], word[2], word[3]);
                }
            }
        }
    }
};

int lik_cuda_mma_launch_compressed(const struct lik_gpu *gpu, const struct score_args *score,
                                   const struct score_plan *plan, cudaStream_t stream)
{
    struct compressed_args a = {};
    a.score = *score;
    a.codec = *score->op.d.codec;
    return launch_plan(&a, gpu, &plan->mma, stream);
}

int lik_cuda_mma_prepare_compressed(const struct lik_gpu *gpu)
{
    return prepare<struct compressed_args>(gpu);
}
