/* Gradients of queries and of their tokens' weights against compressed documents: a warp a
 * query token gathers and decodes the rows that it met. (Compressed documents have none.) */
#include "cuda/compressed.cuh"
#include "cuda/grad/rows.cuh"
#include "cuda/kernels.cuh"

struct compressed_grad_args {
    struct grad_args grad;
    struct lik_codec codec;
};

/* A row that a query token met, and what it is multiplied by; no row, or one whose code is out
 * of range: coefficient is not looked at. */
struct met {
    struct coded_token token;
    float coefficient;
    bool is_row;
};

LIK_DEVICE struct met met_token(const struct compressed_grad_args &args, const struct incidence &in,
                                int64_t n, int s)
{
    const struct grad_args &a = args.grad;
    const struct lik_score &op = a.op.score;
    const struct lik_tokens &d = op.d;
    struct met m = {{0, -1}, 0.0f, false};
    int64_t row, column;
    incidence_at(in, n, row, column);
    int t = winner_at(op, in, n, s);
    int64_t j = lik_score_document(&op, row, column);
    if (t < 0 || t >= sequence_length(d, j))
        return m;
    m.token = coded_token_at(d, args.codec, lik_tokens_base(&d, &d.strides, j),
                             lik_tokens_base(&d, &d.codes_strides, j), t);
    float factor = a.d_factor ? a.d_factor[lik_tokens_row(&d, j) + t]
                              : coded_scale(d, lik_tokens_base(&d, &d.scale_strides, j), t);
    m.coefficient = a.op.grad_scores[row * a.op.grad_scores_stride + column] * factor;
    m.is_row = m.token.code >= 0;
    return m;
}

/* Elements that a warp adds at once: eight a lane. */
#define SLICE 256

static __global__ void __launch_bounds__(32 * GRAD_WARPS)
    query_rows_compressed(const __grid_constant__ struct compressed_grad_args args)
{
    extern __shared__ __align__(16) float memory[];
    const struct grad_args &a = args.grad;
    const struct lik_tokens &q = a.op.score.q, &d = a.op.score.d;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x & 31;
    const int64_t tokens = q.count * q.len_max;
    const int64_t token = a.first_query_token + (int64_t)blockIdx.x * a.query_warps + warp;
    float *kept = memory + warp * a.slices_per_row * SLICE;
    if (warp >= a.query_warps || token >= tokens)
        return;
    int64_t i = token / q.len_max;
    int s = (int)(token - i * q.len_max);
    if (s >= sequence_length(q, i))
        return;
    const struct incidence in = scores_of(a, true, i);
    bool any = false;
    float sum[8];
    for (int slice = 0; slice < a.slices_per_row; slice++) {
        const int k = slice * SLICE + lane * 8;
#pragma unroll
        for (int e = 0; e < 8; e++)
            sum[e] = 0.0f;
        for (int64_t n = 0; n < in.count; n += 32) {
            struct met mine = {{0, -1}, 0.0f, false};
            if (n + lane < in.count)
                mine = met_token(args, in, n + lane, s);
            for (uint32_t rows = __ballot_sync(~0u, mine.is_row); rows; rows &= rows - 1) {
                const int from = __ffs(rows) - 1;
                struct coded_token at = {__shfl_sync(~0u, mine.token.at, from),
                                         __shfl_sync(~0u, mine.token.code, from)};
                float coefficient = __shfl_sync(~0u, mine.coefficient, from), v[8];
                any = true;
                decode_8(d, args.codec, at, k, v);
#pragma unroll
                for (int e = 0; e < 8; e++)
                    sum[e] = k + e < (int)d.dim ? __fmaf_rn(coefficient, v[e], sum[e]) : 0.0f;
            }
        }
        if (a.slices_per_row > 1)
#pragma unroll
            for (int e = 0; e < 8; e++)
                kept[k + e] = sum[e];
    }
    __syncwarp();
    int64_t out = lik_tokens_row(&q, i) + s;
    float product = 0.0f;
    if (any) {
        float weight =
            q.weights ? q.weights[lik_tokens_base(&q, &q.weights_strides, i) + s * q.weights_strides.token]
                      : 1.0f;
        product =
            finish_row<32>(a, q, a.q_vector, a.q_factor, i, s, out, sum, a.slices_per_row > 1 ? kept : NULL,
                           a.op.grad_q, weight, a.op.grad_weights != NULL, true);
    } else if (a.op.grad_q && !a.op.accumulate) {
        store_zeros(a.op.grad_q, q.dtype, q.dim, out, lane, 32);
    }
    if (a.op.grad_weights && lane == 0)
        a.op.grad_weights[out] = (a.op.accumulate ? a.op.grad_weights[out] : 0.0f) + product;
}

int lik_cuda_grad_compressed(const struct grad_args *grad, int64_t tokens, size_t shared_bytes,
                             cudaStream_t stream)
{
    struct compressed_grad_args a;
    a.grad = *grad;
    a.codec = *grad->op.score.d.codec;
    int status = LIK_OK;
    for (int64_t most = (int64_t)1 << 30; !status && a.grad.first_query_token < tokens;
         a.grad.first_query_token += most * a.grad.query_warps) {
        int64_t left = tokens - a.grad.first_query_token;
        int64_t blocks = (left + a.grad.query_warps - 1) / a.grad.query_warps;
        query_rows_compressed<<<(unsigned)(blocks < most ? blocks : most), 32 * GRAD_WARPS, shared_bytes,
                                stream>>>(a);
        status = lik_cuda_launched("query_rows_compressed");
    }
    return status;
}

int lik_cuda_grad_compressed_prepare(const struct lik_gpu *gpu)
{
    cudaError_t e =
        cudaFuncSetAttribute((const void *)query_rows_compressed, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)gpu->limits.shared_bytes - 1024);
    return lik_cuda_status(e, "preparing the gradient's kernel of compressed documents");
}
