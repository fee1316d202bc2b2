/* group.cuh for f32 tokens, as accurate as f32: a centroid and its weights are added in f32,
 * the sum is split into three bf16 planes in registers, and six products of planes are
 * taken, in the order of the mma.sync loop, whose bits they have. */
#ifndef LIK_CUDA_SCAN_GROUP_F32_CUH
#define LIK_CUDA_SCAN_GROUP_F32_CUH

#include "cuda/scan/group.cuh"

#define PLANES 3

/* As make_group_table, of f32: four neighboring elements of an entry, or two. */
template <int bits> LIK_DEVICE void make_f32_table(char *table, const struct lik_codec &codec)
{
    if (!bits || threadIdx.x >= 256)
        return;
    constexpr int words = bits == 1 ? 8 : bits == 2 ? 4 : 2;
    uint32_t word[words];
#pragma unroll
    for (int k = 0; k < words; k++)
        word[k] = __float_as_uint(weight_in_byte(codec, (uint8_t)threadIdx.x, k));
    put_entries(table, 256, word);
}

/* The weights of elements 4 t ... 4 t + 3 of a block. */
template <int bits>
LIK_DEVICE void f32_weights(const struct group_weights<bits> &weights, int b, uint32_t own, float (&w)[4])
{
    const int t = (int)threadIdx.x & 3;
    if (bits == 1 || bits == 2) {
        const uint32_t at = bits == 2 ? weights.entry(weights.word[b], own, t)
                                      : weights.entry(weights.word[b / 2], own, b % 2 * 2 + (t >> 1));
        asm("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
            : "=f"(w[0]), "=f"(w[1]), "=f"(w[2]), "=f"(w[3])
            : "r"(at));
    } else if (bits == 4) {
#pragma unroll
        for (int i = 0; i < 2; i++)
            asm("ld.shared.v2.f32 {%0, %1}, [%2];"
                : "=f"(w[2 * i]), "=f"(w[2 * i + 1])
                : "r"(weights.entry(weights.word[b], own, (t & 1) * 2 + i)));
    }
}

/* Two elements as the p-th of each plane. */
LIK_DEVICE void split_pair(float a, float b, uint32_t (&plane)[PLANES])
{
#pragma unroll
    for (int p = 0; p < PLANES - 1; p++) {
        const uint32_t low = __float_as_uint(a), high = __float_as_uint(b);
        plane[p] = __byte_perm(low, high, 0x7632);
        a -= __uint_as_float(low & 0xffff0000u);
        b -= __uint_as_float(high & 0xffff0000u);
    }
    __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    plane[PLANES - 1] = *(const uint32_t *)&pair;
}

/* Long because what is under way for several tiles is in its registers. */
template <int bits, bool unit, bool want_argmax>
static __global__ void __launch_bounds__(32 * GROUP_WARPS(GROUP_F32), 1)
    scan_group_f32(const __grid_constant__ struct scan_args args)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    typedef group_memory<bits, GROUP_F32> mem;
    constexpr int ring_row = GROUP_RING_ROW(bits), stage_bytes = GROUP_STAGE_BYTES(ring_row);
    constexpr int plane_bytes = 32 * GROUP_DIM * 2;
    extern __shared__ __align__(1024) char group_shared[];
    char *const memory = group_shared - mem::queries; /* by address: nothing else lies before it */
    const struct lik_tokens &d = args.score.op.d;
    const int lane = (int)threadIdx.x & 31, warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0), g = lane >> 2,
              t = lane & 3;
    const uint32_t own =
        (uint32_t)(bits <= 2 ? lane % 8 * 16 : lane % 16 * 8) | (uint32_t)mem::table >> 16 << 8;
    char *ring = memory + mem::ring(warp);
    const char *centroids = args.centroids + t * 16;
    asm volatile("" : "+l"(centroids)); /* one address, so that a row's is one multiply-add */
    auto gather = [&](uint32_t code, int b) {
        const char *from = centroids + (uint64_t)code * (GROUP_DIM * 4);
        return __ldg((const float4 *)(from + b * 64));
    };
    if (shared_address(group_shared) != mem::queries)
        __trap();
    let_next_kernel_begin();
    make_f32_table<bits>(memory + mem::table, args.codec);
#pragma unroll 1
    for (int tile = 0; tile < args.tiles; tile++) {
        if (tile)
            __syncthreads();
        group_asker<bits, ring_row, unit ? GROUP_UNIT : GROUP_STORED> ahead = {
            {0, -1, 0, 0, 0, -1, 0, 0}, NULL, NULL, NULL};
        int left = __shfl_sync(~0u, take_share(ahead.at, args), 0); /* the same for all of the block */
        struct group_maxima<mem, 32, want_argmax> maxima;
        hold_group_rows<mem, 32, PLANES>(memory, args, tile);
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
        float4 rows_of[GROUP_BLOCKS][2];
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int b = 0; b < GROUP_BLOCKS; b++)
                rows_of[b][r] = gather(row_of_code<ring_row>(args, ring, g + 8 * r), b);
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
                float factor[2] = {0.0f, 0.0f}, acc[16];
                if (!unit) {
                    factor[0] = d.scale ? factor_of<ring_row>(args, now, part * 16 + g) : 1.0f;
                    factor[1] = d.scale ? factor_of<ring_row>(args, now, part * 16 + g + 8) : 1.0f;
                }
                uint32_t x[2][PLANES][2][4]; /* of chunks of 32 elements, in turn */
#pragma unroll
                for (int c = 0; c < GROUP_BLOCKS / 2; c++) {
                    if (c >= 2)
                        wgmma_wait<1>();
#pragma unroll
                    for (int r = 0; r < 2; r++)
#pragma unroll
                        for (int half = 0; half < 2; half++) {
                            const int b = 2 * c + half;
                            const float4 centroid = rows_of[b][r];
                            float v[4] = {centroid.x, centroid.y, centroid.z, centroid.w}, w[4];
                            rows_of[b][r] = gather(code[r], b);
                            if (bits) {
                                f32_weights<bits>(weights[r], b, own, w);
#pragma unroll
                                for (int e = 0; e < 4; e++)
                                    v[e] = __fadd_rn(v[e], w[e]);
                            }
#pragma unroll
                            for (int e = 0; e < 4 && unit; e++)
                                factor[r] = __fmaf_rn(v[e], v[e], factor[r]);
                            uint32_t plane[2][PLANES];
                            split_pair(v[0], v[1], plane[0]);
                            split_pair(v[2], v[3], plane[1]);
#pragma unroll
                            for (int p = 0; p < PLANES; p++) {
                                x[c % 2][p][half][r] = plane[0][p];
                                x[c % 2][p][half][2 + r] = plane[1][p];
                            }
                        }
                    __syncwarp(); /* products are of all lanes at once */
                    wgmma_fence();
#pragma unroll
                    for (int order = PLANES - 1; order >= 0; order--)
#pragma unroll
                        for (int i = 0; i <= order; i++)
#pragma unroll
                            for (int half = 0; half < 2; half++) {
                                const uint32_t from = (mem::queries + i * plane_bytes + c / 2 * (32 * 128) +
                                                       c % 2 * 64 + half * 32) /
                                                          16 |
                                                      1u << 16;
                                if (c == 0 && order == PLANES - 1 && i == 0 && half == 0)
                                    wgmma_registers<true, false, 4>::run(acc, x[c % 2][order - i][half],
                                                                         from);
                                else
                                    wgmma_registers<true, true, 4>::run(acc, x[c % 2][order - i][half], from);
                            }
                    wgmma_commit();
                }
                if (unit)
                    two_unit_factors(factor);
                wgmma_wait<0>();
                const int first = here.token + part * 16 + g;
                if (whole)
                    take_products<4, true, true, want_argmax>(maxima.best, maxima.at, acc, factor, 3, first);
                else
                    take_products<4, true, false, want_argmax>(maxima.best, maxima.at, acc, factor,
                                                               kept >> 2 * part, first);
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

#endif
