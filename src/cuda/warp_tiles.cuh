/* What the kernels share in which a warp has documents of its own: it holds up to 32 query rows
 * as mma's B operand and takes documents in tiles of 32 tokens as its A operand (bytes.cu,
 * scan/scan.cuh). */
#ifndef LIK_CUDA_WARP_TILES_CUH
#define LIK_CUDA_WARP_TILES_CUH

#include "cuda/kernels.cuh"
#include "cuda/mma.cuh"
#include "cuda/score.cuh"

#define TILE_TOKENS 32
#define EACH        (TILE_TOKENS / 8) /* tokens of a tile that a lane has parts of */

/* What of a warp's rows is needed at documents' ends only, in shared memory to spare
 * registers. */
struct held_places {
    int64_t query; /* of a list: the one that is held */
    struct strip_place strips[2];
};

/* The row whose maximum a lane is left with at a document's end. */
LIK_DEVICE int row_of_lane(int lane)
{
    return (lane >> 4 & 1) * 16 + (lane >> 3 & 1) * 8 + 2 * (lane & 3) + (lane >> 2 & 1);
}

/* A warp's way through its tiles: which pair of row tile and document, and where in it. */
struct way {
    int item, document, token;
    int length; /* of the document; -1: out of range */
};

LIK_DEVICE int tile_of(const struct score_args &a, int item)
{
    return a.tiling.tiles == 1 ? 0 : (int)((uint32_t)item / (uint32_t)a.columns);
}

/* `items`: row tiles x documents. */
LIK_DEVICE void open_item(struct way &w, const struct score_args &a, int items)
{
    w.token = 0;
    w.length = 0;
    if (w.item >= items)
        return;
    const int tile = tile_of(a, w.item), column = w.item - tile * (int)a.columns;
    w.document = column; /* LIK_ALL */
    if (a.op.pairing != LIK_ALL) {
        const int64_t j = lik_score_document(&a.op, tile / a.tiling.parts, column);
        w.document = j < 0 || j >= a.op.d.count ? -1 : (int)j;
    }
    w.length = sequence_length(a.op.d, w.document);
}

/* To the next tile; is it another document's? */
LIK_DEVICE bool advance(struct way &w, const struct score_args &a, int items, int step)
{
    w.token += TILE_TOKENS;
    if (w.token < w.length)
        return false;
    w.item += step;
    open_item(w, a, items);
    return true;
}

/* Row maxima of a lane: rows 8 n + 2 t + e at [2 n + e], over the tokens that it holds. */
struct row_maxima {
    float best[8];
    int at[8];
    bool any; /* has a token counted? */
};

LIK_DEVICE void reset(struct row_maxima &m)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        m.best[i] = -INFINITY;
        m.at[i] = -1;
    }
    m.any = false;
}

/* Takes the products of a lane's tokens of a tile into the maxima; bit r of `kept`: token r
 * counts. `whole`: all do, in every lane. */
template <bool want_argmax, bool whole>
LIK_DEVICE void take_tile(struct row_maxima &m, const float (&acc)[EACH / 2][4][4],
                          const float (&factor)[EACH], int kept, int token)
{
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x[EACH], &best = m.best[2 * n + e];
            int &at = m.at[2 * n + e];
#pragma unroll
            for (int r = 0; r < EACH; r++) {
                x[r] = __fmul_rn(acc[r / 2][n][r % 2 * 2 + e], factor[r]);
                const bool counts = whole || (kept >> r & 1);
                if (!want_argmax) {
                    x[r] = counts ? x[r] : -INFINITY;
                } else if (counts && (at < 0 || x[r] > best || (x[r] != x[r] && best == best))) {
                    best = x[r];
                    at = token + ((int)threadIdx.x >> 2 & 7) + 8 * r;
                }
            }
            if (!want_argmax)
                best = max_nan(best, max_nan(max_nan(x[0], x[1]), max_nan(x[2], x[3])));
        }
}

#endif
