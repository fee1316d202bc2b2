/* The nearest centroids of rows: what encoding and training have in common. */
#ifndef LIK_CUDA_ASSIGN_CUH
#define LIK_CUDA_ASSIGN_CUH

#include "cuda/codec/rows.cuh"

/* Copies the centroids to where the plan has them. */
int lik_cuda_assign_begin(const struct assign_plan *plan, const struct lik_codec *codec, char *workspace,
                          cudaStream_t stream);

/* The codes of the rows that `rows` names, at most plan->rows_per_chunk, into `codes`, whose
 * count is that of the rows rounded up to whole strips. Where the copies go is the plan's. */
int lik_cuda_assign_chunk(const struct lik_gpu *gpu, const struct assign_plan *plan, struct row_copy rows,
                          char *workspace, int32_t *codes, cudaStream_t stream);

#endif
