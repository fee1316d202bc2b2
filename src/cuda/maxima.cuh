/* How the Hopper loop takes a tile's products, in the registers where wgmma left them, into row maxima and positions:
 * pieces of one document in straight code, mixed tiles with a look at every block, rare values by the letter. */
#ifndef LIK_CUDA_MAXIMA_CUH
#define LIK_CUDA_MAXIMA_CUH

#include "cuda/stream.cuh"

/* Row maxima of one lane: rows lane / 4 and lane / 4 + 8 of its warp's block in each band. */
template <int bands> struct maxima {
    float best[2 * bands];
    int at[2 * bands];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* The accumulators are two halves of 64 registers: of two bands, or of the left and right columns of one. */
typedef float halves[2][64];

template <int bands> LIK_DEVICE void reset(struct maxima<bands> &m)
{
#pragma unroll
    for (int i = 0; i < 2 * bands; i++) {
        m.best[i] = -INFINITY;
        m.at[i] = -1;
    }
}

/* A half's products times what normalizes their columns. */
template <int blocks> LIK_DEVICE void scale_products(float (&c)[64], const float *factor)
{
    int pair = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int j = 0; j < blocks; j++) {
        float2 f = *(const float2 *)&factor[j * 8 + pair];
#pragma unroll
        for (int i = 0; i < 4; i++)
            c[j * 4 + i] = __fmul_rn(c[j * 4 + i], i & 1 ? f.y : f.x);
    }
}

/* How products are taken into row maxima, two rows at a time. With the argmax, strictly larger pairs of columns replace
 * the best, so that ties stay with the lowest token; which of a pair it was is settled in the end, from its first
 * product. */
template <bool want_argmax> struct scan {
    int block[2];
    float first[2];

    LIK_MEMBER void begin()
    {
        block[0] = block[1] = -1;
        first[0] = first[1] = 0.0f;
    }

    LIK_MEMBER void pair(float x, float y, int i, int j, float &best)
    {
        float larger = max_nan(x, y);
        if (want_argmax && larger > best) {
            block[i] = j;
            first[i] = x;
        }
        best = max_nan(best, larger);
    }

    /* The products c of block j, all of which count. */
    LIK_MEMBER void whole(const float *c, int j, float *best)
    {
        pair(c[0], c[1], 0, j, best[0]);
        pair(c[2], c[3], 1, j, best[1]);
    }

    /* Those whose columns' bits are set. */
    LIK_MEMBER void some(const float *c, int j, uint32_t bits, float *best)
    {
        bits >>= ((int)threadIdx.x & 3) * 2;
        bool even = bits & 1, odd = bits & 2;
        pair(even ? c[0] : -INFINITY, odd ? c[1] : -INFINITY, 0, j, best[0]);
        pair(even ? c[2] : -INFINITY, odd ? c[3] : -INFINITY, 1, j, best[1]);
    }

    /* Positions of the maxima, `base`: the token of column 0. */
    LIK_MEMBER void settle(const float *best, int *at, int base)
    {
        base += ((int)threadIdx.x & 3) * 2;
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (block[i] >= 0)
                at[i] = base + block[i] * 8 + (first[i] == best[i] ? 0 : 1);
    }
};

/* Takes a half's products into the running maxima of two rows: `blocks` blocks, of which all but the last `masked`
 * count whole, and those as far as `columns` goes. Positions stay -1 as long as all products are -inf. */
template <bool want_argmax, int blocks, int masked>
LIK_DEVICE void take_half(const float (&c)[64], int columns, int token, float *best, int *at)
{
    struct scan<want_argmax> scan;
    const float before[2] = {best[0], best[1]};
    uint32_t bits = (1u << min(max(columns - (blocks - masked) * 8, 0), masked * 8)) - 1u;
    if (want_argmax)
        scan.begin();
#pragma unroll
    for (int j = 0; j < blocks - masked; j++)
        scan.whole(&c[j * 4], j, best);
#pragma unroll
    for (int j = blocks - masked; j < blocks; j++)
        scan.some(&c[j * 4], j, bits >> (j - blocks + masked) * 8, best);
    if (!want_argmax)
        return;
    scan.settle(best, at, token);
    bool nan[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
        nan[i] = best[i] != best[i] && before[i] == before[i];
    if (__any_sync(~0u, nan[0] || nan[1])) /* rare: the first NaN wins */
#pragma unroll
        for (int j = blocks - 1; j >= 0; j--)
#pragma unroll
            for (int e = 1; e >= 0; e--)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int column = j * 8 + ((int)threadIdx.x & 3) * 2 + e;
                    if (nan[i] && column < columns && c[j * 4 + 2 * i + e] != c[j * 4 + 2 * i + e])
                        at[i] = token + column;
                }
}

/* The argmax of a mixed tile by the rules of NaN, of ties and of products of -inf to the letter; for the rare tile
 * where the scan met one of them. */
template <int bands>
LIK_DEVICE void scan_carefully(const halves &c, const struct head &head, struct maxima<bands> &m,
                               struct maxima<bands> *stash)
{
    int pair = ((int)threadIdx.x & 3) * 2, base = head.token + pair, blocks = head.shape & 0xff;
#pragma unroll
    for (int j = 0; j < MAX_BLOCKS / bands; j++) {
        uint32_t bits = j < blocks ? head.counts[j / 4] >> (j % 4 * 8 + pair) : 0;
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (bits >> e & 1)
#pragma unroll
                for (int i = 0; i < 2 * bands; i++)
                    keep_better(m.best[i], m.at[i], c[bands == 2 ? i / 2 : j / 16][j % 16 * 4 + i % 2 * 2 + e],
                                base + j * 8 + e);
        if (stash && head.ends >> j & 1) {
            *stash = m;
            stash += 128;
            reset(m);
            base = pair - (j + 1) * 8;
        }
    }
}

/* Takes a tile with dropped columns or several documents, whose halves are 16 blocks wide; the maxima of each of
 * several documents go to the stash. */
template <int bands, bool want_argmax>
LIK_DEVICE void take_mixed(const halves &c, const struct head &head, struct maxima<bands> &m,
                           struct maxima<bands> *stash)
{
    struct scan<want_argmax> scan[bands];
    struct maxima<bands> before = m, *const stash_before = stash;
    int base = head.token, blocks = head.shape & 0xff;
    uint32_t ends = stash ? head.ends : 0;
    bool strange = false;
    auto begin = [&]() {
#pragma unroll
        for (int b = 0; b < bands; b++)
            scan[b].begin();
    };
    auto settle = [&]() {
#pragma unroll
        for (int b = 0; b < bands; b++) {
            scan[b].settle(&m.best[2 * b], &m.at[2 * b], base);
            strange |= !(m.best[2 * b] > -INFINITY) || !(m.best[2 * b + 1] > -INFINITY);
        }
    };
    if (want_argmax)
        begin();
#pragma unroll
    for (int j = 0; j < MAX_BLOCKS / bands; j++) {
        if (j < blocks)
#pragma unroll
            for (int b = 0; b < bands; b++)
                scan[b].some(&c[bands == 2 ? b : j / 16][j % 16 * 4], j, head.counts[j / 4] >> j % 4 * 8,
                             &m.best[2 * b]);
        if (ends >> j & 1) {
            if (want_argmax) {
                settle();
                begin();
            }
            *stash = m;
            stash += 128;
            reset(m);
            base = -(j + 1) * 8;
        }
    }
    if (want_argmax) {
        if (!ends)
            settle();
        if (__any_sync(~0u, strange)) {
            m = before;
            scan_carefully<bands>(c, head, m, stash_before);
        }
    }
}

/* The row that is left to this lane of the rows that four lanes share, with the best of all four. */
template <int bands, bool want_argmax> LIK_DEVICE void share_rows(const struct maxima<bands> &m, float &best, int &at)
{
    float b[2] = {m.best[0], m.best[1]};
    int t[2] = {m.at[0], m.at[1]};
    auto take = [](float &mine, int &my, float x, int theirs) {
        if (want_argmax)
            keep_better(mine, my, x, theirs);
        else
            mine = max_nan(mine, x);
    };
    int lane = (int)threadIdx.x & 31;
    if (bands == 2) {
        bool upper = lane & 2;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int other = 2 * bands - 2 + i;
            float x = __shfl_xor_sync(~0u, upper ? m.best[i] : m.best[other], 2);
            int theirs = want_argmax ? __shfl_xor_sync(~0u, upper ? m.at[i] : m.at[other], 2) : 0;
            b[i] = upper ? m.best[other] : m.best[i];
            t[i] = upper ? m.at[other] : m.at[i];
            take(b[i], t[i], x, theirs);
        }
    }
    bool odd = lane & 1;
    float x = __shfl_xor_sync(~0u, odd ? b[0] : b[1], 1);
    int theirs = want_argmax ? __shfl_xor_sync(~0u, odd ? t[0] : t[1], 1) : 0;
    best = odd ? b[1] : b[0];
    at = odd ? t[1] : t[0];
    take(best, at, x, theirs);
    if (bands == 1) {
        x = __shfl_xor_sync(~0u, best, 2);
        theirs = want_argmax ? __shfl_xor_sync(~0u, at, 2) : 0;
        take(best, at, x, theirs);
    }
}

#endif

#endif
