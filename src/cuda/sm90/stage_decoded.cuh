/* The Hopper loop's stage policy for documents that were decoded into the workspace, a chunk at
 * a time: multiplied as f16 and bf16 are, but that the columns' factors were taken when they
 * were decoded, one a token of uniform documents, and are only brought. */
#ifndef LIK_CUDA_SM90_STAGE_DECODED_CUH
#define LIK_CUDA_SM90_STAGE_DECODED_CUH

#include "cuda/sm90/schedule.cuh"
#include "cuda/sm90/stage_stored.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Where the producer of a uniform stream is, told from its share alone. */
struct uniform_place {
    int64_t column, left;
    int token;

    LIK_MEMBER void next(const struct sm90_args &a)
    {
        const int together = a.documents_per_tile, length = (int)a.score.op.d.len_max;
        if (column == a.score.columns)
            column = 0;
        int64_t ended = 1;
        if (together > 1)
            ended = min((int64_t)together, min(left, a.score.columns - column));
        else if ((token += min(a.octets_per_piece * 8, length - token)) < length)
            return;
        token = 0;
        column += ended + (a.in_turn ? (int64_t)together * (a.blocks_per_row_tile - 1) : 0);
        left -= ended;
    }
};

/* As take_norms, but that the factors are there. */
template <int bands, int warps>
LIK_DEVICE void bring_factors(const struct sm90_args &a, struct shared &sm, float *factors, int warp)
{
    constexpr int step = 32 * warps;
    const int lane = (int)threadIdx.x & 31, team = warp / warps, c = warp % warps * 32 + lane;
    const int length = (int)a.score.op.d.len_max, width = a.octets_per_piece * 8;
    const struct share mine = share_of(a);
    struct uniform_place now = {mine.column, mine.count, 0};
    struct place at = {0, 0};
    auto skip = [&](int tiles) {
        for (int i = tiles * a.slabs; i > 0; i -= a.slabs_per_stage)
            advance(at, a.stages);
        for (int i = 0; i < tiles && now.left > 0; i++)
            now.next(a);
    };
    wait_for_kernels_before();
    skip(team);
    for (int tile = team;; tile = (tile + a.norm_teams) % SM90_HEADS) {
        mbarrier_wait(&sm.full[at.stage], at.parity);
        const struct head &head = sm.heads[tile];
        if (head.row_tile < 0)
            break;
        const int columns = (head.shape & 0xff) * 8;
        const int64_t first = now.column == a.score.columns ? 0 : now.column;
#pragma unroll 1
        for (int i = c; i < columns; i += step) {
            const int document = a.documents_per_tile > 1 ? i / width : 0,
                      t = now.token + i - document * width;
            factors[tile * columns_most(bands, 0) + i] =
                t < length ? a.score.factor[(first + document) * length + t] : 1.0f;
        }
        for (int slab = 0; slab < a.slabs; slab += a.slabs_per_stage) {
            if (slab)
                mbarrier_wait(&sm.full[at.stage], at.parity);
            __syncwarp();
            if (lane == 0)
                mbarrier_arrive(&sm.empty[at.stage]);
            advance(at, a.stages);
        }
        __syncwarp();
        if (lane == 0)
            mbarrier_arrive(&sm.factors_ready[tile]);
        now.next(a);
        skip(a.norm_teams - 1);
    }
}

#endif

template <int dtype> struct stage_decoded : stage_stored<dtype> {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    template <int bands>
    LIK_MEMBER static void look(const struct sm90_args &a, struct shared &sm, const char *, char *,
                                float *factors, int warp)
    {
        if (bands == 1 && a.norm_warps == 4)
            bring_factors<bands, 4>(a, sm, factors, warp);
        else
            bring_factors<bands, 2>(a, sm, factors, warp);
    }
#endif
};

/* Of whole documents, either. */
template <int dtype> struct stage_whole : stage_stored<dtype> {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    template <int bands>
    LIK_MEMBER static void look(const struct sm90_args &a, struct shared &sm, const char *ring, char *planes,
                                float *factors, int warp)
    {
        if (a.score.factor)
            stage_decoded<dtype>::template look<bands>(a, sm, ring, planes, factors, warp);
        else
            stage_stored<dtype>::template look<bands>(a, sm, ring, planes, factors, warp);
    }
#endif
};

#endif
