/* The CUDA backend's door: finds the driver at run time, looks at the GPU once, hands
 * operations to the kernels' drivers.
 *
 * The CUDA runtime is linked statically and loads libcuda.so.1 itself when the first function
 * is called, so that the library loads on machines without a driver. Every operation only
 * enqueues; LIK_CHECK=1 makes it wait, and checks the offsets and lists that otherwise stay
 * unread on the host. */
#include "cuda/kernels.cuh"
#include "shared/tokens.h"

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
    how.numAttrs = gpu->limits.hopper ? 1 : 0;
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
    const char *check = getenv("LIK_CHECK");
    *gpu = {};
    gpu->device = device;
    gpu->limits.arch = cap < arch ? cap : arch;
    gpu->limits.processors = processors;
    gpu->limits.shared_bytes = (size_t)shared;
    gpu->limits.resident_bytes = (size_t)(shared_all / 2 - 2048);
    gpu->check = check && *check && strcmp(check, "0");
    int status = lik_cuda_score_prepare(gpu);
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

/* Workspace pointers are aligned to 256 bytes; the plans leave room for it. */
static char *workspace_of(const struct lik_exec *exec)
{
    return (char *)(((uintptr_t)exec->workspace + 255) & ~(uintptr_t)255);
}

/* LIK_CHECK=1: copies `count` entries from the device, waiting for the stream. The caller frees
 * them. */
template <class T> static int copy_back(const T *from, int64_t count, cudaStream_t stream, T **out)
{
    *out = (T *)malloc((size_t)(count ? count : 1) * sizeof(T));
    if (!*out)
        return lik_fail(LIK_ENOMEM, "LIK_CHECK: no memory for %lld entries", (long long)count);
    cudaError_t e = cudaMemcpyAsync(*out, from, (size_t)count * sizeof(T), cudaMemcpyDeviceToHost, stream);
    if (e == cudaSuccess)
        e = cudaStreamSynchronize(stream);
    return lik_cuda_status(e, "LIK_CHECK: copying offsets or lists");
}

template <class T> static int check_offsets(const char *name, const struct lik_tokens *x, cudaStream_t stream)
{
    T *offsets;
    int status = copy_back((const T *)x->offsets, x->count + 1, stream, &offsets);
    for (int64_t i = 0; !status && i <= x->count; i++) {
        long long at = (long long)offsets[i], before = i ? (long long)offsets[i - 1] : 0;
        if (at < 0 || at > x->total)
            status = lik_fail(LIK_EINVAL, "%s.offsets[%lld] is %lld, must be 0 to %s.total, which is %lld",
                              name, (long long)i, at, name, (long long)x->total);
        else if (at < before)
            status = lik_fail(LIK_EINVAL, "%s.offsets[%lld] is %lld, less than the one before, which is %lld",
                              name, (long long)i, at, before);
        else if (i && at - before > x->len_max)
            status = lik_fail(LIK_EINVAL, "%s.len_max is %lld, sequence %lld has %lld tokens", name,
                              (long long)x->len_max, (long long)(i - 1), at - before);
    }
    free(offsets);
    return status;
}

static int check_list(const char *name, const int64_t *list, int64_t n, int64_t count, cudaStream_t stream)
{
    int64_t *entries;
    int status = copy_back(list, n, stream, &entries);
    for (int64_t i = 0; !status && i < n; i++)
        if (entries[i] < 0 || entries[i] >= count)
            status = lik_fail(LIK_EINVAL, "%s[%lld] is %lld, must be 0 to %lld", name, (long long)i,
                              (long long)entries[i], (long long)(count - 1));
    free(entries);
    return status;
}

static int check_device_memory(const struct lik_score *op, cudaStream_t stream)
{
    int status = LIK_OK;
    const struct lik_tokens *operands[2] = {&op->q, &op->d};
    for (int i = 0; !status && i < 2; i++)
        if (operands[i]->offsets)
            status = operands[i]->offsets_dtype == LIK_I32
                         ? check_offsets<int32_t>(i ? "d" : "q", operands[i], stream)
                         : check_offsets<int64_t>(i ? "d" : "q", operands[i], stream);
    if (!status && op->pairing == LIK_LIST)
        status = check_list("list_q", op->list_q, op->list_count, op->q.count, stream);
    if (!status && op->pairing == LIK_LIST)
        status = check_list("list_d", op->list_d, op->list_count, op->d.count, stream);
    return status;
}

/* The run functions: the device made current, LIK_CHECK before and after. */
template <class Op>
static int run(const struct lik_context *ctx, const Op *op, const struct lik_score *score,
               const struct lik_exec *exec,
               int (*launch)(const struct lik_gpu *, const Op *, char *, cudaStream_t), const char *what)
{
    const struct lik_gpu *gpu = gpu_of(ctx);
    struct current_device current(gpu->device);
    if (current.status)
        return current.status;
    int status = gpu->check ? check_device_memory(score, stream_of(exec)) : LIK_OK;
    if (!status)
        status = launch(gpu, op, workspace_of(exec), stream_of(exec));
    if (!status && gpu->check)
        status = lik_cuda_status(cudaStreamSynchronize(stream_of(exec)), what);
    return status;
}

/* The plan functions: bytes for what was laid out, and to align it. */
template <class Op>
static int plan_of(const struct lik_context *ctx, const Op *op, struct lik_plan *plan,
                   int (*lay_out)(const struct lik_gpu *, const Op *, struct lik_layout *, struct lik_plan *))
{
    struct lik_layout layout = {};
    int status = lay_out(gpu_of(ctx), op, &layout, plan);
    if (status)
        return status;
    if (layout.failed || layout.bytes > INT64_MAX - 512)
        return lik_fail(LIK_EINVAL, "the workspace passes 2^63 bytes");
    lik_layout_planned(&layout);
    plan->workspace_bytes = layout.bytes ? (size_t)lik_round_up(layout.bytes, 256) + 256 : 0;
    return LIK_OK;
}

static int score_plan(const struct lik_context *ctx, const struct lik_score *op, const struct lik_exec *,
                      struct lik_plan *plan)
{
    return plan_of(ctx, op, plan, lik_cuda_score_plan);
}

static int score_run(const struct lik_context *ctx, const struct lik_score *op, const struct lik_exec *exec)
{
    return run(ctx, op, op, exec, lik_cuda_score_run, "score");
}

static int topk_plan(const struct lik_context *ctx, const struct lik_topk *op, const struct lik_exec *,
                     struct lik_plan *plan)
{
    return plan_of(ctx, op, plan, lik_cuda_topk_plan);
}

static int topk_run(const struct lik_context *ctx, const struct lik_topk *op, const struct lik_exec *exec)
{
    return run(ctx, op, &op->score, exec, lik_cuda_topk_run, "topk");
}

static int grad_plan(const struct lik_context *ctx, const struct lik_grad *op, const struct lik_exec *,
                     struct lik_plan *plan)
{
    return plan_of(ctx, op, plan, lik_cuda_grad_plan);
}

static int grad_run(const struct lik_context *ctx, const struct lik_grad *op, const struct lik_exec *exec)
{
    return run(ctx, op, &op->score, exec, lik_cuda_grad_run, "grad");
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
    "cuda",       0,           cuda_open,   score_plan,  score_run,     topk_plan,          topk_run,
    grad_plan,    grad_run, /* operations; what follows is memory */
    memory_alloc, memory_free, memory_copy, memory_info, stream_create, stream_synchronize, stream_destroy,
};
