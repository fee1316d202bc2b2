/* The forward pass on Hopper: f16 or bf16 tokens that the copy engine can take, multiplied by wgmma.
 *
 * The documents of a score row are one stream of blocks of 8 columns: a document of n tokens is ceil(n / 8) blocks, and
 * a column tile is the next 16 blocks of the stream (128 columns), whatever documents they belong to. So a tile is full
 * for every document length, and no table of tile widths is needed. One producer warp walks the stream, copies each
 * tile in slabs of 64 elements of the dim (128 columns x 128 bytes, 16 KiB) into a ring, and writes beside it a head:
 * which columns count, where documents end (stream.cuh).
 *
 * One to four warpgroups multiply. Each owns 64 query rows, which stay in shared memory, multiplies them by every tile,
 * and keeps one running maximum a row and lane. At a document's end the maxima go to a small stash, from which each
 * warp sums its 16 rows after the tile; one more warp adds those sums up to scores. Where documents are normalized, two
 * more warps take the norms of the columns as they pass through the ring, so that the documents are read once.
 *
 * Blocks of the grid are persistent, one a processor; each takes an equal share of all (row tile, document) pairs, row
 * tile by row tile, so that blocks which share documents stream them at the same time, through L2. */
#include "cuda/mma.cuh"
#include "cuda/stream.cuh"

static size_t stash_bytes(int warpgroups, bool argmax)
{
    return (size_t)warpgroups * MAX_ENDS * 128 * (argmax ? sizeof(struct maxima) : 8);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- The warp that finishes scores ---- */

LIK_DEVICE void finish_scores(const struct sm90_args &a, struct shared &sm, int64_t documents)
{
    const struct tiling &t = a.score.tiling;
    int lane = (int)threadIdx.x & 31, blocks = t.blocks, queries = t.parts ? 1 : t.tile_blocks / blocks, row_tile = -1;
    int64_t mine = -1; /* the scores of lane's query of the row tile */
    for (int turn = 0; documents > 0; turn++) {
        struct sums &sums = sm.sums[turn & 1];
        mbarrier_wait(&sm.sums_full[turn & 1], turn >> 1 & 1);
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
            mbarrier_arrive(&sm.sums_empty[turn & 1]);
        documents -= n;
    }
}

/* ---- The warpgroups that multiply ---- */

/* A thread of a warpgroup. Its accumulators hold rows lane / 4 and lane / 4 + 8 of its warp's block. What is known of
 * the rows stays in shared memory: with four warpgroups, registers are what there is least of. */
struct consumer {
    int warpgroup, lane, warp;

    char *rows;  /* this warpgroup's query rows */
    char *stash; /* this thread's entry of document 0 */
};

/* Query rows of a row tile to shared memory, as wgmma wants them; what belongs to them beside. */
LIK_DEVICE void load_queries(const struct sm90_args &a, struct shared &sm, const struct consumer &me, int64_t row_tile)
{
    const struct lik_tokens &q = a.score.op.q;
    int thread = (int)threadIdx.x & 127, chunk = thread & 7;
    named_barrier(1 + me.warpgroup, 128);
    if (thread < 64) {
        struct block_place place = locate_block(a.score.tiling, row_tile, me.warpgroup * 4 + thread / 16);
        struct query_row row = locate_row(a.score, place, thread & 15);
        sm.row_at[me.warpgroup][thread] = row.at;
        sm.row_weight[me.warpgroup][thread] = row.weight;
        sm.row_counts[me.warpgroup][thread] = row.counts ? (row.at != LIK_NOWHERE ? 1 : 2) : 0;
    }
    named_barrier(1 + me.warpgroup, 128);
    for (int slab = 0; slab < a.slabs; slab++)
#pragma unroll
        for (int r = thread / 8; r < 64; r += 16) {
            int64_t at = sm.row_at[me.warpgroup][r];
            int k = slab * 64 + chunk * 8, n = (int)q.dim - k;
            uint16_t *to = (uint16_t *)(me.rows + slab * SLAB_ROWS_BYTES + r * 128 + ((chunk ^ (r & 7)) << 4));
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
    if (q.normalize)
        for (int r = thread / 8; r < 64; r += 16) {
            struct query_row row = {sm.row_at[me.warpgroup][r], 1.0f, 1.0f, true};
            float factor = row_factor(a.score, row, chunk);
            if (chunk == 0)
                sm.row_weight[me.warpgroup][r] = __fmul_rn(sm.row_weight[me.warpgroup][r], factor);
        }
    if (thread < 4) {
        struct block_place place = locate_block(a.score.tiling, row_tile, me.warpgroup * 4 + thread);
        sm.first[me.warpgroup][thread] = place.row < 0 ? -1 : place.row * a.score.columns;
        sm.block[me.warpgroup][thread] = place.block;
    }
    copy_async_wait<0>();
    fence_async_shared();
    named_barrier(1 + me.warpgroup, 128);
}

template <bool bf16> LIK_DEVICE void multiply_step(float (&c)[64], uint64_t q, uint64_t d, int add)
{
    if (bf16)
        wgmma_bf16(c, q, d, add);
    else
        wgmma_f16(c, q, d, add);
}

/* c += a slab of the rows x a slab of the columns; c = that if not `add`. Elements past the dim are zeros in both. */
template <bool bf16> LIK_DEVICE void multiply_slab(float (&c)[64], const char *rows, const char *columns, int add)
{
    uint64_t q = wgmma_descriptor(rows), d = wgmma_descriptor(columns);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        multiply_step<bf16>(c, q + 2 * k, d + 2 * k, add | k);
    wgmma_commit(); /* in one basic block with the products, or ptxas takes them one at a time */
}

/* A place in the ring, and the parity of its full barrier. */
struct place {
    int stage;
    uint32_t parity;
};

LIK_DEVICE void advance(struct place &at, int stages)
{
    if (++at.stage == stages) {
        at.stage = 0;
        at.parity ^= 1;
    }
}

/* One pair of the scan for the argmax: strictly larger pairs replace the best, so that ties stay with the lowest token;
 * which of a pair it was is settled later. */
LIK_DEVICE void scan_pair(float a, float b, float &best, int &block, float &first, int j)
{
    float x = max_nan(a, b);
    if (x > best) {
        block = j;
        first = a;
    }
    best = max_nan(best, x);
}

/* Scan of one row tile's products that keeps the rules of NaN, of ties and of products of -inf to the letter; for the
 * rare tile where the fast scan met one of them. */
LIK_DEVICE void scan_carefully(const float (&c)[64], const struct head &head, struct maxima &m, struct maxima *stash)
{
    int pair = ((int)threadIdx.x & 3) * 2, base = head.token + pair, ended = 0;
#pragma unroll
    for (int j = 0; j < TILE_BLOCKS; j++) {
        uint32_t bits = head.counts[j / 4] >> (j % 4 * 8 + pair);
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (bits >> e & 1) {
                keep_better(m.best0, m.at0, c[j * 4 + e], base + j * 8 + e);
                keep_better(m.best1, m.at1, c[j * 4 + 2 + e], base + j * 8 + e);
            }
        if (head.ends >> j & 1) {
            stash[ended++ * 128] = m;
            m = {-INFINITY, -INFINITY, -1, -1};
            base = pair - (j + 1) * 8;
        }
    }
}

LIK_DEVICE struct brief read_head(const struct head &head)
{
    struct brief b;
    *(uint4 *)b.counts = *(const uint4 *)head.counts;
    b.ends = head.ends;
    b.token = head.token;
    b.flags = head.flags;
    return b;
}

/* The products times what normalizes their columns. */
LIK_DEVICE void scale_products(float (&c)[64], const struct head &head)
{
    int pair = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int j = 0; j < TILE_BLOCKS; j++) {
        float2 f = *(const float2 *)&head.factor[j * 8 + pair];
        c[j * 4] = __fmul_rn(c[j * 4], f.x);
        c[j * 4 + 1] = __fmul_rn(c[j * 4 + 1], f.y);
        c[j * 4 + 2] = __fmul_rn(c[j * 4 + 2], f.x);
        c[j * 4 + 3] = __fmul_rn(c[j * 4 + 3], f.y);
    }
}

/* The four products of block j that count; -inf for those that don't. */
LIK_DEVICE void pick(const float (&c)[64], int j, uint32_t bits, float (&x)[4])
{
    int pair = ((int)threadIdx.x & 3) * 2;
    bool first = bits >> pair & 1, second = bits >> pair & 2;
    x[0] = first ? c[j * 4] : -INFINITY;
    x[1] = second ? c[j * 4 + 1] : -INFINITY;
    x[2] = first ? c[j * 4 + 2] : -INFINITY;
    x[3] = second ? c[j * 4 + 3] : -INFINITY;
}

/* Takes the products of one row tile by one column tile into the running maxima `m`; those of documents that end here
 * go to the stash. Four blocks at a time: plain ones, without a document's end or a dropped column, need no questions.
 */
LIK_DEVICE void take_maxima(const float (&c)[64], const struct head &, const struct brief &brief, struct maxima &m,
                            float2 *stash)
{
    uint32_t ends = brief.ends;
    if (brief.flags & 2) {
        float x[4], y[4];
#pragma unroll
        for (int j = 0; j < TILE_BLOCKS; j++) {
            float p = max_nan(c[j * 4], c[j * 4 + 1]), r = max_nan(c[j * 4 + 2], c[j * 4 + 3]);
            x[j & 3] = j < 4 ? p : max_nan(x[j & 3], p);
            y[j & 3] = j < 4 ? r : max_nan(y[j & 3], r);
        }
        m.best0 = max_nan(m.best0, max_nan(max_nan(x[0], x[1]), max_nan(x[2], x[3])));
        m.best1 = max_nan(m.best1, max_nan(max_nan(y[0], y[1]), max_nan(y[2], y[3])));
        if (ends) {
            *stash = make_float2(m.best0, m.best1);
            m.best0 = m.best1 = -INFINITY;
        }
        return;
    }
#pragma unroll
    for (int g = 0; g < TILE_BLOCKS; g += 4) {
        uint32_t counts = brief.counts[g / 4];
        if (counts == ~0u && (ends >> g & 15u) == 0) {
            float x[4], y[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                x[j] = max_nan(c[(g + j) * 4], c[(g + j) * 4 + 1]);
                y[j] = max_nan(c[(g + j) * 4 + 2], c[(g + j) * 4 + 3]);
            }
            m.best0 = max_nan(m.best0, max_nan(max_nan(x[0], x[1]), max_nan(x[2], x[3])));
            m.best1 = max_nan(m.best1, max_nan(max_nan(y[0], y[1]), max_nan(y[2], y[3])));
            continue;
        }
#pragma unroll
        for (int j = g; j < g + 4; j++) {
            float x[4];
            pick(c, j, counts >> (j - g) * 8, x);
            m.best0 = max_nan(m.best0, max_nan(x[0], x[1]));
            m.best1 = max_nan(m.best1, max_nan(x[2], x[3]));
            if (ends >> j & 1) {
                *stash = make_float2(m.best0, m.best1);
                stash += 128;
                m.best0 = m.best1 = -INFINITY;
            }
        }
    }
}

/* The same with the argmax. */
LIK_DEVICE void take_maxima(const float (&c)[64], const struct head &head, const struct brief &brief, struct maxima &m,
                            struct maxima *stash)
{
    struct maxima before = m, *const stash_before = stash;
    int base = brief.token + ((int)threadIdx.x & 3) * 2, block0 = -1, block1 = -1;
    float first0 = 0.0f, first1 = 0.0f;
    uint32_t ends = brief.ends;
    bool strange = false;
    auto settle = [&]() {
        if (block0 >= 0)
            m.at0 = base + block0 * 8 + (first0 == m.best0 ? 0 : 1);
        if (block1 >= 0)
            m.at1 = base + block1 * 8 + (first1 == m.best1 ? 0 : 1);
        strange |= !(m.best0 > -INFINITY) || !(m.best1 > -INFINITY);
    };
    bool whole = brief.flags & 2;
#pragma unroll
    for (int g = 0; g < TILE_BLOCKS; g += 4) {
        uint32_t counts = brief.counts[g / 4];
        if (whole || (counts == ~0u && (ends >> g & 15u) == 0)) {
#pragma unroll
            for (int j = g; j < g + 4; j++) {
                scan_pair(c[j * 4], c[j * 4 + 1], m.best0, block0, first0, j);
                scan_pair(c[j * 4 + 2], c[j * 4 + 3], m.best1, block1, first1, j);
            }
            continue;
        }
#pragma unroll
        for (int j = g; j < g + 4; j++) {
            float x[4];
            pick(c, j, counts >> (j - g) * 8, x);
            scan_pair(x[0], x[1], m.best0, block0, first0, j);
            scan_pair(x[2], x[3], m.best1, block1, first1, j);
            if (ends >> j & 1) {
                settle();
                *stash = m;
                stash += 128;
                m = {-INFINITY, -INFINITY, -1, -1};
                block0 = block1 = -1;
                base = ((int)threadIdx.x & 3) * 2 - (j + 1) * 8;
            }
        }
    }
    if (whole && ends) {
        settle();
        *stash = m;
        m = {-INFINITY, -INFINITY, -1, -1};
    } else if (brief.flags & 1) {
        settle();
    }
    if (__any_sync(~0u, strange)) {
        m = before;
        scan_carefully(c, head, m, stash_before);
    }
}

/* After a tile: for each document that ended, the maximum of a row from its four lanes, the argmax, and the sum of the
 * warp's block of 16 rows. `turn` counts such tiles. */
template <bool want_argmax>
LIK_DEVICE void finish_rows(const struct sm90_args &a, struct shared &sm, const struct consumer &me,
                            const struct head &head, int turn)
{
    int documents = __popc(head.ends), r = me.warp * 16 + me.lane / 4;
    float weight0 = sm.row_weight[me.warpgroup][r], weight1 = sm.row_weight[me.warpgroup][r + 8];
    int counts0 = sm.row_counts[me.warpgroup][r], counts1 = sm.row_counts[me.warpgroup][r + 8];
    int block = sm.block[me.warpgroup][me.warp], s = block * LIK_BLOCK_ROWS + me.lane / 4;
    int64_t first = sm.first[me.warpgroup][me.warp];
    struct sums &sums = sm.sums[turn & 1];
    if (me.lane == 0 && !a.score.partial) {
        mbarrier_wait(&sm.sums_empty[turn & 1], (turn >> 1 & 1) ^ 1);
        if (me.warpgroup == 0 && me.warp == 0) {
            sums.column = head.column;
            sums.row_tile = head.row_tile;
            sums.documents = documents;
        }
    }
    for (int i = 0; i < documents; i++) {
        struct maxima m = {-INFINITY, -INFINITY, -1, -1};
        if (want_argmax) {
            m = ((const struct maxima *)me.stash)[i * 128];
        } else {
            float2 best = ((const float2 *)me.stash)[i * 128];
            m.best0 = best.x, m.best1 = best.y;
        }
#pragma unroll
        for (int o = 1; o < 4; o *= 2) {
            float x0 = __shfl_xor_sync(~0u, m.best0, o), x1 = __shfl_xor_sync(~0u, m.best1, o);
            if (want_argmax) {
                keep_better(m.best0, m.at0, x0, __shfl_xor_sync(~0u, m.at0, o));
                keep_better(m.best1, m.at1, x1, __shfl_xor_sync(~0u, m.at1, o));
            } else {
                m.best0 = max_nan(m.best0, x0);
                m.best1 = max_nan(m.best1, x1);
            }
        }
        bool empty = head.empty >> i & 1;
        int64_t n = first + head.column + i;
        if (want_argmax && (me.lane & 3) == 0 && first >= 0) {
            int64_t at = n * a.score.op.q.len_max + s;
            if (s < a.score.op.q.len_max)
                store_argmax(a.score.op, at, counts0 == 1 && !empty ? m.at0 : -1);
            if (s + 8 < a.score.op.q.len_max)
                store_argmax(a.score.op, at + 8, counts1 == 1 && !empty ? m.at1 : -1);
        }
        float sum = add_block(counts0 && !empty ? __fmul_rn(weight0, m.best0) : 0.0f,
                              counts1 && !empty ? __fmul_rn(weight1, m.best1) : 0.0f);
        if ((head.bad >> i & 1) || counts0 == 2) /* lane 0's row is the block's first */
            sum = __uint_as_float(0x7fc00000u);
        if (me.lane == 0) {
            if (!a.score.partial)
                sums.of[i][me.warpgroup * 4 + me.warp] = sum;
            else if (first >= 0)
                a.score.partial[n * a.score.tiling.blocks + block] = sum;
        }
    }
    if (me.lane == 0 && !a.score.partial)
        mbarrier_arrive(&sm.sums_full[turn & 1]);
    __syncwarp();
}

LIK_DEVICE void free_stage(struct shared &sm, const struct consumer &me, int stage)
{
    if (me.lane == 0)
        mbarrier_arrive(&sm.empty[stage]);
}

/* The products of the warpgroup's rows and the column tile at `at`; returns the place after it. The tile may be longer
 * than the ring: each slab is given back once it is multiplied. */
template <bool bf16>
LIK_DEVICE struct place multiply_tile(const struct sm90_args &a, struct shared &sm, struct consumer &me,
                                      const char *ring, float (&c)[64], struct place at, const struct head &head,
                                      struct brief &brief)
{
    int before = 0;
    for (int slab = 0; slab < a.slabs; slab++) {
        mbarrier_wait(&sm.full[at.stage], at.parity);
        multiply_slab<bf16>(c, me.rows + slab * SLAB_ROWS_BYTES, ring + at.stage * SLAB_BYTES, slab);
        if (slab > 0) {
            wgmma_wait<1>();
            free_stage(sm, me, before);
        }
        before = at.stage;
        advance(at, a.stages);
    }
    brief = read_head(head);
    wgmma_wait<0>();
    free_stage(sm, me, before);
    return at;
}

template <bool bf16, bool want_argmax>
LIK_DEVICE void consume(const struct sm90_args &a, struct shared &sm, struct consumer &me, const char *ring, int held)
{
    struct maxima m = {-INFINITY, -INFINITY, -1, -1};
    struct place at = {0, 0};
    int turn = 0;
    uint32_t pass = 0; /* parity of the heads */

    for (int tile = 0;; tile = (tile + 1) % HEADS) {
        float c[64];
        struct brief brief;
        mbarrier_wait(&sm.full[at.stage], at.parity);
        const struct head &head = sm.heads[tile];
        if (head.row_tile < 0)
            break;
        if (head.row_tile != held) {
            held = head.row_tile;
            load_queries(a, sm, me, held);
        }
        at = multiply_tile<bf16>(a, sm, me, ring, c, at, head, brief);
        if (a.normalize) {
            mbarrier_wait(&sm.normed[tile], pass);
            pass ^= tile == HEADS - 1;
            scale_products(c, head);
        }
        if (want_argmax)
            take_maxima(c, head, brief, m, (struct maxima *)me.stash);
        else
            take_maxima(c, head, brief, m, (float2 *)me.stash);
        if (brief.ends)
            finish_rows<want_argmax>(a, sm, me, head, turn++);
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

/* Every tile's columns as they pass: a lane takes two of them, chunk by chunk of the swizzled slab, so that eight lanes
 * meet all banks. Elements past the dim are zeros. */
template <bool bf16>
LIK_DEVICE void take_norms(const struct sm90_args &a, struct shared &sm, const char *ring, int half)
{
    struct place at = {0, 0};
    int lane = (int)threadIdx.x & 31, c = half * 64 + lane;
    for (int tile = 0;; tile = (tile + 1) % HEADS) {
        mbarrier_wait(&sm.full[at.stage], at.parity);
        struct head &head = sm.heads[tile];
        if (head.row_tile < 0)
            break;
        float squares[2][2] = {};
        for (int slab = 0; slab < a.slabs; slab++) {
            mbarrier_wait(&sm.full[at.stage], at.parity);
            const char *row = ring + at.stage * SLAB_BYTES + c * 128;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int chunk = (i ^ (c & 7)) << 4;
                squares[0][i & 1] = add_squares<bf16>(*(const uint4 *)(row + chunk), squares[0][i & 1]);
                squares[1][i & 1] = add_squares<bf16>(*(const uint4 *)(row + 32 * 128 + chunk), squares[1][i & 1]);
            }
            __syncwarp();
            if (lane == 0)
                mbarrier_arrive(&sm.empty[at.stage]);
            advance(at, a.stages);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float norm = __fsqrt_rn(__fadd_rn(squares[i][0], squares[i][1]));
            head.factor[c + 32 * i] = __fdiv_rn(1.0f, norm < 1e-12f ? 1e-12f : norm);
        }
        __syncwarp();
        if (lane == 0)
            mbarrier_arrive(&sm.normed[tile]);
    }
}
#endif

/* `groups`: most warpgroups that multiply. With more than two, registers move to them from the producer's. */
template <bool bf16, int groups, bool want_argmax>
static __global__ void __launch_bounds__(128 * (groups + 1), 1) score_sm90(const __grid_constant__ struct sm90_args a)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char dynamic[];
    __shared__ struct shared sm;
    char *ring = dynamic + (-shared_address(dynamic) & 1023u); /* the swizzle counts from multiples of 1024 */
    char *rows = ring + a.stages * SLAB_BYTES;
    size_t rows_bytes = (size_t)a.slabs * SLAB_ROWS_BYTES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < a.stages; i++) {
            mbarrier_init(&sm.full[i], 1);
            mbarrier_init(&sm.empty[i], 4 * a.warpgroups + (a.normalize ? 2 : 0));
        }
        for (int i = 0; i < 2; i++) {
            mbarrier_init(&sm.sums_full[i], 4 * a.warpgroups);
            mbarrier_init(&sm.sums_empty[i], 1);
        }

        for (int i = 0; i < HEADS; i++)
            mbarrier_init(&sm.normed[i], 2);
        mbarrier_init_done();
    }
    __syncthreads();
    int64_t total = a.score.tiling.tiles * a.score.columns, share = total / gridDim.x, rest = total % gridDim.x;
    int64_t first = share * blockIdx.x + min((int64_t)blockIdx.x, rest), count = share + (blockIdx.x < rest);
    int role = __shfl_sync(~0u, (int)threadIdx.x / 128, 0), warp = __shfl_sync(~0u, (int)threadIdx.x / 32 & 3, 0);
    if (role >= a.warpgroups) {
        if (groups == 4)
            registers_give<64>(); /* 64 + 4 x 104 is what five warpgroups of 96 have together */
        else if (groups == 3)
            registers_give<80>(); /* 80 + 3 x 144: four of 128 */
        if (warp == 0)
            produce(a, sm, ring, first, count);
        else if (warp == 1 && !a.score.partial)
            finish_scores(a, sm, count);
        else if (warp >= 2 && a.normalize)
            take_norms<bf16>(a, sm, ring, warp - 2);
    } else {
        if (groups == 4)
            registers_take<104>();
        else if (groups == 3)
            registers_take<144>();
        struct consumer me = {};
        me.warpgroup = role;

        me.lane = (int)threadIdx.x & 31;
        me.warp = warp;
        me.rows = rows + me.warpgroup * rows_bytes;
        me.stash =
            rows + a.warpgroups * rows_bytes +
            (me.warpgroup * MAX_ENDS * 128 + ((int)threadIdx.x & 127)) * (want_argmax ? sizeof(struct maxima) : 8);
        int row_tile = (int)(first / a.score.columns);
        load_queries(a, sm, me, row_tile);
        consume<bf16, want_argmax>(a, sm, me, ring, row_tile);
    }
#else
    __trap(); /* the driver never launches this elsewhere */
#endif
}

/* ---- The host's side ---- */

typedef void (*kernel)(struct sm90_args);

static kernel kernel_of(bool bf16, bool argmax, bool many)
{
    static const kernel kernels[2][2][2] = {{{score_sm90<false, 2, false>, score_sm90<false, 4, false>},
                                             {score_sm90<false, 2, true>, score_sm90<false, 3, true>}},
                                            {{score_sm90<true, 2, false>, score_sm90<true, 4, false>},
                                             {score_sm90<true, 2, true>, score_sm90<true, 3, true>}}};
    return kernels[bf16][argmax][many];
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

/* Bytes besides the ring. */
static size_t fixed_bytes(int warpgroups, int slabs, bool argmax)
{
    return 1024 + (size_t)warpgroups * slabs * SLAB_ROWS_BYTES + stash_bytes(warpgroups, argmax);
}

static int stages_for(const struct lik_gpu *gpu, int warpgroups, int slabs, bool argmax)
{
    size_t fixed = fixed_bytes(warpgroups, slabs, argmax) + sizeof(struct shared);
    if (fixed >= gpu->shared_bytes)
        return 0;
    size_t stages = (gpu->shared_bytes - fixed) / SLAB_BYTES;
    return stages < MAX_STAGES ? (int)stages : MAX_STAGES;
}

static int slabs_of(const struct lik_score *op)
{
    return (int)((op->d.dim + 63) / 64);
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

int lik_score_sm90_takes(const struct lik_gpu *gpu, const struct lik_score *op)
{
    const struct lik_tokens *q = &op->q, *d = &op->d;
    return gpu->hopper && q->dtype == d->dtype && (d->dtype == LIK_F16 || d->dtype == LIK_BF16) && !q->scale &&
           !d->scale && map_strides(d) && stages_for(gpu, 1, slabs_of(op), op->argmax != NULL) >= 4;
}

/* How many warpgroups: those that make the grid's longest share of products the shortest. One keeps the tensor cores
 * busy half of the time, and whole queries in a tile count for a tenth less: measured. */
struct sm90_shape lik_score_sm90_shape(const struct lik_gpu *gpu, const struct lik_score *op, int64_t blocks,
                                       int64_t query_blocks)
{
    int slabs = slabs_of(op);
    bool argmax = op->argmax != NULL;
    struct sm90_shape best = {};
    double least = 0.0;
    int64_t units = op->pairing == LIK_ALL ? op->d.count : lik_score_rows(op) * lik_score_columns(op);
    for (int warpgroups = 1; warpgroups <= (argmax ? 3 : MAX_GROUPS); warpgroups++) {
        int stages = stages_for(gpu, warpgroups, slabs, argmax);

        if (stages < 4 || (warpgroups > 1 && blocks <= 4 * (warpgroups - 1)))
            continue;
        int64_t tiles = (blocks + 4 * warpgroups - 1) / (4 * warpgroups);
        double cost = (double)((tiles * units + gpu->processors - 1) / gpu->processors) * warpgroups;
        cost *= warpgroups == 1 ? 2.0 : warpgroups == 2 ? 1.2 : 1.0;
        cost *= op->pairing == LIK_ALL && 4 * warpgroups % query_blocks == 0 ? 0.9 : 1.0;
        if (best.stages && cost >= least)
            continue;
        least = cost;
        best.warpgroups = warpgroups;
        best.stages = stages;
        best.bytes = fixed_bytes(warpgroups, slabs, argmax) + (size_t)stages * SLAB_BYTES;
    }
    return best;
}

/* Tensor maps of the documents, (dim, token, sequence, group), one for each box height. */
static int make_maps(const struct lik_gpu *gpu, struct sm90_args *a)
{
    const struct lik_tokens *d = &a->score.op.d;
    int64_t members = d->group_size > 0 ? d->group_size : d->count;
    a->flat = !d->offsets && d->group_size == 0 && d->len_max % 8 == 0 &&
              (d->count == 1 || d->strides.sequence == d->len_max * d->strides.token) &&
              d->count * d->len_max <= INT32_MAX - 4096;
    a->group_size = (int32_t)members;
    cuuint64_t shape[4] = {(cuuint64_t)d->dim, (cuuint64_t)d->len_max, (cuuint64_t)members,
                           (cuuint64_t)(d->count / members)};
    if (d->offsets || a->flat) {
        shape[1] = (cuuint64_t)(a->flat ? d->count * d->len_max : d->total);
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
    for (int b = 0; b < BOXES; b++) {
        cuuint32_t box[4] = {64, 8u << b, 1, 1};
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
    a.normalize = score->op.d.normalize != 0;
    int status = make_maps(gpu, &a);
    if (status)
        return status;
    const struct lik_tokens *d = &score->op.d;
    a.uniform = !d->mask && !d->offsets && score->op.pairing != LIK_LIST && d->len_max > 0 && d->len_max < 1 << 24 &&
                d->count <= INT32_MAX;
    a.inverse_blocks = 1.0f / (float)((d->len_max + 7) / 8);
    int64_t total = score->tiling.tiles * score->columns;
    unsigned grid = (unsigned)(total < gpu->processors ? total : gpu->processors);
    kernel_of(score->op.d.dtype == LIK_BF16, score->op.argmax != NULL,
              shape.warpgroups > 2)<<<grid, 128 * (shape.warpgroups + 1), shape.bytes, stream>>>(a);
    return lik_cuda_launched("score_sm90");
}
