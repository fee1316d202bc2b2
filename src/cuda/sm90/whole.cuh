/* The Hopper loop for short documents, without argmax: its kernels take nothing else, so that
 * what is straight code for each number of octets is in nobody's way. A tile's documents lie
 * whole in the halves of the accumulators, each in as many octets as the longest has; there is
 * no stash. */
#ifndef LIK_CUDA_SM90_WHOLE_CUH
#define LIK_CUDA_SM90_WHOLE_CUH

#include "cuda/sm90/queries.cuh"
#include "cuda/sm90/scores.cuh"
#include "cuda/wgmma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Documents of `octets` octets each, as many to a tile as its halves hold whole:
 * their maxima are taken in straight code, and finished for several documents at once, of two
 * tiles where one holds a single one. Up to another row tile. */
template <class Stage, int bands, int octets>
LIK_DEVICE void take_documents(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                               uint32_t ring, const float *factors, struct tile &t)
{
    constexpr int n = SM90_TOGETHER(bands, octets), per_half = bands == 1 ? n / 2 : n;
    constexpr int tiles = n == 1 ? 2 : 1;    /* whose documents are finished together */
    constexpr int width = per_half * octets; /* octets of a half */
    const int row_tile = t.head.z, pair = (me.lane & 3) * 2,
              rest = a.uniform ? (int)a.score.op.d.len_max & 7 : 0;
    /* Do the lane's columns of the documents' last octets count? */
    const bool even = !rest || pair < rest, odd = !rest || pair + 1 < rest;
    struct maxima<bands> m[tiles * n]; /* the newest tile's come first */
    int64_t column[tiles];
    uint32_t count[tiles] = {};
    for (;;) {
        halves c;
        Stage::template multiply<bands, width, false>(a, sm, me, ring, c, t.at);
#pragma unroll
        for (int k = tiles - 1; k > 0; k--) {
#pragma unroll
            for (int i = 0; i < n; i++)
                m[k * n + i] = m[k * n - n + i];
            column[k] = column[k - 1];
            count[k] = count[k - 1];
        }
        column[0] = sm.heads[t.index].column;
        count[0] = documents_of(t) | sm.heads[t.index].empty << 8 | sm.heads[t.index].bad << 16;
        const float *factor = factors + t.index * columns_most(bands, 0);
        if (a.column_factors)
            mbarrier_wait(&sm.factors_ready[t.index], t.pass);
        wgmma_wait<0>();
        Stage::give_back(a, sm, me.lane, t.at);
#pragma unroll
        for (int h = 0; h < 2; h++) { /* one after the other: registers are short */
            if (a.column_factors)
                scale_products<width, 1>(&c[h], factor + (bands == 1 ? h * width * 8 : 0));
            if (!a.uniform) {
                if (bands == 1 && h)
                    drop_columns<width, width>(c[h], sm.heads[t.index].counts);
                else
                    drop_columns<width, 0>(c[h], sm.heads[t.index].counts);
            }
#pragma unroll
            for (int i = 0; i < per_half; i++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const float *of = &c[h][i * octets * 4 + r * 2], *last = of + (octets - 1) * 4;
                    float best = max_nan(even ? last[0] : -INFINITY, odd ? last[1] : -INFINITY);
#pragma unroll
                    for (int j = 0; j < octets - 1; j++)
                        best = max_nan(best, max_nan(of[j * 4], of[j * 4 + 1]));
                    m[bands == 1 ? h * per_half + i : i].best[bands == 1 ? r : 2 * h + r] = best;
                }
        }
        next<Stage>(sm, t);
        const bool more = t.head.z == row_tile;
        if (tiles > 1 && more && !count[tiles - 1])
            continue;
        finish_documents<bands, tiles, n>(a, sm, me, m, column, count, row_tile);
#pragma unroll
        for (int k = 0; k < tiles; k++)
            count[k] = 0;
        if (!more)
            return;
    }
}

/* take_documents for documents of as many octets as are known at run time. */
template <class Stage, int bands>
LIK_DEVICE void take_documents_of(int octets, const struct sm90_args &a, struct shared &sm,
                                  struct consumer<bands> &me, uint32_t ring, const float *factors,
                                  struct tile &t)
{
    switch (octets) {
#define CASE(n) \
    case n: return take_documents<Stage, bands, n>(a, sm, me, ring, factors, t);
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(7)
        CASE(8)
        CASE(9)
        CASE(10)
        CASE(11)
        CASE(12)
        CASE(13)
        CASE(14)
        CASE(15)
#undef CASE
    default: return take_documents<Stage, bands, 16>(a, sm, me, ring, factors, t);
    }
}

template <class Stage, int bands>
LIK_DEVICE void consume_whole(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                              uint32_t ring, const float *factors, int row_tile)
{
    struct tile t = {};
    t.index = -1;
    t.head.z = row_tile;
    registers_take<208>();
    while (t.head.z >= 0) {
        row_tile = t.head.z;
        if (a.rows_in_memory)
            wait_for_kernels_before();
        place_queries<Stage>(a, sm, me, row_tile);
        wait_for_kernels_before(); /* the first time; later it returns at once */
        load_queries<Stage>(a, sm, me);
        if (t.index < 0)
            next<Stage>(sm, t);
        if (t.head.z == row_tile)
            take_documents_of<Stage, bands>(a.octets_per_piece, a, sm, me, ring, factors, t);
    }
}

#endif

#endif
