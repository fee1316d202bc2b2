/* What this room's plain C and its CUDA files call of each other. No CUDA header: a stream is
 * the runtime's struct CUstream_st *. Every function returns a lik_status. */
#ifndef LIK_CUDA_GPU_H
#define LIK_CUDA_GPU_H

#include "core/backend.h"
#include "cuda/plan/plan.h"

struct CUstream_st;

/* One GPU; contexts share it. */
struct lik_gpu {
    int device;
    struct gpu_limits limits;
    void *encode_tensor_map; /* the driver's cuTensorMapEncodeTiled, if limits.hopper */
    char name[64];
};

/* device.cu: the hooks of struct lik_backend but the operations. */
int lik_cuda_open(struct lik_context *ctx, const char *level);
int lik_cuda_memory_alloc(const struct lik_context *ctx, size_t bytes, void **out);
void lik_cuda_memory_free(const struct lik_context *ctx, void *memory);
int lik_cuda_memory_copy(const struct lik_context *ctx, void *to, const void *from, size_t bytes);
int lik_cuda_memory_info(const struct lik_context *ctx, size_t *free_bytes, size_t *total_bytes);
int lik_cuda_stream_create(const struct lik_context *ctx, void **out);
int lik_cuda_stream_synchronize(const struct lik_context *ctx, void *stream);
void lik_cuda_stream_destroy(const struct lik_context *ctx, void *stream);

/* Makes a device current for this thread; *before is for lik_cuda_leave, which follows a
 * success. */
int lik_cuda_enter(int device, int *before);
void lik_cuda_leave(int before);

/* Each enqueues what its plan says; `workspace` begins what the plan laid out. The GPU is
 * current. */
int lik_cuda_score_run(const struct lik_gpu *gpu, const struct lik_score *op, const struct score_plan *plan,
                       char *workspace, struct CUstream_st *stream);
int lik_cuda_topk_run(const struct lik_gpu *gpu, const struct lik_topk *op, const struct topk_plan *plan,
                      char *workspace, struct CUstream_st *stream);
int lik_cuda_grad_run(const struct lik_gpu *gpu, const struct lik_grad *op, const struct grad_plan *plan,
                      char *workspace, struct CUstream_st *stream);
int lik_cuda_decode_run(const struct lik_decode *op, struct CUstream_st *stream);
int lik_cuda_quantize_run(const struct lik_quantize *op, struct CUstream_st *stream);
int lik_cuda_encode_run(const struct lik_gpu *gpu, const struct lik_encode *op,
                        const struct encode_plan *plan, char *workspace, struct CUstream_st *stream);
int lik_cuda_train_run(const struct lik_gpu *gpu, const struct lik_train *op, const struct train_plan *plan,
                       char *workspace, struct CUstream_st *stream);

#endif
