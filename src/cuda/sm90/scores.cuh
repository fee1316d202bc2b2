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

/* Adds the 16 rows of the warp's strips for `n` documents at once, as add_strip does for one:
 * at every level lanes that are `apart` keep the sums of one document of two each, and give
 * away the other's, as long as there are two. Half the shuffles, and none that waits for
 * another document's. Whose sum a lane ends with: strip_document. */
template <int n, int apart = 1> LIK_DEVICE float add_strips(const float (&v)[n])
{
    if constexpr (apart == 32) {
        return v[0];
    } else {
        float sums[(n + 1) / 2];
        const bool upper = threadIdx.x & apart;
#pragma unroll
        for (int k = 0; k < (n + 1) / 2; k++) {
            const float mine = 2 * k + 1 < n && upper ? v[2 * k + 1 < n ? 2 * k + 1 : 0] : v[2 * k],
                        theirs = 2 * k + 1 < n && !upper ? v[2 * k + 1 < n ? 2 * k + 1 : 0] : v[2 * k];
            sums[k] = __fadd_rn(mine, __shfl_xor_sync(~0u, theirs, apart));
        }
        return add_strips<(n + 1) / 2, apart == 1 ? 4 : 2 * apart>(sums);
    }
}

/* Of which document a lane has the sum; of none if that is no less than their number. */
LIK_DEVICE int strip_document()
{
    return (int)(threadIdx.x & 1 | threadIdx.x >> 1 & 14);
}

/* What the rows of the warp's strips add to the scores of `n` documents, of the lane's
 * strip_document; of bits in `empty`, nothing. */
template <int bands, int n>
LIK_DEVICE float sum_documents(const struct shared &sm, const struct consumer<bands> &me,
                               const struct maxima<bands> (&m)[n], uint32_t empty)
{
    const int band = me.warpgroup * bands + (me.lane >> 1) % bands, counts = sm.row_counts[band][me.row];
    const float weight = sm.row_weight[band][me.row];
    float v[n];
#pragma unroll
    for (int i = 0; i < n; i++) {
        float best;
        int at;
        join_rows<bands, false>(m[i], best, at);
        v[i] = counts && !(empty >> i & 1) ? __fmul_rn(weight, best) : 0.0f;
    }
    const float sum = add_strips(v);
    return counts == 2 ? __uint_as_float(0x7fc00000u) : sum;
}

/* Waits for room for the sums of a tile's documents, and says what they are of. */
template <int bands>
LIK_DEVICE struct sums &open_sums(struct shared &sm, const struct consumer<bands> &me, int64_t column,
                                  int row_tile, int documents)
{
    const int slot = me.turn % SUMS;
    if (me.lane == 0) {
        mbarrier_wait(&sm.sums_empty[slot], (me.turn / SUMS & 1) ^ 1);
        if (me.warpgroup == 0 && me.warp == 0) {
            sm.sums[slot].column = column;
            sm.sums[slot].row_tile = row_tile;
            sm.sums[slot].documents = documents;
        }
    }
    __syncwarp();
    return sm.sums[slot];
}

template <int bands> LIK_DEVICE void close_sums(struct shared &sm, struct consumer<bands> &me)
{
    __syncwarp();
    if (me.lane == 0)
        mbarrier_arrive(&sm.sums_full[me.turn % SUMS]);
    me.turn++;
}

/* As finish_rows, of the documents of `tiles` tiles, `n` of each at most, and without argmax:
 * all at once. `column`: of the tiles' first documents; `count`: documents of each, and bits as
 * in its head: | empty << 8 | bad << 16. */
template <int bands, int tiles, int n>
LIK_DEVICE void finish_documents(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                                 const struct maxima<bands> (&m)[tiles * n], const int64_t (&column)[tiles],
                                 const uint32_t (&count)[tiles], int row_tile)
{
    const int own = strip_document(), band = me.warpgroup * bands + (me.lane >> 1) % bands;
    const bool writes = bands == 2 || !(me.lane & 2);
    uint32_t empty = 0, bad = 0;
#pragma unroll
    for (int t = 0; t < tiles; t++) {
        empty |= (count[t] >> 8 & 0xff) << t * n;
        bad |= count[t] >> 16 << t * n;
    }
    float sum = sum_documents<bands>(sm, me, m, empty);
    if (bad >> own & 1)
        sum = __uint_as_float(0x7fc00000u);
#pragma unroll
    for (int t = 0; t < tiles; t++) {
        const int i = own - t * n;
        const int documents = count[t] & 0xff;
        const bool mine = writes && i >= 0 && i < n && i < documents;
        if (documents == 0)
            break;
        if (a.score.partial) {
            const int64_t at = me.first + column[t] + i;
            if (mine && me.first >= 0)
                a.score.partial[at * a.score.tiling.strips_per_query + me.strip] = sum;
            continue;
        }
        struct sums &sums = open_sums(sm, me, column[t], row_tile, documents);
        if (mine)
            sums.of[i][band * 4 + me.warp] = sum;
        close_sums(sm, me);
    }
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
