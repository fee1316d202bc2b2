/* What this room's files call of each other. Every function that returns int returns a
 * lik_status. */
#ifndef LIK_METAL_GPU_H
#define LIK_METAL_GPU_H

#include "core/backend.h"
#include "metal/objc.h"

#include <pthread.h>

/* One GPU, for the life of the process; contexts share it. */
struct lik_metal_gpu {
    int index; /* among the system's devices */
    char name[64];
    objc_id device, queue;
    int64_t max_buffer_bytes;
    pthread_mutex_t lock; /* guards what follows */
    objc_id library;      /* NULL: not compiled yet */
    char failure[440];    /* why it does not compile; "": nobody has seen it fail */
    struct lik_metal_pipeline {
        char name[64];
        objc_id state;
    } *pipelines;
    int pipeline_count, pipeline_room;
};

/* The kernels' source, one string that `make` puts together of the .metal files and their
 * headers. */
extern const char lik_metal_source[];

/* A context's: it is shared, and what its lock guards changes. */
static inline struct lik_metal_gpu *lik_metal_gpu_of(const struct lik_context *ctx)
{
    return (struct lik_metal_gpu *)(uintptr_t)ctx->kernels;
}

/* device.c: the hook of struct lik_backend. Nothing is compiled yet. */
int lik_metal_open(struct lik_context *ctx, const char *level);

/* A kernel of the source, which is compiled when the first one is asked for. */
int lik_metal_pipeline(struct lik_metal_gpu *gpu, const char *name, struct lik_metal_pipeline *pipeline);

#endif
