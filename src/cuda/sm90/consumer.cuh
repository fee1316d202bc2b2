/* The Hopper loop: what a thread of a multiplying warpgroup holds. */
#ifndef LIK_CUDA_SM90_CONSUMER_CUH
#define LIK_CUDA_SM90_CONSUMER_CUH

#include "cuda/sm90/block.cuh"

/* Row maxima of one lane: rows lane / 4 and lane / 4 + 8 of its warp's strip in each band. */
template <int bands> struct maxima {
    float best[2 * bands];
    int at[2 * bands];
};

static_assert(sizeof(struct maxima<2>) == 2 * SM90_MAXIMA_BYTES, "what the plan leaves for the stash");

/* A thread of a warpgroup. Row maxima are first spread over the four lanes that share rows; the
 * row that a lane is left with is lane / 4, or 8 more if lane is odd, of its warp's strip in
 * band lane / 2 % 2. What is needed at documents' ends only is left in shared memory. */
template <int bands> struct consumer {
    int warpgroup, lane, warp;
    char *rows;             /* this warpgroup's query rows: [band][slab][64 rows] */
    struct maxima<bands> m; /* of the open document */
    int row;                /* the lane's row, in that band */
    int strip;              /* of the row in its query */
    int64_t first;          /* number of the strip's score with the first document, -1: none */
    unsigned turn;          /* tiles with documents' ends so far */
    /* bit 2 b + i: products of row lane / 4 + 8 i of the warp's strip in band b are to be
     * negated, for its scale is negative */
    unsigned negative;
};

/* The accumulators are two halves of 64 registers: of two bands, or of the left and right
 * columns of one. */
typedef float halves[2][64];

/* They, and what wgmma makes: the same, or integers that are yet to be settled. */
template <bool integers> struct products {
    halves c;
    LIK_MEMBER halves &sums()
    {
        return c;
    }
};

template <> struct products<true> {
    halves c;
    int whole[2][64];
    LIK_MEMBER int (&sums())[2][64]
    {
        return whole;
    }
};

/* `count` halves from `first` on as f32. */
template <int octets, int count, bool integers, int bands>
LIK_DEVICE void settle(struct products<integers> &p, int first, const struct consumer<bands> &me)
{
    if constexpr (integers) {
#pragma unroll
        for (int h = first; h < first + count; h++)
#pragma unroll
            for (int i = 0; i < 4 * octets; i++)
                p.c[h][i] = __int2float_rn(p.whole[h][i]);
        if (me.negative)
#pragma unroll
            for (int h = first; h < first + count; h++)
#pragma unroll
                for (int i = 0; i < 4 * octets; i++)
                    if (me.negative >> ((bands == 2 ? 2 * h : 0) + i % 4 / 2) & 1)
                        p.c[h][i] = -p.c[h][i];
    }
}

/* Elements k ... k + 7 of the query row at `row`, which may be LIK_NOWHERE, times `sign`, as
 * f16 or bf16 to the 16 bytes at `to`; zeros past the dim. */
template <bool bf16>
LIK_DEVICE void store_signed_row(const struct sm90_args &a, int64_t row, float sign, int k, void *to)
{
    float v[8] = {};
    uint32_t word[4];
    if (row != LIK_NOWHERE)
        load_8(a.score.op.q, row, k, a.score.q_vector, v);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        float low = __fmul_rn(v[2 * e], sign), high = __fmul_rn(v[2 * e + 1], sign);
        if (bf16) {
            __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
            word[e] = *(const uint32_t *)&pair;
        } else {
            __half2 pair = __floats2half2_rn(low, high);
            word[e] = *(const uint32_t *)&pair;
        }
    }
    *(uint4 *)to = make_uint4(word[0], word[1], word[2], word[3]);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* The tile at hand. */
struct tile {
    struct place at; /* in the ring */
    int index;       /* of its head */
    uint32_t pass;   /* parity of the heads */
    int4 head;       /* columns, shape, row_tile, token */
};

LIK_DEVICE int octets_of(const struct tile &t)
{
    return t.head.y & 0xff;
}

LIK_DEVICE int documents_of(const struct tile &t)
{
    return t.head.y >> 8 & 0xff;
}

template <class Stage> LIK_DEVICE void next(struct shared &sm, struct tile &t)
{
    if (++t.index == SM90_HEADS) {
        t.index = 0;
        t.pass ^= 1;
    }
    Stage::await(sm, t.at);
    t.head = *(const int4 *)&sm.heads[t.index];
}

#endif

#endif
