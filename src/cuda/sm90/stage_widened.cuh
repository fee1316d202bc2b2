/* The Hopper loop's stage policy for tokens of 8 bits (e4m3, e5m2, i8): widened to f16 or bf16,
 * which hold each of their elements exactly, and multiplied as those are.
 *
 * The ring holds tokens as they are stored, 128 elements a slab. Eight warps widen a slab on
 * its way to the second ring, where it is one or two slabs of 64 elements, and take the norms
 * of tokens that are to be normalized. */
#ifndef LIK_CUDA_SM90_STAGE_WIDENED_CUH
#define LIK_CUDA_SM90_STAGE_WIDENED_CUH

#include "cuda/sm90/stage_stored.cuh"
#include "cuda/widen.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- The warps that widen tokens ---- */

/* Where the scale of a tile's column lies; NULL where there is no token. */
LIK_DEVICE const float *column_scale(const struct sm90_args &a, const struct head &head, int c)
{
    const struct lik_tokens &d = a.score.op.d;
    const struct lik_strides &s = d.scale_strides;
    if (!(head.shape & JOINT)) {
        const int64_t base = d.offsets ? head.row * s.token : head.group * s.group + head.row * s.sequence;
        return c < head.columns ? d.scale + base + (head.token + c) * s.token : NULL;
    }
    const uint32_t before = head.ends & ((1u << c / 8) - 1u); /* ends before the column's octet */
    const int64_t row = a.score.tiling.parts ? head.row_tile / a.score.tiling.parts : 0;
    const int64_t i = lik_score_document(&a.score.op, row, head.column + __popc(before));
    const int token = c - (32 - __clz(before)) * 8;
    return token < sequence_length(d, i) ? d.scale + lik_tokens_base(&d, &s, i) + token * s.token : NULL;
}

template <bool bf16> LIK_DEVICE void add_squares_of(uint32_t pair, float &squares)
{
    const float2 v = bf16 ? make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u))
                          : __half22float2(*(const __half2 *)&pair);
    squares = __fmaf_rn(v.x, v.x, squares);
    squares = __fmaf_rn(v.y, v.y, squares);
}

/* From the ring to the second one: [slab of 64][column]. Two lanes take a column, 32 of every
 * 64 elements each: those of four of the eight sums of squares that unit_factor has.
 * Long because a slab's loads, elements, squares and barriers overlap. */
template <int from, bool bf16, int bands, bool normalize>
LIK_DEVICE void widen_tokens(const struct sm90_args &a, struct shared &sm, const char *ring, char *out,
                             float *factors, int warp)
{
    const int lane = (int)threadIdx.x & 31, half = lane / 16, c = warp * 16 + lane % 16;
    auto chunk = [&](int i) { return i / 2 * 4 + half * 2 + i % 2; };
    struct place at = {0, 0}, to = {0, 1};
    for (int tile = 0;; tile = (tile + 1) % SM90_HEADS) {
        mbarrier_wait(&sm.full[at.stage], at.parity);
        const struct head &head = sm.heads[tile];
        if (head.row_tile < 0)
            break;
        const bool takes = c < (head.shape & 0xff) * 8;
        float squares[4] = {};
        const float *scale = normalize && takes && a.score.op.d.scale ? column_scale(a, head, c) : NULL;
        const float own = scale ? *scale : 1.0f;
        for (int slab = 0; slab < a.slabs; slab++) {
            if (slab)
                mbarrier_wait(&sm.full[at.stage], at.parity);
            uint4 x[4];
            if (takes) {
                const char *row = ring + at.stage * a.stage_bytes + c * 128;
#pragma unroll
                for (int i = 0; i < 4; i++)
                    x[i] = *(const uint4 *)(row + ((chunk(i) ^ (c & 7)) << 4));
            }
            mbarrier_wait(&sm.planes_empty[to.stage], to.parity);
            if (takes) {
                char *row = out + to.stage * a.planes * a.slab_bytes + c * 128;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (i == 2 && a.planes == 1)
                        break; /* no more than 64 elements */
                    const uint32_t word[4] = {x[i].x, x[i].y, x[i].z, x[i].w};
                    uint32_t wide[8];
#pragma unroll
                    for (int w = 0; w < 4; w++) {
                        uint32_t two[2];
                        widen_4<from, bf16>(word[w], two);
#pragma unroll
                        for (int p = 0; p < 2; p++) {
                            if (normalize)
                                add_squares_of<bf16>(two[p], squares[i % 2 * 2 + w / 2]);
                            wide[2 * w + p] = two[p];
                        }
                    }
#pragma unroll
                    for (int p = 0; p < 2; p++)
                        *(uint4 *)(row + chunk(i) / 4 * a.slab_bytes +
                                   (((chunk(i) % 4 * 2 + p) ^ (c & 7)) << 4)) =
                            make_uint4(wide[4 * p], wide[4 * p + 1], wide[4 * p + 2], wide[4 * p + 3]);
                }
            }
            fence_async_shared();
            __syncwarp();
            if (lane == 0) {
                mbarrier_arrive(&sm.empty[at.stage]);
                mbarrier_arrive(&sm.planes_full[to.stage]);
            }
            advance(at, a.stages);
            advance(to, SM90_PLANE_STAGES);
        }
        if (normalize) {
            float sum = __fadd_rn(__fadd_rn(squares[0], squares[1]), __fadd_rn(squares[2], squares[3]));
            sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 16));
            float length = __fmul_rn(fabsf(own), __fsqrt_rn(sum));
            factors[tile * columns_most(bands, 1) + c] = __fdiv_rn(own, lik_clamp_norm(length));
            __syncwarp();
            if (lane == 0)
                mbarrier_arrive(&sm.factors_ready[tile]);
        }
    }
    mbarrier_wait(&sm.planes_empty[to.stage], to.parity);
    if (lane == 0)
        mbarrier_arrive(&sm.planes_full[to.stage]);
}

#endif

/* ---- The policy ---- */

template <int dtype> struct stage_widened {
    static constexpr bool converts = true;
    static constexpr bool scales = true;    /* of rows and columns are taken */
    static constexpr bool integers = false; /* products are not */
    static constexpr int row_elements = 8;  /* of a query row, in 16 bytes or as many planes */
    static constexpr bool bf16 = dtype == LIK_BF16;
    static constexpr int threads = 640;  /* of a block, at most */
    static constexpr bool narrow = true; /* one band has one half */

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    /* The stage at `at` can be multiplied. */
    LIK_MEMBER static void await(struct shared &sm, const struct place &at)
    {
        mbarrier_wait(&sm.planes_full[at.stage], at.parity);
    }

    /* Gives the stage back; `at` becomes the next place. */
    LIK_MEMBER static void give_back(const struct sm90_args &, struct shared &sm, int lane, struct place &at)
    {
        if (lane == 0)
            mbarrier_arrive(&sm.planes_empty[at.stage]);
        advance(at, SM90_PLANE_STAGES);
    }

    /* Who gives back a stage of the ring, in warps. */
    LIK_MEMBER static int readers(const struct sm90_args &a)
    {
        return 4 * a.token_warpgroups;
    }

    /* Who fills a stage of the second ring, in warps. */
    LIK_MEMBER static int writers(const struct sm90_args &a)
    {
        return 4 * a.token_warpgroups;
    }

    /* Slabs that 64 elements of a query row are. */
    LIK_MEMBER static int row_planes(const struct sm90_args &)
    {
        return 1;
    }

    /* Elements k ... k + 7 of a query row with their scale's sign. */
    template <class Place>
    LIK_MEMBER static void store_row(const struct sm90_args &a, int64_t row, float sign, int k, int,
                                     Place place, int i)
    {
        store_signed_row<bf16>(a, row, sign, k, place(i));
    }

    /* What warp `warp` of those that look at tokens does. */
    template <int bands>
    LIK_MEMBER static void look(const struct sm90_args &a, struct shared &sm, const char *ring, char *planes,
                                float *factors, int warp)
    {
        switch (a.score.op.d.dtype) {
        case LIK_E4M3: return widen<LIK_E4M3, bands>(a, sm, ring, planes, factors, warp);
        case LIK_E5M2: return widen<LIK_E5M2, bands>(a, sm, ring, planes, factors, warp);
        default: return widen<LIK_I8, bands>(a, sm, ring, planes, factors, warp);
        }
    }

    template <int from, int bands>
    LIK_MEMBER static void widen(const struct sm90_args &a, struct shared &sm, const char *ring, char *planes,
                                 float *factors, int warp)
    {
        if (a.score.op.d.normalize)
            widen_tokens<from, bf16, bands, true>(a, sm, ring, planes, factors, warp);
        else
            widen_tokens<from, bf16, bands, false>(a, sm, ring, planes, factors, warp);
    }

    /* Who says that a tile's factors are there: the producer's lanes, or warps. */
    LIK_MEMBER static int factor_arrivals(const struct sm90_args &a)
    {
        return a.norm_warps == 1 ? 32 : a.norm_warps;
    }

    /* The products of the warpgroup's rows and the column tile at `at`, but for the end of
     * those of the last stage, which are under way. Elements past the dim are zeros in both. */
    template <int bands, int octets, bool split>
    LIK_MEMBER static void multiply(const struct sm90_args &a, struct shared &sm,
                                    const struct consumer<bands> &me, uint32_t ring, halves &c,
                                    struct place &at)
    {
        uint32_t next_slab = (uint32_t)a.slab_bytes >> 4, q[2], d;
        q[0] = q[1] = wgmma_descriptor(shared_address(me.rows));
        if (bands == 2)
            q[1] += (uint32_t)a.row_slabs * (SM90_ROWS_BYTES >> 4);
        auto columns = [&]() { d = wgmma_descriptor(ring + at.stage * (a.slab_bytes * a.planes)); };
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
        for (int slab = 2; slab < a.row_slabs; slab += 2) {
            wgmma_wait<0>();
            give_back(a, sm, me.lane, at);
            await(sm, at);
            columns();
            q[0] += 2 * SM90_ROWS_BYTES >> 4;
            q[1] += 2 * SM90_ROWS_BYTES >> 4;
            multiply_bands<bf16, bands, octets, 8, true>(c, q, d, next_slab);
        }
    }
#endif
};

#endif
