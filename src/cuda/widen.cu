/* Many queries: documents of 8 bits are widened to f16 or bf16 a chunk at a time, into the
 * workspace, and scored from there by the Hopper loop, which would widen a tile anew for each
 * of its row tiles. The bits of their scores are the same. */
#include "cuda/widen.cuh"
#include "cuda/kernels.cuh"
#include "cuda/score.cuh"

#define EACH 4 /* pieces of 16 elements that a thread has under way */

struct widen_args {
    struct lik_tokens d; /* all of len_max, in rows of whole pieces */
    int64_t first;       /* document */
    uint32_t pieces;     /* of the chunk */
    uint4 *to;           /* two a piece */
};

template <int from, bool bf16>
static __global__ void __launch_bounds__(256) widen(const __grid_constant__ struct widen_args a)
{
#if __CUDA_ARCH__ >= 900
    let_next_kernel_begin();
    const uint32_t per_token = (uint32_t)a.d.dim / 16, length = (uint32_t)a.d.len_max,
                   n = blockIdx.x * (256 * EACH) + threadIdx.x;
    wait_for_kernels_before();
    uint4 x[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const uint32_t piece = n + i * 256, row = piece / per_token, document = row / length;
        const int64_t at = lik_tokens_base(&a.d, &a.d.strides, a.first + document) +
                           (row - document * length) * a.d.strides.token + (piece - row * per_token) * 16;
        if (piece < a.pieces)
            x[i] = *(const uint4 *)((const char *)a.d.data + at);
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const uint32_t piece = n + i * 256, word[4] = {x[i].x, x[i].y, x[i].z, x[i].w};
        uint32_t wide[4][2];
#pragma unroll
        for (int w = 0; w < 4; w++)
            widen_4<from, bf16>(word[w], wide[w]);
        if (piece < a.pieces) {
            a.to[2 * piece] = make_uint4(wide[0][0], wide[0][1], wide[1][0], wide[1][1]);
            a.to[2 * piece + 1] = make_uint4(wide[2][0], wide[2][1], wide[3][0], wide[3][1]);
        }
    }
#else
    __trap(); /* the driver never launches this elsewhere */
#endif
}

typedef void (*widen_kernel)(struct widen_args);

static widen_kernel kernel_of(int dtype, bool bf16)
{
    switch (dtype) {
    case LIK_E4M3: return bf16 ? widen<LIK_E4M3, true> : widen<LIK_E4M3, false>;
    case LIK_E5M2: return bf16 ? widen<LIK_E5M2, true> : widen<LIK_E5M2, false>;
    default: return bf16 ? widen<LIK_I8, true> : widen<LIK_I8, false>;
    }
}

int lik_cuda_widened_prepare(struct lik_gpu *)
{
    return LIK_OK;
}

int lik_cuda_widened_launch(const struct lik_gpu *gpu, const struct score_args *score,
                            const struct score_plan *plan, char *workspace, cudaStream_t stream)
{
    const struct decoded_plan *p = &plan->decoded;
    const struct lik_tokens *d = &score->op.d;
    const bool bf16 = score->op.q.dtype == LIK_BF16;
    struct lik_tokens wide = *d; /* with its mask and scales */
    struct widen_args a = {};
    a.d = *d;
    a.to = (uint4 *)(workspace + plan->tokens);
    wide.data = a.to;
    wide.dtype = bf16 ? LIK_BF16 : LIK_F16;
    wide.strides = {0, d->len_max * d->dim, d->dim};
    struct score_plan last = *plan;
    last.sm90 = p->last;
    int status = LIK_OK;
    for (; !status && a.first < d->count; a.first += wide.count) {
        const int64_t left = d->count - a.first;
        wide.count = left < p->documents_per_chunk ? left : p->documents_per_chunk;
        if (d->mask)
            wide.mask = d->mask + a.first * d->mask_strides.sequence;
        if (d->scale)
            wide.scale = d->scale + a.first * d->scale_strides.sequence;
        a.pieces = (uint32_t)(wide.count * d->len_max * (d->dim / 16));
        status = lik_cuda_launch_early(gpu, (const void *)kernel_of(d->dtype, bf16), "widen",
                                       (a.pieces - 1) / (256 * EACH) + 1, 256, 0, stream, &a);
        if (!status)
            status = lik_cuda_score_chunk(gpu, score, left < p->documents_per_chunk ? &last : plan, &wide,
                                          a.first, stream);
    }
    return status;
}
