/* The CUDA backend's door: finds the driver at run time, looks at the GPU once, hands
 * operations to the kernels' drivers.
 *
 * The CUDA runtime is linked statically and loads libcuda.so.1 itself when the first function
 * is called, so that the library loads on machines without a driver. Every operation only
 * enqueues. */
#include "cuda/kernels.cuh"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GPUS 64

static struct lik_gpu gpus[MAX_GPUS];
static cudaStream_t copy_streams[MAX_GPUS]; /* of lik_memory_copy; made when first used */
static pthread_mutex_t gpus_lock = PTHREAD_MUTEX_INITIALIZER;

int lik_cuda_status(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return LIK_OK;
    return lik_fail(error == cudaErrorMemoryAllocation ? LIK_ENOMEM : LIK_EDEVICE, "%s: %s (%s)", what,
                    cudaGetErrorString(error), cudaGetErrorName(error));
}

int lik_cuda_launched(const char *kernel)
{
    return lik_cuda_status(cudaGetLastError(), kernel);
}

int lik_cuda_launch_early(const struct lik_gpu *gpu, const void *kernel, const char *name, unsigned blocks,
                          unsigned threads, size_t shared_bytes, cudaStream_t stream, void *args)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t how = {};
    how.gridDim = blocks;
    how.blockDim = threads;
    how.dynamicSmemBytes = shared_bytes;
    how.stream = stream;
    how.attrs = &early;
    how.numAttrs = gpu->hopper ? 1 : 0;
    cudaLaunchKernelExC(&how, kernel, &args);
    return lik_cuda_launched(name); /* takes a failure off the runtime, too */
}

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

/* Makes `device` current for this thread while it lives. A thread that has not used the runtime
 * has a device, but no context of the driver's, which the runtime's functions make as they are
 * called and the driver's do not. */
struct current_device {
    int before, status;
    explicit current_device(int device) : before(-1)
    {
        CUcontext context = NULL;
        cudaError_t e = cudaGetDevice(&before);
        int bound = e == cudaSuccess && before == device && current_context &&
                    current_context(&context) == CUDA_SUCCESS && context;
        if (e == cudaSuccess && !bound)
            e = cudaSetDevice(device);
        if (before == device || e != cudaSuccess)
            before = -1;
        if (e != cudaSuccess)
            cudaGetLastError(); /* or the next launch would find it; so below */
        status = lik_cuda_status(e, "cudaSetDevice");
    }
    ~current_device()
    {
        if (before >= 0 && cudaSetDevice(before) != cudaSuccess)
            cudaGetLastError();
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
    *gpu = {};
    gpu->device = device;
    gpu->arch = cap < arch ? cap : arch;
    gpu->processors = processors;
    gpu->shared_bytes = (size_t)shared;
    gpu->resident_bytes = (size_t)(shared_all / 2 - 2048);
    int status = lik_score_mma_prepare(gpu);
    if (!status)
        status = lik_score_sm90_prepare(gpu);
    return status ? status : lik_grad_prepare(gpu);
}

static int cuda_open(struct lik_context *ctx, const char *level)
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
    if (!gpus[device].arch) { /* once a process: contexts share it */
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
    return LIK_OK;
}

static const struct lik_gpu *gpu_of(const struct lik_context *ctx)
{
    return (const struct lik_gpu *)ctx->kernels;
}

static cudaStream_t stream_of(const struct lik_exec *exec)
{
    return (cudaStream_t)exec->stream;
}

/* A hook: plans, or runs with the device made current. */
template <class Op>
static int
plan_or_run(const struct lik_context *ctx, const Op *op, struct lik_exec *exec, struct lik_plan *plan,
            int (*lay_out)(const struct lik_gpu *, const Op *, struct lik_layout *, struct lik_plan *),
            int (*launch)(const struct lik_gpu *, const Op *, char *, cudaStream_t))
{
    const struct lik_gpu *gpu = gpu_of(ctx);
    struct lik_layout layout = {};
    struct lik_plan unnamed = {};
    char *workspace;
    int status = lay_out(gpu, op, &layout, plan ? plan : &unnamed);
    if (status || plan)
        return status ? status : lik_workspace_plan(ctx, &layout, plan);
    status = lik_workspace_take(ctx, exec, &layout, &workspace);
    if (status)
        return status;
    struct current_device current(gpu->device);
    return current.status ? current.status : launch(gpu, op, workspace, stream_of(exec));
}

static int score(const struct lik_context *ctx, const struct lik_score *op, struct lik_exec *exec,
                 struct lik_plan *plan)
{
    return plan_or_run(ctx, op, exec, plan, lik_cuda_score_plan, lik_cuda_score_run);
}

static int topk(const struct lik_context *ctx, const struct lik_topk *op, struct lik_exec *exec,
                struct lik_plan *plan)
{
    return plan_or_run(ctx, op, exec, plan, lik_cuda_topk_plan, lik_cuda_topk_run);
}

static int grad(const struct lik_context *ctx, const struct lik_grad *op, struct lik_exec *exec,
                struct lik_plan *plan)
{
    return plan_or_run(ctx, op, exec, plan, lik_cuda_grad_plan, lik_cuda_grad_run);
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

static int memory_alloc(const struct lik_context *ctx, size_t bytes, void **out)
{
    char what[64];
    snprintf(what, sizeof what, "%zu bytes on %s", bytes, ctx->name);
    return with_device(ctx, what, [=] { return cudaMalloc(out, bytes); });
}

static void memory_free(const struct lik_context *ctx, void *memory)
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

static int memory_copy(const struct lik_context *ctx, void *to, const void *from, size_t bytes)
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

static int memory_info(const struct lik_context *ctx, size_t *free_bytes, size_t *total_bytes)
{
    return with_device(ctx, "cudaMemGetInfo", [=] { return cudaMemGetInfo(free_bytes, total_bytes); });
}

static int stream_create(const struct lik_context *ctx, void **out)
{
    return with_device(ctx, "a stream",
                       [=] { return cudaStreamCreateWithFlags((cudaStream_t *)out, cudaStreamNonBlocking); });
}

static int stream_synchronize(const struct lik_context *ctx, void *stream)
{
    return with_device(ctx, "stream", [=] { return cudaStreamSynchronize((cudaStream_t)stream); });
}

static void stream_destroy(const struct lik_context *ctx, void *stream)
{
    with_device(ctx, "cudaStreamDestroy", [=] { return cudaStreamDestroy((cudaStream_t)stream); });
}

extern "C" const struct lik_backend lik_backend_cuda = {
    "cuda",         0,
    cuda_open,      score,
    topk,           grad, /* operations; what follows is memory */
    memory_alloc,   memory_free,
    memory_copy,    memory_info,
    stream_create,  stream_synchronize,
    stream_destroy,
};
