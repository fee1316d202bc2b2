/* The Hopper loop: how row maxima become scores at a document's end. Each warp that multiplies
 * sums its 16 rows a band, and one more warp adds those sums up. Documents that share a tile
 * come from a small stash. */
#ifndef LIK_CUDA_SM90_SCORES_CUH
#define LIK_CUDA_SM90_SCORES_CUH

#include "cuda/sm90/maxima.cuh"
#include "cuda/sm90/schedule.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* After a tile in which documents end: for each of them, the maximum of a row, the argmax, and
 * the sums of the warp's strips. */
template <int bands, bool want_argmax>
LIK_DEVICE void finish_rows(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                            const struct head &head, int documents, const struct maxima<bands> *stash)
{
    int slot = me.turn % SUMS, band = me.warpgroup * bands + (me.lane >> 1) % bands;
    int token = sm.row_token[band][me.row], row_counts = sm.row_counts[band][me.row];
    float weight = sm.row_weight[band][me.row];
    bool query_bad = row_counts == 2;
    struct sums &sums = sm.sums[slot];
    if (me.lane == 0 && !a.score.partial) {
        mbarrier_wait(&sm.sums_empty[slot], (me.turn / SUMS & 1) ^ 1);
        if (me.warpgroup == 0 && me.warp == 0) {
            sums.column = head.column;
            sums.row_tile = head.row_tile;
            sums.documents = documents;
        }
    }
    __syncwarp();
    me.turn++;
    int64_t n = me.first + head.column;
    uint32_t empty = head.empty, bad = head.bad;
    for (int i = 0; i < documents; i++, n++) {
        if (stash)
            me.m = stash[i * 128];
        float best;
        int at;
        join_rows<bands, want_argmax>(me.m, best, at);
        bool counts = row_counts && !(empty >> i & 1);
        if (want_argmax && me.first >= 0 && (bands == 2 || !(me.lane & 2)) && token < a.score.op.q.len_max)
            store_argmax(a.score.op, n * a.score.op.q.len_max + token,
                         counts && !query_bad ? max(at, 0) : -1); /* -1 so far: all products are -inf */
        float sum = counts ? __fmul_rn(weight, best) : 0.0f;
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1)); /* the order of add_strip */
#pragma unroll
        for (int o = 4; o < 32; o *= 2)
            sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, o));
        if ((bad >> i & 1) || query_bad)
            sum = __uint_as_float(0x7fc00000u);
        if ((me.lane & ~2) == 0 && (bands == 2 || me.lane == 0)) {
            if (!a.score.partial)
                sums.of[i][band * 4 + me.warp] = sum;
            else if (me.first >= 0)
                a.score.partial[n * a.score.tiling.strips_per_query + me.strip] = sum;
        }
    }
    reset(me.m);
    __syncwarp();
    if (me.lane == 0 && !a.score.partial)
        mbarrier_arrive(&sm.sums_full[slot]);
}

/* The warp that finishes scores: adds the sums of a query's strips, one after another. */
LIK_DEVICE void finish_scores(const struct sm90_args &a, struct shared &sm, struct share mine)
{
    const struct row_tiling &t = a.score.tiling;
    const int lane = (int)threadIdx.x & 31, strips = t.strips_per_query;
    const int queries = t.parts ? 1 : t.strips_per_tile / strips;
    int row_tile = -1;
    int64_t lane_scores = -1; /* of lane's query of the row tile */
    wait_for_kernels_before();
    share_tokens(a, mine);
    int64_t documents = mine.count;
    for (unsigned turn = 0; documents > 0; turn++) {
        int slot = turn % SUMS;
        struct sums &sums = sm.sums[slot];
        mbarrier_wait(&sm.sums_full[slot], turn / SUMS & 1);
        int n = sums.documents;
        int64_t column = sums.column;
        if (sums.row_tile != row_tile) {
            row_tile = sums.row_tile;
            struct strip_place place = locate_strip(t, row_tile, lane * strips);
            lane_scores = lane < queries && place.row >= 0 ? place.row * a.score.op.scores_stride : -1;
        }
        for (int from = 0; from < n * queries; from += 32) { /* a lane a document and query */
            int i = (from + lane) / queries, q = from + lane - i * queries;
            int64_t at = __shfl_sync(~0u, lane_scores, q);
            if (i >= n || at < 0)
                continue;
            float score = sums.of[i][q * strips];
            for (int b = 1; b < strips; b++)
                score = __fadd_rn(score, sums.of[i][q * strips + b]);
            a.score.op.scores[at + column + i] = score;
        }
        __syncwarp();
        if (lane == 0)
            mbarrier_arrive(&sm.sums_empty[slot]);
        documents -= n;
    }
}

#endif

#endif
