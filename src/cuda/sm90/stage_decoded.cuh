/* The Hopper loop's stage policy for documents that were decoded, or widened, into the
 * workspace a chunk at a time: multiplied as f16 and bf16 are. The producer brings the columns'
 * factors, scales or what was taken when they were decoded; query rows may be of 8 bits, or
 * scaled. */
#ifndef LIK_CUDA_SM90_STAGE_DECODED_CUH
#define LIK_CUDA_SM90_STAGE_DECODED_CUH

#include "cuda/sm90/stage_stored.cuh"

template <int dtype> struct stage_decoded : stage_stored<dtype> {
    static constexpr bool scales = true;

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
#endif
};

#endif
