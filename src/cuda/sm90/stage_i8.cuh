/* The Hopper loop's stage policy for i8 tokens of queries and documents alike: multiplied as
 * they lie in the ring, twice as fast as 16 bits are. A slab is 128 elements. Products are
 * exact sums of integers, as f32 once a tile is multiplied. */
#ifndef LIK_CUDA_SM90_STAGE_I8_CUH
#define LIK_CUDA_SM90_STAGE_I8_CUH

#include "cuda/sm90/consumer.cuh"
#include "cuda/wgmma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Starts the products of a stage, `steps` times 32 elements: as multiply_stage. */
template <int octets, int steps, bool add, bool split>
LIK_DEVICE void multiply_i8(int (&c)[2][64], const uint32_t (&q)[2], const uint32_t (&d)[2],
                            uint32_t next_slab)
{
    auto product = [&](int half, int k) {
        uint32_t rows = q[half] + k / 4 * (SM90_ROWS_BYTES >> 4) + k % 4 * 2;
        uint32_t columns = d[half] + k / 4 * next_slab + k % 4 * 2;
        if (add || k)
            wgmma_i8<true, octets>::run(c[half], rows, columns);
        else
            wgmma_i8<false, octets>::run(c[half], rows, columns);
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

#endif

struct stage_i8 {
    static constexpr bool converts = false;
    static constexpr bool scales = true;
    static constexpr bool integers = true;  /* products are, until they are settled */
    static constexpr int row_elements = 16; /* of a query row, in 16 bytes */
    static constexpr int threads = 384;     /* of a block, at most */
    static constexpr bool narrow = false;   /* one band has both halves */

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
        return 4 * a.warpgroups;
    }

    /* Who says that a tile's factors are there: the producer's lanes. */
    LIK_MEMBER static int factor_arrivals(const struct sm90_args &)
    {
        return 32;
    }

    /* Who fills a stage of the second ring, in warps. */
    LIK_MEMBER static int writers(const struct sm90_args &)
    {
        return 0;
    }

    /* Slabs that 128 elements of a query row are. */
    LIK_MEMBER static int row_planes(const struct sm90_args &)
    {
        return 1;
    }

    /* Elements k ... k + n - 1 of the query row at `row`, which may be LIK_NOWHERE, to 16 bytes
     * of its slab, at place(i); the rest is zeros. There is no 128 for a negative scale to
     * make of -128: such rows' products are negated instead (settle). */
    template <class Place>
    LIK_MEMBER static void store_row(const struct sm90_args &a, int64_t row, float, int k, int n, Place place,
                                     int i)
    {
        const struct lik_tokens &q = a.score.op.q;
        const uint8_t *from = (const uint8_t *)q.data + row + k * q.dim_stride;
        for (int e = 0; e < 16; e++)
            ((uint8_t *)place(i))[e] = row != LIK_NOWHERE && e < n ? from[e * q.dim_stride] : 0;
    }

    /* No warps look at tokens. */
    template <int bands>
    LIK_MEMBER static void look(const struct sm90_args &, struct shared &, const char *, char *, float *, int)
    {
    }

    /* The products of the warpgroup's rows and the column tile at `at`, but for the end of
     * those of the last stage, which are under way. Elements past the dim are zeros in both. */
    template <int bands, int octets, bool split>
    LIK_MEMBER static void multiply(const struct sm90_args &a, struct shared &sm,
                                    const struct consumer<bands> &me, uint32_t ring, int (&c)[2][64],
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
        if (a.slabs == 1) {
            if (a.steps_per_stage == 8)
                multiply_i8<octets, 4, false, split>(c, q, d, 0);
            else if (a.steps_per_stage == 6)
                multiply_i8<octets, 3, false, split>(c, q, d, 0);
            else
                multiply_i8<octets, 2, false, split>(c, q, d, 0);
            return;
        }
        multiply_i8<octets, 8, false, split>(c, q, d, next_slab);
        for (int slab = 2; slab < a.slabs; slab += 2) {
            wgmma_wait<0>();
            give_back(a, sm, me.lane, at);
            await(sm, at);
            columns();
            q[0] += 2 * SM90_ROWS_BYTES >> 4;
            q[1] += 2 * SM90_ROWS_BYTES >> 4;
            multiply_i8<octets, 8, true, split>(c, q, d, next_slab);
        }
    }
#endif
};

#endif
