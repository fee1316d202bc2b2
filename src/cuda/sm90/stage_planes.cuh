/* The Hopper loop's stage policy for f32: an element is the sum of three bf16, or two or one
 * where less precision is asked for: planes.
 *
 * Eight warps split the tokens on their way from the ring to a second one, and take their norms
 * where that is asked for; the products of planes i and j are added up for i + j < planes, the
 * smallest first in every 64 elements of the dim, six of them at full precision. That leaves
 * one warpgroup little but to multiply, and room for one. A storage that is copied, converted
 * and then multiplied is another policy like this one. */
#ifndef LIK_CUDA_SM90_STAGE_PLANES_CUH
#define LIK_CUDA_SM90_STAGE_PLANES_CUH

#include "cuda/sm90/consumer.cuh"
#include "cuda/wgmma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- The warps that split tokens into planes ---- */

/* From the ring, where 64 elements are two slabs, to the ring of planes, where they are a
 * stage: [plane][column]. Two lanes take a column, and its norm where that is wanted.
 * Long because loads, squares, planes and barriers of a slab overlap. */
template <int bands, int planes>
LIK_DEVICE void split_tokens(const struct sm90_args &a, struct shared &sm, const char *ring, char *out,
                             float *factors, int warp)
{
    constexpr int slabs_per_stage = SM90_SLABS_PER_STAGE(bands, planes);
    int lane = (int)threadIdx.x & 31, half = lane / 16, c = warp * 16 + lane % 16;
    struct place at = {0, 0}, to = {0, 1};
    for (int tile = 0;; tile = (tile + 1) % SM90_HEADS) {
        mbarrier_wait(&sm.full[at.stage], at.parity);
        const struct head &head = sm.heads[tile];
        if (head.row_tile < 0)
            break;
        int columns = (head.shape & 0xff) * 8;
        /* Sums of the elements' squares, in the order of unit_factor: of each of the lane's
         * four runs of 8 elements in 64. The same of the elements times 2^-70. */
        float squares[4] = {}, scaled[4] = {};
        for (int slab = 0; slab < a.slabs; slab += slabs_per_stage) {
            const int part = slabs_per_stage == 1 ? slab & 1 : 0; /* half of the 64 elements */
            const bool ends = slabs_per_stage == 2 || part;
            if (slab)
                mbarrier_wait(&sm.full[at.stage], at.parity);
            if (!part)
                mbarrier_wait(&sm.planes_empty[to.stage], to.parity);
            if (c < columns) {
                const char *from = ring + at.stage * a.stage_bytes + c * 128;
                char *row = out + to.stage * planes * a.slab_bytes + c * 128;
                float v[2 * slabs_per_stage][8];
#pragma unroll
                for (int i = 0; i < 4 * slabs_per_stage; i++) {
                    const float4 x = *(const float4 *)(from + i / 4 * a.slab_bytes +
                                                       (((half * 4 + i % 4) ^ (c & 7)) << 4));
                    float *four = &v[i / 2][i % 2 * 4];
                    four[0] = x.x, four[1] = x.y, four[2] = x.z, four[3] = x.w;
                }
                if (a.column_factors)
#pragma unroll
                    for (int e = 0; e < 16 * slabs_per_stage; e++) {
                        float x = v[e / 8][e % 8], less = __fmul_rn(x, 0x1p-70f);
                        squares[e / 8] = __fmaf_rn(x, x, squares[e / 8]);
                        scaled[e / 8] = __fmaf_rn(less, less, scaled[e / 8]);
                    }
#pragma unroll
                for (int i = 0; i < 2 * slabs_per_stage; i++)
                    split_8<planes>(v[i], row + ((((part + i / 2) * 4 + half * 2 + i % 2) ^ (c & 7)) << 4),
                                    a.slab_bytes);
            }
            if (ends)
                fence_async_shared();
            __syncwarp();
            if (lane == 0) {
                mbarrier_arrive(&sm.empty[at.stage]);
                if (ends)
                    mbarrier_arrive(&sm.planes_full[to.stage]);
            }
            advance(at, a.stages);
            if (ends)
                advance(to, SM90_PLANE_STAGES);
            if (slabs_per_stage == 1) /* the next slab has the other two of the four runs */
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float kept = squares[i], kept_scaled = scaled[i];
                    squares[i] = squares[i + 2], squares[i + 2] = kept;
                    scaled[i] = scaled[i + 2], scaled[i + 2] = kept_scaled;
                }
        }
        if (a.column_factors) {
            auto total = [](const float (&s)[4]) {
                float first = __fadd_rn(s[0], s[1]), second = __fadd_rn(s[2], s[3]);
                first = __fadd_rn(first, __shfl_xor_sync(~0u, first, 16));
                return __fadd_rn(first, __fadd_rn(second, __shfl_xor_sync(~0u, second, 16)));
            };
            float sum = total(squares), less = total(scaled);
            float norm = sum < 1e37f ? __fsqrt_rn(sum) : __fmul_rn(__fsqrt_rn(less), 0x1p70f);
            factors[tile * columns_most(bands, planes) + c] = __fdiv_rn(1.0f, lik_clamp_norm(norm));
            __syncwarp();
            if (lane == 0)
                mbarrier_arrive(&sm.factors_ready[tile]);
        }
    }
    mbarrier_wait(&sm.planes_empty[to.stage], to.parity);
    if (lane == 0)
        mbarrier_arrive(&sm.planes_full[to.stage]);
}

/* ---- The products ---- */

/* One half's products of 64 elements of the dim in one pair of planes, a group to wait for. */
template <int octets, bool add> LIK_DEVICE void multiply_pair(float (&c)[64], uint32_t q, uint32_t d)
{
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (add || k)
            wgmma<true, true, octets>::run(c, q + 2 * k, d + 2 * k);
        else
            wgmma<true, false, octets>::run(c, q, d);
    wgmma_commit();
}

/* Those in all pairs of planes that count but the first: of the i-th plane of the rows and the
 * j-th of the columns, i + j < planes, the smallest products first; q and d name the first
 * pair, i = 0 and j = planes - 1. */
template <int octets>
LIK_DEVICE void multiply_pairs(float (&c)[64], uint32_t q, uint32_t d, uint32_t next_plane, int planes)
{
    int order = planes - 1, i = 0;
#pragma unroll 1
    for (int left = planes * (planes + 1) / 2 - 1; left > 0; left--) {
        bool same = i < order;
        q = same ? q + (SM90_ROWS_BYTES >> 4) : q - i * (SM90_ROWS_BYTES >> 4);
        d = same ? d - next_plane : d + (order - 1) * next_plane;
        i = same ? i + 1 : 0;
        order -= !same;
        multiply_pair<octets, true>(c, q, d);
    }
}

#endif

/* ---- The policy ---- */

struct stage_planes {
    static constexpr bool converts = true;  /* from the ring to a second one, which is multiplied */
    static constexpr bool scales = false;   /* of rows and columns are not taken */
    static constexpr bool integers = false; /* products are not */
    static constexpr int row_elements = 8;  /* of a query row, in 16 bytes or as many planes */
    static constexpr int threads = 512;     /* of a block, at most */
    static constexpr bool narrow = true;    /* one band has one half */

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

    /* Who says that a tile's factors are there, in warps. */
    LIK_MEMBER static int factor_arrivals(const struct sm90_args &a)
    {
        return a.norm_warps;
    }

    /* Who fills a stage of the second ring, in warps. */
    LIK_MEMBER static int writers(const struct sm90_args &a)
    {
        return 4 * a.token_warpgroups;
    }

    /* Slabs that 64 elements of a query row are. */
    LIK_MEMBER static int row_planes(const struct sm90_args &a)
    {
        return a.planes;
    }

    /* Elements k ... k + 7 of the query row at `row`, which may be LIK_NOWHERE, to 16 bytes of
     * each of its planes, the first at place(i); zeros past the dim. */
    template <class Place>
    LIK_MEMBER static void store_row(const struct sm90_args &a, int64_t row, float, int k, int, Place place,
                                     int i)
    {
        float v[8] = {};
        if (row != LIK_NOWHERE)
            load_8(a.score.op.q, row, k, a.score.q_vector, v);
        split_8(v, a.planes, place(i), SM90_ROWS_BYTES);
    }

    /* What warp `warp` of those that look at tokens does. */
    template <int bands>
    LIK_MEMBER static void look(const struct sm90_args &a, struct shared &sm, const char *ring, char *planes,
                                float *factors, int warp)
    {
        if (a.planes == 3)
            split_tokens<bands, 3>(a, sm, ring, planes, factors, warp);
        else if (a.planes == 2)
            split_tokens<bands, 2>(a, sm, ring, planes, factors, warp);
        else
            split_tokens<bands, 1>(a, sm, ring, planes, factors, warp);
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
            d[0] = d[1] = wgmma_descriptor(ring + at.stage * (a.slab_bytes * a.planes));
            d[0] = d[1] += (a.planes - 1) * next_slab; /* the last plane, of the first pair */
        };
        columns();
        multiply_pair<octets, false>(c[0], q[0], d[0]);
        multiply_pairs<octets>(c[0], q[0], d[0], next_slab, a.planes);
        if (bands == 2) {
            multiply_pair<octets, false>(c[1], q[1], d[1]);
            multiply_pairs<octets>(c[1], q[1], d[1], next_slab, a.planes);
        }
        for (int slab = a.planes; slab < a.row_slabs; slab += a.planes) {
            struct place before = at;
            advance(at, SM90_PLANE_STAGES);
            await(sm, at);
            columns();
            q[0] += a.planes * (SM90_ROWS_BYTES >> 4);
            q[1] += a.planes * (SM90_ROWS_BYTES >> 4);
            multiply_pair<octets, true>(c[0], q[0], d[0]);
            wgmma_wait<1>();
            give_back(a, sm, me.lane, before);
            multiply_pairs<octets>(c[0], q[0], d[0], next_slab, a.planes);
            if (bands == 2) {
                multiply_pair<octets, true>(c[1], q[1], d[1]);
                multiply_pairs<octets>(c[1], q[1], d[1], next_slab, a.planes);
            }
        }
    }
#endif
};

#endif
