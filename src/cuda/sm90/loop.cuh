/* The Hopper loop: the warpgroups that multiply, and the kernel.
 *
 * A column tile is a piece of one document, or several short documents whole; its width is any
 * number of octets, for a document is cut into pieces as even as possible. One producer warp
 * walks the documents, copies each tile in slabs of 64 elements of the dim into a ring, and
 * writes its head.
 *
 * One or two warpgroups multiply. Each holds 128 f32 accumulators a thread: one band of 64
 * query rows by up to 256 columns, or two bands by up to 128, where there are rows enough,
 * since each band more is one reading of the documents less. The rows stay in shared memory. A
 * thread keeps a running maximum for each of its rows; at the document's end each warp sums its
 * 16 rows a band, and one more warp adds those sums up to scores. Documents that share a tile
 * pass their maxima through a small stash. With documents from the workspace up to four
 * warpgroups multiply, of one band and 64 accumulators a thread each. */
#ifndef LIK_CUDA_SM90_LOOP_CUH
#define LIK_CUDA_SM90_LOOP_CUH

#include "cuda/sm90/ahead.cuh"
#include "cuda/sm90/producer.cuh"
#include "cuda/sm90/queries.cuh"
#include "cuda/sm90/scores.cuh"
#include "cuda/sm90/whole.cuh"
#include "cuda/wgmma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* One band whose second half of accumulators is left alone: two products of half the columns
 * would read the rows twice, and shared memory is what the products of planes wait for; and
 * where there are four warpgroups, they have registers for one. */
template <class Stage, int bands> constexpr bool has_one_half()
{
    return bands == 1 && SM90_HALVES(bands, Stage::narrow) == 1;
}

/* A piece that is multiplied in the width that its head says? */
LIK_DEVICE bool is_exact(const struct tile &t)
{
    return t.head.y >> 16 == 0;
}

LIK_DEVICE bool is_loose(const struct tile &t)
{
    return t.head.y & LOOSE;
}

/* Octets of a half of the accumulators that a tile's octets take. */
template <class Stage, int bands> LIK_DEVICE int half_of(const struct tile &t)
{
    return bands == 2 || has_one_half<Stage, bands>() ? octets_of(t) : (octets_of(t) + 1) / 2;
}

/* Those that are multiplied; 0 for a joint tile. */
template <class Stage, int bands, bool loose = false> LIK_DEVICE int width_of(const struct tile &t)
{
    int half = half_of<Stage, bands>(t);
    if (Stage::integers && half > 3) /* there is no product of as many */
        half += half & 1;
    if (loose)
        return !is_loose(t) ? 0 : half <= 8 ? 8 : bands == 1 || half > 14 ? 16 : half > 12 ? 14 : 12;
    return is_exact(t) ? half : 0;
}

/* Multiplies and takes pieces of documents, all of one width, up to a tile of another width or
 * row tile: the loop where the time goes. It has its own copy of what a document's end takes,
 * for code that lies apart has to be fetched anew at every document. `loose`: pieces of up to
 * that width, of which any columns may be dropped. */
template <class Stage, int bands, bool want_argmax, int octets, bool loose = false>
LIK_DEVICE void take_pieces(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                            uint32_t ring, const float *factors, struct tile &t)
{
    const int second = bands == 2 ? 0 : octets * 8; /* column that the second half begins with */
    const bool one = has_one_half<Stage, bands>();
    /* octets of a half, some of whose columns may not count */
    const int last = octets == 1 || (one && Stage::converts) ? 1
                     : Stage::integers && octets > 3         ? 5 - bands
                                                             : 2;
    const bool whole = bands == 1 && !one && octets > 1; /* the first half: all of its columns count */
    /* The second half is multiplied while the first is looked at. */
    const bool split = !one && (want_argmax || bands == 1 || Stage::converts);
    const bool at_once = bands == 2 && !split; /* both halves are ready, and are of the same columns */
    int row_tile = t.head.z;
    for (;;) {
        struct products<Stage::integers> p;
        halves &c = p.c;
        Stage::template multiply<bands, octets, split>(a, sm, me, ring, p.sums(), t.at);
        const float *factor = factors + t.index * columns_most(bands, Stage::narrow);
        if (a.column_factors)
            mbarrier_wait(&sm.factors_ready[t.index], t.pass);
        wgmma_wait<split>();
        if (!split)
            Stage::give_back(a, sm, me.lane, t.at);
        settle<octets, at_once ? 2 : 1>(p, 0, me);
        if (a.column_factors)
            scale_products<octets, at_once ? 2 : 1>(&c[0], factor);
        if (loose)
            drop_columns<octets, 0>(c[0], sm.heads[t.index].counts);
        else
            cut_columns<octets, whole ? 0 : last>(c[0], t.head.x);
        take_half<want_argmax, octets>(c[0], t.head.w, &me.m.best[0], &me.m.at[0]);
        if (split) {
            wgmma_wait<0>();
            Stage::give_back(a, sm, me.lane, t.at);
        }
        if (!one) {
            if (!at_once)
                settle<octets, 1>(p, 1, me);
            if (a.column_factors && !at_once)
                scale_products<octets, 1>(&c[1], factor + second);
            if (loose)
                drop_columns<octets, second / 8>(c[1], sm.heads[t.index].counts);
            else
                cut_columns<octets, last>(c[1], t.head.x - second);
            take_half<want_argmax, octets>(c[1], t.head.w + second, &me.m.best[2 * bands - 2],
                                           &me.m.at[2 * bands - 2]);
        }
        if (loose && want_argmax && documents_of(t))
#pragma unroll
            for (int i = 0; i < 2 * bands; i++) /* if all products are -inf, the first kept token has it */
                me.m.at[i] = me.m.at[i] < 0 ? sm.heads[t.index].first : me.m.at[i];
        if (documents_of(t))
            finish_rows<bands, want_argmax>(a, sm, me, sm.heads[t.index], 1, NULL);
        next<Stage>(sm, t);
        if (width_of<Stage, bands, loose>(t) != octets || t.head.z != row_tile)
            return;
    }
}

/* take_pieces for a width that is known at run time. It may be an octet more than the tile's,
 * or two of integers: the columns past the end are whatever the ring holds, and their products
 * are cut. */
template <class Stage, int bands, bool want_argmax>
LIK_DEVICE void take_pieces_of(int width, const struct sm90_args &a, struct shared &sm,
                               struct consumer<bands> &me, uint32_t ring, const float *factors,
                               struct tile &t)
{
    switch (width) {
#define CASE(n)                                                                            \
    case n:                                                                                \
        if constexpr (!Stage::integers || n <= 3 || n % 2 == 0)                            \
            return take_pieces<Stage, bands, want_argmax, n>(a, sm, me, ring, factors, t); \
        break;
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
    default: return take_pieces<Stage, bands, want_argmax, 16>(a, sm, me, ring, factors, t);
    }
}

template <class Stage, int bands, bool want_argmax>
LIK_DEVICE void consume(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                        uint32_t ring, struct maxima<bands> *stash, const float *factors, int row_tile)
{
    struct tile t = {};
    t.index = -1;
    t.head.z = row_tile;
    if (Stage::threads < 640)
        registers_take<208>();
    reset(me.m);
    while (t.head.z >= 0) {
        row_tile = t.head.z;
        if (a.rows_in_memory)
            wait_for_kernels_before();
        place_queries<Stage>(a, sm, me, row_tile);
        wait_for_kernels_before(); /* the first time; later it returns at once */
        load_queries<Stage>(a, sm, me);
        if (t.index < 0)
            next<Stage>(sm, t);
        while (t.head.z == row_tile) {
            if (is_exact(t)) {
                take_pieces_of<Stage, bands, want_argmax>(width_of<Stage, bands>(t), a, sm, me, ring, factors,
                                                          t);
                continue;
            }
            if (is_loose(t)) {
                int width = width_of<Stage, bands, true>(t);
                if (width == 8)
                    take_pieces<Stage, bands, want_argmax, 8, true>(a, sm, me, ring, factors, t);
                else if (bands == 1 || width == 16)
                    take_pieces<Stage, bands, want_argmax, 16, true>(a, sm, me, ring, factors, t);
                else if (width == 14)
                    take_pieces<Stage, bands, want_argmax, 14, true>(a, sm, me, ring, factors, t);
                else
                    take_pieces<Stage, bands, want_argmax, 12, true>(a, sm, me, ring, factors, t);
                continue;
            }
            struct products<Stage::integers> p;
            halves &c = p.c;
            Stage::template multiply<bands, 16, false>(a, sm, me, ring, p.sums(), t.at);
            wgmma_wait<0>();
            Stage::give_back(a, sm, me.lane, t.at);
            settle<16, has_one_half<Stage, bands>() ? 1 : 2>(p, 0, me);
            if (a.column_factors) {
                const float *factor = factors + t.index * columns_most(bands, Stage::narrow);
                mbarrier_wait(&sm.factors_ready[t.index], t.pass);
                scale_products<16, bands>(&c[0], factor);
                if (bands == 1 && !has_one_half<Stage, bands>())
                    scale_products<16, 1>(&c[1], factor + 128);
            }
            take_joint<bands, want_argmax>(c, sm.heads[t.index], me.m, stash);
            finish_rows<bands, want_argmax>(a, sm, me, sm.heads[t.index], documents_of(t), stash);
            next<Stage>(sm, t);
        }
    }
}
#endif

/* Some plans have kernels of their own. */
enum { OF_ANY, OF_WHOLE, OF_AHEAD };

template <class Stage, int bands, bool want_argmax, int kind = OF_ANY>
static __global__ void __launch_bounds__(Stage::threads, 1)
    score_sm90(const __grid_constant__ struct sm90_args a)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char dynamic[];
    __shared__ struct shared sm;
    char *ring = dynamic + (-shared_address(dynamic) & 1023u); /* the swizzle counts from multiples of 1024 */
    char *planes = ring + a.stages * a.stage_bytes;
    char *rows = planes + (Stage::converts ? SM90_PLANE_STAGES * a.planes * a.slab_bytes : 0);
    int rows_bytes = (kind == OF_AHEAD ? 2 : bands) * a.row_slabs * SM90_ROWS_BYTES;
    float *factors = (float *)(rows + a.warpgroups * rows_bytes);
    let_next_kernel_begin();
    int role = __shfl_sync(~0u, (int)threadIdx.x / 128, 0),
        warp = __shfl_sync(~0u, (int)threadIdx.x / 32 & 3, 0);
    if (threadIdx.x % 32 == 0) { /* a warp some of the barriers each */
        auto init = [&](uint64_t *barriers, int count, int arrivals) {
            for (int i = role * 4 + warp; i < count; i += (int)blockDim.x / 32)
                mbarrier_init(&barriers[i], arrivals);
        };
        init(sm.full, a.stages, 1);
        init(sm.empty, a.stages, Stage::readers(a));
        init(sm.planes_full, Stage::converts ? SM90_PLANE_STAGES : 0, Stage::writers(a));
        init(sm.planes_empty, Stage::converts ? SM90_PLANE_STAGES : 0, 4 * a.warpgroups);
        init(sm.sums_full, SUMS, 4 * a.warpgroups);
        init(sm.sums_empty, SUMS, 1);
        init(sm.factors_ready, a.norm_warps ? SM90_HEADS : 0, Stage::factor_arrivals(a));
        mbarrier_init_done();
    }
    __syncthreads();
    struct share mine = share_of(a);
    if (role >= a.warpgroups) {
        int group = role - a.warpgroups, last = group == a.token_warpgroups;
        int norms = !last ? warp : a.token_warpgroups ? -1 : warp - 2;
        if (Stage::threads < 640) { /* of 168, and of 128 with f32: others take what is left */
            if (Stage::converts && !last)
                registers_give<104>();
            else
                registers_give<88>();
        }
        if (Stage::converts && !last) {
            Stage::template look<bands>(a, sm, ring, planes, factors, group * 4 + warp);
        } else if (last && warp == 0 && a.uniform) {
            produce_uniform<Stage::scales>(a, sm, ring, factors, columns_most(bands, Stage::narrow), mine);
        } else if (kind != OF_AHEAD && last && warp == 0) {
            produce<Stage::scales, kind == OF_WHOLE>(a, sm, ring, factors, columns_most(bands, Stage::narrow),
                                                     mine);
        } else if (last && warp == 1 && !a.score.partial) {
            finish_scores(a, sm, mine);
        } else if (!Stage::converts && a.column_factors && norms >= 0) {
            Stage::template look<bands>(a, sm, ring, planes, factors, norms);
        }
    } else {
        struct consumer<bands> me;
        me.warpgroup = role;
        me.lane = (int)threadIdx.x & 31;
        me.warp = warp;
        me.turn = 0;
        me.row = warp * 16 + me.lane / 4 + (me.lane & 1) * 8;
        me.rows = rows + role * rows_bytes;
        if constexpr (kind == OF_WHOLE)
            return consume_whole<Stage, bands>(a, sm, me, shared_address(ring), factors, mine.row_tile);
        if constexpr (kind == OF_AHEAD)
            return consume_ahead<Stage, want_argmax>(a, sm, me, shared_address(ring), factors, mine.row_tile);
        struct maxima<bands> *stash =
            (struct maxima<bands> *)((char *)factors +
                                     (a.column_factors ? SM90_HEADS * columns_most(bands, Stage::narrow) * 4
                                                       : 0));
        consume<Stage, bands, want_argmax>(a, sm, me, shared_address(Stage::converts ? planes : ring),
                                           stash + role * a.documents_per_tile * 128 + (threadIdx.x & 127),
                                           factors, mine.row_tile);
    }
#else
    __trap(); /* the driver never launches this elsewhere */
#endif
}

typedef void (*sm90_kernel)(struct sm90_args);

/* The kernels of a stage policy of one band, of several warpgroups. */
template <class Stage> static const void *sm90_kernel_of(bool argmax)
{
    return argmax ? (const void *)score_sm90<Stage, 1, true> : (const void *)score_sm90<Stage, 1, false>;
}

/* The kernels of a stage policy, for the files that instantiate them. */
template <class Stage> static const void *sm90_kernel_of(bool argmax, bool two_bands)
{
    static const sm90_kernel kernels[2][2] = {
        {score_sm90<Stage, 1, false>, score_sm90<Stage, 2, false>},
        {score_sm90<Stage, 1, true>, score_sm90<Stage, 2, true>},
    };
    return (const void *)kernels[argmax][two_bands];
}

/* Those for short documents. */
template <class Stage> static const void *sm90_whole_kernel_of(bool two_bands)
{
    return two_bands ? (const void *)score_sm90<Stage, 2, false, OF_WHOLE>
                     : (const void *)score_sm90<Stage, 1, false, OF_WHOLE>;
}

/* Those that copy query rows ahead. */
template <class Stage> static const void *sm90_ahead_kernel_of(bool argmax)
{
    return argmax ? (const void *)score_sm90<Stage, 1, true, OF_AHEAD>
                  : (const void *)score_sm90<Stage, 1, false, OF_AHEAD>;
}

#endif
