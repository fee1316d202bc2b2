/* The forward pass on Hopper: f16 or bf16 tokens that the copy engine can take, multiplied by wgmma.
 *
 * A column tile is a piece of one document, or several short documents whole; its width is any number of blocks of 8
 * columns, for a document is cut into pieces as even as possible. One producer warp walks the documents, copies each
 * tile in slabs of 64 elements of the dim into a ring, and writes beside it a head: how many columns count, which
 * documents end (stream.cuh).
 *
 * One or two warpgroups multiply. Each holds 128 f32 accumulators a thread: one band of 64 query rows by up to 256
 * columns, or two bands by up to 128, where there are rows enough, since each band more is one reading of the documents
 * less. The rows stay in shared memory. A thread keeps a running maximum for each of its rows; at the document's end
 * each warp sums its 16 rows a band, and one more warp adds those sums up to scores. Documents that share a tile pass
 * their maxima through a small stash. Where documents are normalized, two more warps take the norms of the columns as
 * they pass through the ring, so that the documents are read once.
 *
 * Blocks of the grid are persistent, one a processor; each takes an equal share of all (row tile, document) pairs, row
 * tile by row tile, so that blocks which share documents stream them at the same time, through L2. Where that makes the
 * longest share little longer, a block has documents of one row tile only: it need not stop for other rows, and blocks
 * take documents in turn, so that all read from one region of memory. */
#include "cuda/maxima.cuh"
#include "cuda/mma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- The warp that finishes scores ---- */

LIK_DEVICE void finish_scores(const struct sm90_args &a, struct shared &sm, int64_t documents)
{
    const struct tiling &t = a.score.tiling;
    int lane = (int)threadIdx.x & 31, blocks = t.blocks, queries = t.parts ? 1 : t.tile_blocks / blocks, row_tile = -1;
    int64_t mine = -1; /* the scores of lane's query of the row tile */
    for (unsigned turn = 0; documents > 0; turn++) {
        int slot = turn % SUMS;
        struct sums &sums = sm.sums[slot];
        mbarrier_wait(&sm.sums_full[slot], turn / SUMS & 1);
        int n = sums.documents;
        int64_t column = sums.column;
        if (sums.row_tile != row_tile) {
            row_tile = sums.row_tile;
            struct block_place place = locate_block(t, row_tile, lane * blocks);
            mine = lane < queries && place.row >= 0 ? place.row * a.score.op.scores_stride : -1;
        }
        for (int from = 0; from < n * queries; from += 32) { /* a lane a document and query */
            int i = (from + lane) / queries, q = from + lane - i * queries;
            int64_t at = __shfl_sync(~0u, mine, q);
            if (i >= n || at < 0)
                continue;
            float score = sums.of[i][q * blocks];
            for (int b = 1; b < blocks; b++)
                score = __fadd_rn(score, sums.of[i][q * blocks + b]);
            a.score.op.scores[at + column + i] = score;
        }
        __syncwarp();
        if (lane == 0)
            mbarrier_arrive(&sm.sums_empty[slot]);
        documents -= n;
    }
}

/* ---- The warpgroups that multiply ---- */

/* A thread of a warpgroup. Row maxima are first spread over the four lanes that share rows; the row that a lane is left
 * with is lane / 4, or 8 more if lane is odd, of its warp's block in band lane / 2 % 2. What is needed at documents'
 * ends only is left in shared memory. */
template <int bands> struct consumer {
    int warpgroup, lane, warp;
    char *rows;             /* this warpgroup's query rows: [band][slab][64 rows] */
    struct maxima<bands> m; /* of the open document */
    int row;                /* the lane's row, in that band */
    int block;              /* of the row in its query */
    int64_t first;          /* number of the block's score with the first document, -1: none */
    unsigned turn;          /* tiles with documents' ends so far */
};

/* Query rows of a row tile to shared memory, as wgmma wants them, and what belongs to the lane's row. */
template <int bands>
LIK_DEVICE void load_queries(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me, int64_t row_tile)
{
    const struct lik_tokens &q = a.score.op.q;
    int thread = (int)threadIdx.x & 127, chunk = thread & 7, first_band = me.warpgroup * bands;
    named_barrier(1 + me.warpgroup, 128);
    if (thread < 64 * bands) {
        struct block_place place = locate_block(a.score.tiling, row_tile, first_band * 4 + thread / 16);
        struct query_row row = locate_row(a.score, place, thread & 15);
        sm.row_at[first_band][thread] = row.at;
        sm.row_token[first_band][thread] = row.token;
        sm.row_weight[first_band][thread] = row.weight;
        sm.row_counts[first_band][thread] = row.counts ? (row.at != LIK_NOWHERE ? 1 : 2) : 0;
    }
    named_barrier(1 + me.warpgroup, 128);
    for (int slab = 0; slab < a.slabs; slab++)
#pragma unroll 4
        for (int i = 0; i < 4 * bands; i++) {
            int r = thread / 8 + 16 * i, k = slab * 64 + chunk * 8, n = (int)q.dim - k;
            int64_t at = sm.row_at[first_band][r];
            char *band = me.rows + (i / 4 * a.slabs + slab) * SLAB_ROWS_BYTES;
            uint16_t *to = (uint16_t *)(band + (r & 63) * 128 + ((chunk ^ (r & 7)) << 4));
            const uint16_t *from = (const uint16_t *)q.data + at + k * q.dim_stride;
            if (at == LIK_NOWHERE || n <= 0)
                *(uint4 *)to = make_uint4(0, 0, 0, 0);
            else if (a.score.q_vector && n >= 8)
                copy_async_16(to, from, 16);
            else
                for (int e = 0; e < 8; e++)
                    to[e] = e < n ? from[e * q.dim_stride] : 0;
        }
    copy_async_commit();
    if (q.normalize) {
        for (int r = thread / 8; r < 64 * bands; r += 16) {
            struct query_row row = {sm.row_at[first_band][r], 0, 1.0f, 1.0f, true};
            float factor = row_factor(a.score, row, chunk);
            if (chunk == 0)
                sm.row_weight[first_band][r] = __fmul_rn(sm.row_weight[first_band][r], factor);
        }
        named_barrier(1 + me.warpgroup, 128);
    }
    int band = first_band + (me.lane >> 1) % bands;
    struct block_place place = locate_block(a.score.tiling, row_tile, band * 4 + me.warp);
    me.first = place.row < 0 ? -1 : place.row * a.score.columns;
    me.block = place.block;
    copy_async_wait<0>();
    fence_async_shared();
    named_barrier(1 + me.warpgroup, 128);
}

/* Gives the stage back to the producer; `at` becomes the next place. */
LIK_DEVICE void free_stage(const struct sm90_args &a, struct shared &sm, int lane, struct place &at)
{
    if (lane == 0)
        mbarrier_arrive(&sm.empty[at.stage]);
    advance(at, a.stages);
}

/* Starts the products of a stage: c of each half += `slabs` slabs of its rows and columns, or = that if not `add`.
 * `split`: one half after the other, each a group to wait for; else both in turn, one group. The commit stands in one
 * basic block with its products, or ptxas takes them one at a time. */
template <bool bf16, int blocks, int slabs, bool add, bool split>
LIK_DEVICE void multiply_stage(halves &c, const uint32_t (&q)[2], const uint32_t (&d)[2], uint32_t next_slab)
{
    auto product = [&](int half, int k) {
        uint32_t rows = q[half] + k / 4 * (SLAB_ROWS_BYTES >> 4) + k % 4 * 2;
        uint32_t columns = d[half] + k / 4 * next_slab + k % 4 * 2;
        if (add || k)
            wgmma<bf16, true, blocks>::run(c[half], rows, columns);
        else
            wgmma<bf16, false, blocks>::run(c[half], rows, columns);
    };
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 8 * slabs; i++) {
        if (split)
            product(i / (4 * slabs), i % (4 * slabs));
        else
            product(i % 2, i / 2);
        if (split && i == 4 * slabs - 1)
            wgmma_commit();
    }
    wgmma_commit();
}

/* The products of the warpgroup's rows and the column tile at `at`, but for the end of those of the last stage, which
 * are under way. Elements past the dim are zeros in both. */
template <bool bf16, int bands, int blocks, bool split>
LIK_DEVICE void multiply(const struct sm90_args &a, struct shared &sm, const struct consumer<bands> &me, uint32_t ring,
                         halves &c, struct place &at)
{
    uint32_t next_slab = (uint32_t)a.slab_bytes >> 4, q[2], d[2];
    q[0] = q[1] = wgmma_descriptor(shared_address(me.rows));
    if (bands == 2)
        q[1] += (uint32_t)a.slabs * (SLAB_ROWS_BYTES >> 4);
    auto columns = [&]() {
        d[0] = d[1] = wgmma_descriptor(ring + at.stage * a.stage_bytes);
        if (bands == 1)
            d[1] += blocks * (BLOCK_BYTES >> 4);
    };
    columns();
    if (a.slabs == 1) {
        multiply_stage<bf16, blocks, 1, false, split>(c, q, d, 0);
        return;
    }
    multiply_stage<bf16, blocks, 2, false, split>(c, q, d, next_slab);
    for (int slab = 2; slab < a.slabs; slab += 2) {
        wgmma_wait<0>();
        free_stage(a, sm, me.lane, at);
        mbarrier_wait(&sm.full[at.stage], at.parity);
        columns();
        q[0] += 2 * SLAB_ROWS_BYTES >> 4;
        q[1] += 2 * SLAB_ROWS_BYTES >> 4;
        multiply_stage<bf16, blocks, 2, true, split>(c, q, d, next_slab);
    }
}

/* After a tile in which documents end: for each of them, the maximum of a row, the argmax, and the sums of the warp's
 * blocks of 16 rows. */
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
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1)); /* the order of add_block */
#pragma unroll
        for (int o = 4; o < 32; o *= 2)
            sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, o));
        if ((bad >> i & 1) || query_bad)
            sum = __uint_as_float(0x7fc00000u);
        if ((me.lane & ~2) == 0 && (bands == 2 || me.lane == 0)) {
            if (!a.score.partial)
                sums.of[i][band * 4 + me.warp] = sum;
            else if (me.first >= 0)
                a.score.partial[n * a.score.tiling.blocks + me.block] = sum;
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

LIK_DEVICE int blocks_of(const struct tile &t)
{
    return t.head.y & 0xff;
}

LIK_DEVICE bool is_mixed(const struct tile &t)
{
    return t.head.y >> 16;
}

/* Blocks of a half of the accumulators; 0 for a mixed tile. */
template <int bands> LIK_DEVICE int width_of(const struct tile &t)
{
    return is_mixed(t) ? 0 : bands == 2 ? blocks_of(t) : (blocks_of(t) + 1) / 2;
}

LIK_DEVICE int documents_of(const struct tile &t)
{
    return t.head.y >> 8 & 0xff;
}

LIK_DEVICE void await(struct shared &sm, struct tile &t)
{
    mbarrier_wait(&sm.full[t.at.stage], t.at.parity);
    t.head = *(const int4 *)&sm.heads[t.index];
}

LIK_DEVICE void next(struct shared &sm, struct tile &t)
{
    if (++t.index == HEADS) {
        t.index = 0;
        t.pass ^= 1;
    }
    await(sm, t);
}

/* Multiplies and takes pieces of documents, all of one width, up to a document's end (true) or to a tile of another
 * width or row tile (false): the loop where the time goes. */
template <bool bf16, int bands, bool want_argmax, int blocks>
LIK_DEVICE bool take_pieces(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me, uint32_t ring,
                            const float *factors, struct tile &t)
{
    const int second = bands == 2 ? 0 : blocks * 8; /* column that the second half begins with */
    const int masked = bands == 1 && blocks > 1 ? 2 : 1;
    const bool split = want_argmax || bands == 1; /* the second half is multiplied while the first is looked at */
    int row_tile = t.head.z;
    for (;;) {
        halves c;
        multiply<bf16, bands, blocks, split>(a, sm, me, ring, c, t.at);
        const float *factor = factors + t.index * MOST_COLUMNS(bands);
        if (a.normalize)
            mbarrier_wait(&sm.normed[t.index], t.pass);
        wgmma_wait<split>();
        if (!split)
            free_stage(a, sm, me.lane, t.at);
        if (a.normalize)
            scale_products<blocks>(c[0], factor);
        take_half<want_argmax, blocks, 1>(c[0], t.head.x, t.head.w, &me.m.best[0], &me.m.at[0]);
        if (split) {
            wgmma_wait<0>();
            free_stage(a, sm, me.lane, t.at);
        }
        if (a.normalize)
            scale_products<blocks>(c[1], factor + second);
        take_half<want_argmax, blocks, masked>(c[1], t.head.x - second, t.head.w + second, &me.m.best[2 * bands - 2],
                                               &me.m.at[2 * bands - 2]);
        if (documents_of(t))
            return true;
        next(sm, t);
        if (width_of<bands>(t) != blocks || t.head.z != row_tile)
            return false;
    }
}

/* take_pieces for a width that is known at run time. Two halves of one band may be a block wider than the tile: the
 * columns past it are whatever the ring holds, and no one looks at their products. */
template <bool bf16, int bands, bool want_argmax>
LIK_DEVICE bool take_pieces_of(int width, const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me,
                               uint32_t ring, const float *factors, struct tile &t)
{
    switch (width) {
#define CASE(n) \
    case n: return take_pieces<bf16, bands, want_argmax, n>(a, sm, me, ring, factors, t);
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
    default: return take_pieces<bf16, bands, want_argmax, 16>(a, sm, me, ring, factors, t);
    }
}

template <bool bf16, int bands, bool want_argmax>
LIK_DEVICE void consume(const struct sm90_args &a, struct shared &sm, struct consumer<bands> &me, uint32_t ring,
                        struct maxima<bands> *stash, const float *factors, int row_tile)
{
    struct tile t = {};
    load_queries(a, sm, me, row_tile);
    reset(me.m);
    await(sm, t);
    while (t.head.z >= 0) {
        if (t.head.z != row_tile) {
            row_tile = t.head.z;
            load_queries(a, sm, me, row_tile);
        }
        struct maxima<bands> *shared_tile = documents_of(t) > 1 ? stash : NULL;
        if (is_mixed(t)) {
            halves c;
            multiply<bf16, bands, 16, false>(a, sm, me, ring, c, t.at);
            wgmma_wait<0>();
            free_stage(a, sm, me.lane, t.at);
            if (a.normalize) {
                const float *factor = factors + t.index * MOST_COLUMNS(bands);
                mbarrier_wait(&sm.normed[t.index], t.pass);
                scale_products<16>(c[0], factor);
                scale_products<16>(c[1], bands == 2 ? factor : factor + 128);
            }
            take_mixed<bands, want_argmax>(c, sm.heads[t.index], me.m, shared_tile);
        } else if (!take_pieces_of<bf16, bands, want_argmax>(width_of<bands>(t), a, sm, me, ring, factors, t)) {
            continue;
        }
        if (documents_of(t))
            finish_rows<bands, want_argmax>(a, sm, me, sm.heads[t.index], documents_of(t), shared_tile);
        next(sm, t);
    }
}

/* ---- The two warps that take the norms of the documents' tokens ---- */

template <bool bf16> LIK_DEVICE float add_squares(uint4 raw, float squares)
{
    float v[8];
    unpack_halves(raw, bf16 ? LIK_BF16 : LIK_F16, v);
#pragma unroll
    for (int i = 0; i < 8; i++)
        squares = __fmaf_rn(v[i], v[i], squares);
    return squares;
}

/* Every tile's columns as they pass: a lane takes every 64th of them, chunk by chunk of the swizzled slab, so that
 * eight lanes meet all banks. Elements past the dim are zeros. */
template <bool bf16, int bands>
LIK_DEVICE void take_norms(const struct sm90_args &a, struct shared &sm, const char *ring, float *factors, int half)
{
    const int most = MOST_COLUMNS(bands) / 64;
    struct place at = {0, 0};
    int lane = (int)threadIdx.x & 31, c = half * 32 + lane;
    for (int tile = 0;; tile = (tile + 1) % HEADS) {
        mbarrier_wait(&sm.full[at.stage], at.parity);
        const struct head &head = sm.heads[tile];
        if (head.row_tile < 0)
            break;
        int columns = (head.shape & 0xff) * 8;
        float squares[most][2] = {};
        for (int slab = 0; slab < a.slabs; slab += a.deep) {
            if (slab)
                mbarrier_wait(&sm.full[at.stage], at.parity);
            for (int of = 0; of < a.deep; of++) {
                const char *row = ring + at.stage * a.stage_bytes + of * a.slab_bytes + c * 128;
#pragma unroll
                for (int n = 0; n < most; n++)
                    if (c + n * 64 < columns)
#pragma unroll
                        for (int i = 0; i < 8; i++)
                            squares[n][i & 1] = add_squares<bf16>(
                                *(const uint4 *)(row + n * 64 * 128 + ((i ^ (c & 7)) << 4)), squares[n][i & 1]);
            }
            __syncwarp();
            free_stage(a, sm, lane, at);
        }
#pragma unroll
        for (int n = 0; n < most; n++) {
            float norm = __fsqrt_rn(__fadd_rn(squares[n][0], squares[n][1]));
            factors[tile * MOST_COLUMNS(bands) + c + n * 64] = __fdiv_rn(1.0f, norm < 1e-12f ? 1e-12f : norm);
        }
        __syncwarp();
        if (lane == 0)
            mbarrier_arrive(&sm.normed[tile]);
    }
}
#endif

template <bool bf16, int bands, bool want_argmax>
static __global__ void __launch_bounds__(384, 1) score_sm90(const __grid_constant__ struct sm90_args a)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char dynamic[];
    __shared__ struct shared sm;
    char *ring = dynamic + (-shared_address(dynamic) & 1023u); /* the swizzle counts from multiples of 1024 */
    char *rows = ring + a.stages * a.stage_bytes;
    int rows_bytes = bands * a.slabs * SLAB_ROWS_BYTES;
    float *factors = (float *)(rows + a.warpgroups * rows_bytes);
    if (threadIdx.x == 0) {
        for (int i = 0; i < a.stages; i++) {
            mbarrier_init(&sm.full[i], 1);
            mbarrier_init(&sm.empty[i], 4 * a.warpgroups + (a.normalize ? 2 : 0));
        }
        for (int i = 0; i < SUMS; i++) {
            mbarrier_init(&sm.sums_full[i], 4 * a.warpgroups);
            mbarrier_init(&sm.sums_empty[i], 1);
        }
        for (int i = 0; i < HEADS; i++)
            mbarrier_init(&sm.normed[i], 2);
        mbarrier_init_done();
    }
    wait_for_kernels_before();
    __syncthreads();
    int64_t total = a.chunks ? a.score.columns : a.score.tiling.tiles * a.score.columns;
    int parts = a.chunks ? a.chunks : (int)gridDim.x, part = (int)blockIdx.x % parts, tile = (int)blockIdx.x / parts;
    int64_t share = total / parts, rest = total % parts, count = share + (part < rest);
    int64_t first = tile * a.score.columns + share * part + min((int64_t)part, rest);
    if (a.in_turn) {
        int64_t round = (int64_t)a.together * parts, last = total % round - (int64_t)part * a.together;
        first = tile * a.score.columns + (int64_t)part * a.together;
        count = total / round * a.together + max((int64_t)0, min(last, (int64_t)a.together));
    }
    int role = __shfl_sync(~0u, (int)threadIdx.x / 128, 0), warp = __shfl_sync(~0u, (int)threadIdx.x / 32 & 3, 0);
    if (role >= a.warpgroups) {
        registers_give<88>(); /* 88 + 2 x 208 is what three warpgroups of 168 have together */
        if (warp == 0 && a.uniform)
            produce_uniform(a, sm, ring, first, count);
        else if (warp == 0)
            produce(a, sm, ring, first, count);
        else if (warp == 1 && !a.score.partial)
            finish_scores(a, sm, count);
        else if (warp >= 2 && a.normalize)
            take_norms<bf16, bands>(a, sm, ring, factors, warp - 2);
    } else {
        registers_take<208>();
        struct consumer<bands> me;
        me.warpgroup = role;
        me.lane = (int)threadIdx.x & 31;
        me.warp = warp;
        me.turn = 0;
        me.row = warp * 16 + me.lane / 4 + (me.lane & 1) * 8;
        me.rows = rows + role * rows_bytes;
        struct maxima<bands> *stash =
            (struct maxima<bands> *)((char *)factors + (a.normalize ? HEADS * MOST_COLUMNS(bands) * 4 : 0));
        consume<bf16, bands, want_argmax>(a, sm, me, shared_address(ring),
                                          stash + role * a.together * 128 + (threadIdx.x & 127), factors,
                                          (int)(first / a.score.columns));
    }
#else
    __trap(); /* the driver never launches this elsewhere */
#endif
}

/* ---- The host's side ---- */

#define IN_FLIGHT (64 * 1024) /* bytes that a block asks of memory at once */
#define ROWS_COST 8e6         /* products in the time that a block takes to change to other query rows */

typedef void (*kernel)(struct sm90_args);

static kernel kernel_of(bool bf16, bool argmax, bool two_bands)
{
    static const kernel kernels[2][2][2] = {{{score_sm90<false, 1, false>, score_sm90<false, 2, false>},
                                             {score_sm90<false, 1, true>, score_sm90<false, 2, true>}},
                                            {{score_sm90<true, 1, false>, score_sm90<true, 2, false>},
                                             {score_sm90<true, 1, true>, score_sm90<true, 2, true>}}};
    return kernels[bf16][argmax][two_bands];
}

int lik_score_sm90_prepare(struct lik_gpu *gpu)
{
    gpu->hopper = 0;
    if (gpu->arch != 90)
        return LIK_OK;
    cudaFuncAttributes attributes;
    cudaError_t e = cudaFuncGetAttributes(&attributes, (const void *)kernel_of(true, false, false));
    if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorInvalidDeviceFunction) {
        cudaGetLastError(); /* this build has no sm_90a: mma.sync it is */
        return LIK_OK;
    }
    void *encode = NULL;
    cudaDriverEntryPointQueryResult found;
    if (e == cudaSuccess)
        e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found);
    if (e != cudaSuccess || !encode)
        return lik_cuda_status(e == cudaSuccess ? cudaErrorSymbolNotFound : e, "cuTensorMapEncodeTiled");
    for (int i = 0; i < 8 && e == cudaSuccess; i++)
        e = cudaFuncSetAttribute((const void *)kernel_of(i & 1, i & 2, i & 4),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(gpu->shared_bytes - sizeof(struct shared)));
    gpu->encode = (decltype(gpu->encode))encode;
    gpu->hopper = e == cudaSuccess;
    return lik_cuda_status(e, "cudaFuncSetAttribute");
}

/* Slabs of 64 elements: one, or pairs; the copy engine fills up with zeros. */
static int slabs_of(const struct lik_score *op)
{
    return op->d.dim <= 64 ? 1 : (int)((op->d.dim + 127) / 128) * 2;
}

/* Slabs of a stage of the ring. */
static int deep_of(int slabs)
{
    return slabs > 1 ? 2 : 1;
}

/* Are the documents' strides what a tensor map takes: positive multiples of 16 bytes? */
static int map_strides(const struct lik_tokens *d)
{
    if ((uintptr_t)d->data % 16 || d->dim_stride != 1)
        return 0;
    if ((d->len_max > 1 || d->offsets) && (d->strides.token <= 0 || d->strides.token % 8))
        return 0;
    if (d->offsets)
        return d->total <= INT32_MAX - 4096;
    int64_t members = d->group_size > 0 ? d->group_size : d->count;
    if (members > 1 && (d->strides.sequence <= 0 || d->strides.sequence % 8))
        return 0;
    if (d->group_size > 0 && d->count > members && (d->strides.group <= 0 || d->strides.group % 8))
        return 0;
    int64_t far = 1ll << 38; /* 2^40 bytes */
    return members < INT32_MAX && d->count / (members ? members : 1) < INT32_MAX && d->strides.token < far &&
           d->strides.sequence < far && d->strides.group < far;
}

/* Is the stream of documents uniform: of one length, none masked or listed? */
static int is_uniform(const struct lik_score *op)
{
    const struct lik_tokens *d = &op->d;
    return !d->mask && !d->offsets && op->pairing != LIK_LIST && d->len_max > 0 && d->len_max < 1 << 24 &&
           d->count <= INT32_MAX;
}

/* Length of the pieces that documents of so many blocks are cut into: as long as can be, evenly; if the loop waits for
 * memory, no more than 20 blocks and no fewer than 13, so that the last piece lacks the least. */
static int piece_of(int waits, int64_t blocks, int most)
{
    if (waits && most > 20 && blocks > 20) {
        int best = 20;
        for (int n = 19; n >= 13; n--)
            if ((n - blocks % n) % n < (best - blocks % best) % best)
                best = n;
        return best;
    }
    int64_t pieces = (blocks + most - 1) / most;
    return (int)((blocks + pieces - 1) / pieces);
}

/* Fits column tiles and a ring of three stages or more (four where a tile takes several) beside the rows and what else
 * is needed; 0 if that cannot be. A uniform stream that one band waits for has two stages or more, but no more than
 * keep IN_FLIGHT bytes coming: memory serves no more, and takes longer where it is asked for more. */
static int fit(const struct lik_gpu *gpu, const struct lik_score *op, struct sm90_shape *shape)
{
    int slabs = slabs_of(op), most = MAX_BLOCKS / shape->bands;
    int64_t columns = lik_score_columns(op), blocks = op->d.len_max > 0 ? (op->d.len_max + 7) / 8 : 1;
    int uniform = is_uniform(op), waits = uniform && shape->bands == 1 && !op->d.normalize;
    shape->together = uniform && (blocks > most / 2 || op->d.group_size > 0) ? 1 : TOGETHER;
    if (shape->together > columns)
        shape->together = (int)columns;
    size_t fixed = sizeof(struct shared) + 1024 + (size_t)shape->warpgroups * shape->bands * slabs * SLAB_ROWS_BYTES;
    if (op->d.normalize)
        fixed += HEADS * MOST_COLUMNS(shape->bands) * sizeof(float);
    if (shape->together > 1) /* the stash: maxima of all threads, one document after another */
        fixed += (size_t)shape->warpgroups * shape->together * 128 * sizeof(struct maxima<1>) * shape->bands;
    if (fixed >= gpu->shared_bytes)
        return 0;
    int deep = deep_of(slabs), unit = shape->bands == 1 ? 2 : 1,
        ring = (int)((gpu->shared_bytes - fixed) / BLOCK_BYTES) / deep, least = slabs > 2 ? 4 : 3 - waits;
    while (most > unit && ring / most < least)
        most -= unit;
    if (ring / most < least)
        return 0;
    if (uniform && shape->together > 1) /* whole documents */
        shape->together = (int)(blocks * shape->together <= most ? shape->together
                                : blocks * 2 <= most             ? most / blocks
                                                                 : 1);
    if (uniform) {
        shape->piece = piece_of(waits && !op->argmax, blocks, most);
        most = shape->piece * shape->together;
    } else if (most > blocks * shape->together) {
        most = (int)(blocks * shape->together);
    }
    shape->blocks = most;
    shape->slab_bytes = (most + most % unit) * BLOCK_BYTES;
    shape->stages = ring * BLOCK_BYTES / shape->slab_bytes;
    int enough = (IN_FLIGHT - 1) / (shape->slab_bytes * deep) + 1;
    if (waits && shape->stages > enough)
        shape->stages = enough > least ? enough : least;
    if (shape->stages > MAX_STAGES)
        shape->stages = MAX_STAGES;
    /* A mixed tile is multiplied in full width from wherever it begins in the ring. */
    size_t rest = fixed - sizeof(struct shared),
           past = 1024 + (size_t)(MAX_BLOCKS / shape->bands * BLOCK_BYTES - shape->slab_bytes);
    rest = rest > past ? rest : past;
    while ((size_t)shape->stages * shape->slab_bytes * deep + rest + sizeof(struct shared) > gpu->shared_bytes)
        shape->stages--;
    shape->bytes = (size_t)shape->stages * shape->slab_bytes * deep + rest;
    return shape->stages >= least;
}

int lik_score_sm90_takes(const struct lik_gpu *gpu, const struct lik_score *op)
{
    const struct lik_tokens *q = &op->q, *d = &op->d;
    struct sm90_shape one = {};
    one.bands = one.warpgroups = 1;
    return gpu->hopper && q->dtype == d->dtype && (d->dtype == LIK_F16 || d->dtype == LIK_BF16) && !q->scale &&
           !d->scale && map_strides(d) && fit(gpu, op, &one);
}

/* The rows of a tile: those that make the grid's longest share of products the shortest. One warpgroup keeps the tensor
 * cores busy half of the time; two bands read the documents half as often. */
struct sm90_shape lik_score_sm90_shape(const struct lik_gpu *gpu, const struct lik_score *op, int64_t blocks)
{
    static const struct {
        int bands, warpgroups;
        double cost; /* of a row */
    } shapes[] = {{1, 1, 2.0}, {1, 2, 1.1}, {2, 2, 1.0}};
    struct sm90_shape best = {};
    double least = 0.0;
    int64_t units = op->pairing == LIK_ALL ? op->d.count : lik_score_rows(op) * lik_score_columns(op);
    for (int i = 0; i < 3; i++) {
        struct sm90_shape shape = {};
        shape.bands = shapes[i].bands;
        shape.warpgroups = shapes[i].warpgroups;
        int rows = 4 * shape.bands * shape.warpgroups; /* in blocks */
        if ((i > 0 && blocks <= rows / 2) || !fit(gpu, op, &shape))
            continue;
        int64_t tiles = (blocks + rows - 1) / rows;
        double cost = (double)((tiles * units + gpu->processors - 1) / gpu->processors) * rows * shapes[i].cost;
        if (best.stages && cost >= least)
            continue;
        least = cost;
        best = shape;
    }
    return best;
}

/* Tensor maps of the documents, (dim, token, sequence, group): of the one box of a uniform stream, or one for each box
 * height. */
static int make_maps(const struct lik_gpu *gpu, struct sm90_args *a)
{
    const struct lik_tokens *d = &a->score.op.d;
    int64_t members = d->group_size > 0 ? d->group_size : d->count;
    a->group_size = (int32_t)members;
    cuuint64_t shape[4] = {(cuuint64_t)d->dim, (cuuint64_t)d->len_max, (cuuint64_t)members,
                           (cuuint64_t)(d->count / members)};
    if (d->offsets) {
        shape[1] = (cuuint64_t)d->total;
        shape[2] = shape[3] = 1;
    }
    int64_t steps[3] = {d->strides.token, d->strides.sequence, d->strides.group};
    cuuint64_t strides[3];
    for (int i = 0; i < 3; i++) /* a stride that is never used may be anything, but the map wants it in range */
        strides[i] = shape[i + 1] > 1 ? (cuuint64_t)steps[i] * 2 : (cuuint64_t)(d->dim + 7) / 8 * 16;
    for (int i = 0; i < 4; i++)
        if (shape[i] == 0)
            shape[i] = 1; /* no rows: nothing is read but zeros past the end */
    cuuint32_t ones[4] = {1, 1, 1, 1};
    for (int b = 0; b < (a->uniform ? 1 : BOXES); b++) {
        cuuint32_t box[4] = {64, a->uniform ? 8u * (cuuint32_t)a->piece : 8u << b,
                             a->uniform ? (cuuint32_t)a->together : 1, 1};
        CUresult e = gpu->encode(
            &a->maps[b], d->dtype == LIK_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4,
            (void *)d->data, shape, strides, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
        if (e != CUDA_SUCCESS)
            return lik_fail(LIK_EDEVICE, "cuTensorMapEncodeTiled failed (%d) for d: %lld x %lld x %lld", (int)e,
                            (long long)d->count, (long long)d->len_max, (long long)d->dim);
    }
    return LIK_OK;
}

int lik_score_sm90_launch(const struct lik_gpu *gpu, const struct score_args *score, struct sm90_shape shape,
                          cudaStream_t stream)
{
    struct sm90_args a = {};
    a.score = *score;
    a.slabs = slabs_of(&score->op);
    a.stages = shape.stages;
    a.warpgroups = shape.warpgroups;
    a.deep = deep_of(a.slabs);
    a.slab_bytes = shape.slab_bytes;
    a.stage_bytes = shape.slab_bytes * a.deep;
    a.blocks = shape.blocks;
    a.together = shape.together;
    a.normalize = score->op.d.normalize != 0;
    a.uniform = is_uniform(&score->op);
    a.piece = shape.piece;
    int status = make_maps(gpu, &a);
    if (status)
        return status;
    int64_t tiles = score->tiling.tiles, total = tiles * score->columns;
    unsigned grid = (unsigned)(total < gpu->processors ? total : gpu->processors);
    if (tiles <= grid) {
        int64_t chunks = grid / tiles, longest = (score->columns + chunks - 1) / chunks - (total + grid - 1) / grid;
        double multiplied = 64.0 * shape.bands * shape.warpgroups * (double)score->op.d.len_max * 64.0 * a.slabs;
        if ((double)longest * multiplied < ROWS_COST) {
            a.chunks = (int32_t)chunks;
            grid = (unsigned)(chunks * tiles);
        }
    }
    /* Memory is read faster where all blocks read from one region of it. */
    a.in_turn = a.chunks && a.uniform && (a.together == 1 || score->columns >= (int64_t)4 * a.together * a.chunks);
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t how = {};
    how.gridDim = grid;
    how.blockDim = 128 * (unsigned)(shape.warpgroups + 1);
    how.dynamicSmemBytes = shape.bytes;
    how.stream = stream;
    how.attrs = &early;
    how.numAttrs = 1;
    cudaLaunchKernelEx(&how, kernel_of(score->op.d.dtype == LIK_BF16, score->op.argmax != NULL, shape.bands > 1), a);
    return lik_cuda_launched("score_sm90");
}
