/* One pass over compressed documents of 128 elements for queries that all of them meet. As in
 * scan.cuh a warp gathers the centroids of its tokens, 16 of them, and adds their weights in
 * registers; but four warps multiply together (wgmma), and the query rows lie in shared memory,
 * once a block: no register holds them, so that more warps fit, or more rows.
 *
 * A block has a run of documents, and its warps have equal shares of their tiles, so that the
 * four of a warpgroup, who begin every product together, are done together. A document that a
 * share's end cuts is joined when all of the block are done.
 *
 * Elements of a product have the order of scan.cuh, and the bits of scores are the same. */
#ifndef LIK_CUDA_SCAN_GROUP_CUH
#define LIK_CUDA_SCAN_GROUP_CUH

#include "cuda/scan/share.cuh"
#include "cuda/wgmma.cuh"

#define GROUP_BLOCKS (GROUP_DIM / 16)
#define GROUP_WIDE   8 /* octets of query rows multiplied at once, where there are more than 32 */

/* Of a query row in shared memory. */
struct group_row {
    float weight;
    int token; /* of its query */
    bool counts, bad;
};

/* Of a warp's share, in shared memory: the document that it begins amid, or else ends amid (-1:
 * none), and whether a token of that counted. The maxima of its query rows are elsewhere. */
struct group_part {
    int column;
    int any;
};

/* Shared memory of a block, by its address: query rows, slab by slab in wgmma's order; what
 * rows count; where strips belong; documents that shares cut; the warps' rings, and amid
 * them the table of weights, whose address has 16 lower bits of 0: a byte of residual stands
 * in an address of it as it is. */
template <int bits, int rows> struct group_memory {
    static constexpr int warps = GROUP_WARPS(rows), queries = GROUP_QUERIES,
                         row = queries + rows * GROUP_DIM * 2,
                         strip = row + rows * (int)sizeof(struct group_row),
                         part = strip + rows / 16 * (int)sizeof(struct strip_place),
                         maxima = queries + rows * (GROUP_DIM * 2 + 20),
                         argmaxima = maxima + rows * 4 * warps, table = GROUP_TABLE(rows),
                         low = GROUP_RINGS_LOW(rows, bits);
    static constexpr float offset = 0.0f; /* that is added to products */
    static_assert(part + warps * (int)sizeof(struct group_part) <= maxima, "as planned");

    LIK_MEMBER static int ring(int warp)
    {
        return (warp < low ? GROUP_RING(rows) : table + 65536 - low * GROUP_RING_BYTES(bits)) +
               warp * GROUP_RING_BYTES(bits);
    }
};

/* The table of weights: the 256 entries are 256 bytes apart. */
template <int dtype, int bits> LIK_DEVICE void make_group_table(char *table, const struct lik_codec &codec)
{
    if (!bits || threadIdx.x >= 256)
        return;
    constexpr int words = bits == 1 ? 4 : bits == 2 ? 2 : 1;
    uint32_t word[words];
#pragma unroll
    for (int k = 0; k < words; k++)
        word[k] = weights_in_byte<dtype, bits>(codec, (uint8_t)threadIdx.x, k);
    put_entries(table, 256, word);
}

/* Finds the query rows of a tile: what they count, where their strips belong and where they
 * lie, in shared memory. A warp finds 32, and normalizes four at once, eight lanes a row. */
template <class mem, int rows>
LIK_DEVICE void locate_group_rows(char *memory, const struct scan_args &args, int tile)
{
    const struct score_args &a = args.score;
    const int lane = (int)threadIdx.x & 31, first = (int)threadIdx.x & ~31;
    struct group_row *row = (struct group_row *)(memory + mem::row);
    int64_t *from = (int64_t *)(memory + mem::maxima); /* maxima come later */
#pragma unroll 1
    for (int r = first; r < rows; r += (int)blockDim.x) {
        const struct strip_place place = locate_strip(a.tiling, (uint32_t)tile, r / 16 + (lane >> 4));
        const struct query_row own = locate_row(a, place, lane & 15);
        row[r + lane] = {own.weight, own.token, own.counts, own.counts && own.at == LIK_NOWHERE};
        from[r + lane] = own.at;
        if ((lane & 15) == 0)
            ((struct strip_place *)(memory + mem::strip))[r / 16 + (lane >> 4)] = place;
    }
    __syncthreads();
#pragma unroll 1
    for (int r = first / 8 + (lane >> 3); r < rows && a.op.q.normalize; r += (int)blockDim.x / 8) {
        const float factor = row_factor(a, {from[r], 0, 0.0f, 1.0f, false}, lane & 7);
        if ((lane & 7) == 0)
            row[r].weight = __fmul_rn(row[r].weight, fabsf(factor));
    }
    __syncthreads();
}

/* Makes the block hold `rows` query rows of a tile, in `planes` of 16 bits each. A block of 16
 * elements is laid out such that a lane of A's four finds elements 4 t ... 4 t + 3. */
template <class mem, int rows, int planes>
LIK_DEVICE void hold_group_rows(char *memory, const struct scan_args &args, int tile)
{
    const struct lik_tokens &q = args.score.op.q;
    locate_group_rows<mem, rows>(memory, args, tile);
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < rows * GROUP_BLOCKS; i += (int)blockDim.x) {
        const int row = i / GROUP_BLOCKS, block = i % GROUP_BLOCKS, swizzle = (row & 7) * 16;
        const int64_t from = ((const int64_t *)(memory + mem::maxima))[row];
        uint32_t pair[planes][8] = {};
        if (from != LIK_NOWHERE) {
            const int64_t first = from + block * 16 * q.dim_stride;
#pragma unroll
            for (int e = 0; e < 16; e++) {
                const int64_t at = first + e * q.dim_stride;
                if (planes == 1) {
                    pair[0][e / 2] |= (uint32_t)((const uint16_t *)q.data)[at] << e % 2 * 16;
                } else {
                    float rest = ((const float *)q.data)[at];
#pragma unroll
                    for (int p = 0; p < planes; p++)
                        pair[p][e / 2] |= (uint32_t)take_plane(rest, p == planes - 1) << e % 2 * 16;
                }
            }
        }
#pragma unroll
        for (int p = 0; p < planes; p++) {
            char *to = memory + mem::queries + (p * 2 + block / 4) * (rows * 128) + row * 128;
            *(uint4 *)(to + (block % 4 * 32 ^ swizzle)) =
                make_uint4(pair[p][0], pair[p][2], pair[p][4], pair[p][6]);
            *(uint4 *)(to + (block % 4 * 32 + 16 ^ swizzle)) =
                make_uint4(pair[p][1], pair[p][3], pair[p][5], pair[p][7]);
        }
    }
}

/* A lane's words of a token's residual, and from them the weights of elements 4 t ... 4 t + 3
 * of each block. */
template <int bits> struct group_weights {
    uint32_t word[bits == 0 ? 1 : bits == 1 ? 4 : 8];

    LIK_MEMBER void load(const char *row)
    {
        const int t = (int)threadIdx.x & 3;
        if (bits == 1 || bits == 2) {
#pragma unroll
            for (int i = 0; i < bits; i++) {
                uint4 v = *(const uint4 *)(row + i * 16);
                word[4 * i] = v.x, word[4 * i + 1] = v.y, word[4 * i + 2] = v.z, word[4 * i + 3] = v.w;
            }
        }
        if (bits == 4) {
#pragma unroll
            for (int b = 0; b < GROUP_BLOCKS; b++)
                word[b] = *(const uint32_t *)(row + b * 8 + (t >> 1) * 4);
        }
    }

    /* The entry of byte n of a word. `own`: the lane's copy in an entry, and above it the
     * table's address / 65536. */
    LIK_MEMBER static uint32_t entry(uint32_t word, uint32_t own, int n)
    {
        return __byte_perm(word, own, 0x6504u | (uint32_t)n << 4);
    }

    LIK_MEMBER static uint32_t pair(uint32_t at)
    {
        uint32_t w;
        asm("ld.shared.u32 %0, [%1];" : "=r"(w) : "r"(at));
        return w;
    }

    LIK_MEMBER void of_block(int b, uint32_t own, uint32_t (&w)[2]) const
    {
        const int t = (int)threadIdx.x & 3;
        if (bits == 1 || bits == 2) {
            const uint32_t at =
                bits == 2 ? entry(word[b], own, t) : entry(word[b / 2], own, b % 2 * 2 + (t >> 1));
            asm("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(w[0]), "=r"(w[1]) : "r"(at));
        } else if (bits == 4) {
            w[0] = pair(entry(word[b], own, (t & 1) * 2));
            w[1] = pair(entry(word[b], own, (t & 1) * 2 + 1));
        }
    }
};

/* Of a lane's tokens of a tile, token lane / 4 of every eight, as bits: those that count. */
LIK_DEVICE int tokens_kept(const struct lik_tokens &d, const struct group_tile &tile)
{
    const int first = (int)threadIdx.x >> 2 & 7;
    int kept = 0;
#pragma unroll
    for (int r = 0; r < GROUP_TOKENS / 8; r++)
        if (first + 8 * r < tile.count &&
            (!d.mask ||
             token_kept(d, lik_tokens_base(&d, &d.mask_strides, tile.document), tile.token + first + 8 * r)))
            kept |= 1 << r;
    return kept;
}

/* As unit_factors_of, of two tokens. */
LIK_DEVICE void two_unit_factors(float (&factor)[2])
{
    const int lane = (int)threadIdx.x & 31;
    const bool odd = lane & 1;
    float sum = __fadd_rn(odd ? factor[1] : factor[0], __shfl_xor_sync(~0u, odd ? factor[0] : factor[1], 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
    const float own = coded_unit_of(sum);
    factor[0] = __shfl_sync(~0u, own, lane & 28);
    factor[1] = __shfl_sync(~0u, own, (lane & 28) + 1);
}

/* Takes a tile's products with some octets of query rows into the maxima; bit r of `kept`: the
 * lane's token r counts. `whole`: all do, in every lane. With the argmax, `token` is the lane's
 * first, 8 before the other. */
template <int octets, bool factors, bool whole, bool want_argmax>
LIK_DEVICE void take_products(float *best, int *at, const float *acc, const float (&factor)[2], int kept,
                              int token)
{
#pragma unroll
    for (int n = 0; n < octets; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x[2], &most = best[2 * n + e];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                x[r] = factors ? __fmul_rn(acc[4 * n + 2 * r + e], factor[r]) : acc[4 * n + 2 * r + e];
                const bool counts = whole || (kept >> r & 1);
                if (!want_argmax) {
                    x[r] = counts ? x[r] : -INFINITY;
                } else if (counts && (at[2 * n + e] < 0 || x[r] > most || (x[r] != x[r] && most == most))) {
                    most = x[r];
                    at[2 * n + e] = token + 8 * r;
                }
            }
            if (!want_argmax)
                most = max_nan(most, max_nan(x[0], x[1]));
        }
}

/* Joins the lanes' maxima: of every 32 query rows the first of eight becomes that of
 * row_of_lane. */
template <int rows, bool want_argmax>
LIK_DEVICE void join_lanes(float (&best)[rows / 4], int (&at)[want_argmax ? rows / 4 : 1])
{
    const int lane = (int)threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < rows / 4; n += 8)
#pragma unroll
        for (int k = 4; k; k >>= 1)
#pragma unroll
            for (int i = 0; i < k; i++) {
                const bool upper = lane & k * 4;
                float &own = best[n + i];
                const float other = best[n + i + k],
                            theirs = __shfl_xor_sync(~0u, upper ? own : other, k * 4);
                own = upper ? other : own;
                if (want_argmax) {
                    const int t = at[i + k], at_theirs = __shfl_xor_sync(~0u, upper ? at[i] : t, k * 4);
                    at[i] = upper ? t : at[i];
                    keep_better(own, at[i], theirs, at_theirs);
                } else {
                    own = max_nan(own, theirs);
                }
            }
}

/* Adds the joined maxima of a document: the rows of each strip, in score.cuh's order, and the
 * strips of each query. With the argmax there are 32 rows, of which a lane has one, `at`. */
template <class mem, int rows, bool want_argmax>
LIK_DEVICE void write_scores(const float (&best)[rows / 4], int at, const struct scan_args &args,
                             const struct group_row *row, const struct strip_place *strip, int document,
                             bool any, bool bad)
{
    const struct score_args &a = args.score;
    const int lane = (int)threadIdx.x & 31, of_query = a.tiling.strips_per_query;
    if (want_argmax) {
        const struct group_row own = row[row_of_lane(lane)];
        const int64_t to = strip[lane >> 4].row, len_max = a.op.q.len_max;
        if (to >= 0 && own.token < len_max)
            store_argmax(a.op, (args.listed ? document : to * a.columns + document) * len_max + own.token,
                         own.counts && any && !own.bad ? at : -1);
    }
    float score = 0.0f;
    int done = 0; /* strips of the query */
#pragma unroll
    for (int n = 0; n < rows / 32; n++) {
        const struct group_row own = row[n * 32 + row_of_lane(lane)];
        const float most = mem::offset != 0.0f ? __fsub_rn(best[n * 8], mem::offset) : best[n * 8];
        float sum = own.counts && any ? __fmul_rn(own.weight, most) : 0.0f;
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 8));
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 4));
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
        if (own.bad || bad)
            sum = __uint_as_float(0x7fc00000u);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float of_strip = __shfl_sync(~0u, sum, i * 16);
            const struct strip_place place = strip[n * 2 + i];
            const int64_t to = args.listed ? document : place.row, column = args.listed ? 0 : document;
            score = done == 0 ? of_strip : __fadd_rn(score, of_strip);
            done++;
            if (a.partial) {
                if (lane == 0 && place.row >= 0)
                    a.partial[(to * a.columns + column) * of_query + place.strip] = of_strip;
            } else if (done == of_query) {
                if (lane == 0 && place.row >= 0)
                    a.op.scores[to * a.op.scores_stride + column] = score;
                done = 0;
            }
        }
    }
}

/* The maxima of a warp's documents, and which of them are not its alone. */
template <class mem, int rows, bool want_argmax> struct group_maxima {
    float best[rows / 4];
    int at[want_argmax ? rows / 4 : 1]; /* tokens */
    bool any;                           /* has a token counted? */
    bool begun;                         /* by this warp: the document */
    int kept;                           /* the document that another warp ends, or -1 */

    LIK_MEMBER void reset()
    {
#pragma unroll
        for (int i = 0; i < rows / 4; i++)
            best[i] = -INFINITY;
#pragma unroll
        for (int i = 0; i < rows / 4 && want_argmax; i++)
            at[i] = -1;
        any = false;
    }

    LIK_MEMBER void begin(char *memory)
    {
        reset();
        begun = false;
        kept = -1;
        if ((threadIdx.x & 31) == 0)
            ((struct group_part *)(memory + mem::part))[threadIdx.x / 32].column = -1;
    }

    LIK_MEMBER void write(char *memory, const struct scan_args &args, int column, bool bad)
    {
        write_scores<mem, rows, want_argmax>(best, at[0], args, (const struct group_row *)(memory + mem::row),
                                             (const struct strip_place *)(memory + mem::strip), column, any,
                                             bad);
    }

    /* Behind a tile: ends its document, or the share of it. */
    LIK_MEMBER void end_tile(char *memory, const struct scan_args &args, const struct group_tile &tile,
                             bool last)
    {
        const bool ends = tile.count <= GROUP_TOKENS;
        const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x / 32;
        begun |= tile.token == 0;
        if (tile.column < 0 || !(ends || last))
            return;
        join_lanes<rows, want_argmax>(best, at);
        if (begun && !ends) { /* the last of the share */
            kept = tile.column;
            return;
        }
        if (begun) {
            write(memory, args, tile.column, tile.count < 0);
        } else {
            if (lane == 0)
                ((struct group_part *)(memory + mem::part))[warp] = {tile.column, any};
            float *to = (float *)(memory + mem::maxima) + warp * rows + lane;
#pragma unroll
            for (int n = 0; n < rows / 32; n++)
                to[n * 32] = best[n * 8];
            if (want_argmax)
                ((int *)(memory + mem::argmaxima))[warp * 32 + lane] = at[0];
        }
        reset();
        begun = false;
    }

    /* When all of the block have come here: ends the document that others went on with. */
    LIK_MEMBER void end(char *memory, const struct scan_args &args)
    {
        const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x / 32;
        const struct group_part *part = (const struct group_part *)(memory + mem::part);
        if (kept < 0)
            return;
        for (int v = warp + 1; v < mem::warps; v++) {
            if (part[v].column != kept) /* or its share is empty */
                continue;
            const float *from = (const float *)(memory + mem::maxima) + v * rows + lane;
#pragma unroll
            for (int n = 0; n < rows / 32; n++)
                if (!want_argmax)
                    best[n * 8] = max_nan(best[n * 8], from[n * 32]);
            if (want_argmax)
                keep_better(best[0], at[0], *from, ((int *)(memory + mem::argmaxima))[v * 32 + lane]);
            any |= part[v].any != 0;
        }
        write(memory, args, kept, false);
    }
};

/* Long because what is under way for several tiles is in its registers. */
template <int dtype, int bits, int rows, int norms, bool want_argmax>
static __global__ void __launch_bounds__(32 * GROUP_WARPS(rows), 1)
    scan_group(const __grid_constant__ struct scan_args args)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    typedef group_memory<bits, rows> mem;
    constexpr int octets = rows == 32 ? 4 : GROUP_WIDE, passes = rows / 8 / octets;
    constexpr bool early = norms == GROUP_UNIT; /* the first half of a product is taken amid decoding */
    constexpr int ring_row = GROUP_RING_ROW(bits), stage_bytes = GROUP_STAGE_BYTES(ring_row);
    extern __shared__ __align__(1024) char group_shared[];
    char *const memory = group_shared - mem::queries; /* by address: nothing else lies before it */
    const struct lik_tokens &d = args.score.op.d;
    const int lane = (int)threadIdx.x & 31, warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0), g = lane >> 2,
              t = lane & 3;
    const uint32_t own = (uint32_t)(bits <= 2 ? lane % 16 * 8 : lane * 4) | (uint32_t)mem::table >> 16 << 8;
    char *ring = memory + mem::ring(warp);
    const char *centroids = args.centroids + t * 16;
    asm volatile("" : "+l"(centroids)); /* one address, so that a row's is one multiply-add */
    auto gather = [&](uint32_t code, int i) {
        const char *from = centroids + (uint64_t)code * (GROUP_DIM * 2);
        return __ldg((const uint4 *)(from + i * 64));
    };
    if (shared_address(group_shared) != mem::queries)
        __trap();
    let_next_kernel_begin();
    make_group_table<dtype, bits>(memory + mem::table, args.codec); /* what came before the layout is done */
#pragma unroll 1
    for (int tile = 0; tile < args.tiles; tile++) {
        if (tile)
            __syncthreads();
        group_asker<bits, ring_row, norms> ahead = {{0, -1, 0, 0, 0, -1, 0, 0}, NULL, NULL, NULL};
        int left = __shfl_sync(~0u, take_share(ahead.at, args), 0); /* the same for all of the block */
        struct group_maxima<mem, rows, want_argmax> maxima;
        hold_group_rows<mem, rows, 1>(memory, args, tile);
        fence_async_shared(); /* of the query rows */
        __syncthreads();
        maxima.begin(memory);
        ahead.place(args);
#pragma unroll 1
        for (int i = 0; i < GROUP_STAGES - 1; i++)
            ahead.ask(args, ring + i * stage_bytes);
        if (tile == 0)
            wait_for_kernels_before();
        copy_async_wait<GROUP_STAGES - 2>();
        __syncwarp();
        uint4 rows_of[GROUP_BLOCKS / 2][2];
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int i = 0; i < GROUP_BLOCKS / 2; i++)
                rows_of[i][r] = gather(row_of_code<ring_row>(args, ring, g + 8 * r), i);
        for (int stage = 0; left > 0; left--) {
            char *const now = ring + stage * stage_bytes;
            ahead.ask(args, stage == 0 ? ring + (GROUP_STAGES - 1) * stage_bytes : now - stage_bytes);
            stage = stage + 1 == GROUP_STAGES ? 0 : stage + 1;
            const struct group_tile here = *(const struct group_tile *)(now + group_stage<ring_row>::tile);
            const bool whole = here.whole() && !d.mask;
            const int kept = whole ? -1 : tokens_kept(d, here);
            maxima.any |= __any_sync(~0u, kept != 0);
            copy_async_wait<GROUP_STAGES - 2>(); /* this tile and the next are there */
            __syncwarp();
#pragma unroll
            for (int part = 0; part < GROUP_TOKENS / 16; part++) {
                const char *then = part + 1 == GROUP_TOKENS / 16 ? ring + stage * stage_bytes : now;
                const int token =
                    (part + 1) % (GROUP_TOKENS / 16) * 16 + g; /* whose centroids are asked for */
                const uint32_t code[2] = {row_of_code<ring_row>(args, then, token),
                                          row_of_code<ring_row>(args, then, token + 8)};
                group_weights<bits> weights[2];
                weights[0].load(now + group_stage<ring_row>::rows + (part * 16 + g) * ring_row);
                weights[1].load(now + group_stage<ring_row>::rows + (part * 16 + g + 8) * ring_row);
                float factor[2] = {0.0f, 0.0f};
                if (norms == GROUP_STORED) {
                    factor[0] = factor_of<ring_row>(args, now, part * 16 + g);
                    factor[1] = factor_of<ring_row>(args, now, part * 16 + g + 8);
                }
                uint32_t x[GROUP_BLOCKS][4];
                float acc[passes > 1 ? 2 : 1][octets * 4];
                auto multiply = [&](int n, int first, int end) {
#pragma unroll
                    for (int b = first; b < end; b++) {
                        const uint32_t from =
                            (mem::queries + b / 4 * (rows * 128) + b % 4 * 32 + n * octets * 1024) / 16 |
                            1u << 16;
                        if (b == 0)
                            wgmma_registers<dtype == LIK_BF16, false, octets>::run(acc[n % 2], x[b], from);
                        else
                            wgmma_registers<dtype == LIK_BF16, true, octets>::run(acc[n % 2], x[b], from);
                    }
                    wgmma_commit();
                };
#pragma unroll
                for (int i = 0; i < GROUP_BLOCKS / 2; i++) {
                    if (early && i == GROUP_BLOCKS / 4) {
                        __syncwarp(); /* products are of all lanes at once */
                        registers_ready(x, 0, GROUP_BLOCKS / 2);
                        wgmma_fence();
                        multiply(0, 0, GROUP_BLOCKS / 2);
                    }
#pragma unroll
                    for (int r = 0; r < 2; r++) {
                        const uint4 centroid = rows_of[i][r];
                        x[2 * i][r] = centroid.x, x[2 * i][2 + r] = centroid.y;
                        x[2 * i + 1][r] = centroid.z, x[2 * i + 1][2 + r] = centroid.w;
                        rows_of[i][r] = gather(code[r], i);
#pragma unroll
                        for (int half = 0; half < 2; half++) {
                            uint32_t *pair = x[2 * i + half];
                            if (bits) {
                                uint32_t w[2];
                                weights[r].of_block(2 * i + half, own, w);
                                pair[r] = add_pairs<dtype>(pair[r], w[0]);
                                pair[2 + r] = add_pairs<dtype>(pair[2 + r], w[1]);
                            }
                            if (norms == GROUP_UNIT) {
                                add_squares<dtype>(pair[r], factor[r]);
                                add_squares<dtype>(pair[2 + r], factor[r]);
                            }
                        }
                    }
                }
                __syncwarp();
                registers_ready(x, early ? GROUP_BLOCKS / 2 : 0, GROUP_BLOCKS);
                wgmma_fence();
                multiply(0, early ? GROUP_BLOCKS / 2 : 0, GROUP_BLOCKS);
                if (norms == GROUP_UNIT)
                    two_unit_factors(factor);
                auto take = [&](int n) {
                    constexpr bool factors = norms != GROUP_PLAIN;
                    float *best = maxima.best + n * octets * 2;
                    const int first = here.token + part * 16 + g;
                    if (whole)
                        take_products<octets, factors, true, want_argmax>(best, maxima.at, acc[n % 2], factor,
                                                                          3, first);
                    else
                        take_products<octets, factors, false, want_argmax>(best, maxima.at, acc[n % 2],
                                                                           factor, kept >> 2 * part, first);
                };
#pragma unroll
                for (int n = 0; n < passes; n++) {
                    if (n + 1 < passes) {
                        wgmma_fence();
                        multiply(n + 1, 0, GROUP_BLOCKS);
                        wgmma_wait<1>();
                    } else {
                        wgmma_wait<0>();
                    }
                    take(n);
                }
            }
            maxima.end_tile(memory, args, here, *(const int *)(now + group_stage<ring_row>::last));
            __syncwarp(); /* the stage is filled anew */
        }
        copy_async_wait<0>();
        __syncthreads();
        maxima.end(memory, args);
    }
#endif
}

/* The kernels of a number of bits, for the files that instantiate them. */
template <int bits> static scan_kernel group_kernel_of(int dtype, int rows, int norms, int argmax)
{
#define LIK_GROUP(dtype, rows, argmax)                          \
    {                                                           \
        scan_group<dtype, bits, rows, GROUP_PLAIN, argmax>,     \
            scan_group<dtype, bits, rows, GROUP_UNIT, argmax>,  \
            scan_group<dtype, bits, rows, GROUP_STORED, argmax> \
    }
    static const scan_kernel kernels[2][4][GROUP_NORMS] = {
        {LIK_GROUP(LIK_F16, 32, false), LIK_GROUP(LIK_F16, 128, false), LIK_GROUP(LIK_F16, 256, false),
         LIK_GROUP(LIK_F16, 32, true)},
        {LIK_GROUP(LIK_BF16, 32, false), LIK_GROUP(LIK_BF16, 128, false), LIK_GROUP(LIK_BF16, 256, false),
         LIK_GROUP(LIK_BF16, 32, true)}};
#undef LIK_GROUP
    return kernels[dtype == LIK_BF16][argmax ? 3 : rows == 32 ? 0 : rows == 128 ? 1 : 2][norms];
}

#endif
