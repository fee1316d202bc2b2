/* group.cuh where LIK_MEDIUM allows products of 8-bit integers: one wgmma takes 32 elements, a
 * word holds four, and the sums are exact.
 *
 * Each centroid has a unit of its own, (max |c| + max |w|) / 126, in which it and the weights
 * are rounded, so that no sum of the two passes 127; its row holds both, and a token's
 * residual picks weights out of registers, byte by byte. Bytes are offset such that none of a
 * sum carries into the next: 128 is taken off by one exclusive or. Where a token is
 * normalized on the fly the unit cancels, else it is part of the token's factor. Elements of
 * -128 all over stand for a token that is NaN.
 *
 * Lane t of four has elements 32 t ... 32 t + 31 of a token, in the order in which they fall
 * out of its words; centroids and query rows are laid out to match. */
#ifndef LIK_CUDA_SCAN_GROUP_I8_CUH
#define LIK_CUDA_SCAN_GROUP_I8_CUH

#include "cuda/scan/group.cuh"

/* A product of unit tokens is at most 127 sqrt(128): times this, and with the offset added, it
 * is positive, so that its bits compare as integers do. */
#define I8_UNIT   2048.0f
#define I8_OFFSET 4194304.0f
#define I8_NAN    (GROUP_DIM * 128 * 128) /* squares of a token that is NaN */

/* Words 32 and on of a centroid's row, which its elements fill up to there. */
#define I8_WEIGHTS         32
#define I8_UNIT_WORD(bits) ((bits) == 4 ? 36 : 33)

/* Shared memory of a block, as group_memory without a table. */
template <int bits, int rows, bool unit> struct i8_memory {
    static constexpr int warps = GROUP_I8_WARPS(rows), queries = GROUP_QUERIES,
                         row = queries + rows * GROUP_DIM, strip = row + rows * (int)sizeof(struct group_row),
                         part = strip + rows / 16 * (int)sizeof(struct strip_place),
                         maxima = queries + rows * (GROUP_DIM + 20), argmaxima = maxima + rows * 4 * warps;
    static constexpr float offset = unit ? I8_OFFSET : 0.0f;
    static_assert(part + warps * (int)sizeof(struct group_part) <= maxima, "as planned");

    LIK_MEMBER static int ring(int warp)
    {
        return GROUP_I8_RING(rows) + warp * GROUP_I8_RING_BYTES(bits);
    }
};

/* The element in byte j of a lane's word n of eight: what falls out of words 16, 4, 2 or 1 bits
 * apart, 8 elements of one bit or 2 taken at once. */
LIK_DEVICE int i8_element(int bits, bool colbert, int t, int n, int j)
{
    const int at = bits == 1   ? 16 * (n & 1) + 4 * j + (n >> 1)
                   : bits == 2 ? 16 * (n >> 2) + 8 * (n & 1) + 2 * j + (n >> 1 & 1)
                               : 4 * n + j;
    return 32 * t + (bits && colbert ? at ^ (8 / bits - 1) : at);
}

LIK_DEVICE uint32_t most_of_lanes(uint32_t x)
{
#if __CUDA_ARCH__ >= 800
    return __reduce_max_sync(~0u, x);
#else
    for (int o = 16; o; o >>= 1)
        x = max(x, __shfl_xor_sync(~0u, x, o));
    return x;
#endif
}

/* Makes the block hold `rows` query rows of a tile as integers, each in a unit of its own,
 * which its weight takes in: NaN of a row that has no finite one. A warp asks for four rows at
 * once. */
template <class mem, int rows, int bits>
LIK_DEVICE void hold_i8_rows(char *memory, const struct scan_args &args, int tile)
{
    constexpr int at_once = 4;
    const struct lik_tokens &q = args.score.op.q;
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x / 32;
    const bool colbert = args.codec.bit_order == LIK_BITS_COLBERT;
    locate_group_rows<mem, rows>(memory, args, tile);
#pragma unroll 1
    for (int first = warp; first < rows; first += at_once * mem::warps) {
        float v[at_once][4];
        uint16_t narrow[at_once][4] = {};
#pragma unroll
        for (int i = 0; i < at_once; i++) {
            const int row = first + i * mem::warps;
            const int64_t from = row < rows ? ((const int64_t *)(memory + mem::maxima))[row] : LIK_NOWHERE;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                v[i][j] = 0.0f;
                if (from == LIK_NOWHERE)
                    continue;
                const int64_t at = from + i8_element(bits, colbert, lane & 3, lane >> 2, j) * q.dim_stride;
                if (q.dtype == LIK_F32)
                    v[i][j] = ((const float *)q.data)[at];
                else
                    narrow[i][j] = ((const uint16_t *)q.data)[at];
            }
        }
#pragma unroll
        for (int i = 0; i < at_once; i++) {
            const int row = first + i * mem::warps;
            if (row >= rows)
                break;
            uint32_t most = 0, word = 0;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (q.dtype == LIK_F16)
                    v[i][j] = __half2float(__ushort_as_half(narrow[i][j]));
                if (q.dtype == LIK_BF16)
                    v[i][j] = __uint_as_float((uint32_t)narrow[i][j] << 16);
                most = max(most, __float_as_uint(v[i][j]) & 0x7fffffffu);
            }
            const float largest = __uint_as_float(most_of_lanes(most));
            const bool fine = largest < INFINITY, some = largest >= 0x1p-100f;
            const float inverse = fine && some ? __fdiv_rn(127.0f, largest) : 0.0f;
#pragma unroll
            for (int j = 0; j < 4; j++)
                word |= ((uint32_t)__float2int_rn(fine ? __fmul_rn(v[i][j], inverse) : 0.0f) & 255u) << 8 * j;
            *(uint32_t *)(memory + mem::queries + row * GROUP_DIM + ((lane >> 2 ^ (row & 7)) * 16) +
                          (lane & 3) * 4) = word;
            const float unit = !fine  ? __uint_as_float(0x7fc00000u)
                               : some ? __fdiv_rn(largest, 127.0f)
                                      : 0.0f;
            struct group_row *own = (struct group_row *)(memory + mem::row) + row;
            if (lane == 0)
                own->weight = __fmul_rn(own->weight, mem::offset != 0.0f ? unit / I8_UNIT : unit);
        }
    }
}

/* A lane's part of a centroid's row. */
template <int bits, bool unit> struct i8_centroid {
    uint4 elements[2];
    uint32_t weights[bits == 4 ? 4 : 1];
    float size; /* of a unit, where none is taken on the fly */

    /* `own`: the lane's first elements of row 0; `all`: what all lanes read of it. */
    LIK_MEMBER void ask(const char *own, const char *all, uint32_t code)
    {
        const char *from = own + (uint64_t)code * GROUP_I8_CENTROID;
        const uint32_t *more = (const uint32_t *)(all + (uint64_t)code * GROUP_I8_CENTROID);
        elements[0] = __ldg((const uint4 *)from);
        elements[1] = __ldg((const uint4 *)(from + 64));
        if (bits == 4) {
            const uint4 w = __ldg((const uint4 *)more);
            weights[0] = w.x;
            weights[bits == 4 ? 1 : 0] = w.y;
            weights[bits == 4 ? 2 : 0] = w.z;
            weights[bits == 4 ? 3 : 0] = w.w;
            size = unit ? 1.0f : __ldg((const float *)more + I8_UNIT_WORD(bits) - I8_WEIGHTS);
        } else if (unit) {
            weights[0] = bits ? __ldg(more) : 0;
            size = 1.0f;
        } else {
            const uint2 w = __ldg((const uint2 *)more);
            weights[0] = w.x;
            size = __uint_as_float(w.y);
        }
    }
};

LIK_DEVICE uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t which)
{
    uint32_t out; /* unlike __byte_perm it does not mask `which`, which has no fourth bits */
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(low), "r"(high), "r"(which));
    return out;
}

/* The weights of a lane's elements, offset, from its part of a residual. */
template <int bits>
LIK_DEVICE void pick_weights(const char *row, const uint32_t (&w)[bits == 4 ? 4 : 1], uint32_t (&out)[8])
{
    if (bits == 1) {
        const uint32_t x = *(const uint32_t *)row;
#pragma unroll
        for (int s = 0; s < 4; s++) {
            const uint32_t which = x >> s & 0x11111111u;
            out[2 * s] = pick_bytes(w[0], 0, which);
            out[2 * s + 1] = pick_bytes(w[0], 0, which >> 16);
        }
    } else if (bits == 2) {
        const uint2 v = *(const uint2 *)row;
        const uint32_t x[2] = {v.x, v.y};
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            const uint32_t which = x[n / 4] >> n % 4 & 0x33333333u;
            out[n] = pick_bytes(w[0], 0, which);
            out[n + 1] = pick_bytes(w[0], 0, which >> 16);
        }
    } else if (bits == 4) { /* out of either half of the weights, and then one of the two */
        const uint4 v = *(const uint4 *)row;
        const uint32_t x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            const uint32_t low = x[n / 2] & 0x77777777u, half = (x[n / 2] >> 1 & 0x44444444u) | 0x32103210u;
#pragma unroll
            for (int i = 0; i < 2; i++)
                out[n + i] = pick_bytes(pick_bytes(w[0], w[bits == 4 ? 1 : 0], low >> 16 * i),
                                        pick_bytes(w[bits == 4 ? 2 : 0], w[bits == 4 ? 3 : 0], low >> 16 * i),
                                        half >> 16 * i);
        }
    }
}

/* Takes a tile's products into the maxima, as take_products: `add` is -infinity, or 0 where
 * products are offset, of a token that does not count, whose factor is 0. */
template <int octets, bool unit, bool want_argmax>
LIK_DEVICE void take_integers(float *best, int *at, const int *acc, const float (&factor)[2],
                              const float (&add)[2], int kept, int token)
{
#pragma unroll
    for (int n = 0; n < octets; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x[2], &most = best[2 * n + e];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                x[r] = __fmaf_rn((float)acc[4 * n + 2 * r + e], factor[r], add[r]);
                if (want_argmax && (kept >> r & 1) &&
                    (at[2 * n + e] < 0 || x[r] > most || (x[r] != x[r] && most == most))) {
                    most = x[r];
                    at[2 * n + e] = token + 8 * r;
                }
            }
            if (!want_argmax && unit)
                most = __int_as_float(
                    __vimax3_s32(__float_as_int(most), __float_as_int(x[0]), __float_as_int(x[1])));
            else if (!want_argmax)
                most = max_nan(most, max_nan(x[0], x[1]));
        }
}

/* A token's factor from the lane's part of its squares. */
LIK_DEVICE float i8_unit_factor(int squares)
{
    squares += __shfl_xor_sync(~0u, squares, 1);
    squares += __shfl_xor_sync(~0u, squares, 2);
    float factor;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(factor) : "f"((float)max(squares, 1)));
    return squares == I8_NAN ? __uint_as_float(0x7fc00000u) : __fmul_rn(factor, I8_UNIT);
}

/* Long because what is under way for several tiles is in its registers. */
template <int bits, int rows, int norms, bool want_argmax>
static __global__ void __launch_bounds__(32 * GROUP_I8_WARPS(rows), 1)
    scan_group_i8(const __grid_constant__ struct scan_args args)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    constexpr bool unit = norms == GROUP_UNIT;
    typedef i8_memory<bits, rows, unit> mem;
    constexpr int octets = rows == 32 ? 4 : GROUP_WIDE, passes = rows / 8 / octets;
    constexpr int ring_row = GROUP_I8_ROW(bits), stage_bytes = GROUP_STAGE_BYTES(ring_row);
    constexpr int parts = GROUP_TOKENS / 16;
    extern __shared__ __align__(1024) char group_shared[];
    char *const memory = group_shared - mem::queries; /* by address: nothing else lies before it */
    const struct lik_tokens &d = args.score.op.d;
    const int lane = (int)threadIdx.x & 31, warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0), g = lane >> 2,
              t = lane & 3;
    char *ring = memory + mem::ring(warp);
    const char *centroids = args.centroids + t * 16, *more = args.centroids + I8_WEIGHTS * 4;
    asm volatile("" : "+l"(centroids)); /* one address, so that a row's is one multiply-add */
    asm volatile("" : "+l"(more));
    if (shared_address(group_shared) != mem::queries)
        __trap();
    let_next_kernel_begin();
#pragma unroll 1
    for (int tile = 0; tile < args.tiles; tile++) {
        if (tile)
            __syncthreads();
        group_asker<bits, ring_row, norms> ahead = {{0, -1, 0, 0, 0, -1, 0, 0}, NULL, NULL, NULL};
        int left = __shfl_sync(~0u, take_share(ahead.at, args), 0); /* the same for all of the block */
        struct group_maxima<mem, rows, want_argmax> maxima;
        hold_i8_rows<mem, rows, bits>(memory, args, tile);
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
        struct i8_centroid<bits, unit> rows_of[2];
#pragma unroll
        for (int r = 0; r < 2; r++)
            rows_of[r].ask(centroids, more, row_of_code<ring_row>(args, ring, g + 8 * r));
        for (int stage = 0; left > 0; left--) {
            char *const now = ring + stage * stage_bytes;
            ahead.ask(args, stage == 0 ? ring + (GROUP_STAGES - 1) * stage_bytes : now - stage_bytes);
            stage = stage + 1 == GROUP_STAGES ? 0 : stage + 1;
            const struct group_tile here = *(const struct group_tile *)(now + group_stage<ring_row>::tile);
            const int kept = here.whole() && !d.mask ? -1 : tokens_kept(d, here);
            maxima.any |= __any_sync(~0u, kept != 0);
            copy_async_wait<GROUP_STAGES - 2>(); /* this tile and the next are there */
            __syncwarp();
#pragma unroll
            for (int part = 0; part < parts; part++) {
                const char *then = part + 1 == parts ? ring + stage * stage_bytes : now;
                const int token = (part + 1) % parts * 16 + g; /* whose centroids are asked for */
                float factor[2], add[2];
                uint32_t x[4][4];
                int squares[2] = {0, 0};
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    struct i8_centroid<bits, unit> &centroid = rows_of[r];
                    const uint4 c[2] = {centroid.elements[0], centroid.elements[1]};
                    uint32_t v[8] = {c[0].x, c[0].y, c[0].z, c[0].w, c[1].x, c[1].y, c[1].z, c[1].w}, w[8];
                    if (bits) {
                        pick_weights<bits>(now + group_stage<ring_row>::rows +
                                               (part * 16 + g + 8 * r) * ring_row + t * 4 * bits,
                                           centroid.weights, w);
#pragma unroll
                        for (int n = 0; n < 8; n++)
                            v[n] = (v[n] + w[n]) ^ 0x80808080u;
                    }
                    if (norms == GROUP_STORED)
                        factor[r] =
                            __fmul_rn(factor_of<ring_row>(args, now, part * 16 + g + 8 * r), centroid.size);
                    if (norms == GROUP_PLAIN)
                        factor[r] = centroid.size;
                    centroid.ask(centroids, more, row_of_code<ring_row>(args, then, token + 8 * r));
#pragma unroll
                    for (int n = 0; n < 8; n++) {
                        x[n / 2][r + n % 2 * 2] = v[n];
                        if (unit)
                            squares[r] = __dp4a((int)v[n], (int)v[n], squares[r]);
                    }
                }
                int acc[passes > 1 ? 2 : 1][octets * 4];
                auto multiply = [&](int n) {
#pragma unroll
                    for (int s = 0; s < 4; s++) {
                        const uint32_t from = (mem::queries + s * 32 + n * octets * 1024) / 16 | 1u << 16;
                        if (s == 0)
                            wgmma_i8_registers<false, octets>::run(acc[n % 2], x[s], from);
                        else
                            wgmma_i8_registers<true, octets>::run(acc[n % 2], x[s], from);
                    }
                    wgmma_commit();
                };
                __syncwarp(); /* products are of all lanes at once */
                registers_ready(x, 0, 4);
                wgmma_fence();
                multiply(0);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const bool counts = kept >> (2 * part + r) & 1;
                    if (unit)
                        factor[r] = i8_unit_factor(squares[r]);
                    factor[r] = counts ? factor[r] : 0.0f;
                    add[r] = unit ? counts ? I8_OFFSET : 0.0f : counts ? -0.0f : -INFINITY;
                }
#pragma unroll
                for (int n = 0; n < passes; n++) {
                    if (n + 1 < passes) {
                        wgmma_fence();
                        multiply(n + 1);
                        wgmma_wait<1>();
                    } else {
                        wgmma_wait<0>();
                    }
                    take_integers<octets, unit, want_argmax>(maxima.best + n * octets * 2, maxima.at,
                                                             acc[n % 2], factor, add, kept >> 2 * part,
                                                             here.token + part * 16 + g);
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
template <int bits> static scan_kernel group_i8_kernel_of(int rows, int norms, int argmax)
{
#define LIK_I8(rows, argmax)                                                                           \
    {                                                                                                  \
        scan_group_i8<bits, rows, GROUP_PLAIN, argmax>, scan_group_i8<bits, rows, GROUP_UNIT, argmax>, \
            scan_group_i8<bits, rows, GROUP_STORED, argmax>                                            \
    }
    static const scan_kernel kernels[4][GROUP_NORMS] = {LIK_I8(32, false), LIK_I8(128, false),
                                                        LIK_I8(256, false), LIK_I8(32, true)};
#undef LIK_I8
    return kernels[argmax ? 3 : rows == 32 ? 0 : rows == 128 ? 1 : 2][norms];
}

#endif
