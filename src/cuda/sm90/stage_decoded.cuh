/* The Hopper loop's stage policy for documents that were decoded, or widened, into the
 * workspace a chunk at a time: multiplied as f16 and bf16 are. The producer brings the columns'
 * factors, scales or what was taken when they were decoded; query rows may be of 8 bits, or
 * scaled. */
#ifndef LIK_CUDA_SM90_STAGE_DECODED_CUH
#define LIK_CUDA_SM90_STAGE_DECODED_CUH

#include "cuda/sm90/stage_stored.cuh"

template <int dtype> struct stage_decoded : stage_stored<dtype> {
    static constexpr bool scales = true;
    static constexpr bool narrow = true; /* one band has one half */
    static constexpr int threads = 640;  /* of a block, at most */

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    LIK_MEMBER static int readers(const struct sm90_args &a)
    {
        return 4 * a.warpgroups;
    }

    /* Who says that a tile's factors are there: the producer's lanes. */
    LIK_MEMBER static int factor_arrivals(const struct sm90_args &)
    {
        return 32;
    }

    /* Elements of a query row, of any dtype that fits, with their scale's sign. */
    template <class Place>
    LIK_MEMBER static void store_row(const struct sm90_args &a, int64_t row, float sign, int k, int,
                                     Place place, int i)
    {
        store_signed_row<dtype == LIK_BF16>(a, row, sign, k, place(i));
    }

    /* No warps look at tokens. */
    template <int bands>
    LIK_MEMBER static void look(const struct sm90_args &, struct shared &, const char *, char *, float *, int)
    {
    }

    /* As stage_stored's, of one half. */
    template <int bands, int octets, bool split>
    LIK_MEMBER static void multiply(const struct sm90_args &a, struct shared &sm,
                                    const struct consumer<bands> &me, uint32_t ring, halves &c,
                                    struct place &at)
    {
        static_assert(bands == 1 && !split, "one half");
        constexpr bool bf16 = dtype == LIK_BF16;
        const uint32_t next_slab = (uint32_t)a.slab_bytes >> 4;
        uint32_t q[2] = {wgmma_descriptor(shared_address(me.rows))}, d;
        auto columns = [&]() { d = wgmma_descriptor(ring + at.stage * a.stage_bytes); };
        columns();
        if (a.steps_per_stage < 8) { /* one stage holds the whole dim */
            if (a.steps_per_stage == 4)
                multiply_bands<bf16, bands, octets, 4, false>(c, q, d, 0);
            else if (a.steps_per_stage == 6)
                multiply_bands<bf16, bands, octets, 6, false>(c, q, d, next_slab);
            else
                multiply_bands<bf16, bands, octets, 3, false>(c, q, d, 0);
            return;
        }
        multiply_bands<bf16, bands, octets, 8, false>(c, q, d, next_slab);
        for (int slab = 2; slab < a.slabs; slab += 2) {
            wgmma_wait<0>();
            stage_stored<dtype>::give_back(a, sm, me.lane, at);
            stage_stored<dtype>::await(sm, at);
            columns();
            q[0] += 2 * SM90_ROWS_BYTES >> 4;
            multiply_bands<bf16, bands, octets, 8, true>(c, q, d, next_slab);
        }
    }
#endif
};

#endif
