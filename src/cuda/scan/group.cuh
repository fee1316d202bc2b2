/* One pass over compressed documents of 128 elements for several queries that all of them meet.
 * As in scan.cuh a warp gathers the centroids of its tokens, 16 of them, and adds their weights
 * in registers; but four warps multiply together (wgmma), and the query rows lie in shared
 * memory, once a block: up to 256 of them are multiplied by what is decoded once.
 *
 * A warp has documents of its own. The four of a warpgroup only begin every tile together, for
 * which one that has none left goes on with nothing until none of them has.
 *
 * Elements of a product have the order of scan.cuh, and the bits of scores are the same. */
#ifndef LIK_CUDA_SCAN_GROUP_CUH
#define LIK_CUDA_SCAN_GROUP_CUH

#include "cuda/scan/scan.cuh"
#include "cuda/wgmma.cuh"

#define GROUP_BLOCKS (GROUP_DIM / 16)

/* Of a query row in shared memory. */
struct group_row {
    float weight;
    int token; /* of its query */
    bool counts, bad;
};

/* Dynamic shared memory: query rows, slab by slab in wgmma's order, the table of weights, what
 * rows count, where strips belong, the warps' rings. */
template <int bits, int rows> struct group_memory {
    static constexpr int table = rows * GROUP_DIM * 2, row = table + GROUP_TABLE_BYTES(bits),
                         strip = row + rows * (int)sizeof(struct group_row),
                         ring = strip + rows / 16 * (int)sizeof(struct strip_place);
};
static_assert(sizeof(struct group_row) + sizeof(struct strip_place) / 16 <= GROUP_ROW_BYTES, "as planned");

/* The table of weights: the 256 entries are 256 bytes apart, so that a byte of residual stands
 * in an address as it is; a copy for each lane (or two) in half of them. */
template <int dtype, int bits> LIK_DEVICE void make_group_table(char *table, const struct lik_codec &codec)
{
    for (int i = (int)threadIdx.x; i < 256 * 32 && bits; i += (int)blockDim.x) {
        const uint8_t byte = (uint8_t)(i / 32);
        int first = 0, second = bits == 8 ? 0 : 1;
        if (bits <= 2)
            first = (i & 1) * 2 + (bits == 1 ? (i >> 1 & 1) * 4 : 0), second = first + 1;
        uint32_t word = 0;
        for (int e = 0; e < 2; e++) {
            int bucket = lik_residual_bucket(&byte, e ? second : first, bits ? bits : 1, codec.bit_order);
            word |= half_bits<dtype>(load_element(codec.weights, codec.weights_dtype, bucket)) << 16 * e;
        }
        *(uint32_t *)(table + byte * 256 + i % 32 * 4) = word;
    }
}

/* Makes the block hold the query rows of a tile. A block of 16 elements is laid out such that a
 * lane of A's four finds elements 4 t ... 4 t + 3. */
template <int bits, int rows>
LIK_DEVICE void hold_group_rows(char *memory, const struct scan_args &args, int tile)
{
    typedef group_memory<bits, rows> mem;
    const struct score_args &a = args.score;
    const struct lik_tokens &q = a.op.q;
    const int lane = (int)threadIdx.x & 31;
#pragma unroll 1
    for (int r = (int)threadIdx.x / 32 * 32; r < rows; r += (int)blockDim.x) {
        const struct strip_place place = locate_strip(a.tiling, (uint32_t)tile, r / 16 + (lane >> 4));
        struct query_row own = locate_row(a, place, lane & 15);
        float weight = own.weight;
#pragma unroll 1
        for (int n = 0; n < 32 && q.normalize; n += 4) { /* eight lanes a row */
            struct query_row row = own;
            row.at = __shfl_sync(~0u, own.at, n + (lane >> 3));
            float factor = row_factor(a, row, lane & 7);
            factor = __shfl_sync(~0u, factor, (lane & 3) * 8);
            if ((lane & ~3) == n)
                weight = __fmul_rn(weight, fabsf(factor));
        }
        ((struct group_row *)(memory + mem::row))[r + lane] = {weight, own.token, own.counts,
                                                               own.counts && own.at == LIK_NOWHERE};
        if ((lane & 15) == 0)
            ((struct strip_place *)(memory + mem::strip))[r / 16 + (lane >> 4)] = place;
#pragma unroll 1
        for (int i = lane; i < 32 * GROUP_BLOCKS; i += 32) {
            const int row = i / GROUP_BLOCKS, block = i % GROUP_BLOCKS, swizzle = (row & 7) * 16;
            const int64_t from = __shfl_sync(~0u, own.at, row);
            uint32_t pair[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            if (from != LIK_NOWHERE) {
                const uint16_t *x = (const uint16_t *)q.data + from + block * 16 * q.dim_stride;
#pragma unroll
                for (int e = 0; e < 8; e++)
                    pair[e] = x[2 * e * q.dim_stride] | (uint32_t)x[(2 * e + 1) * q.dim_stride] << 16;
            }
            char *to = memory + block / 4 * (rows * 128) + (r + row) * 128;
            *(uint4 *)(to + (block % 4 * 32 ^ swizzle)) = make_uint4(pair[0], pair[2], pair[4], pair[6]);
            *(uint4 *)(to + (block % 4 * 32 + 16 ^ swizzle)) = make_uint4(pair[1], pair[3], pair[5], pair[7]);
        }
    }
}

/* A warp's way through its documents. */
struct walk {
    int column, document, token;
    int length; /* -1: out of range; past the last column 0 */
};

LIK_DEVICE void open_column(struct walk &w, const struct scan_args &args)
{
    const struct lik_score &op = args.score.op;
    w.token = 0;
    w.length = 0;
    if (w.column >= args.items)
        return;
    int64_t j = w.column;
    if (args.listed)
        j = op.list_q[w.column] ? -1 : op.list_d[w.column];
    w.document = j < 0 || j >= op.d.count ? -1 : (int)j;
    w.length = sequence_length(op.d, w.document);
}

/* To the next tile; is it another document's? */
LIK_DEVICE bool advance(struct walk &w, const struct scan_args &args, int step)
{
    w.token += GROUP_TOKENS;
    if (w.token < w.length)
        return false;
    w.column += step;
    open_column(w, args);
    return true;
}

/* What a lane has asked for of a tile: the code and the scale of token lane % 16, as they
 * lie in memory. Looked at a tile later, for a load is under way until then. */
struct asked {
    uint32_t code;  /* ~0: no such token */
    uint32_t upper; /* of a code of 64 bits */
    uint32_t scale;

    /* A number of a row of the centroids; the last one is of codes out of range. */
    LIK_MEMBER uint32_t centroid(uint32_t count) const
    {
        return upper ? count : min(code, count);
    }
};

/* What asks for tiles two ahead. */
template <int bits, int norms> struct group_asker {
    struct walk at;
    const char *residuals; /* of the lane's first copy */
    const char *codes;     /* of token lane % 16 */
    const char *scales;

    LIK_MEMBER void place(const struct scan_args &args)
    {
        const struct lik_tokens &d = args.score.op.d;
        const int lane = (int)threadIdx.x & 31;
        if (at.length <= 0)
            return;
        residuals = (const char *)d.data + lik_tokens_base(&d, &d.strides, at.document) + lane * 16;
        codes = (const char *)d.codes +
                (lik_tokens_base(&d, &d.codes_strides, at.document) + lane % 16) * args.code_bytes;
        if (norms == GROUP_STORED)
            scales = (const char *)d.scale +
                     (lik_tokens_base(&d, &d.scale_strides, at.document) + lane % 16) * args.scale_bytes;
    }

    /* Asks for the residuals of the tile, into a stage of the ring, for its codes and scales;
     * then goes on. */
    LIK_MEMBER void ask(const struct scan_args &args, char *stage, struct asked &asked, int step)
    {
        const int lane = (int)threadIdx.x & 31;
        const int count = min(at.length - at.token, GROUP_TOKENS); /* at the end of all: 0 */
        const bool is_token = lane % 16 < count;
        asked.code = ~0u;
        asked.upper = 0;
        asked.scale = 0;
        if (is_token && args.code_bytes == 2)
            asked.code = *(const uint16_t *)codes;
        if (is_token && args.code_bytes != 2)
            asked.code = *(const uint32_t *)codes;
        if (is_token && args.code_bytes == 8)
            asked.upper = ((const uint32_t *)codes)[1];
        if (norms == GROUP_STORED) {
            if (is_token && args.scale_bytes == 4)
                asked.scale = *(const uint32_t *)scales;
            if (is_token && args.scale_bytes == 2)
                asked.scale = *(const uint16_t *)scales;
        }
        if (bits) {
            constexpr int per = bits ? bits : 1, at_once = 32 / per; /* tokens that the lanes take */
            char *to = stage + lane / per * GROUP_RING_ROW(bits) + lane % per * 16;
#pragma unroll
            for (int r = 0; r < GROUP_TOKENS; r += at_once)
                if (r + lane / per < count)
                    copy_async(to + r * GROUP_RING_ROW(bits), residuals + r * bits * 16, 16);
        }
        copy_async_commit();
        residuals += GROUP_TOKENS * bits * 16;
        codes += GROUP_TOKENS * args.code_bytes;
        if (norms == GROUP_STORED)
            scales += GROUP_TOKENS * args.scale_bytes;
        if (at.column < args.items && advance(at, args, step))
            place(args);
    }
};

/* A lane's words of a token's residual, and from them the weights of elements 4 t ... 4 t +
 * 3 of each block; `table`: the table, `own`: where this lane's copy is in an entry. */
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
        if (bits == 4 || bits == 8) {
#pragma unroll
            for (int b = 0; b < GROUP_BLOCKS; b++)
                word[b] = *(const uint32_t *)(row + (bits == 4 ? b * 8 + (t >> 1) * 4 : b * 16 + t * 4));
        }
    }

    /* `select` of byte n of a word into an address */
    LIK_MEMBER static uint32_t address(uint32_t word, uint32_t own, int n)
    {
        return __byte_perm(word, own, 0x5504u | (uint32_t)n << 4);
    }

    LIK_MEMBER void of_block(int b, const char *table, uint32_t own, uint32_t (&w)[2]) const
    {
        const int t = (int)threadIdx.x & 3;
        if (bits == 1 || bits == 2) {
            const uint32_t at =
                bits == 2 ? address(word[b], own, t) : address(word[b / 2], own, b % 2 * 2 + (t >> 1));
            const uint2 v = *(const uint2 *)(table + at);
            w[0] = v.x;
            w[1] = v.y;
        } else if (bits == 4) {
            w[0] = *(const uint32_t *)(table + address(word[b], own, (t & 1) * 2));
            w[1] = *(const uint32_t *)(table + address(word[b], own, (t & 1) * 2 + 1));
        } else if (bits == 8) {
            uint32_t v[4];
#pragma unroll
            for (int e = 0; e < 4; e++)
                v[e] = *(const uint32_t *)(table + address(word[b], own, e));
            w[0] = __byte_perm(v[0], v[1], 0x5410);
            w[1] = __byte_perm(v[2], v[3], 0x5410);
        }
    }
};

/* Of a lane's tokens `token` and `token` + 8, as bits: those that count. */
LIK_DEVICE int tokens_kept(const struct lik_tokens &d, int document, int token, int length)
{
    int kept = 0;
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (token + 8 * r < length &&
            (!d.mask || token_kept(d, lik_tokens_base(&d, &d.mask_strides, document), token + 8 * r)))
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
    const float own = unit_of(sum);
    factor[0] = __shfl_sync(~0u, own, lane & 28);
    factor[1] = __shfl_sync(~0u, own, (lane & 28) + 1);
}

/* Does any of the warpgroup's warps say so? */
LIK_DEVICE bool group_any(bool mine)
{
    int any;
    asm volatile("{\n.reg .pred p, q;\nsetp.ne.b32 p, %1, 0;\nbarrier.cta.red.or.pred q, %2, 128, p;\n"
                 "selp.b32 %0, 1, 0, q;\n}"
                 : "=r"(any)
                 : "r"((int)mine), "r"((int)threadIdx.x / 128 + 1)
                 : "memory");
    return any;
}

/* Takes a tile's products with some octets of query rows into the maxima; bit r of `kept`: the
 * lane's token r counts. `whole`: all do, in every lane. */
template <int octets, bool factors, bool whole>
LIK_DEVICE void take_products(float *best, const float *acc, const float (&factor)[2], int kept)
{
#pragma unroll
    for (int n = 0; n < octets; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x[2];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                x[r] = factors ? __fmul_rn(acc[4 * n + 2 * r + e], factor[r]) : acc[4 * n + 2 * r + e];
                if (!whole)
                    x[r] = kept >> r & 1 ? x[r] : -INFINITY;
            }
            best[2 * n + e] = max_nan(best[2 * n + e], max_nan(x[0], x[1]));
        }
}

/* Ends a document, 32 query rows after the other: joins the lanes' maxima, adds the rows of
 * each strip (in score.cuh's order) and the strips of each query. */
template <int rows>
LIK_DEVICE void finish_document(float (&best)[rows / 4], const struct scan_args &args,
                                const struct group_row *row, const struct strip_place *strip,
                                const struct walk &w, bool any)
{
    const struct score_args &a = args.score;
    const int lane = (int)threadIdx.x & 31, of_query = a.tiling.strips_per_query;
    float score = 0.0f;
    int done = 0; /* strips of the query */
#pragma unroll
    for (int n = 0; n < rows / 32; n++) {
        float *m = best + n * 8;
#pragma unroll
        for (int k = 4; k; k >>= 1)
#pragma unroll
            for (int i = 0; i < k; i++) {
                const bool upper = lane & k * 4;
                float theirs = __shfl_xor_sync(~0u, upper ? m[i] : m[i + k], k * 4);
                m[i] = max_nan(upper ? m[i + k] : m[i], theirs);
            }
        const struct group_row own = row[n * 32 + row_of_lane(lane)];
        float sum = own.counts && any ? __fmul_rn(own.weight, m[0]) : 0.0f;
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 8));
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 4));
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
        if (own.bad || w.length < 0)
            sum = __uint_as_float(0x7fc00000u);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float of_strip = __shfl_sync(~0u, sum, i * 16);
            const struct strip_place place = strip[n * 2 + i];
            const int64_t to = args.listed ? w.column : place.row, column = args.listed ? 0 : w.column;
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
#pragma unroll
        for (int i = 0; i < 8; i++)
            m[i] = -INFINITY;
    }
}

/* Long because what is under way for three tiles is in its registers. */
template <int dtype, int bits, int rows, int norms>
static __global__ void __launch_bounds__(32 * GROUP_WARPS, 1)
    scan_group(const __grid_constant__ struct scan_args args)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    typedef group_memory<bits, rows> mem;
    typedef group_asker<bits, norms> asker;
    constexpr int octets = 8, passes = rows / 8 / octets; /* of query rows: a pass takes 64 */
    constexpr int ring_row = GROUP_RING_ROW(bits), stage_bytes = GROUP_TOKENS * ring_row;
    extern __shared__ __align__(1024) char group_shared[];
    char *const memory = group_shared;
    const struct lik_tokens &d = args.score.op.d;
    const int lane = (int)threadIdx.x & 31, warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0), g = lane >> 2,
              t = lane & 3;
    const struct group_row *row = (const struct group_row *)(memory + mem::row);
    const struct strip_place *strip = (const struct strip_place *)(memory + mem::strip);
    const char *table = memory + mem::table;
    const uint32_t own = bits <= 2 ? lane % 16 * 8 : lane * 4; /* copy of an entry */
    char *ring = memory + mem::ring + warp * SCAN_STAGES * stage_bytes;
    const uint32_t products = wgmma_descriptor(shared_address(memory));
    const char *centroids = args.centroids + t * 16;
    asm volatile("" : "+l"(centroids)); /* one address, so that a row's is one multiply-add */
    const uint32_t count = (uint32_t)args.codec.centroid_count;
    auto gather = [&](uint32_t code, int i) {
        const char *from = centroids + (uint64_t)code * (GROUP_DIM * 2);
        return __ldg((const uint4 *)(from + i * 64));
    };
    let_next_kernel_begin();
    make_group_table<dtype, bits>(memory + mem::table, args.codec); /* what came before the layout is done */
    const int step = (int)(gridDim.x * (blockDim.x / 32));
#pragma unroll 1
    for (int tile = 0; tile < args.tiles; tile++) {
        if (tile)
            __syncthreads();
        hold_group_rows<bits, rows>(memory, args, tile);
        fence_async_shared();
        __syncthreads();
        struct walk here = {(int)(blockIdx.x * (blockDim.x / 32)) + warp, -1, 0, 0};
        open_column(here, args);
        asker ahead = {here, NULL, NULL, NULL};
        ahead.place(args);
        struct asked now, after;
        ahead.ask(args, ring, now, step);
        ahead.ask(args, ring + stage_bytes, after, step);
        if (tile == 0)
            wait_for_kernels_before();
        uint32_t next = after.centroid(count), scale = now.scale, next_scale = after.scale;
        uint4 rows_of[GROUP_BLOCKS / 2][2];
#pragma unroll
        for (int i = 0; i < GROUP_BLOCKS / 2; i++)
#pragma unroll
            for (int r = 0; r < 2; r++)
                rows_of[i][r] = gather(__shfl_sync(~0u, now.centroid(count), g + 8 * r), i);
        float best[rows / 4];
#pragma unroll
        for (int i = 0; i < rows / 4; i++)
            best[i] = -INFINITY;
        bool any = false;
        for (int stage = 0; group_any(here.column < args.items);
             stage = stage + 1 == SCAN_STAGES ? 0 : stage + 1) {
            const uint32_t code[2] = {__shfl_sync(~0u, next, g), __shfl_sync(~0u, next, g + 8)};
            ahead.ask(args, ring + (stage == 0 ? 2 : stage - 1) * stage_bytes, after, step);
            const bool whole = here.token + GROUP_TOKENS <= here.length && !d.mask;
            copy_async_wait<2>();
            __syncwarp();
            const char *tokens = ring + stage * stage_bytes + g * ring_row;
            group_weights<bits> weights[2];
            weights[0].load(tokens);
            weights[1].load(tokens + 8 * ring_row);
            float factor[2] = {0.0f, 0.0f};
            uint32_t x[GROUP_BLOCKS][4];
#pragma unroll
            for (int i = 0; i < GROUP_BLOCKS / 2; i++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const uint4 centroid = rows_of[i][r];
                    x[2 * i][r] = centroid.x, x[2 * i][2 + r] = centroid.y;
                    x[2 * i + 1][r] = centroid.z, x[2 * i + 1][2 + r] = centroid.w;
                    rows_of[i][r] = gather(code[r], i);
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        uint32_t *own_x = x[2 * i + half];
                        if (bits) {
                            uint32_t w[2];
                            weights[r].of_block(2 * i + half, table, own, w);
                            own_x[r] = add_pairs<dtype>(own_x[r], w[0]);
                            own_x[2 + r] = add_pairs<dtype>(own_x[2 + r], w[1]);
                        }
                        if (norms == GROUP_UNIT) {
                            add_squares<dtype>(own_x[r], factor[r]);
                            add_squares<dtype>(own_x[2 + r], factor[r]);
                        }
                    }
                }
            float acc[2][octets * 4];
            auto multiply = [&](int n) {
#pragma unroll
                for (int b = 0; b < GROUP_BLOCKS; b++) {
                    const uint32_t from = products + b / 4 * (rows * 128 / 16) + b % 4 * 2 + n * octets * 64;
                    if (b == 0)
                        wgmma_registers<dtype == LIK_BF16, false, octets>::run(acc[n % 2], x[b], from);
                    else
                        wgmma_registers<dtype == LIK_BF16, true, octets>::run(acc[n % 2], x[b], from);
                }
                wgmma_commit();
            };
            wgmma_fence();
            multiply(0);
            if (norms == GROUP_UNIT)
                two_unit_factors(factor);
            if (norms == GROUP_STORED) {
                const float own = args.scale_bytes == 4 ? __uint_as_float(scale)
                                                        : __half2float(__ushort_as_half((uint16_t)scale));
                factor[0] = __shfl_sync(~0u, own, g);
                factor[1] = __shfl_sync(~0u, own, g + 8);
            }
            int kept = 3;
            if (!whole)
                kept = tokens_kept(d, here.document, here.token + g, here.length);
            auto take = [&](int n) {
                if (whole)
                    take_products<octets, norms != GROUP_PLAIN, true>(best + n * octets * 2, acc[n % 2],
                                                                      factor, 3);
                else
                    take_products<octets, norms != GROUP_PLAIN, false>(best + n * octets * 2, acc[n % 2],
                                                                       factor, kept);
            };
#pragma unroll
            for (int n = 0; n < passes; n++) {
                if (n + 1 < passes) {
                    wgmma_fence();
                    multiply(n + 1);
                    wgmma_wait<1>();
                } else {
                    wgmma_wait<0>();
                }
                take(n);
            }
            any |= whole || __any_sync(~0u, kept != 0);
            if (here.token + GROUP_TOKENS >= here.length) {
                if (here.column < args.items)
                    finish_document<rows>(best, args, row, strip, here, any);
                any = false;
            }
            if (here.column < args.items)
                advance(here, args, step);
            scale = next_scale;
            next_scale = after.scale;
            next = after.centroid(count);
            __syncwarp(); /* the stage is filled anew */
        }
        copy_async_wait<0>();
    }
#endif
}

/* The kernels of a number of bits, for the files that instantiate them. */
template <int bits> static scan_kernel group_kernel_of(int dtype, int rows, int norms)
{
#define LIK_GROUP(dtype, rows)                                                                 \
    {                                                                                          \
        scan_group<dtype, bits, rows, GROUP_PLAIN>, scan_group<dtype, bits, rows, GROUP_UNIT>, \
            scan_group<dtype, bits, rows, GROUP_STORED>                                        \
    }
    static const scan_kernel kernels[2][2][GROUP_NORMS] = {
        {LIK_GROUP(LIK_F16, 128), LIK_GROUP(LIK_F16, 256)},
        {LIK_GROUP(LIK_BF16, 128), LIK_GROUP(LIK_BF16, 256)}};
#undef LIK_GROUP
    return kernels[dtype == LIK_BF16][rows == 256][norms];
}

#endif
