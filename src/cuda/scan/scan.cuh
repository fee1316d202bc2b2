/* One pass over compressed documents for few queries: a warp gathers the centroids of 32
 * tokens, adds their weights in registers, in the layout of mma's A operand, and multiplies
 * them by up to 32 query rows that it holds. Nothing decoded is written anywhere.
 *
 * The order of a product's elements is free within 16 of them (a tensor core of Hopper adds 16
 * products at once, exactly but for what it cuts off), not beyond: lane t of four takes
 * elements 4 t to 4 t + 3 of each 16, and the products have the bits that the dense kernels
 * give to the decoded tokens. Centroids are laid out to match once a call, rounded to the
 * tokens' dtype, with one more row of NaN, which is what codes out of range are sent to.
 *
 * Weights come from a table in shared memory, of all that a byte of residual may say (half a
 * byte of one bit), so that the order of bits is the table's alone. It has a copy for each lane
 * (or two, where an entry is 8 bytes), so that lanes never meet in a bank.
 *
 * A warp's tiles of 32 tokens follow each other without regard to documents' ends: residual
 * bytes and codes are asked for two tiles ahead, centroids one. */
#ifndef LIK_CUDA_SCAN_SCAN_CUH
#define LIK_CUDA_SCAN_SCAN_CUH

#include "cuda/compressed.cuh"
#include "cuda/kernels.cuh"
#include "cuda/mma.cuh"
#include "cuda/score.cuh"
#include "cuda/warp_tiles.cuh"

static_assert(SCAN_TOKENS == TILE_TOKENS, "four tokens a lane");
static_assert(SCAN_STAGES == 3, "two stages are ahead of one");

#define BLOCKS 8 /* of 16 elements, at most; two are a chunk */

struct scan_args {
    struct score_args score;
    struct lik_codec codec;
    /* [centroid_count + 1][chunk][lane t][block of 2][4 elements]; of integers lay_out_integers
     * has it */
    const char *centroids;
    int32_t chunks;    /* of 32 elements */
    int32_t row_bytes; /* of residual */
    int32_t code_bytes;
    int32_t copy_bytes; /* a copy takes: 16, 8 or 4 */
    int32_t ring_row;   /* bytes of a token in the ring: such that 8 rows meet all banks */
    int32_t items;      /* row tiles x documents; where all meet the same queries: documents */
    /* where all meet the same queries (group.cuh): row tiles, whether documents are listed,
     * bytes of a factor */
    int32_t tiles, listed, scale_bytes;
    const char *scales_end; /* behind the last factor */
};

/* Bytes of the table of weights. */
static constexpr __host__ __device__ int table_bytes(int bits)
{
    return bits == 0 ? 0 : (bits == 1 ? 32 : 256) * 128;
}

typedef void (*scan_kernel)(struct scan_args);
scan_kernel lik_cuda_scan_kernel_0(int dtype, int way);
scan_kernel lik_cuda_scan_kernel_1(int dtype, int way);
scan_kernel lik_cuda_scan_kernel_2(int dtype, int way);
scan_kernel lik_cuda_scan_kernel_4(int dtype, int way);
scan_kernel lik_cuda_scan_kernel_8(int dtype, int way);
scan_kernel lik_cuda_group_kernel_0(int dtype, int rows, int norms, int argmax);
scan_kernel lik_cuda_group_kernel_1(int dtype, int rows, int norms, int argmax);
scan_kernel lik_cuda_group_kernel_2(int dtype, int rows, int norms, int argmax);
scan_kernel lik_cuda_group_kernel_4(int dtype, int rows, int norms, int argmax);
scan_kernel lik_cuda_group_i8_kernel_0(int rows, int norms, int argmax);
scan_kernel lik_cuda_group_i8_kernel_1(int rows, int norms, int argmax);
scan_kernel lik_cuda_group_i8_kernel_2(int rows, int norms, int argmax);
scan_kernel lik_cuda_group_i8_kernel_4(int rows, int norms, int argmax);
scan_kernel lik_cuda_group_kernel_f32(int bits, int unit, int argmax);

/* What normalizes tokens in a group's kernels: nothing, their norm taken on the fly, a stored
 * factor. */
enum group_norms { GROUP_PLAIN, GROUP_UNIT, GROUP_STORED, GROUP_NORMS };

template <int dtype> LIK_DEVICE uint32_t half_bits(float x)
{
    return dtype == LIK_BF16 ? (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(x))
                             : (uint32_t)__half_as_ushort(__float2half_rn(x));
}

template <int dtype> LIK_DEVICE uint32_t add_pairs(uint32_t a, uint32_t b)
{
    if (dtype == LIK_BF16) {
        __nv_bfloat162 sum = __hadd2(*(const __nv_bfloat162 *)&a, *(const __nv_bfloat162 *)&b);
        return *(const uint32_t *)&sum;
    }
    __half2 sum = __hadd2(*(const __half2 *)&a, *(const __half2 *)&b);
    return *(const uint32_t *)&sum;
}

template <int dtype> LIK_DEVICE void add_squares(uint32_t pair, float &squares)
{
    float2 v;
    if (dtype == LIK_BF16)
        v = make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
    else
        v = __half22float2(*(const __half2 *)&pair);
    squares = __fmaf_rn(v.x, v.x, squares);
    squares = __fmaf_rn(v.y, v.y, squares);
}

/* Entries of a table of weights, `stride` bytes apart, 128 of them words of the lanes: thread n
 * has entry n, whose words take turns over the lanes. Whole warps call. */
template <int words> LIK_DEVICE void put_entries(char *table, int stride, const uint32_t (&word)[words])
{
    const int lane = (int)threadIdx.x & 31;
    char *to = table + ((int)threadIdx.x & ~31) * stride + lane * 4;
#pragma unroll 4
    for (int n = 0; n < 32; n++) {
        uint32_t own = 0;
#pragma unroll
        for (int k = 0; k < words; k++) {
            const uint32_t x = __shfl_sync(~0u, word[k], n);
            own = lane % words == k ? x : own;
        }
        *(uint32_t *)(to + n * stride) = own;
    }
}

/* The weight of an element of a byte of residual. */
LIK_DEVICE float weight_in_byte(const struct lik_codec &codec, uint8_t byte, int element)
{
    const int bucket = lik_residual_bucket(&byte, element, codec.bits, codec.bit_order);
    return load_element(codec.weights, codec.weights_dtype, bucket);
}

/* Of a byte's elements the k-th two, rounded; of 8 bits the one. */
template <int dtype, int bits>
LIK_DEVICE uint32_t weights_in_byte(const struct lik_codec &codec, uint8_t byte, int k)
{
    const uint32_t low = half_bits<dtype>(weight_in_byte(codec, byte, 2 * k));
    return low | (bits == 8 ? low : half_bits<dtype>(weight_in_byte(codec, byte, 2 * k + 1))) << 16;
}

/* The table of weights: of one bit of half a byte, which stands where the byte's first elements
 * are; 256 threads or more make it. */
template <int dtype, int bits> LIK_DEVICE void make_table(char *table, const struct lik_codec &codec)
{
    const int thread = (int)threadIdx.x;
    if (!bits || (thread & ~31) >= (bits == 1 ? 16 : 256))
        return;
    const uint8_t byte = (uint8_t)(bits == 1 && codec.bit_order == LIK_BITS_COLBERT ? thread << 4 : thread);
    uint32_t word[bits <= 2 ? 2 : 1];
#pragma unroll
    for (int k = 0; k < (bits <= 2 ? 2 : 1); k++)
        word[k] = weights_in_byte<dtype, bits>(codec, byte, k);
    put_entries(table, 128, word);
}

/* The weights of elements 4 t ... 4 t + 3 of a block, whose residual begins at `from`; `own`:
 * this lane's copy of the table. */
template <int bits>
LIK_DEVICE void load_weights(const char *from, const char *own, int half_shift, uint32_t (&w)[2])
{
    const int t = (int)threadIdx.x & 3;
    auto pair = [&](uint32_t entry) { return *(const uint32_t *)(own + entry * 128); };
    auto four = [&](uint32_t entry) {
        uint2 v = *(const uint2 *)(own + entry * 128);
        w[0] = v.x;
        w[1] = v.y;
    };
    if (bits == 1) {
        four(*(const uint8_t *)(from + (t >> 1)) >> half_shift & 15u);
    } else if (bits == 2) {
        four(*(const uint8_t *)(from + t));
    } else if (bits == 4) {
        uint32_t two = *(const uint16_t *)(from + 2 * t);
        w[0] = pair(two & 0xffu);
        w[1] = pair(two >> 8);
    } else if (bits == 8) {
        uint32_t all = *(const uint32_t *)(from + 4 * t);
        w[0] = __byte_perm(pair(all & 0xffu), pair(all >> 8 & 0xffu), 0x5410);
        w[1] = __byte_perm(pair(all >> 16 & 0xffu), pair(all >> 24), 0x5410);
    }
}

/* Up to 32 query rows as a warp holds them: B operands, and of one row, token_of(lane), what it
 * counts. */
struct held_queries {
    int tile;                 /* -1: none yet */
    uint32_t q[BLOCKS][4][2]; /* [block][8 rows]: elements 4 t ... 4 t + 3 of row lane / 4 */
    float weight;
    int token;        /* of its query */
    bool counts, bad; /* bad: the query is out of range */
};

/* Makes the warp hold the rows of a tile. */
LIK_DEVICE void hold_queries(struct held_queries &h, struct held_places &places, const struct scan_args &args,
                             int tile)
{
    const struct score_args &a = args.score;
    const struct lik_tokens &q = a.op.q;
    const int lane = (int)threadIdx.x & 31, t = lane & 3;
    if (tile == h.tile)
        return;
    const bool first = h.tile < 0;
    h.tile = tile;
    if ((lane & 15) == 0)
        places.strips[lane >> 4] = locate_strip(a.tiling, (uint32_t)tile, lane >> 4);
    __syncwarp();
    if (a.op.pairing == LIK_LIST) { /* one query after another, often the same */
        int64_t query =
            lik_score_query(&a.op, tile / a.tiling.parts) * a.tiling.parts + tile % a.tiling.parts;
        bool same = !first && query == places.query; /* any number may be asked for */
        __syncwarp();
        places.query = query;
        if (same)
            return;
    }
    struct query_row own = locate_row(a, locate_strip(a.tiling, (uint32_t)tile, lane >> 4), lane & 15);
    float weight = own.weight;
#pragma unroll 1
    for (int r = 0; r < 32 && q.normalize; r += 4) { /* eight lanes a row */
        struct query_row row = own;
        const int from = r + (lane >> 3);
        row.at = __shfl_sync(~0u, own.at, from);
        float factor = row_factor(a, row, lane & 7);
        factor = __shfl_sync(~0u, factor, (lane & 3) * 8);
        if ((lane & ~3) == r)
            weight = __fmul_rn(weight, fabsf(factor));
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
        const int64_t at = __shfl_sync(~0u, own.at, n * 8 + (lane >> 2));
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            uint32_t pair[2] = {0, 0};
            if (at != LIK_NOWHERE && b < 2 * args.chunks) {
                const uint16_t *from = (const uint16_t *)q.data + at + (b * 16 + t * 4) * q.dim_stride;
                if (a.q_vector) {
                    uint2 v = *(const uint2 *)from;
                    pair[0] = v.x;
                    pair[1] = v.y;
                } else {
                    pair[0] = from[0] | (uint32_t)from[q.dim_stride] << 16;
                    pair[1] = from[2 * q.dim_stride] | (uint32_t)from[3 * q.dim_stride] << 16;
                }
            }
            h.q[b][n][0] = pair[0];
            h.q[b][n][1] = pair[1];
        }
    }
    const int row = row_of_lane(lane);
    h.weight = __shfl_sync(~0u, weight, row);
    h.token = __shfl_sync(~0u, own.token, row);
    h.counts = __shfl_sync(~0u, (int)own.counts, row);
    h.bad = __shfl_sync(~0u, (int)(own.counts && own.at == LIK_NOWHERE), row);
}

/* Codes as they lie in memory: looked at where they are used, for a load is under way until
 * then. */
struct raw_codes {
    uint32_t of[EACH]; /* 2^32 - 1 where there is no token, or none like it */
};

/* What asks for tiles two ahead, and where the lane's parts of them lie. */
struct asker {
    struct way at;
    const char *residuals; /* of the lane's first copy */
    const char *codes;     /* of token lane / 4 */

    /* Copies of 16 bytes that a token takes, if all take 16; else the tile's are counted. */
    LIK_MEMBER void place(const struct scan_args &args, int copies)
    {
        const struct lik_tokens &d = args.score.op.d;
        const int lane = (int)threadIdx.x & 31, row = copies ? lane / copies : 0;
        if (at.length <= 0)
            return;
        residuals = (const char *)d.data + lik_tokens_base(&d, &d.strides, at.document) +
                    row * d.strides.token + (copies ? lane % copies * 16 : 0);
        codes = (const char *)d.codes +
                (lik_tokens_base(&d, &d.codes_strides, at.document) + (lane >> 2) * d.codes_strides.token) *
                    args.code_bytes;
    }

    /* Asks for the residuals of the tile, into a stage of the ring, and for its codes; then
     * goes on. */
    template <int copies>
    LIK_MEMBER void ask(const struct scan_args &args, char *stage, struct raw_codes &raw, int step)
    {
        const struct lik_tokens &d = args.score.op.d;
        const int lane = (int)threadIdx.x & 31, g = lane >> 2;
        const int count = min(at.length - at.token, SCAN_TOKENS); /* at the end of all: 0 */
        const int64_t code_step = 8 * d.codes_strides.token * args.code_bytes;
#pragma unroll
        for (int r = 0; r < EACH; r++)
            raw.of[r] = ~0u;
        if (args.code_bytes == 4) {
#pragma unroll
            for (int r = 0; r < EACH; r++)
                if (g + 8 * r < count)
                    raw.of[r] = *(const uint32_t *)(codes + r * code_step);
        } else {
#pragma unroll
            for (int r = 0; r < EACH; r++)
                if (g + 8 * r < count) {
                    const uint32_t *from = (const uint32_t *)(codes + r * code_step);
                    raw.of[r] = args.code_bytes == 2 ? *(const uint16_t *)from : from[1] ? ~0u : from[0];
                }
        }
        if (copies > 0) {
            constexpr int rows = 32 / (copies > 0 ? copies : 1); /* that the lanes take at once */
            const char *from = residuals;
            const int row = lane / (copies > 0 ? copies : 1), at_byte = lane % (copies > 0 ? copies : 1) * 16;
            char *to = stage + row * args.ring_row + at_byte;
#pragma unroll
            for (int r = 0; r < SCAN_TOKENS; r += rows, from += rows * d.strides.token)
                if (r + row < count)
                    copy_async(to + r * args.ring_row, from, 16);
        } else if (args.row_bytes) {
            const int unit = args.copy_bytes, per_row = args.row_bytes / unit;
            for (int i = lane; i < count * per_row; i += 32) {
                const int row = i / per_row, at_byte = (i - row * per_row) * unit;
                copy_async(stage + row * args.ring_row + at_byte, residuals + row * d.strides.token + at_byte,
                           unit);
            }
        }
        copy_async_commit();
        if (at.item >= args.items)
            return;
        residuals += SCAN_TOKENS * d.strides.token;
        codes += SCAN_TOKENS * d.codes_strides.token * args.code_bytes;
        if (advance(at, args.score, args.items, step))
            place(args, copies);
    }
};

/* Ends a document: joins the lanes' maxima, writes the argmax and the scores. Each lane is left
 * with one row; the sum is that of score.cuh, row r with r + 8, then 1, 2 and 4 apart. */
template <bool want_argmax>
LIK_DEVICE void finish(struct row_maxima &m, const struct held_queries &h, const struct scan_args &args,
                       const struct held_places &places, const struct way &w)
{
    const struct score_args &a = args.score;
    const int lane = (int)threadIdx.x & 31;
    float best;
    int at = -1;
    if (want_argmax) {
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int o = 4; o < 32; o *= 2) {
                float x = __shfl_xor_sync(~0u, m.best[i], o);
                keep_better(m.best[i], m.at[i], x, __shfl_xor_sync(~0u, m.at[i], o));
            }
        best = m.best[0];
        at = m.at[0];
        const int own = (lane >> 4 & 1) * 4 + (lane >> 3 & 1) * 2 + (lane >> 2 & 1);
#pragma unroll
        for (int i = 1; i < 8; i++) {
            best = own == i ? m.best[i] : best;
            at = own == i ? m.at[i] : at;
        }
    } else {
#pragma unroll
        for (int k = 4; k; k >>= 1)
#pragma unroll
            for (int i = 0; i < k; i++) {
                const bool upper = lane & k * 4;
                float theirs = __shfl_xor_sync(~0u, upper ? m.best[i] : m.best[i + k], k * 4);
                m.best[i] = max_nan(upper ? m.best[i + k] : m.best[i], theirs);
            }
        best = m.best[0];
    }
    const int strips = a.tiling.strips_per_query;
    const int64_t column = w.item - h.tile * (int)a.columns;
    const struct strip_place place = places.strips[lane >> 4];
    const bool counts = h.counts && m.any;
    if (want_argmax && place.row >= 0 && h.token < a.op.q.len_max)
        store_argmax(a.op, (place.row * a.columns + column) * a.op.q.len_max + h.token,
                     counts && !h.bad ? at : -1);
    float sum = counts ? __fmul_rn(h.weight, best) : 0.0f;
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 8));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 4));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
    if (h.bad || w.length < 0)
        sum = __uint_as_float(0x7fc00000u);
    float second = __shfl_sync(~0u, sum, 16);
    if (a.partial) {
        if ((lane & 15) == 0 && place.row >= 0)
            a.partial[(place.row * a.columns + column) * strips + place.strip] = sum;
    } else if (strips == 2) {
        if (lane == 0)
            a.op.scores[place.row * a.op.scores_stride + column] = __fadd_rn(sum, second);
    } else if ((lane & 15) == 0 && place.row >= 0) {
        a.op.scores[place.row * a.op.scores_stride + column] = sum;
    }
    reset(m);
}

/* The factors of the tokens that four lanes have parts of, from each lane's squares; the t-th
 * lane takes the t-th token's. */
LIK_DEVICE void unit_factors_of(float (&factor)[4])
{
    const int lane = (int)threadIdx.x & 31;
    const bool odd = lane & 1, high = lane & 2;
    float pair[2];
#pragma unroll
    for (int i = 0; i < 2; i++) /* tokens odd and 2 + odd, of two lanes */
        pair[i] = __fadd_rn(odd ? factor[2 * i + 1] : factor[2 * i],
                            __shfl_xor_sync(~0u, odd ? factor[2 * i] : factor[2 * i + 1], 1));
    float sum = __fadd_rn(high ? pair[1] : pair[0], __shfl_xor_sync(~0u, high ? pair[0] : pair[1], 2));
    const float own = coded_unit_of(sum);
#pragma unroll
    for (int r = 0; r < 4; r++)
        factor[r] = __shfl_sync(~0u, own, (lane & 28) + r);
}

/* The kernels: of tokens of 128 elements, in copies of 16 bytes, as they are or normalized on
 * the fly; and of any that are taken, without and with the argmax. */
enum scan_way { SCAN_PLAIN, SCAN_NORMALIZED, SCAN_ANY, SCAN_ANY_ARGMAX, SCAN_WAYS };

/* Long because what is under way for three tiles is in its registers. */
template <int dtype, int bits, int how>
static __global__ void __launch_bounds__(32 * SCAN_WARPS, 1)
    scan(const __grid_constant__ struct scan_args args)
{
    constexpr bool any = how >= SCAN_ANY, want_argmax = how == SCAN_ANY_ARGMAX;
    constexpr int copies = any ? 0 : bits;
    extern __shared__ __align__(128) char memory[];
    __shared__ struct held_places places[SCAN_WARPS];
    const struct score_args &a = args.score;
    const struct lik_tokens &d = a.op.d;
    const int lane = (int)threadIdx.x & 31, warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0), g = lane >> 2,
              t = lane & 3;
    const char *own = memory + (bits <= 2 ? lane % 16 * 8 : lane * 4); /* copy of the table */
    const int stage_bytes = SCAN_TOKENS * args.ring_row;
    const int half_shift = (t & 1) != (args.codec.bit_order == LIK_BITS_COLBERT) ? 4 : 0;
    const int chunks = any ? args.chunks : BLOCKS / 2;
    const bool normalize = any ? d.normalize != 0 : how == SCAN_NORMALIZED;
    char *ring = memory + table_bytes(bits) + warp * SCAN_STAGES * stage_bytes;
    let_next_kernel_begin();
    wait_for_kernels_before();
    make_table<dtype, bits>(memory, args.codec);
    __syncthreads();
    const int step = (int)(gridDim.x * (blockDim.x / 32));
    struct way here = {(int)(blockIdx.x * (blockDim.x / 32)) + warp, 0, 0, 0};
    open_item(here, args.score, args.items);
    struct asker ahead = {here, NULL, NULL};
    ahead.place(args, copies);
    const char *centroids = args.centroids + t * 16;
    asm volatile("" : "+l"(centroids)); /* one address, so that a row's is one multiply-add */
    const uint32_t count = (uint32_t)args.codec.centroid_count, row_bytes = (uint32_t)chunks * 64;
    auto gather = [&](uint32_t code, int i) {
        const char *from = centroids + (uint64_t)code * row_bytes;
        return __ldg((const uint4 *)(from + i * 64));
    };
    uint4 rows[BLOCKS / 2][EACH];
    struct raw_codes next, after;
    ahead.ask<copies>(args, ring, next, step);
    ahead.ask<copies>(args, ring + stage_bytes, after, step);
#pragma unroll
    for (int i = 0; i < BLOCKS / 2; i++)
#pragma unroll
        for (int r = 0; r < EACH; r++)
            rows[i][r] = i < chunks ? gather(min(next.of[r], count), i) : make_uint4(0, 0, 0, 0);
    struct held_queries h;
    h.tile = -1;
    __syncwarp();
    struct row_maxima m;
    reset(m);
    for (int stage = 0; here.item < args.items; stage = stage + 1 == SCAN_STAGES ? 0 : stage + 1) {
        if (here.token == 0)
            hold_queries(h, places[warp], args, tile_of(args.score, here.item));
#pragma unroll
        for (int r = 0; r < EACH; r++)
            next.of[r] = min(after.of[r], count);
        ahead.ask<copies>(args, ring + (stage == 0 ? 2 : stage - 1) * stage_bytes, after, step);
        float factor[EACH] = {1.0f, 1.0f, 1.0f, 1.0f};
        const bool whole = here.token + SCAN_TOKENS <= here.length && !d.mask;
        int kept = (1 << EACH) - 1;
        if (!whole || d.scale) {
#pragma unroll
            for (int r = 0; r < EACH; r++) {
                const int token = here.token + g + 8 * r;
                if (token >= here.length) {
                    kept &= ~(1 << r);
                    continue;
                }
                if (d.mask && !token_kept(d, lik_tokens_base(&d, &d.mask_strides, here.document), token))
                    kept &= ~(1 << r);
                if (d.scale)
                    factor[r] = coded_scale(d, lik_tokens_base(&d, &d.scale_strides, here.document), token);
            }
        }
        if (normalize)
            factor[0] = factor[1] = factor[2] = factor[3] = 0.0f;
        copy_async_wait<2>();
        __syncwarp();
        const char *tokens = ring + stage * stage_bytes + g * args.ring_row;
        float acc[EACH / 2][4][4] = {};
#pragma unroll
        for (int i = 0; i < BLOCKS / 2; i++) {
            if (any && i >= chunks)
                break;
            uint32_t x[EACH][4];
#pragma unroll
            for (int r = 0; r < EACH; r++) {
                x[r][0] = rows[i][r].x, x[r][1] = rows[i][r].y, x[r][2] = rows[i][r].z,
                x[r][3] = rows[i][r].w;
                rows[i][r] = gather(next.of[r], i);
#pragma unroll
                for (int half = 0; half < 2 && bits; half++) {
                    uint32_t w[2];
                    load_weights<bits>(tokens + r * 8 * args.ring_row + (i * 2 + half) * 2 * bits, own,
                                       half_shift, w);
                    x[r][2 * half] = add_pairs<dtype>(x[r][2 * half], w[0]);
                    x[r][2 * half + 1] = add_pairs<dtype>(x[r][2 * half + 1], w[1]);
                }
                if (normalize)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        add_squares<dtype>(x[r][e], factor[r]);
            }
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const uint32_t *q = h.q[2 * i + half][n];
#pragma unroll
                    for (int r = 0; r < EACH; r += 2) {
                        const uint32_t f[4] = {x[r][2 * half], x[r + 1][2 * half], x[r][2 * half + 1],
                                               x[r + 1][2 * half + 1]};
                        if (dtype == LIK_BF16)
                            mma_bf16(acc[r / 2][n], f, q[0], q[1]);
                        else
                            mma_f16(acc[r / 2][n], f, q[0], q[1]);
                    }
                }
        }
        if (normalize)
            unit_factors_of(factor);
        if (whole) {
            m.any = true;
            take_tile<want_argmax, true>(m, acc, factor, kept, here.token);
        } else {
            m.any |= __any_sync(~0u, kept != 0);
            take_tile<want_argmax, false>(m, acc, factor, kept, here.token);
        }
        if (here.token + SCAN_TOKENS >= here.length)
            finish<want_argmax>(m, h, args, places[warp], here);
        advance(here, args.score, args.items, step);
        __syncwarp(); /* the stage is filled anew */
    }
}

/* The kernels of a number of bits, for the files that instantiate them: where both dtypes have
 * all ways, or but those of any tokens. */
template <int bits> static scan_kernel scan_kernel_of(int dtype, int way)
{
    constexpr int plain = bits == 2 || bits == 4 ? SCAN_PLAIN : SCAN_ANY;
    constexpr int normalized = bits == 2 || bits == 4 ? SCAN_NORMALIZED : SCAN_ANY;
    static const scan_kernel kernels[2][SCAN_WAYS] = {
        {scan<LIK_F16, bits, plain>, scan<LIK_F16, bits, normalized>, scan<LIK_F16, bits, SCAN_ANY>,
         scan<LIK_F16, bits, SCAN_ANY_ARGMAX>},
        {scan<LIK_BF16, bits, plain>, scan<LIK_BF16, bits, normalized>, scan<LIK_BF16, bits, SCAN_ANY>,
         scan<LIK_BF16, bits, SCAN_ANY_ARGMAX>}};
    return kernels[dtype == LIK_BF16][way];
}

#endif
