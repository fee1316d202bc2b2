/* A bitonic sort's one step, and the sort of sort.cu. */
#ifndef LIK_CUDA_SORT_CUH
#define LIK_CUDA_SORT_CUH

#include "cuda/copy.cuh"
#include "cuda/kernels.cuh"

#define LIK_SORT_RUN 4096 /* keys in shared memory */

/* One compare-exchange: pair `p` of stride 2^s, in a row of which keys[0] is number `first`, at
 * the stage that merges sequences of `size`. */
LIK_DEVICE void exchange(uint64_t *keys, int64_t p, int64_t first, int64_t size, int64_t stride)
{
    int64_t i = 2 * p - (p & (stride - 1)), j = i + stride;
    uint64_t a = keys[i], b = keys[j];
    if ((a > b) == (((first + i) & size) == 0)) {
        keys[i] = b;
        keys[j] = a;
    }
}

/* Sorts each of `rows` rows of `padded` keys, a power of two. */
int lik_cuda_sort(uint64_t *keys, int64_t padded, int64_t rows, cudaStream_t stream);

#endif
