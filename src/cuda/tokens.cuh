/* The Hopper loop's warps that look at documents' tokens in the ring: they take the norms of
 * f16 and bf16, and split f32 into planes, with its norms. See score_sm90.cu. */
#ifndef LIK_CUDA_TOKENS_CUH
#define LIK_CUDA_TOKENS_CUH

#include "cuda/stream.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- The warps that take the norms of the documents' tokens ---- */

template <int dtype> LIK_DEVICE void add_squares(uint4 raw, float &squares)
{
    float v[8];
    unpack_halves(raw, dtype, v);
#pragma unroll
    for (int i = 0; i < 8; i++)
        squares = __fmaf_rn(v[i], v[i], squares);
}

/* The columns of tiles as they pass: a team of `warps` takes those of every tile, or two teams
 * those of every other one, for a tile keeps a warp waiting more than busy. A lane takes a
 * column of each round, chunk by chunk of the swizzled slab, so that eight lanes meet all
 * banks; sums as in unit_factor. Elements past the dim are zeros. */
template <int dtype, int bands, int warps>
LIK_DEVICE void take_norms(const struct sm90_args &a, struct shared &sm, const char *ring, float *factors,
                           int warp)
{
    constexpr int step = 32 * warps, rounds = columns_most(dtype, bands) / step;
    const int lane = (int)threadIdx.x & 31, team = warp / warps, c = warp % warps * 32 + lane;
    struct place at = {0, 0};
    auto skip = [&](int tiles) {
        for (int i = tiles * a.slabs; i > 0; i -= a.slabs_per_stage)
            advance(at, a.stages);
    };
    skip(team);
    for (int tile = team;; tile = (tile + a.norm_teams) % SM90_HEADS) {
        mbarrier_wait(&sm.full[at.stage], at.parity);
        const struct head &head = sm.heads[tile];
        if (head.row_tile < 0)
            break;
        const int columns = (head.shape & 0xff) * 8, last = columns - 8 + (c & 7);
        float squares[rounds][8] = {}; /* of every eighth chunk */
        for (int slab = 0; slab < a.slabs; slab += a.slabs_per_stage) {
            if (slab)
                mbarrier_wait(&sm.full[at.stage], at.parity);
            for (int of = 0; of < a.slabs_per_stage; of++) {
                const char *from = ring + at.stage * a.stage_bytes + of * a.slab_bytes;
#pragma unroll
                for (int n = 0; n < rounds; n++) {
                    if (n * step >= columns)
                        break;
                    const char *row = from + min(c + n * step, last) * 128;
#pragma unroll
                    for (int i = 0; i < 8; i++)
                        add_squares<dtype>(*(const uint4 *)(row + ((i ^ (c & 7)) << 4)), squares[n][i]);
                }
            }
            __syncwarp();
            if (lane == 0)
                mbarrier_arrive(&sm.empty[at.stage]);
            advance(at, a.stages);
        }
#pragma unroll
        for (int n = 0; n < rounds; n++)
            if (c + n * step < columns) {
                const float (&s)[8] = squares[n];
                float norm = __fsqrt_rn(__fadd_rn(__fadd_rn(__fadd_rn(s[0], s[1]), __fadd_rn(s[2], s[3])),
                                                  __fadd_rn(__fadd_rn(s[4], s[5]), __fadd_rn(s[6], s[7]))));
                factors[tile * columns_most(dtype, bands) + c + n * step] =
                    __fdiv_rn(1.0f, norm < 1e-12f ? 1e-12f : norm);
            }
        __syncwarp();
        if (lane == 0)
            mbarrier_arrive(&sm.normed[tile]);
        skip(a.norm_teams - 1);
    }
}

/* ---- The warps that split f32 tokens into planes ---- */

/* From the ring, where 64 elements are two slabs, to the ring of planes, where they are a
 * stage: [plane][column]. Two lanes take a column, and its norm where that is wanted. */
template <int bands, int planes>
LIK_DEVICE void split_tokens(const struct sm90_args &a, struct shared &sm, const char *ring, char *out,
                             float *factors, int warp)
{
    constexpr int deep = SM90_SLABS_PER_STAGE(bands, planes);
    int lane = (int)threadIdx.x & 31, half = lane / 16, c = warp * 16 + lane % 16;
    struct place at = {0, 0}, to = {0, 1};
    for (int tile = 0;; tile = (tile + 1) % SM90_HEADS) {
        mbarrier_wait(&sm.full[at.stage], at.parity);
        const struct head &head = sm.heads[tile];
        if (head.row_tile < 0)
            break;
        int columns = (head.shape & 0xff) * 8;
        /* Sums of the elements' squares, in the order of unit_factor: of each of the lane's
         * four runs of 8 elements in 64. The same of the elements times 2^-70. */
        float squares[4] = {}, scaled[4] = {};
        for (int slab = 0; slab < a.slabs; slab += deep) {
            const int part = deep == 1 ? slab & 1 : 0; /* half of the 64 elements */
            const bool ends = deep == 2 || part;
            if (slab)
                mbarrier_wait(&sm.full[at.stage], at.parity);
            if (!part)
                mbarrier_wait(&sm.planes_empty[to.stage], to.parity);
            if (c < columns) {
                const char *from = ring + at.stage * a.stage_bytes + c * 128;
                char *row = out + to.stage * planes * a.slab_bytes + c * 128;
                float v[2 * deep][8];
#pragma unroll
                for (int i = 0; i < 4 * deep; i++) {
                    const float4 x = *(const float4 *)(from + i / 4 * a.slab_bytes +
                                                       (((half * 4 + i % 4) ^ (c & 7)) << 4));
                    float *four = &v[i / 2][i % 2 * 4];
                    four[0] = x.x, four[1] = x.y, four[2] = x.z, four[3] = x.w;
                }
                if (a.normalize)
#pragma unroll
                    for (int e = 0; e < 16 * deep; e++) {
                        float x = v[e / 8][e % 8], less = __fmul_rn(x, 0x1p-70f);
                        squares[e / 8] = __fmaf_rn(x, x, squares[e / 8]);
                        scaled[e / 8] = __fmaf_rn(less, less, scaled[e / 8]);
                    }
#pragma unroll
                for (int i = 0; i < 2 * deep; i++)
                    split_8<planes>(v[i], row + ((((part + i / 2) * 4 + half * 2 + i % 2) ^ (c & 7)) << 4),
                                    a.slab_bytes);
            }
            if (ends)
                fence_async_shared();
            __syncwarp();
            if (lane == 0) {
                mbarrier_arrive(&sm.empty[at.stage]);
                if (ends)
                    mbarrier_arrive(&sm.planes_full[to.stage]);
            }
            advance(at, a.stages);
            if (ends)
                advance(to, SM90_PLANE_STAGES);
            if (deep == 1) /* the next slab has the other two of the four runs */
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float kept = squares[i], kept_scaled = scaled[i];
                    squares[i] = squares[i + 2], squares[i + 2] = kept;
                    scaled[i] = scaled[i + 2], scaled[i + 2] = kept_scaled;
                }
        }
        if (a.normalize) {
            auto total = [](const float (&s)[4]) {
                float first = __fadd_rn(s[0], s[1]), second = __fadd_rn(s[2], s[3]);
                first = __fadd_rn(first, __shfl_xor_sync(~0u, first, 16));
                return __fadd_rn(first, __fadd_rn(second, __shfl_xor_sync(~0u, second, 16)));
            };
            float sum = total(squares), less = total(scaled);
            float norm = sum < 1e37f ? __fsqrt_rn(sum) : __fmul_rn(__fsqrt_rn(less), 0x1p70f);
            factors[tile * columns_most(LIK_F32, bands) + c] = __fdiv_rn(1.0f, norm < 1e-12f ? 1e-12f : norm);
            __syncwarp();
            if (lane == 0)
                mbarrier_arrive(&sm.normed[tile]);
        }
    }
    mbarrier_wait(&sm.planes_empty[to.stage], to.parity);
    if (lane == 0)
        mbarrier_arrive(&sm.planes_full[to.stage]);
}

#endif

#endif
