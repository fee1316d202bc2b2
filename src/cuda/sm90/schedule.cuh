/* The Hopper loop: which (row tile, document) pairs a block scores.
 *
 * Blocks of the grid are persistent, one a processor; each takes an equal share of all pairs,
 * row tile by row tile, so that blocks which share documents stream them at the same time,
 * through L2. Where that makes the longest share little longer, a block has documents of one
 * row tile only: it need not stop for other rows, and blocks take documents of one length in
 * turn, so that all read from one region of memory; packed documents of many lengths are shared
 * by their tokens. */
#ifndef LIK_CUDA_SM90_SCHEDULE_CUH
#define LIK_CUDA_SM90_SCHEDULE_CUH

#include "cuda/sm90/block.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

#define DOCUMENT_COST 64 /* tokens in the time that a packed document takes beside its own */

/* What a block scores: `count` (row tile, document) pairs in a row, or none; in turn, every so
 * many-th document. */
struct share {
    int row_tile; /* of the first */
    int64_t column, count;
};

LIK_DEVICE struct share share_of(const struct sm90_args &a)
{
    struct share s;
    unsigned parts = a.blocks_per_row_tile ? (unsigned)a.blocks_per_row_tile : gridDim.x;
    int part = (int)(blockIdx.x % parts), unit = a.in_turn ? a.documents_per_tile : 1;
    s.row_tile = (int)(blockIdx.x / parts);
    s.count = a.pairs_each + min(max(a.pairs_extra - part * unit, 0), unit);
    s.column = a.in_turn ? part * unit : a.pairs_each * part + min(part, a.pairs_extra);
    if (!a.blocks_per_row_tile) {
        s.row_tile = (int)(s.column / a.score.columns);
        s.column -= s.row_tile * a.score.columns;
    }
    return s;
}

/* A block's share of packed documents of many lengths: as many tokens as any other block's, or
 * nearly; it may be none. Where it begins and ends is looked for among the offsets, from where
 * it would be if all documents were as long. Offsets that are not in order cannot make a
 * document have no block, for one begins where another ends. A warp's work. */
LIK_DEVICE void share_tokens(const struct sm90_args &a, struct share &s)
{
    if (!a.by_tokens)
        return;
    const struct lik_tokens &d = a.score.op.d;
    const int lane = (int)threadIdx.x & 31, parts = a.blocks_per_row_tile;
    const int64_t columns = a.score.columns, apart = a.pairs_each / 8 + 1;
    auto offset = [&](int64_t j) { return min(max(lik_offset_at(&d, j), (int64_t)0), d.total); };
    const int64_t begin = offset(0),
                  cost = max(offset(columns) - begin, (int64_t)0) + columns * DOCUMENT_COST;
    int64_t target[2] = {}, from[2], to[2]; /* documents: the last that is before, the first that is not */
    auto before = [&](int i, int64_t j) {
        return j < 0 || (j < columns && offset(j) + j * DOCUMENT_COST < target[i]);
    };
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t part = blockIdx.x % parts + i, guess = s.column + i * s.count;
        target[i] = part == 0 ? INT64_MIN : part == parts ? INT64_MAX : begin + cost / parts * part;
        int n = __popc(__ballot_sync(~0u, before(i, guess + (lane - 16) * apart)));
        from[i] = n == 0 ? -1 : max(guess + (n - 17) * apart, (int64_t)-1);
        to[i] = n == 32 ? columns : min(guess + (n - 16) * apart, columns);
    }
#pragma unroll 1
    while (to[0] - from[0] > 1 || to[1] - from[1] > 1)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int64_t step = (to[i] - from[i] + 31) / 32, j = from[i] + (lane + 1) * step;
            int n = __popc(__ballot_sync(~0u, j < to[i] && before(i, j)));
            from[i] += n * step;
            to[i] = min(to[i], from[i] + step);
        }
    s.column = to[0];
    s.count = max(to[1] - to[0], (int64_t)0);
}

#endif

#endif
