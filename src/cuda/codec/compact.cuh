/* Lists of the numbers for which something holds, in ascending order: three launches, no
 * atomics.
 *
 * Who lists gives a struct whose operator()(n) is what number n puts into the list, or -1. */
#ifndef LIK_CUDA_COMPACT_CUH
#define LIK_CUDA_COMPACT_CUH

#include "cuda/kernels.cuh"

/* Into blocks[]: how many entries each block of COMPACT_BLOCK numbers has. */
template <class Entries>
static __global__ void __launch_bounds__(COMPACT_BLOCK)
    count_entries(const __grid_constant__ Entries entries, int64_t count, int64_t *blocks)
{
    const int64_t n = (int64_t)blockIdx.x * COMPACT_BLOCK + threadIdx.x;
    const int here = __syncthreads_count(n < count && entries(n) >= 0);
    if (threadIdx.x == 0)
        blocks[blockIdx.x] = here;
}

/* Counts become where each block begins; *total: all. One block. */
static __global__ void __launch_bounds__(COMPACT_BLOCK)
    add_up_blocks(int64_t *blocks, int64_t count, int64_t *total)
{
    __shared__ int64_t sums[2][COMPACT_BLOCK];
    const int t = (int)threadIdx.x;
    int64_t before = 0;
    for (int64_t first = 0; first < count; first += COMPACT_BLOCK) {
        const int64_t own = first + t < count ? blocks[first + t] : 0;
        int turn = 0;
        sums[0][t] = own;
        __syncthreads();
        for (int step = 1; step < COMPACT_BLOCK; step *= 2, turn ^= 1) {
            sums[turn ^ 1][t] = sums[turn][t] + (t >= step ? sums[turn][t - step] : 0);
            __syncthreads();
        }
        if (first + t < count)
            blocks[first + t] = before + sums[turn][t] - own;
        before += sums[turn][COMPACT_BLOCK - 1];
        __syncthreads();
    }
    if (t == 0)
        *total = before;
}

template <class Entries>
static __global__ void __launch_bounds__(COMPACT_BLOCK)
    write_entries(const __grid_constant__ Entries entries, int64_t count, const int64_t *blocks,
                  int64_t *list)
{
    __shared__ int warps[COMPACT_BLOCK / 32];
    const int64_t n = (int64_t)blockIdx.x * COMPACT_BLOCK + threadIdx.x;
    const int64_t entry = n < count ? entries(n) : -1;
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x / 32;
    const unsigned have = __ballot_sync(~0u, entry >= 0);
    if (lane == 0)
        warps[warp] = __popc(have);
    __syncthreads();
    int before = __popc(have & ((1u << lane) - 1));
    for (int w = 0; w < warp; w++)
        before += warps[w];
    if (entry >= 0)
        list[blocks[blockIdx.x] + before] = entry;
}

/* `blocks` has an entry for every COMPACT_BLOCK of the `count` numbers. */
template <class Entries>
static int lik_cuda_compact(const Entries &entries, int64_t count, int64_t *blocks, int64_t *list,
                            int64_t *total, cudaStream_t stream)
{
    const int64_t n = lik_divide_up(count, COMPACT_BLOCK);
    if (n > INT32_MAX)
        return lik_fail(LIK_EUNSUPPORTED, "%lld tokens, the CUDA backend trains on 2^41", (long long)count);
    count_entries<<<(unsigned)n, COMPACT_BLOCK, 0, stream>>>(entries, count, blocks);
    add_up_blocks<<<1, COMPACT_BLOCK, 0, stream>>>(blocks, n, total);
    write_entries<<<(unsigned)n, COMPACT_BLOCK, 0, stream>>>(entries, count, blocks, list);
    return lik_cuda_launched("compact");
}

#endif
