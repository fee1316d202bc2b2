/* Which tiles of which documents a warp of group.cuh scans, and how what belongs to them is
 * asked for: a warp's ring has all of a tile, and where it belongs, before it is scanned. */
#ifndef LIK_CUDA_SCAN_SHARE_CUH
#define LIK_CUDA_SCAN_SHARE_CUH

#include "cuda/scan/scan.cuh"

/* A warp's way through its share of the block's tiles. */
struct walk {
    int column, document, token;
    int length; /* -1: out of range; past the end 0 */
    int left;   /* tiles, with this one */
    /* so many of them are of documents that the block's warps share, from here on */
    int shared, shared_column, shared_token;
};

LIK_DEVICE void open_column(struct walk &w, const struct scan_args &args)
{
    const struct lik_score &op = args.score.op;
    w.length = 0;
    if (w.left <= 0)
        return;
    int64_t j = w.column;
    if (args.listed)
        j = op.list_q[w.column] ? -1 : op.list_d[w.column];
    w.document = j < 0 || j >= op.d.count ? -1 : (int)j;
    w.length = sequence_length(op.d, w.document);
}

/* To the next tile; is it another document's? */
LIK_DEVICE bool advance(struct walk &w, const struct scan_args &args)
{
    w.left--;
    w.token += GROUP_TOKENS;
    if (w.left > 0 && w.token < w.length)
        return false;
    w.token = w.left == w.shared ? w.shared_token : 0;
    w.column = w.left == w.shared ? w.shared_column : w.column + 1;
    open_column(w, args);
    return true;
}

/* One that is empty has a tile, too. */
LIK_DEVICE int tiles_of(int length)
{
    return length <= 0 ? 1 : (length + GROUP_TOKENS - 1) / GROUP_TOKENS;
}

/* The sum of this lane's number and those of all before it. */
LIK_DEVICE int sum_to_lane(int x)
{
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        const int other = __shfl_up_sync(~0u, x, o);
        x += ((int)threadIdx.x & 31) >= o ? other : 0;
    }
    return x;
}

/* Where a warp begins, and how much is its: blocks have as many documents each, and their warps
 * as many tiles. Where documents have one length, warps first take whole ones, so that they end
 * them together, and share what is left. Returns the largest share of the block's. */
LIK_DEVICE int take_share(struct walk &w, const struct scan_args &args)
{
    const struct lik_tokens &d = args.score.op.d;
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    const int first = (int)((int64_t)args.items * blockIdx.x / gridDim.x);
    const int end = (int)((int64_t)args.items * (blockIdx.x + 1) / gridDim.x);
    const bool uniform = !args.listed && !d.offsets;
    const int each = tiles_of((int)d.len_max), whole = uniform ? (end - first) / warps : 0;
    int64_t total = (int64_t)(end - first - whole * warps) * each; /* shared */
    auto tiles_from = [&](int column) {                            /* of the lane's */
                                        struct walk x = {column + lane,       0,  0, 0,
                                                         column + lane < end, -1, 0, 0};
                                        open_column(x, args);
                                        return x.left ? tiles_of(x.length) : 0;
    };
    if (!uniform) {
        total = 0;
        for (int c = first; c < end; c += 32)
            total += __shfl_sync(~0u, sum_to_lane(tiles_from(c)), 31);
    }
    int64_t skip = total * warp / warps;
    w.shared = (int)(total * (warp + 1) / warps - skip);
    w.left = whole * each + w.shared;
    w.shared_column = first + whole * warps;
    w.shared_token = 0;
    if (uniform) {
        w.shared_column += (int)(skip / each);
        w.shared_token = (int)(skip % each) * GROUP_TOKENS;
    }
    for (; !uniform && w.left; w.shared_column += 32) {
        const int sum = sum_to_lane(tiles_from(w.shared_column));
        const uint32_t after = __ballot_sync(~0u, sum > skip);
        if (after) { /* amid this lane's document */
            const int at = __ffs(after) - 1, ended = __shfl_sync(~0u, sum, at ? at - 1 : 0);
            w.shared_column += at;
            w.shared_token = (int)(skip - (at ? ended : 0)) * GROUP_TOKENS;
            break;
        }
        skip -= __shfl_sync(~0u, sum, 31);
    }
    w.column = whole ? first + warp * whole : w.shared_column;
    w.token = whole ? 0 : w.shared_token;
    open_column(w, args);
    return (int)(whole * each + (total + warps - 1) / warps);
}

/* What a stage holds: of which document, and how many of its tokens are left, -1 of one that is
 * out of range. A warp whose share is done goes on with tiles of no document, of no tokens,
 * until its block is done. */
struct __align__(16) group_tile {
    int column;   /* -1: of none */
    int document; /* -1: out of range */
    int count;    /* more than GROUP_TOKENS: the document goes on */
    int token;    /* the first */

    LIK_MEMBER bool whole() const
    {
        return count >= GROUP_TOKENS;
    }
};

/* A stage of a warp's ring: the tile's place; residuals, row by row; codes, 8 bytes each;
 * factors, 4 bytes each and 4 more; whether the first of the factors of 2 bytes is of the
 * token before, and whether the tile is the share's last. */
template <int ring_row> struct group_stage {
    static constexpr int tile = 0, rows = tile + (int)sizeof(struct group_tile),
                         codes = rows + GROUP_TOKENS * ring_row, scales = codes + GROUP_TOKENS * 8,
                         skip = scales + GROUP_TOKENS * 4 + 4, last = skip + 4;
    static_assert(last + 4 <= GROUP_STAGE_BYTES(ring_row), "as planned");
};

/* What asks for tiles three ahead. All that belongs to a tile is copied to the ring, so that
 * nothing waits for it before it is used. */
template <int bits, int ring_row, int norms> struct group_asker {
    struct walk at;
    const char *residuals; /* of the lane's first copy */
    const char *codes;     /* of the lane's token */
    const char *scales;    /* of the first token */

    LIK_MEMBER void place(const struct scan_args &args)
    {
        const struct lik_tokens &d = args.score.op.d;
        const int lane = (int)threadIdx.x & 31;
        if (at.length <= 0)
            return;
        residuals = (const char *)d.data + lik_tokens_base(&d, &d.strides, at.document) +
                    at.token * (bits * 16) + lane * 16;
        codes = (const char *)d.codes +
                (lik_tokens_base(&d, &d.codes_strides, at.document) + at.token + lane) * args.code_bytes;
        if (norms == GROUP_STORED)
            scales = (const char *)d.scale +
                     (lik_tokens_base(&d, &d.scale_strides, at.document) + at.token) * args.scale_bytes;
    }

    /* Factors of two bytes come in pairs, of which the first begins at a multiple of four. */
    LIK_MEMBER void ask_halves(const struct scan_args &args, char *stage, int count)
    {
        const int lane = (int)threadIdx.x & 31, skip = (int)((uintptr_t)scales >> 1 & 1),
                  token = 2 * lane - skip;
        const char *from = scales + token * 2;
        char *to = stage + group_stage<ring_row>::scales + lane * 4;
        if (lane == 0) /* of no tokens, too: it is part of an address */
            *(int *)(stage + group_stage<ring_row>::skip) = skip;
        if (token >= count)
            return;
        if (from + 4 <= args.scales_end) {
            copy_async(to, from, 4);
        } else {
            *(uint16_t *)to = *(const uint16_t *)from;
            if (token + 1 < count)
                *(uint16_t *)(to + 2) = *(const uint16_t *)(from + 2);
        }
    }

    /* Asks for a tile, into a stage of the ring, and goes on. */
    LIK_MEMBER void ask(const struct scan_args &args, char *stage)
    {
        const int lane = (int)threadIdx.x & 31;
        const int count = at.length - at.token; /* at the end of all: 0 */
        if (lane == 0) {
            *(struct group_tile *)(stage + group_stage<ring_row>::tile) = {at.left > 0 ? at.column : -1,
                                                                           at.document, count, at.token};
            *(int *)(stage + group_stage<ring_row>::last) = at.left == 1;
        }
        if (lane < count) {
            copy_async(stage + group_stage<ring_row>::codes + lane * 8, codes, args.code_bytes == 4 ? 4 : 8);
            if (norms == GROUP_STORED && args.scale_bytes == 4)
                copy_async(stage + group_stage<ring_row>::scales + lane * 4, scales + lane * 4, 4);
        }
        if (norms == GROUP_STORED && args.scale_bytes == 2)
            ask_halves(args, stage, min(count, GROUP_TOKENS));
        if (bits) {
            constexpr int per = bits ? bits : 1, at_once = 32 / per; /* tokens that the lanes take */
            char *to = stage + group_stage<ring_row>::rows + lane / per * ring_row + lane % per * 16;
#pragma unroll
            for (int r = 0; r < GROUP_TOKENS; r += at_once)
                if (r + lane / per < count)
                    copy_async(to + r * ring_row, residuals + r * bits * 16, 16);
        }
        copy_async_commit();
        residuals += GROUP_TOKENS * bits * 16;
        codes += GROUP_TOKENS * args.code_bytes;
        if (norms == GROUP_STORED)
            scales += GROUP_TOKENS * args.scale_bytes;
        if (advance(at, args))
            place(args);
    }
};

/* The centroid's row of a token that a stage holds: the last one is of codes out of range. */
template <int ring_row>
LIK_DEVICE uint32_t row_of_code(const struct scan_args &args, const char *stage, int token)
{
    const uint32_t count = (uint32_t)args.codec.centroid_count;
    const uint2 code = *(const uint2 *)(stage + group_stage<ring_row>::codes + token * 8);
    return args.code_bytes == 8 && code.y ? count : min(code.x, count);
}

template <int ring_row> LIK_DEVICE float factor_of(const struct scan_args &args, const char *stage, int token)
{
    const char *scales = stage + group_stage<ring_row>::scales;
    if (args.scale_bytes == 4)
        return *(const float *)(scales + token * 4);
    return __half2float(
        *(const __half *)(scales + (token + *(const int *)(stage + group_stage<ring_row>::skip)) * 2));
}

#endif
