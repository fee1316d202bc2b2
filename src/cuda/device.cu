/* The GPUs: finds the driver at run time, looks at each GPU once, makes them current; memory
 * and streams.
 *
 * The CUDA runtime is linked statically and loads libcuda.so.1 itself when the first function
 * is called, so that the library loads on machines without a driver. */
#include "cuda/kernels.cuh"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GPUS 64

static struct lik_gpu gpus[MAX_GPUS];
static cudaStream_t copy_streams[MAX_GPUS]; /* of lik_memory_copy; made when first used */
static pthread_mutex_t gpus_lock = PTHREAD_MUTEX_INITIALIZER;

/* The driver's cuCtxGetCurrent, found when the first context is opened. */
static CUresult (*current_context)(CUcontext *);
static pthread_once_t driver_once = PTHREAD_ONCE_INIT;

static void find_driver(void)
{
    void *found = NULL;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuCtxGetCurrent", &found, 12000, cudaEnableDefault, &result) !=
        cudaSuccess)
        cudaGetLastError(); /* no driver, which the next call of the runtime says */
    current_context = (decltype(current_context))found;
}

/* A thread that has not used the runtime has a device, but no context of the driver's, which
 * the runtime's functions make as they are called and the driver's do not. */
int lik_cuda_enter(int device, int *before)
{
    CUcontext context = NULL;
    cudaError_t e = cudaGetDevice(before);
    int bound = e == cudaSuccess && *before == device && current_context &&
                current_context(&context) == CUDA_SUCCESS && context;
    if (e == cudaSuccess && !bound)
        e = cudaSetDevice(device);
    if (*before == device || e != cudaSuccess)
        *before = -1;
    if (e != cudaSuccess)
        cudaGetLastError(); /* or the next launch would find it; so below */
    return lik_cuda_status(e, "cudaSetDevice");
}

void lik_cuda_leave(int before)
{
    if (before >= 0 && cudaSetDevice(before) != cudaSuccess)
        cudaGetLastError();
}

/* `device` is current while it lives. */
struct current_device {
    int before, status;
    explicit current_device(int device)
    {
        status = lik_cuda_enter(device, &before);
    }
    ~current_device()
    {
        if (!status)
            lik_cuda_leave(before);
    }
};

/* Looks at GPU `device`, which is current, and readies its kernels. */
static int inspect(struct lik_gpu *gpu, int device)
{
    int major, minor, processors, shared, shared_all;
    const struct {
        int *value;
        enum cudaDeviceAttr attribute;
    } wanted[] = {{&major, cudaDevAttrComputeCapabilityMajor},
                  {&minor, cudaDevAttrComputeCapabilityMinor},
                  {&processors, cudaDevAttrMultiProcessorCount},
                  {&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin},
                  {&shared_all, cudaDevAttrMaxSharedMemoryPerMultiprocessor}};
    for (const auto &w : wanted) {
        int status =
            lik_cuda_status(cudaDeviceGetAttribute(w.value, w.attribute, device), "cudaDeviceGetAttribute");
        if (status)
            return status;
    }
    int arch = 10 * major + minor, cap = arch;
    const char *text = getenv("LIK_CUDA_ARCH");
    if (text && *text) {
        char *end;
        cap = (int)strtol(text, &end, 10);
        if (*end || cap < 75)
            return lik_fail(LIK_EINVAL, "LIK_CUDA_ARCH is \"%.20s\", must be a compute capability from 75 on",
                            text);
    }
    if (arch < 75)
        return lik_fail(LIK_EDEVICE, "device %d has compute capability %d.%d, at least 7.5 is needed", device,
                        major, minor);
    cudaDeviceProp properties;
    int status = lik_cuda_status(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    if (status)
        return status;
    *gpu = {};
    gpu->device = device;
    snprintf(gpu->name, sizeof gpu->name, "%.63s", properties.name);
    gpu->limits.arch = cap < arch ? cap : arch;
    gpu->limits.processors = processors;
    gpu->limits.shared_bytes = (size_t)shared;
    gpu->limits.resident_bytes = (size_t)(shared_all / 2 - 2048);
    status = lik_cuda_score_prepare(gpu);
    return status ? status : lik_cuda_grad_prepare(gpu);
}

int lik_cuda_open(struct lik_context *ctx, const char *level)
{
    char *end = NULL;
    long device = level ? strtol(level, &end, 10) : 0;
    if (level && (!*level || *end || device < 0))
        return lik_fail(LIK_EINVAL, "device is \"cuda:%.20s\", must be \"cuda:N\"", level);
    int count = 0;
    pthread_once(&driver_once, find_driver);
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess)
        return lik_fail(LIK_EDEVICE, "cuda:%ld: no usable GPU or driver: %s", device, cudaGetErrorString(e));
    if (device >= count || device >= MAX_GPUS)
        return lik_fail(LIK_EDEVICE, "device is cuda:%ld, this machine has %d GPU%s", device, count,
                        count == 1 ? "" : "s");
    struct current_device current((int)device);
    if (current.status)
        return current.status;
    pthread_mutex_lock(&gpus_lock);
    int status = LIK_OK;
    if (!gpus[device].limits.arch) { /* once a process: contexts share it */
        struct lik_gpu gpu;
        status = inspect(&gpu, (int)device);
        if (!status)
            gpus[device] = gpu;
    }
    pthread_mutex_unlock(&gpus_lock);
    if (status)
        return status;
    ctx->kernels = &gpus[device];
    ctx->device = (int32_t)device;
    snprintf(ctx->name, sizeof ctx->name, "cuda:%ld", device);
    snprintf(ctx->hardware, sizeof ctx->hardware, "%s", gpus[device].name);
    return LIK_OK;
}

/* ---- memory and streams ---- */

/* The status of one call with the context's GPU current. An error that is not sticky is taken
 * off the runtime, where the next launch would find it. */
template <class Call> static int with_device(const struct lik_context *ctx, const char *what, Call call)
{
    struct current_device current(ctx->device);
    if (current.status)
        return current.status;
    cudaError_t e = call();
    if (e != cudaSuccess)
        cudaGetLastError();
    return lik_cuda_status(e, what);
}

int lik_cuda_memory_alloc(const struct lik_context *ctx, size_t bytes, void **out)
{
    char what[64];
    snprintf(what, sizeof what, "%zu bytes on %s", bytes, ctx->name);
    return with_device(ctx, what, [=] { return cudaMalloc(out, bytes); });
}

void lik_cuda_memory_free(const struct lik_context *ctx, void *memory)
{
    with_device(ctx, "cudaFree", [=] { return cudaFree(memory); });
}

/* The GPU's copy stream. It does not block: copies on the default stream would wait for every
 * kernel before them. */
static int copy_stream(const struct lik_context *ctx, cudaStream_t *out)
{
    pthread_mutex_lock(&gpus_lock);
    cudaStream_t *stream = &copy_streams[ctx->device];
    int status = LIK_OK;
    if (!*stream)
        status = with_device(ctx, "the copy stream",
                             [=] { return cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking); });
    *out = *stream;
    pthread_mutex_unlock(&gpus_lock);
    return status;
}

int lik_cuda_memory_copy(const struct lik_context *ctx, void *to, const void *from, size_t bytes)
{
    cudaStream_t stream;
    int status = copy_stream(ctx, &stream);
    if (status)
        return status;
    return with_device(ctx, "lik_memory_copy", [=] {
        /* the addresses tell which way */
        cudaError_t e = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
        return e == cudaSuccess ? cudaStreamSynchronize(stream) : e;
    });
}

int lik_cuda_memory_info(const struct lik_context *ctx, size_t *free_bytes, size_t *total_bytes)
{
    return with_device(ctx, "cudaMemGetInfo", [=] { return cudaMemGetInfo(free_bytes, total_bytes); });
}

int lik_cuda_stream_create(const struct lik_context *ctx, void **out)
{
    return with_device(ctx, "a stream",
                       [=] { return cudaStreamCreateWithFlags((cudaStream_t *)out, cudaStreamNonBlocking); });
}

int lik_cuda_stream_synchronize(const struct lik_context *ctx, void *stream)
{
    return with_device(ctx, "stream", [=] { return cudaStreamSynchronize((cudaStream_t)stream); });
}

void lik_cuda_stream_destroy(const struct lik_context *ctx, void *stream)
{
    with_device(ctx, "cudaStreamDestroy", [=] { return cudaStreamDestroy((cudaStream_t)stream); });
}
