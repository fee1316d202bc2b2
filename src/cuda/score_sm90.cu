/* The forward pass on Hopper: f16, bf16 or f32 tokens that the copy engine can take, multiplied
 * by wgmma.
 *
 * A column tile is a piece of one document, or several short documents whole; its width is any
 * number of octets, 8 columns each, for a document is cut into pieces as even as possible. One
 * producer warp walks the documents, copies each tile in slabs of 64 elements of the dim into a
 * ring, and writes beside it a head: how many columns count, which documents end (stream.cuh).
 *
 * One or two warpgroups multiply. Each holds 128 f32 accumulators a thread: one band of 64
 * query rows by up to 256 columns, or two bands by up to 128, where there are rows enough,
 * since each band more is one reading of the documents less. The rows stay in shared memory. A
 * thread keeps a running maximum for each of its rows; at the document's end each warp sums its
 * 16 rows a band, and one more warp adds those sums up to scores. Documents that share a tile
 * pass their maxima through a small stash. Where documents are normalized, two or four more
 * warps take the norms of the columns as they pass through the ring, so that the documents are
 * read once.
 *
 * An f32 element is the sum of three bf16, or two or one where less precision is asked for:
 * planes. Eight more warps split the tokens on their way from the ring to a second one; the
 * products of planes i and j are added up for
 * i + j < planes, the smallest first in every 64 elements of the dim, six of them at full
 * precision. That leaves one warpgroup little but to multiply, and room for one.
 *
 * Blocks of the grid are persistent, one a processor; each takes an equal share of all (row
 * tile, document) pairs, row tile by row tile, so that blocks which share documents stream them
 * at the same time, through L2. Where that makes the longest share little longer, a block has
 * documents of one row tile only: it need not stop for other rows, and blocks take documents of
 * one length in turn, so that all read from one region of memory; packed documents of many
 * lengths are shared by their tokens. */
#include "cuda/maxima.cuh"
#include "cuda/mma.cuh"
#include "cuda/tokens.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- The warp that finishes scores ---- */

LIK_DEVICE void finish_scores(const struct sm90_args &a, struct shared &sm, struct share mine)
{
    const struct row_tiling &t = a.score.tiling;
    const int lane = (int)threadIdx.x & 31, strips = t.strips_per_query;
    const int queries = t.parts ? 1 : t.strips_per_tile / strips;
    int row_tile = -1;
    int64_t lane_scores = -1; /* of lane's query of the row tile */
    wait_for_kernels_before();
    share_tokens(a, mine);
    int64_t documents = mine.count;
    for (unsigned turn = 0; documents > 0; turn++) {
        int slot = turn % SUMS;
        struct sums &sums = sm.sums[slot];
        mbarrier_wait(&sm.sums_full[slot], turn / SUMS & 1);
        int n = sums.documents;
        int64_t column = sums.column;
        if (sums.row_tile != row_tile) {
            row_tile = sums.row_tile;
            struct strip_place place = locate_strip(t, row_tile, lane * strips);
            lane_scores = lane < queries && place.row >= 0 ? place.row * a.score.op.scores_stride : -1;
        }
        for (int from = 0; from < n * queries; from += 32) { /* a lane a document and query */
            int i = (from + lane) / queries, q = from + lane - i * queries;
            int64_t at = __shfl_sync(~0u, lane_scores, q);
            if (i >= n || at < 0)
                continue;
            float score = sums.of[i][q * strips];
            for (int b = 1; b < strips; b++)
                score = __fadd_rn(score, sums.of[i][q * strips + b]);
            a.score.op.scores[at + column + i] = score;
        }
        __syncwarp();
        if (lane == 0)
            mbarrier_arrive(&sm.sums_empty[slot]);
        documents -= n;
    }
}

/* ---- The warpgroups that multiply ---- */

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
};

/* Where the warpgroup's rows of a row tile lie and what they count, and what belongs to the
 * lane's row. */
template <int bands>
LIK_DEVICE void place_queries(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                              int row_tile)
{
    int thread = (int)threadIdx.x & 127, first_band = me.warpgroup * bands;
    named_barrier(1 + me.warpgroup, 128);
    if (thread < 64 * bands) {
        int strip = first_band * 4 + thread / 16;
        struct strip_place place = locate_strip(a.score.tiling, row_tile, strip);
        struct query_row row = a.rows_in_memory ? locate_row(a.score, place, thread & 15)
                                                : locate_plain_row(a.score, place, thread & 15);
        sm.row_at[first_band][thread] = row.at;
        sm.row_token[first_band][thread] = row.token;
        sm.row_weight[first_band][thread] = row.weight;
        sm.row_counts[first_band][thread] = row.counts ? (row.at != LIK_NOWHERE ? 1 : 2) : 0;
        if (thread % 16 == 0)
            sm.strips[strip] = place;
    }
    named_barrier(1 + me.warpgroup, 128);
    struct strip_place place = sm.strips[(first_band + (me.lane >> 1) % bands) * 4 + me.warp];
    me.first = place.row < 0 ? -1 : place.row * a.score.columns;
    me.strip = place.strip;
}

/* The rows so placed to shared memory, as wgmma wants them. */
template <int dtype, int bands>
LIK_DEVICE void load_queries(const struct sm90_args &a, struct shared &sm, const struct consumer<bands> &me)
{
    const struct lik_tokens &q = a.score.op.q;
    const int thread = (int)threadIdx.x & 127, chunk = thread & 7, first_band = me.warpgroup * bands;
    const int slabs = a.row_slabs, planes = dtype == LIK_F32 ? a.planes : 1;
    int64_t at[4 * bands]; /* of rows thread / 8, 16 more, ...: in registers for the quick copies */
#pragma unroll
    for (int i = 0; i < 4 * bands; i++)
        at[i] = sm.row_at[first_band][thread / 8 + 16 * i];
    for (int slab = 0, k = chunk * 8; slab < slabs; slab += planes, k += 64) {
        int n = min(max((int)q.dim - k, 0), 8);
        char *to = me.rows + slab * SM90_ROWS_BYTES + thread / 8 * 128 + ((chunk ^ (thread / 8 & 7)) << 4);
        auto place = [&](int i) { return to + i / 4 * slabs * SM90_ROWS_BYTES + i % 4 * 16 * 128; };
        if (dtype != LIK_F32 && a.score.q_vector) {
#pragma unroll
            for (int i = 0; i < 4 * bands; i++)
                copy_async_16(place(i), (const uint16_t *)q.data + (at[i] == LIK_NOWHERE ? 0 : at[i] + k),
                              at[i] == LIK_NOWHERE ? 0 : 2 * n);
            continue;
        }
#pragma unroll 1
        for (int i = 0; i < 4 * bands; i++) {
            int64_t row = sm.row_at[first_band][thread / 8 + 16 * i];
            if (dtype == LIK_F32) {
                float v[8] = {};
                if (row != LIK_NOWHERE)
                    load_8(q, row, k, a.score.q_vector, v);
                split_8(v, planes, place(i), SM90_ROWS_BYTES);
            } else {
                const uint16_t *from = (const uint16_t *)q.data + row + k * q.dim_stride;
                for (int e = 0; e < 8; e++)
                    ((uint16_t *)place(i))[e] = row != LIK_NOWHERE && e < n ? from[e * q.dim_stride] : 0;
            }
        }
    }
    copy_async_commit();
    if (q.normalize) {
        for (int r = thread / 8; r < 64 * bands; r += 16) {
            struct query_row row = {sm.row_at[first_band][r], 0, 1.0f, 1.0f, true};
            float factor = row_factor(a.score, row, chunk);
            if (chunk == 0)
                sm.row_weight[first_band][r] = __fmul_rn(sm.row_weight[first_band][r], factor);
        }
    }
    copy_async_wait<0>();
    fence_async_shared();
    named_barrier(1 + me.warpgroup, 128);
}

/* One band of f32 rows leaves half of the accumulators alone: two products of half the columns
 * would read the rows twice, and shared memory is what the products of planes wait for. */
template <int dtype, int bands> constexpr bool has_one_half()
{
    return dtype == LIK_F32 && bands == 1;
}

/* The ring that a multiplying warpgroup reads: of the tokens as they are copied, or of their
 * planes. */
template <int dtype> struct source {
    LIK_MEMBER static void await(struct shared &sm, const struct place &at)
    {
        mbarrier_wait(dtype == LIK_F32 ? &sm.planes_full[at.stage] : &sm.full[at.stage], at.parity);
    }

    /* Gives the stage back; `at` becomes the next place. */
    LIK_MEMBER static void give_back(const struct sm90_args &a, struct shared &sm, int lane, struct place &at)
    {
        if (lane == 0)
            mbarrier_arrive(dtype == LIK_F32 ? &sm.planes_empty[at.stage] : &sm.empty[at.stage]);
        advance(at, dtype == LIK_F32 ? SM90_PLANE_STAGES : a.stages);
    }
};

/* Starts the products of a stage: c of each half += `steps` times 16 elements of its rows and
 * columns, or = that if not `add`. `split`: one half after the other, each a group to wait for;
 * else both in turn, one group. The commit stands in one basic block with its products, or
 * ptxas takes them one at a time. */
template <int dtype, int octets, int steps, bool add, bool split>
LIK_DEVICE void multiply_stage(halves &c, const uint32_t (&q)[2], const uint32_t (&d)[2], uint32_t next_slab)
{
    auto product = [&](int half, int k) {
        uint32_t rows = q[half] + k / 4 * (SM90_ROWS_BYTES >> 4) + k % 4 * 2;
        uint32_t columns = d[half] + k / 4 * next_slab + k % 4 * 2;
        if (add || k)
            wgmma<dtype != LIK_F16, true, octets>::run(c[half], rows, columns);
        else
            wgmma<dtype != LIK_F16, false, octets>::run(c[half], rows, columns);
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

/* The products of the warpgroup's rows and the column tile at `at`, but for the end of those of
 * the last stage, which are under way. Elements past the dim are zeros in both. */
template <int dtype, int bands, int octets, bool split>
LIK_DEVICE void multiply(const struct sm90_args &a, struct shared &sm, const struct consumer<bands> &me,
                         uint32_t ring, halves &c, struct place &at)
{
    uint32_t next_slab = (uint32_t)a.slab_bytes >> 4, q[2], d[2];
    q[0] = q[1] = wgmma_descriptor(shared_address(me.rows));
    if (bands == 2)
        q[1] += (uint32_t)a.row_slabs * (SM90_ROWS_BYTES >> 4);
    auto columns = [&]() {
        d[0] = d[1] =
            wgmma_descriptor(ring + at.stage * (dtype == LIK_F32 ? a.slab_bytes * a.planes : a.stage_bytes));
        if (dtype == LIK_F32) /* the last plane, of the first pair */
            d[0] = d[1] += (a.planes - 1) * next_slab;
        if (bands == 1)
            d[1] += octets * (SM90_OCTET_BYTES >> 4);
    };
    columns();
    if constexpr (dtype == LIK_F32) {
        multiply_pair<octets, false>(c[0], q[0], d[0]);
        multiply_pairs<octets>(c[0], q[0], d[0], next_slab, a.planes);
        if (bands == 2) {
            multiply_pair<octets, false>(c[1], q[1], d[1]);
            multiply_pairs<octets>(c[1], q[1], d[1], next_slab, a.planes);
        }
        for (int slab = a.planes; slab < a.row_slabs; slab += a.planes) {
            struct place before = at;
            advance(at, SM90_PLANE_STAGES);
            source<dtype>::await(sm, at);
            columns();
            q[0] += a.planes * (SM90_ROWS_BYTES >> 4);
            q[1] += a.planes * (SM90_ROWS_BYTES >> 4);
            multiply_pair<octets, true>(c[0], q[0], d[0]);
            wgmma_wait<1>();
            source<dtype>::give_back(a, sm, me.lane, before);
            multiply_pairs<octets>(c[0], q[0], d[0], next_slab, a.planes);
            if (bands == 2) {
                multiply_pair<octets, true>(c[1], q[1], d[1]);
                multiply_pairs<octets>(c[1], q[1], d[1], next_slab, a.planes);
            }
        }
        return;
    }
    if (__builtin_expect(a.steps_per_stage < 8, 0)) { /* one stage holds the whole dim */
        if (a.steps_per_stage == 4)
            multiply_stage<dtype, octets, 4, false, split>(c, q, d, 0);
        else if (a.steps_per_stage == 6)
            multiply_stage<dtype, octets, 6, false, split>(c, q, d, next_slab);
        else
            multiply_stage<dtype, octets, 3, false, split>(c, q, d, 0);
        return;
    }
    multiply_stage<dtype, octets, 8, false, split>(c, q, d, next_slab);
    for (int slab = 2; slab < a.slabs; slab += 2) {
        wgmma_wait<0>();
        source<dtype>::give_back(a, sm, me.lane, at);
        source<dtype>::await(sm, at);
        columns();
        q[0] += 2 * SM90_ROWS_BYTES >> 4;
        q[1] += 2 * SM90_ROWS_BYTES >> 4;
        multiply_stage<dtype, octets, 8, true, split>(c, q, d, next_slab);
    }
}

/* After a tile in which documents end: for each of them, the maximum of a row, the argmax, and
 * the sums of the warp's strips. */
template <int bands, bool want_argmax>
LIK_DEVICE void finish_rows(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                            const struct head &head, int documents, const struct maxima<bands> *stash)
{
    int slot = me.turn % SUMS, band = me.warpgroup * bands + (me.lane >> 1) % bands;
    int token = sm.row_token[band][me.row], row_counts = sm.row_counts[band][me.row];
    float weight = sm.row_weight[band][me.row];
    bool query_bad = row_counts == 2;
    struct sums &sums = sm.sums[slot];
    if (me.lane == 0 && !a.score.partial) {
        mbarrier_wait(&sm.sums_empty[slot], (me.turn / SUMS & 1) ^ 1);
        if (me.warpgroup == 0 && me.warp == 0) {
            sums.column = head.column;
            sums.row_tile = head.row_tile;
            sums.documents = documents;
        }
    }
    __syncwarp();
    me.turn++;
    int64_t n = me.first + head.column;
    uint32_t empty = head.empty, bad = head.bad;
    for (int i = 0; i < documents; i++, n++) {
        if (stash)
            me.m = stash[i * 128];
        float best;
        int at;
        share_rows<bands, want_argmax>(me.m, best, at);
        bool counts = row_counts && !(empty >> i & 1);
        if (want_argmax && me.first >= 0 && (bands == 2 || !(me.lane & 2)) && token < a.score.op.q.len_max)
            store_argmax(a.score.op, n * a.score.op.q.len_max + token,
                         counts && !query_bad ? max(at, 0) : -1); /* -1 so far: all products are -inf */
        float sum = counts ? __fmul_rn(weight, best) : 0.0f;
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1)); /* the order of add_strip */
#pragma unroll
        for (int o = 4; o < 32; o *= 2)
            sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, o));
        if ((bad >> i & 1) || query_bad)
            sum = __uint_as_float(0x7fc00000u);
        if ((me.lane & ~2) == 0 && (bands == 2 || me.lane == 0)) {
            if (!a.score.partial)
                sums.of[i][band * 4 + me.warp] = sum;
            else if (me.first >= 0)
                a.score.partial[n * a.score.tiling.strips_per_query + me.strip] = sum;
        }
    }
    reset(me.m);
    __syncwarp();
    if (me.lane == 0 && !a.score.partial)
        mbarrier_arrive(&sm.sums_full[slot]);
}

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
template <int dtype, int bands> LIK_DEVICE int half_of(const struct tile &t)
{
    return bands == 2 || has_one_half<dtype, bands>() ? octets_of(t) : (octets_of(t) + 1) / 2;
}

/* Those that are multiplied; 0 for a shared tile. */
template <int dtype, int bands, bool loose = false> LIK_DEVICE int width_of(const struct tile &t)
{
    int half = half_of<dtype, bands>(t);
    if (loose)
        return !is_loose(t) ? 0 : half <= 8 ? 8 : bands == 1 || half > 14 ? 16 : half > 12 ? 14 : 12;
    return is_exact(t) ? half : 0;
}

LIK_DEVICE int documents_of(const struct tile &t)
{
    return t.head.y >> 8 & 0xff;
}

template <int dtype> LIK_DEVICE void next(struct shared &sm, struct tile &t)
{
    if (++t.index == SM90_HEADS) {
        t.index = 0;
        t.pass ^= 1;
    }
    source<dtype>::await(sm, t.at);
    t.head = *(const int4 *)&sm.heads[t.index];
}

/* Multiplies and takes pieces of documents, all of one width, up to a tile of another width or
 * row tile: the loop where the time goes. It has its own copy of what a document's end takes,
 * for code that lies apart has to be fetched anew at every document. `loose`: pieces of up to
 * that width, of which any columns may be dropped. */
template <int dtype, int bands, bool want_argmax, int octets, bool loose = false>
LIK_DEVICE void take_pieces(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                            uint32_t ring, const float *factors, struct tile &t)
{
    const int second = bands == 2 ? 0 : octets * 8; /* column that the second half begins with */
    const bool one = has_one_half<dtype, bands>();
    /* octets of a half, some of whose columns may not count */
    const int last = one || octets == 1 ? 1 : 2;
    const bool whole = bands == 1 && !one && octets > 1; /* the first half: all of its columns count */
    /* The second half is multiplied while the first is looked at. */
    const bool split = !one && (want_argmax || bands == 1 || dtype == LIK_F32);
    const bool at_once = bands == 2 && !split; /* both halves are ready, and are of the same columns */
    int row_tile = t.head.z;
    for (;;) {
        halves c;
        multiply<dtype, bands, octets, split>(a, sm, me, ring, c, t.at);
        const float *factor = factors + t.index * columns_most(dtype, bands);
        if (a.normalize)
            mbarrier_wait(&sm.normed[t.index], t.pass);
        wgmma_wait<split>();
        if (!split)
            source<dtype>::give_back(a, sm, me.lane, t.at);
        if (a.normalize)
            scale_products<octets, at_once ? 2 : 1>(&c[0], factor);
        if (loose)
            drop_columns<octets, 0>(c[0], sm.heads[t.index].counts);
        else
            cut_columns<octets, whole ? 0 : last>(c[0], t.head.x);
        take_half<want_argmax, octets>(c[0], t.head.w, &me.m.best[0], &me.m.at[0]);
        if (split) {
            wgmma_wait<0>();
            source<dtype>::give_back(a, sm, me.lane, t.at);
        }
        if (!one) {
            if (a.normalize && !at_once)
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
        next<dtype>(sm, t);
        if (width_of<dtype, bands, loose>(t) != octets || t.head.z != row_tile)
            return;
    }
}

/* take_pieces for a width that is known at run time. It may be an octet more than the tile's:
 * the columns past the end are whatever the ring holds, and their products are cut. */
template <int dtype, int bands, bool want_argmax>
LIK_DEVICE void take_pieces_of(int width, const struct sm90_args &a, struct shared &sm,
                               struct consumer<bands> &me, uint32_t ring, const float *factors,
                               struct tile &t)
{
    switch (width) {
#define CASE(n) \
    case n: return take_pieces<dtype, bands, want_argmax, n>(a, sm, me, ring, factors, t);
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
    default: return take_pieces<dtype, bands, want_argmax, 16>(a, sm, me, ring, factors, t);
    }
}

template <int dtype, int bands, bool want_argmax>
LIK_DEVICE void consume(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                        uint32_t ring, struct maxima<bands> *stash, const float *factors, int row_tile)
{
    struct tile t = {};
    t.index = -1;
    t.head.z = row_tile;
    registers_take<208>();
    reset(me.m);
    while (t.head.z >= 0) {
        row_tile = t.head.z;
        if (a.rows_in_memory)
            wait_for_kernels_before();
        place_queries(a, sm, me, row_tile);
        wait_for_kernels_before(); /* the first time; later it returns at once */
        load_queries<dtype>(a, sm, me);
        if (t.index < 0)
            next<dtype>(sm, t);
        while (t.head.z == row_tile) {
            if (is_exact(t)) {
                take_pieces_of<dtype, bands, want_argmax>(width_of<dtype, bands>(t), a, sm, me, ring, factors,
                                                          t);
                continue;
            }
            if (is_loose(t)) {
                int width = width_of<dtype, bands, true>(t);
                if (width == 8)
                    take_pieces<dtype, bands, want_argmax, 8, true>(a, sm, me, ring, factors, t);
                else if (bands == 1 || width == 16)
                    take_pieces<dtype, bands, want_argmax, 16, true>(a, sm, me, ring, factors, t);
                else if (width == 14)
                    take_pieces<dtype, bands, want_argmax, 14, true>(a, sm, me, ring, factors, t);
                else
                    take_pieces<dtype, bands, want_argmax, 12, true>(a, sm, me, ring, factors, t);
                continue;
            }
            halves c;
            multiply<dtype, bands, 16, false>(a, sm, me, ring, c, t.at);
            wgmma_wait<0>();
            source<dtype>::give_back(a, sm, me.lane, t.at);
            if (a.normalize) {
                const float *factor = factors + t.index * columns_most(dtype, bands);
                mbarrier_wait(&sm.normed[t.index], t.pass);
                scale_products<16, bands>(&c[0], factor);
                if (bands == 1 && !has_one_half<dtype, bands>())
                    scale_products<16, 1>(&c[1], factor + 128);
            }
            take_shared<bands, want_argmax>(c, sm.heads[t.index], me.m, stash);
            finish_rows<bands, want_argmax>(a, sm, me, sm.heads[t.index], documents_of(t), stash);
            next<dtype>(sm, t);
        }
    }
}
#endif

template <int dtype, int bands, bool want_argmax>
static __global__ void __launch_bounds__(dtype == LIK_F32 ? 512 : 384, 1)
    score_sm90(const __grid_constant__ struct sm90_args a)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const bool wide = dtype == LIK_F32;
    extern __shared__ char dynamic[];
    __shared__ struct shared sm;
    char *ring = dynamic + (-shared_address(dynamic) & 1023u); /* the swizzle counts from multiples of 1024 */
    char *planes = ring + a.stages * a.stage_bytes;
    char *rows = planes + (wide ? SM90_PLANE_STAGES * a.planes * a.slab_bytes : 0);
    int rows_bytes = bands * a.row_slabs * SM90_ROWS_BYTES;
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
        init(sm.empty, a.stages, wide ? 4 * a.token_warpgroups : 4 * a.warpgroups + a.norm_warps);
        init(sm.planes_full, wide ? SM90_PLANE_STAGES : 0, 4 * a.token_warpgroups);
        init(sm.planes_empty, wide ? SM90_PLANE_STAGES : 0, 4 * a.warpgroups);
        init(sm.sums_full, SUMS, 4 * a.warpgroups);
        init(sm.sums_empty, SUMS, 1);
        init(sm.normed, a.norm_warps ? SM90_HEADS : 0, a.norm_warps);
        mbarrier_init_done();
    }
    __syncthreads();
    struct share mine = share_of(a);
    if (role >= a.warpgroups) {
        int group = role - a.warpgroups, last = group == a.token_warpgroups;
        int norms = !last ? warp : a.token_warpgroups ? -1 : warp - 2;
        if (wide && !last)
            registers_give<104>();
        else
            registers_give<88>(); /* of 168, and of 128 with f32: others take what is left */
        if (wide && !last) {
            int of = group * 4 + warp;
            if (a.planes == 3)
                split_tokens<bands, 3>(a, sm, ring, planes, factors, of);
            else if (a.planes == 2)
                split_tokens<bands, 2>(a, sm, ring, planes, factors, of);
            else
                split_tokens<bands, 1>(a, sm, ring, planes, factors, of);
        } else if (last && warp == 0 && a.uniform) {
            produce_uniform(a, sm, ring, mine);
        } else if (last && warp == 0) {
            produce(a, sm, ring, mine);
        } else if (last && warp == 1 && !a.score.partial) {
            finish_scores(a, sm, mine);
        } else if (!wide && a.normalize && norms >= 0) {
            if (bands == 1 && a.norm_warps == 4)
                take_norms<dtype, bands, 4>(a, sm, ring, factors, norms);
            else
                take_norms<dtype, bands, 2>(a, sm, ring, factors, norms);
        }
    } else {
        struct consumer<bands> me;
        me.warpgroup = role;
        me.lane = (int)threadIdx.x & 31;
        me.warp = warp;
        me.turn = 0;
        me.row = warp * 16 + me.lane / 4 + (me.lane & 1) * 8;
        me.rows = rows + role * rows_bytes;
        struct maxima<bands> *stash =
            (struct maxima<bands> *)((char *)factors +
                                     (a.normalize ? SM90_HEADS * columns_most(dtype, bands) * 4 : 0));
        consume<dtype, bands, want_argmax>(a, sm, me, shared_address(wide ? planes : ring),
                                           stash + role * a.documents_per_tile * 128 + (threadIdx.x & 127),
                                           factors, mine.row_tile);
    }
#else
    __trap(); /* the driver never launches this elsewhere */
#endif
}

/* ---- The host's side ---- */

typedef void (*kernel)(struct sm90_args);

#define KERNELS_OF(dtype, argmax) {score_sm90<dtype, 1, argmax>, score_sm90<dtype, 2, argmax>}
#define KERNELS(dtype)            {KERNELS_OF(dtype, false), KERNELS_OF(dtype, true)}

static kernel kernel_of(int dtype, bool argmax, bool two_bands)
{
    static const kernel kernels[3][2][2] = {KERNELS(LIK_F32), KERNELS(LIK_F16), KERNELS(LIK_BF16)};
    static_assert(LIK_F16 == LIK_F32 + 1 && LIK_BF16 == LIK_F32 + 2, "the table's order");
    return kernels[dtype - LIK_F32][argmax][two_bands];
}

int lik_score_sm90_prepare(struct lik_gpu *gpu)
{
    gpu->limits.hopper = 0;
    if (gpu->limits.arch != 90)
        return LIK_OK;
    cudaFuncAttributes attributes;
    cudaError_t e = cudaFuncGetAttributes(&attributes, (const void *)kernel_of(LIK_BF16, false, false));
    if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorInvalidDeviceFunction ||
        (e == cudaSuccess && attributes.sharedSizeBytes < sizeof(struct shared))) {
        cudaGetLastError(); /* this build has no sm_90a, or the kernel without its body: mma.sync it is */
        return LIK_OK;
    }
    void *encode = NULL;
    cudaDriverEntryPointQueryResult found;
    if (e == cudaSuccess)
        e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault,
                                             &found);
    if (e != cudaSuccess || !encode)
        return lik_cuda_status(e == cudaSuccess ? cudaErrorSymbolNotFound : e, "cuTensorMapEncodeTiled");
    for (int i = 0; i < 12 && e == cudaSuccess; i++)
        e = cudaFuncSetAttribute((const void *)kernel_of(LIK_F32 + i / 4, i & 1, i & 2),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(gpu->limits.shared_bytes - sizeof(struct shared)));
    gpu->encode = (decltype(gpu->encode))encode;
    gpu->limits.hopper = e == cudaSuccess;
    return lik_cuda_status(e, "cudaFuncSetAttribute");
}

/* Tensor maps of the documents, (dim, token, sequence, group): of the one box of a uniform
 * stream, or one for each box height. */
static int make_maps(const struct lik_gpu *gpu, struct sm90_args *a)
{
    const struct lik_tokens *d = &a->score.op.d;
    int64_t members = d->group_size > 0 ? d->group_size : d->count;
    cuuint64_t shape[4] = {(cuuint64_t)d->dim, (cuuint64_t)d->len_max, (cuuint64_t)members,
                           (cuuint64_t)(d->count / members)};
    if (d->offsets) {
        shape[1] = (cuuint64_t)d->total;
        shape[2] = shape[3] = 1;
    }
    cuuint64_t bytes = lik_dtype_bytes(d->dtype);
    static const CUtensorMapDataType types[] = {
        CU_TENSOR_MAP_DATA_TYPE_FLOAT32, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16};
    int64_t steps[3] = {d->strides.token, d->strides.sequence, d->strides.group};
    cuuint64_t strides[3];
    /* a stride that is never used may be anything, but the map wants it in range */
    for (int i = 0; i < 3; i++)
        strides[i] =
            shape[i + 1] > 1 ? (cuuint64_t)steps[i] * bytes : (cuuint64_t)(d->dim * bytes + 15) / 16 * 16;
    cuuint32_t ones[4] = {1, 1, 1, 1};
    for (int b = 0; b < (a->uniform ? 1 : BOXES); b++) {
        cuuint32_t box[4] = {(cuuint32_t)a->slab_elements,
                             a->uniform ? 8u * (cuuint32_t)a->octets_per_piece : 8u << b,
                             a->uniform ? (cuuint32_t)a->documents_per_tile : 1, 1};
        CUresult e = gpu->encode(&a->maps[b], types[d->dtype - LIK_F32], 4, (void *)d->data, shape, strides,
                                 box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
        if (e != CUDA_SUCCESS)
            return lik_fail(LIK_EDEVICE, "cuTensorMapEncodeTiled failed (%d) for d: %lld x %lld x %lld",
                            (int)e, (long long)d->count, (long long)d->len_max, (long long)d->dim);
    }
    return LIK_OK;
}

static void take_plan(struct sm90_args *a, const struct sm90_plan *p)
{
    const struct sm90_regime *r = &p->regime;
    a->slabs = r->slabs;
    a->row_slabs = r->row_slabs;
    a->steps_per_stage = r->steps_per_stage;
    a->slab_elements = r->slab_elements;
    a->planes = r->planes;
    a->rows_in_memory = r->rows_in_memory;
    a->group_size = r->group_size;
    a->normalize = r->normalize;
    a->uniform = r->uniform;
    const struct sm90_tile *t = &p->tile;
    a->warpgroups = t->warpgroups;
    a->octets_per_tile = t->octets_per_tile;
    a->octets_per_piece = t->octets_per_piece;
    a->documents_per_tile = t->documents_per_tile;
    a->loose = t->loose;
    a->one_width = t->one_width;
    const struct sm90_ring *g = &p->ring;
    a->stages = g->stages;
    a->slabs_per_stage = g->slabs_per_stage;
    a->slab_bytes = g->slab_bytes;
    a->stage_bytes = g->stage_bytes;
    a->token_warpgroups = g->token_warpgroups;
    a->norm_warps = g->norm_warps;
    a->norm_teams = g->norm_teams;
    const struct sm90_schedule *s = &p->schedule;
    a->blocks_per_row_tile = s->blocks_per_row_tile;
    a->in_turn = s->in_turn;
    a->by_tokens = s->by_tokens;
    a->pairs_extra = s->pairs_extra;
    a->pairs_each = s->pairs_each;
}

int lik_score_sm90_launch(const struct lik_gpu *gpu, const struct score_args *score,
                          const struct score_plan *plan, cudaStream_t stream)
{
    const struct sm90_plan *p = &plan->sm90;
    struct sm90_args a = {};
    a.score = *score;
    take_plan(&a, p);
    int status = make_maps(gpu, &a);
    if (status)
        return status;
    const void *kernel =
        (const void *)kernel_of(score->op.d.dtype, score->op.argmax != NULL, p->tile.bands > 1);
    return lik_cuda_launch_early(gpu, kernel, "score_sm90", (unsigned)p->schedule.blocks,
                                 128 * (unsigned)(p->tile.warpgroups + p->ring.token_warpgroups + 1),
                                 (size_t)p->ring.shared_bytes, stream, &a);
}
