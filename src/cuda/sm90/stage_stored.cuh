/* The Hopper loop's stage policy for f16 and bf16: multiplied as they lie in the ring.
 *
 * A stage is one or two slabs of 64 elements; the warpgroups that multiply give it back. Where
 * documents are normalized, two or four warps take the norms of the columns as they pass, so
 * that the documents are read once. */
#ifndef LIK_CUDA_SM90_STAGE_STORED_CUH
#define LIK_CUDA_SM90_STAGE_STORED_CUH

#include "cuda/sm90/consumer.cuh"
#include "cuda/wgmma.cuh"

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
    constexpr int step = 32 * warps, rounds = columns_most(bands, 0) / step;
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
                factors[tile * columns_most(bands, 0) + c + n * step] = __fdiv_rn(1.0f, lik_clamp_norm(norm));
            }
        __syncwarp();
        if (lane == 0)
            mbarrier_arrive(&sm.factors_ready[tile]);
        skip(a.norm_teams - 1);
    }
}

/* ---- The products ---- */

/* Starts the products of a stage: c of each half += `steps` times 16 elements of its rows and
 * columns, or = that if not `add`. `split`: one half after the other, each a group to wait for;
 * else both in turn, one group. The commit stands in one basic block with its products, or
 * ptxas takes them one at a time. */
template <bool bf16, int octets, int steps, bool add, bool split>
LIK_DEVICE void multiply_stage(halves &c, const uint32_t (&q)[2], const uint32_t (&d)[2], uint32_t next_slab)
{
    auto product = [&](int half, int k) {
        uint32_t rows = q[half] + k / 4 * (SM90_ROWS_BYTES >> 4) + k % 4 * 2;
        uint32_t columns = d[half] + k / 4 * next_slab + k % 4 * 2;
        if (add || k)
            wgmma<bf16, true, octets>::run(c[half], rows, columns);
        else
            wgmma<bf16, false, octets>::run(c[half], rows, columns);
    };
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 2 * steps; i++) {
        if (split)
            product(i / steps, i % steps);
        else
            product(i % 2, i / 2);
        if (split && i == steps - 1)
            wgmma_commit();
    }
    wgmma_commit();
}

/* The same of one half alone, of one band or of two, one after the other, each a group to wait
 * for. */
template <bool bf16, int bands, int octets, int steps, bool add>
LIK_DEVICE void multiply_bands(halves &c, const uint32_t (&q)[2], uint32_t d, uint32_t next_slab)
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < bands * steps; i++) {
        const int band = i / steps, k = i % steps;
        uint32_t rows = q[band] + k / 4 * (SM90_ROWS_BYTES >> 4) + k % 4 * 2;
        uint32_t columns = d + k / 4 * next_slab + k % 4 * 2;
        if (add || k)
            wgmma<bf16, true, octets>::run(c[band], rows, columns);
        else
            wgmma<bf16, false, octets>::run(c[band], rows, columns);
        if (bands == 2 && i == steps - 1)
            wgmma_commit();
    }
    wgmma_commit();
}

#endif

/* ---- The policy ---- */

template <int dtype> struct stage_stored {
    static constexpr bool converts = false;         /* there is no second ring */
    static constexpr bool scales = false;           /* of rows and columns are not taken */
    static constexpr bool integers = false;         /* products are not */
    static constexpr int row_elements = 8;          /* of a query row, in 16 bytes or as many planes */
    static constexpr bool bf16 = dtype == LIK_BF16; /* what is multiplied: bf16, or f16 */
    static constexpr int threads = 384;             /* of a block, at most */
    static constexpr bool narrow = false;           /* one band has one half */

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    /* The stage at `at` can be multiplied. */
    LIK_MEMBER static void await(struct shared &sm, const struct place &at)
    {
        mbarrier_wait(&sm.full[at.stage], at.parity);
    }

    /* Gives the stage back; `at` becomes the next place. */
    LIK_MEMBER static void give_back(const struct sm90_args &a, struct shared &sm, int lane, struct place &at)
    {
        if (lane == 0)
            mbarrier_arrive(&sm.empty[at.stage]);
        advance(at, a.stages);
    }

    /* Who gives back a stage of the ring, in warps. */
    LIK_MEMBER static int readers(const struct sm90_args &a)
    {
        return 4 * a.warpgroups + a.norm_warps;
    }

    /* Who says that a tile's factors are there, in warps. */
    LIK_MEMBER static int factor_arrivals(const struct sm90_args &a)
    {
        return a.norm_warps;
    }

    /* Who fills a stage of the second ring, in warps. */
    LIK_MEMBER static int writers(const struct sm90_args &)
    {
        return 0;
    }

    /* Slabs that 64 elements of a query row are. */
    LIK_MEMBER static int row_planes(const struct sm90_args &)
    {
        return 1;
    }

    /* Elements k ... k + n - 1 of the query row at `row`, which may be LIK_NOWHERE, to 16 bytes
     * of its slab, at place(i); the rest is zeros. */
    template <class Place>
    LIK_MEMBER static void store_row(const struct sm90_args &a, int64_t row, float, int k, int n, Place place,
                                     int i)
    {
        const struct lik_tokens &q = a.score.op.q;
        const uint16_t *from = (const uint16_t *)q.data + row + k * q.dim_stride;
        for (int e = 0; e < 8; e++)
            ((uint16_t *)place(i))[e] = row != LIK_NOWHERE && e < n ? from[e * q.dim_stride] : 0;
    }

    /* What warp `warp` of those that look at tokens does. */
    template <int bands>
    LIK_MEMBER static void look(const struct sm90_args &a, struct shared &sm, const char *ring, char *,
                                float *factors, int warp)
    {
        if (bands == 1 && a.norm_warps == 4)
            take_norms<dtype, bands, 4>(a, sm, ring, factors, warp);
        else
            take_norms<dtype, bands, 2>(a, sm, ring, factors, warp);
    }

    /* The products of the warpgroup's rows and the column tile at `at`, but for the end of
     * those of the last stage, which are under way. Elements past the dim are zeros in both. */
    template <int bands, int octets, bool split>
    LIK_MEMBER static void multiply(const struct sm90_args &a, struct shared &sm,
                                    const struct consumer<bands> &me, uint32_t ring, halves &c,
                                    struct place &at)
    {
        uint32_t next_slab = (uint32_t)a.slab_bytes >> 4, q[2], d[2];
        q[0] = q[1] = wgmma_descriptor(shared_address(me.rows));
        if (bands == 2)
            q[1] += (uint32_t)a.row_slabs * (SM90_ROWS_BYTES >> 4);
        auto columns = [&]() {
            d[0] = d[1] = wgmma_descriptor(ring + at.stage * a.stage_bytes);
            if (bands == 1)
                d[1] += octets * (SM90_OCTET_BYTES >> 4);
        };
        columns();
        if (__builtin_expect(a.steps_per_stage < 8, 0)) { /* one stage holds the whole dim */
            if (a.steps_per_stage == 4)
                multiply_stage<bf16, octets, 4, false, split>(c, q, d, 0);
            else if (a.steps_per_stage == 6)
                multiply_stage<bf16, octets, 6, false, split>(c, q, d, next_slab);
            else
                multiply_stage<bf16, octets, 3, false, split>(c, q, d, 0);
            return;
        }
        multiply_stage<bf16, octets, 8, false, split>(c, q, d, next_slab);
        for (int slab = 2; slab < a.slabs; slab += 2) {
            wgmma_wait<0>();
            give_back(a, sm, me.lane, at);
            await(sm, at);
            columns();
            q[0] += 2 * SM90_ROWS_BYTES >> 4;
            q[1] += 2 * SM90_ROWS_BYTES >> 4;
            multiply_stage<bf16, octets, 8, true, split>(c, q, d, next_slab);
        }
    }
#endif
};

#endif
