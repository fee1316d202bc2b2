/* How the Hopper loop takes a tile's products, in the registers where wgmma left them, into row
 * maxima and positions: pieces of one document in straight code, joint tiles with a look at
 * every octet, rare values by the letter. */
#ifndef LIK_CUDA_SM90_MAXIMA_CUH
#define LIK_CUDA_SM90_MAXIMA_CUH

#include "cuda/sm90/consumer.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int bands> LIK_DEVICE void reset(struct maxima<bands> &m)
{
#pragma unroll
    for (int i = 0; i < 2 * bands; i++) {
        m.best[i] = -INFINITY;
        m.at[i] = -1;
    }
}

/* The products of one half, or of two of the same columns, times what normalizes the
 * columns. */
template <int octets, int count> LIK_DEVICE void scale_products(float (*c)[64], const float *factor)
{
    int pair = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int j = 0; j < octets; j++) {
        float2 f = *(const float2 *)&factor[j * 8 + pair];
#pragma unroll
        for (int i = 0; i < 4 * count; i++)
            c[i / 4][j * 4 + i % 4] = __fmul_rn(c[i / 4][j * 4 + i % 4], i & 1 ? f.y : f.x);
    }
}

/* -inf for a half's products with columns that do not count, the half's first being column 8 *
 * `from`. */
template <int octets, int from> LIK_DEVICE void drop_columns(float (&c)[64], const uint32_t (&counts)[8])
{
    int pair = ((int)threadIdx.x & 3) * 2;
    uint32_t bits = 0;
#pragma unroll
    for (int j = 0; j < octets; j++) {
        if (j == 0 || (from + j) % 4 == 0)
            bits = counts[(from + j) / 4] >> pair;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!(bits >> ((from + j) % 4 * 8 + i % 2) & 1))
                c[j * 4 + i] = -INFINITY;
    }
}

/* -inf for a half's products with columns from `columns` on, which lie in its last `last`
 * octets. */
template <int octets, int last> LIK_DEVICE void cut_columns(float (&c)[64], int columns)
{
    if (columns >= octets * 8)
        return;
    uint32_t bits = (1u << max(columns - (octets - last) * 8, 0)) - 1u;
    bits >>= ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int j = 0; j < last; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!(bits >> (j * 8 + i % 2) & 1))
                c[(octets - last + j) * 4 + i] = -INFINITY;
}

/* How a joint tile's products are taken into row maxima, two rows at a time. With the argmax,
 * strictly larger pairs of columns replace the best, so that ties stay with the lowest token;
 * which of a pair it was is settled in the end, from its first product. */
template <bool want_argmax> struct scan {
    int octet[2];
    float first[2];

    LIK_MEMBER void begin()
    {
        octet[0] = octet[1] = -1;
        first[0] = first[1] = 0.0f;
    }

    LIK_MEMBER void pair(float x, float y, int i, int j, float &best)
    {
        float larger = max_nan(x, y);
        if (want_argmax && larger > best) {
            octet[i] = j;
            first[i] = x;
        }
        best = max_nan(best, larger);
    }

    /* The products c of octet j whose columns' bits are set. */
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
            if (octet[i] >= 0)
                at[i] = base + octet[i] * 8 + (first[i] == best[i] ? 0 : 1);
    }
};

/* Two pairs of columns, with which a row's maximum grew: which of the four it is can be told in
 * the end. */
struct quad {
    float place;  /* FIRST_PLACE + 256 i + the column of x0, in its bits, for row i */
    float first;  /* the maximum after the first pair */
    float x0, x1; /* the first product of either pair */
};

/* The bits of 2^23, to which adding a float n below 2^23 adds n. The rows' places differ so
 * that ptxas does not make one addition of two, and then selections. */
#define FIRST_PLACE 0x4b000000

/* Takes `next`, `column` farther on, for `quad` if `more` > `most`. By additions, not
 * selections: those are for the units that take maxima, which are busy. */
LIK_DEVICE void keep_quad(struct quad &quad, int most, int more, const struct quad &next, float column)
{
    asm("{\n.reg .pred grew;\nsetp.gt.s32 grew, %4, %5;\n"
        "@grew add.rn.f32 %0, %6, %7;\n@grew add.rn.f32 %1, %8, 0f00000000;\n"
        "@grew add.rn.f32 %2, %9, 0f00000000;\n@grew add.rn.f32 %3, %10, 0f00000000;\n}"
        : "+f"(quad.place), "+f"(quad.first), "+f"(quad.x0), "+f"(quad.x1)
        : "r"(more), "r"(most), "f"(next.place), "f"(column), "f"(next.first), "f"(next.x0), "f"(next.x1));
}

/* Takes a half's products into the running maxima of two rows. With the argmax, strictly larger
 * quads of columns replace the best, so that ties stay with the lowest token, and the scan is
 * one of integers: floats from +0 on are ordered as their bits are, the NaN that the hardware
 * makes above all (-0 is below +0 there), and Hopper takes the maximum of three integers at
 * once. For columns that do not count stands -inf, above all finite negatives there. Rows that
 * have met no product of +0 or more so far are gone through again, as floats; their positions
 * stay -1 as long as all products are -inf. */
template <bool want_argmax, int octets>
LIK_DEVICE void take_half(const float (&c)[64], int token, float *best, int *at)
{
    const int count = 2 * octets, pair = ((int)threadIdx.x & 3) * 2; /* the lane's columns: two an octet */
    auto product = [&](int i, int p) { return p < count ? c[p / 2 * 4 + 2 * i + p % 2] : -INFINITY; };
    if (!want_argmax) {
#pragma unroll
        for (int p = 0; p < count; p += 2)
#pragma unroll
            for (int i = 0; i < 2; i++)
                best[i] = max_nan(best[i], max_nan(product(i, p), product(i, p + 1)));
        return;
    }
    auto bits = [&](int i, int p) { return __float_as_int(product(i, p)); };
    int before[2], most[2];
    struct quad quad[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
        before[i] = most[i] = max(__float_as_int(best[i]), __float_as_int(-INFINITY));
#pragma unroll
    for (int p = 0; p < count; p += 4)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int first = __vimax3_s32(most[i], bits(i, p), bits(i, p + 1)),
                more = __vimax3_s32(first, bits(i, p + 2), bits(i, p + 3));
            const struct quad next = {__int_as_float(FIRST_PLACE + 256 * i + pair), __int_as_float(first),
                                      product(i, p), product(i, p + 2)};
            if (p == 0)
                quad[i] = next;
            else
                keep_quad(quad[i], most[i], more, next, (float)(p * 4));
            most[i] = more;
        }
    if (__any_sync(~0u, (most[0] | most[1]) < 0))
#pragma unroll
        for (int p = 0; p < count; p++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float x = product(i, p);
                if (most[i] < 0 && x > best[i]) {
                    best[i] = x;
                    at[i] = token + p / 2 * 8 + pair + p % 2;
                }
            }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (most[i] >= 0)
            best[i] = __int_as_float(most[i]);
        if (most[i] > before[i]) {
            bool second = __float_as_int(quad[i].first) != most[i];
            at[i] = token + (__float_as_int(quad[i].place) - FIRST_PLACE - 256 * i) + 8 * second +
                    (__float_as_int(second ? quad[i].x1 : quad[i].x0) != most[i]);
        }
    }
}

/* The argmax of a joint tile by the rules of NaN, of ties and of products of -inf to the
 * letter; for the rare tile where the scan met one of them. */
template <int bands>
LIK_DEVICE void scan_carefully(const halves &c, const struct head &head, struct maxima<bands> &m,
                               struct maxima<bands> *stash)
{
    int pair = ((int)threadIdx.x & 3) * 2, base = head.token + pair, octets = head.shape & 0xff;
#pragma unroll
    for (int j = 0; j < SM90_OCTETS / bands; j++) {
        uint32_t bits = j < octets ? head.counts[j / 4] >> (j % 4 * 8 + pair) : 0;
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (bits >> e & 1)
#pragma unroll
                for (int i = 0; i < 2 * bands; i++)
                    keep_better(m.best[i], m.at[i],
                                c[bands == 2 ? i / 2 : j / 16][j % 16 * 4 + i % 2 * 2 + e], base + j * 8 + e);
        if (head.ends >> j & 1) {
            *stash = m;
            stash += 128;
            reset(m);
            base = pair - (j + 1) * 8;
        }
    }
}

/* Takes a tile of several documents, whose halves are 16 octets wide: the maxima of each go to
 * the stash. */
template <int bands, bool want_argmax>
LIK_DEVICE void take_joint(const halves &c, const struct head &head, struct maxima<bands> &m,
                           struct maxima<bands> *stash)
{
    struct scan<want_argmax> scan[bands];
    struct maxima<bands> *const stash_before = stash;
    int base = 0, octets = head.shape & 0xff;
    bool strange = false;
    auto begin = [&]() {
#pragma unroll
        for (int b = 0; b < bands; b++)
            scan[b].begin();
    };
    if (want_argmax)
        begin();
#pragma unroll
    for (int j = 0; j < SM90_OCTETS / bands; j++) {
        if (j < octets)
#pragma unroll
            for (int b = 0; b < bands; b++)
                scan[b].some(&c[bands == 2 ? b : j / 16][j % 16 * 4], j, head.counts[j / 4] >> j % 4 * 8,
                             &m.best[2 * b]);
        if (head.ends >> j & 1) {
            if (want_argmax) {
#pragma unroll
                for (int b = 0; b < bands; b++) {
                    scan[b].settle(&m.best[2 * b], &m.at[2 * b], base);
                    strange |= !(m.best[2 * b] > -INFINITY) || !(m.best[2 * b + 1] > -INFINITY);
                }
                begin();
            }
            *stash = m;
            stash += 128;
            reset(m);
            base = -(j + 1) * 8;
        }
    }
    if (want_argmax && __any_sync(~0u, strange))
        scan_carefully<bands>(c, head, m, stash_before);
}

/* The row that is left to this lane of the rows that four lanes share, with the best of all
 * four. */
template <int bands, bool want_argmax>
LIK_DEVICE void join_rows(const struct maxima<bands> &m, float &best, int &at)
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
