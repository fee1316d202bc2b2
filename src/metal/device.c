/* GPUs and their pipelines: found when the first context is made, compiled when the first
 * operation runs. Both stay for the life of the process. */
#include "metal/gpu.h"
#include "metal/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPUS         8
#define APPLE7       1007              /* MTLGPUFamilyApple7, the M1's: the first with simdgroup matrices */
#define MATH_SAFE    0                 /* MTLMathModeSafe: infinities and NaN are what IEEE says */
#define MATH_PRECISE 1                 /* MTLMathFloatingPointFunctionsPrecise */
#define LANGUAGE     ((2ul << 16) + 3) /* MTLLanguageVersion2_3, the first with simdgroup matrices */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lik_metal_gpu *gpus[GPUS]; /* by index; NULL: no context yet */

static int supports(objc_id device)
{
    return LIK_SEND(objc_bool (*)(objc_id, objc_sel, long), device, lik_objc.supports_family, APPLE7) != 0;
}

static objc_id device_at(objc_id devices, objc_uint i)
{
    return LIK_SEND(objc_id (*)(objc_id, objc_sel, objc_uint), devices, lik_objc.object_at, i);
}

/* The number that `level` names, or the first GPU that can run the kernels. */
static int choose(objc_id devices, const char *level, int *index)
{
    objc_uint count = devices ? lik_objc_count(devices, lik_objc.count) : 0;
    char *end = NULL;
    long wanted = level ? strtol(level, &end, 10) : 0;
    if (level && (level[0] < '0' || level[0] > '9' || *end))
        return lik_fail(LIK_EINVAL, "device is \"metal:%.40s\", must be \"metal\" or \"metal:N\"", level);
    if (!count)
        return lik_fail(LIK_EDEVICE, "there is no Metal here: the system lists no GPU");
    if (level && ((objc_uint)wanted >= count || wanted >= GPUS))
        return lik_fail(LIK_EDEVICE, "device is \"metal:%ld\", there are %lu Metal devices", wanted, count);
    objc_uint i = (objc_uint)wanted;
    while (!level && i < count && i < GPUS && !supports(device_at(devices, i)))
        i++;
    if (!level && (i == count || i == GPUS))
        i = 0; /* none can: the first one's name is told */
    objc_id device = device_at(devices, i);
    if (!supports(device))
        return lik_fail(
            LIK_EUNSUPPORTED,
            "metal:%lu, \"%.60s\", has no simdgroup matrices: Apple's own GPUs have, from the M1 on", i,
            lik_objc_text(lik_objc_get(device, lik_objc.name)));
    *index = (int)i;
    return LIK_OK;
}

static int make(objc_id device, int index, struct lik_metal_gpu **out)
{
    struct lik_metal_gpu *gpu = calloc(1, sizeof *gpu);
    if (!gpu)
        return lik_fail(LIK_ENOMEM, "no memory for a GPU's state");
    gpu->index = index;
    snprintf(gpu->name, sizeof gpu->name, "%s", lik_objc_text(lik_objc_get(device, lik_objc.name)));
    gpu->max_buffer_bytes = (int64_t)lik_objc_count(device, lik_objc.max_buffer);
    pthread_mutex_init(&gpu->lock, NULL);
    gpu->queue = lik_objc_get(device, lik_objc.new_queue);
    if (!gpu->queue) {
        int status = lik_fail(LIK_EDEVICE, "metal:%d, \"%s\", gives no command queue", index, gpu->name);
        pthread_mutex_destroy(&gpu->lock);
        free(gpu);
        return status;
    }
    /* The list's, and ours from here on: no method begins with retain, the list stays. */
    gpu->device = device;
    *out = gpu;
    return LIK_OK;
}

/* The GPU of a level, made if it is its first context. */
static int find(const char *level, struct lik_metal_gpu **out)
{
    static objc_id devices; /* the list, which keeps the devices */
    int index = 0, status;
    if (!devices)
        devices = lik_objc.copy_all_devices();
    if ((status = choose(devices, level, &index)) != LIK_OK)
        return status;
    if (!gpus[index])
        status = make(device_at(devices, (objc_uint)index), index, &gpus[index]);
    *out = gpus[index];
    return status;
}

int lik_metal_open(struct lik_context *ctx, const char *level)
{
    struct lik_metal_gpu *gpu = NULL;
    int status = lik_objc_load();
    if (status)
        return status;
    pthread_mutex_lock(&lock);
    void *pool = lik_objc.pool_push();
    status = find(level, &gpu);
    lik_objc.pool_pop(pool);
    pthread_mutex_unlock(&lock);
    if (status)
        return status;
    ctx->kernels = gpu;
    ctx->device = gpu->index;
    snprintf(ctx->hardware, sizeof ctx->hardware, "%s", gpu->name);
    snprintf(ctx->name, sizeof ctx->name, "metal:%d", gpu->index);
    return LIK_OK;
}

/* ---- compiling ---- */

/* Plain Metal compiles for speed, with maths that knows neither infinities nor NaN. */
static void be_safe(objc_id options)
{
    typedef void (*set_int)(objc_id, objc_sel, long);
    if (lik_objc_responds(options, lik_objc.set_math_mode)) { /* macOS 15 */
        LIK_SEND(set_int, options, lik_objc.set_math_mode, MATH_SAFE);
        LIK_SEND(set_int, options, lik_objc.set_math_functions, MATH_PRECISE);
    } else {
        LIK_SEND(void (*)(objc_id, objc_sel, objc_bool), options, lik_objc.set_fast_math, 0);
    }
}

/* What a compiler says, from its first error on: warnings stand before. */
static const char *first_error(const char *log)
{
    const char *at = strstr(log, "error: ");
    while (at && at > log && at[-1] != '\n')
        at--;
    return at ? at : log;
}

/* gpu->library, or gpu->failure. */
static void compile(struct lik_metal_gpu *gpu)
{
    objc_id error = NULL, text = lik_objc_string(lik_metal_source);
    objc_id options = lik_objc_get(lik_objc.class_of("MTLCompileOptions"), lik_objc.alloc);
    options = options ? lik_objc_get(options, lik_objc.init) : NULL;
    if (!text || !options) {
        snprintf(gpu->failure, sizeof gpu->failure, "no memory for the source");
        lik_objc_release(options);
        return;
    }
    be_safe(options);
    LIK_SEND(void (*)(objc_id, objc_sel, objc_uint), options, lik_objc.set_language, LANGUAGE);
    gpu->library = LIK_SEND(objc_id (*)(objc_id, objc_sel, objc_id, objc_id, objc_id *), gpu->device,
                            lik_objc.new_library, text, options, &error);
    if (!gpu->library)
        snprintf(gpu->failure, sizeof gpu->failure, "%s",
                 error ? first_error(lik_objc_reason(error)) : "no reason given");
    lik_objc_release(options);
}

/* One more entry, or NULL. */
static struct lik_metal_pipeline *add(struct lik_metal_gpu *gpu)
{
    if (gpu->pipeline_count == gpu->pipeline_room) {
        int room = gpu->pipeline_room ? 2 * gpu->pipeline_room : 16;
        struct lik_metal_pipeline *more = realloc(gpu->pipelines, (size_t)room * sizeof *more);
        if (!more)
            return NULL;
        gpu->pipelines = more;
        gpu->pipeline_room = room;
    }
    return &gpu->pipelines[gpu->pipeline_count++];
}

static int make_pipeline(struct lik_metal_gpu *gpu, const char *name, struct lik_metal_pipeline *out)
{
    objc_id error = NULL, function, key = lik_objc_string(name);
    function =
        key ? LIK_SEND(objc_id (*)(objc_id, objc_sel, objc_id), gpu->library, lik_objc.new_function, key)
            : NULL;
    if (!function)
        return lik_fail(LIK_EDEVICE, "metal:%d: the compiled source has no kernel %s", gpu->index, name);
    objc_id state = LIK_SEND(objc_id (*)(objc_id, objc_sel, objc_id, objc_id *), gpu->device,
                             lik_objc.new_pipeline, function, &error);
    lik_objc_release(function);
    if (!state)
        return lik_fail(LIK_EDEVICE, "metal:%d, \"%s\", makes no pipeline of %s: %.200s", gpu->index,
                        gpu->name, name, lik_objc_reason(error));
    const objc_uint width = lik_objc_count(state, lik_objc.simd_width),
                    threads = lik_objc_count(state, lik_objc.max_threads);
    if (width != LIK_METAL_SIMD || threads < LIK_METAL_THREADS) {
        lik_objc_release(state);
        return lik_fail(LIK_EUNSUPPORTED,
                        "metal:%d, \"%s\", runs %s in simdgroups of %lu and threadgroups of at most %lu, it "
                        "needs %d and %d",
                        gpu->index, gpu->name, name, width, threads, LIK_METAL_SIMD, LIK_METAL_THREADS);
    }
    struct lik_metal_pipeline *entry = add(gpu);
    if (!entry) {
        lik_objc_release(state);
        return lik_fail(LIK_ENOMEM, "no memory for a pipeline's entry");
    }
    snprintf(entry->name, sizeof entry->name, "%s", name);
    entry->state = state;

    *out = *entry;
    return LIK_OK;
}

static int find_pipeline(struct lik_metal_gpu *gpu, const char *name, struct lik_metal_pipeline *out)
{
    for (int i = 0; i < gpu->pipeline_count; i++)
        if (!strcmp(gpu->pipelines[i].name, name)) {
            *out = gpu->pipelines[i];
            return LIK_OK;
        }
    if (!gpu->library && !gpu->failure[0])
        compile(gpu);
    if (!gpu->library) /* what failed fails again: compiling takes seconds */
        return lik_fail(LIK_EDEVICE, "metal:%d, \"%s\", does not compile the kernels: %.380s", gpu->index,
                        gpu->name, gpu->failure);
    return make_pipeline(gpu, name, out);
}

int lik_metal_pipeline(struct lik_metal_gpu *gpu, const char *name, struct lik_metal_pipeline *pipeline)
{
    pthread_mutex_lock(&gpu->lock);
    int status = find_pipeline(gpu, name, pipeline);
    pthread_mutex_unlock(&gpu->lock);
    return status;
}
