/* Sorts 64-bit keys in device memory, ascending: bitonic, runs of LIK_SORT_RUN keys in shared
 * memory, longer strides in device memory. Keys that differ all come out in one order whatever
 * the hardware does, so what is sorted by them is too. */
#include "cuda/sort.cuh"

#define THREADS 512

/* All stages of a run (size == 0), or the strides below a run of the stage `size`. */
static __global__ void __launch_bounds__(THREADS)
    sort_runs(uint64_t *keys, int run, int64_t padded, int64_t runs, int64_t size)
{
    __shared__ uint64_t here[LIK_SORT_RUN];
    for (int64_t item = blockIdx.x; item < runs; item += gridDim.x) {
        int64_t first = item * run % padded; /* in its row */
        for (int i = (int)threadIdx.x; i < run; i += THREADS)
            here[i] = keys[item * run + i];
        __syncthreads();
        for (int64_t stage = size ? size : 2; stage <= (size ? size : run); stage *= 2)
            for (int stride = (int)(stage < run ? stage : run) / 2; stride > 0; stride /= 2) {
                for (int p = (int)threadIdx.x; p < run / 2; p += THREADS)
                    exchange(here, p, first, stage, stride);
                __syncthreads();
            }
        for (int i = (int)threadIdx.x; i < run; i += THREADS)
            keys[item * run + i] = here[i];
        __syncthreads();
    }
}

static __global__ void exchange_far(uint64_t *keys, int64_t padded, int64_t rows, int64_t size,
                                    int64_t stride)
{
    int64_t half = padded / 2;
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < half * rows;
         n += (int64_t)gridDim.x * blockDim.x)
        exchange(keys + n / half * padded, n % half, 0, size, stride);
}

int lik_cuda_sort(uint64_t *keys, int64_t padded, int64_t rows, cudaStream_t stream)
{
    int run = padded < LIK_SORT_RUN ? (int)padded : LIK_SORT_RUN;
    int64_t runs = padded / run * rows;
    unsigned blocks = (unsigned)(runs < 65536 ? runs : 65536);
    if (run < 2)
        return LIK_OK;
    sort_runs<<<blocks, THREADS, 0, stream>>>(keys, run, padded, runs, 0);
    for (int64_t size = 2ll * run; size <= padded; size *= 2) {
        for (int64_t stride = size / 2; stride >= run; stride /= 2)
            exchange_far<<<lik_cuda_blocks(rows * padded / 2), 256, 0, stream>>>(keys, padded, rows, size,
                                                                                 stride);
        sort_runs<<<blocks, THREADS, 0, stream>>>(keys, run, padded, runs, size);
    }
    return lik_cuda_launched("sort");
}
