/* Memory, dispatches and results of one operation. See run.h.
 *
 * Apple's GPUs share the memory of the process. Arrays of some size are read where they lie: a
 * buffer is made around their pages, which Metal refuses for some memory, and then of a copy.
 * What is written lies where it is only if it fills whole cache lines: a line that kernels
 * write and somebody else of the process too would lose one of the two. */
#include "metal/run.h"

#include "base/size.h"
#include "shared/operand.h"

#include <string.h>
#include <unistd.h>

#define LINE      128       /* bytes of a cache line */
#define COPIED    (1 << 15) /* bytes up to which a copy costs less than a buffer around pages */
#define FAILED    5         /* MTLCommandBufferStatusError */
#define COMPLETED 4
#define NO_BUFFER 16 /* bytes of the buffer for nothing */

static objc_id new_buffer(const struct lik_metal_gpu *gpu, int64_t bytes)
{
    return LIK_SEND(objc_id (*)(objc_id, objc_sel, objc_uint, objc_uint), gpu->device, lik_objc.new_buffer,
                    (objc_uint)bytes, 0 /* MTLResourceStorageModeShared */);
}

static char *contents(objc_id buffer)
{
    return LIK_SEND(char *(*)(objc_id, objc_sel), buffer, lik_objc.contents);
}

/* ---- regions ---- */

static struct lik_metal_region *add(struct lik_metal_run *run, const void *key, const void *begin,
                                    int64_t bytes)
{
    if (!key)
        return NULL;
    for (int i = 0; i < run->region_count; i++) { /* an array that both operands have */
        struct lik_metal_region *r = &run->regions[i];
        if (r->key != key || r->rows)
            continue;
        const char *low = r->begin, *high = low + r->bytes, *end = (const char *)begin + bytes;
        low = bytes && (const char *)begin < low ? begin : low;
        high = bytes && end > high ? end : high;
        r->begin = (char *)(uintptr_t)low;
        r->bytes = high - low;
        return r;
    }
    struct lik_metal_region *r = &run->regions[run->region_count++];
    *r = (struct lik_metal_region){.key = key, .begin = (char *)(uintptr_t)begin, .bytes = bytes};
    return r;
}

void lik_metal_reads(struct lik_metal_run *run, const void *at, int64_t bytes)
{
    add(run, at, at, bytes);
}

void lik_metal_reads_tokens(struct lik_metal_run *run, const struct lik_tokens *x)
{
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        int64_t low, high;
        if (!array.at)
            continue;
        lik_operand_reach(x, &array, &low, &high);
        add(run, array.at, (const char *)array.at + low, high - low);
    }
    if (x->offsets)
        lik_metal_reads(run, x->offsets, (x->count + 1) * (int64_t)lik_dtype_bytes(x->offsets_dtype));
    if (!x->codec)
        return;
    const struct lik_codec *c = x->codec;
    int64_t stride = c->centroid_stride ? c->centroid_stride : x->dim,
            elements = c->centroid_count ? (c->centroid_count - 1) * stride + x->dim : 0;
    lik_metal_reads(run, c->centroids, elements * (int64_t)lik_dtype_bytes(c->centroids_dtype));
    lik_metal_reads(run, c->weights, (int64_t)lik_dtype_bytes(c->weights_dtype) << c->bits);
}

void lik_metal_writes(struct lik_metal_run *run, void *at, int64_t rows, int64_t row_bytes,
                      int64_t row_stride, int keep)
{
    int64_t bytes = rows && row_bytes ? (rows - 1) * row_stride + row_bytes : 0;
    struct lik_metal_region *r = add(run, at, at, bytes);
    if (!r)
        return;
    r->rows = rows;
    r->row_bytes = row_bytes;
    r->row_stride = row_stride;
    r->keep = keep;
}

void lik_metal_scratch(struct lik_metal_run *run, void *at, int64_t bytes)
{
    struct lik_metal_region *r = bytes ? add(run, at, at, bytes) : NULL;
    if (r)
        r->rows = -1;
}

/* A buffer around the pages of a region. */
static void wrap(const struct lik_metal_gpu *gpu, struct lik_metal_region *r)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)r->begin, first = at & ~(page - 1);
    uintptr_t end = (at + (uintptr_t)r->bytes + page - 1) & ~(page - 1);
    r->buffer = LIK_SEND(objc_id (*)(objc_id, objc_sel, void *, objc_uint, objc_uint, void *), gpu->device,
                         lik_objc.new_buffer_around, (void *)first, (objc_uint)(end - first), 0, NULL);
    r->offset = (int64_t)(at - first);
}

/* May kernels work on a region where it lies? */
static int stays(const struct lik_metal_region *r)
{
    if (r->rows > 0 && (r->rows > 1 && r->row_bytes != r->row_stride))
        return 0; /* there are gaps, which belong to somebody else */
    if (r->rows > 0 && ((uintptr_t)r->begin % LINE || r->bytes % LINE))
        return 0;
    return r->rows < 0 || r->bytes > COPIED;
}

/* The region's buffer, made when the first dispatch asks for it. */
static int settle(const struct lik_metal_gpu *gpu, struct lik_metal_region *r)
{
    if (r->bytes > gpu->max_buffer_bytes)
        return lik_fail(LIK_EUNSUPPORTED, "an array has %lld bytes, a buffer of \"%s\" at most %lld",
                        (long long)r->bytes, gpu->name, (long long)gpu->max_buffer_bytes);
    if (stays(r))
        wrap(gpu, r);
    if (r->buffer)
        return LIK_OK;
    r->offset = 0;
    r->copied = 1;
    r->buffer = new_buffer(gpu, r->bytes);
    if (!r->buffer)
        return lik_fail(LIK_ENOMEM, "metal:%d has no buffer of %lld bytes", gpu->index, (long long)r->bytes);
    if (r->keep || r->rows == 0)
        memcpy(contents(r->buffer), r->begin, (size_t)r->bytes);
    return LIK_OK;
}

/* The region of an address: that of the array with this key, or else one that it lies in. */
static struct lik_metal_region *region_of(struct lik_metal_run *run, const void *at)
{
    struct lik_metal_region *inside = NULL;
    for (int i = 0; i < run->region_count; i++) {
        struct lik_metal_region *r = &run->regions[i];
        if (r->key == at)
            return r;
        if ((const char *)at >= r->begin && (const char *)at < r->begin + r->bytes)
            inside = r;
    }
    return inside;
}

/* ---- dispatches ---- */

/* The command buffer and its encoder, for the first dispatch. */
static int open_encoder(struct lik_metal_run *run)
{
    if (run->encoder)
        return LIK_OK;
    run->commands = lik_objc_get(run->gpu->queue, lik_objc.command_buffer);
    run->encoder = run->commands ? lik_objc_get(run->commands, lik_objc.encoder) : NULL;
    return run->encoder ? LIK_OK
                        : lik_fail(LIK_EDEVICE, "metal:%d gives no command %s", run->gpu->index,
                                   run->commands ? "encoder" : "buffer");
}

/* Buffer n of a dispatch; `at` NULL is nothing, which has to be something for Metal. */
static int bind(struct lik_metal_run *run, int n, const void *at)
{
    struct lik_metal_region *r = at ? region_of(run, at) : NULL;
    objc_id buffer = NULL;
    int64_t offset = 0;
    if (at && !r)
        return lik_fail(LIK_EDEVICE, "a kernel was handed an address that is no array's, at buffer %d", n);
    if (r && r->bytes) {
        int status = r->buffer ? LIK_OK : settle(run->gpu, r);
        if (status)
            return status;
        buffer = r->buffer;
        offset = r->offset + ((const char *)at - r->begin);
    } else {
        run->nothing = run->nothing ? run->nothing : new_buffer(run->gpu, NO_BUFFER);
        buffer = run->nothing;
        if (!buffer)
            return lik_fail(LIK_ENOMEM, "metal:%d has no buffer of %d bytes", run->gpu->index, NO_BUFFER);
    }
    LIK_SEND(void (*)(objc_id, objc_sel, objc_id, objc_uint, objc_uint), run->encoder, lik_objc.set_buffer,
             buffer, (objc_uint)offset, (objc_uint)n);
    return LIK_OK;
}

int lik_metal_encode(void *host, const struct lik_metal_dispatch *dispatch)
{
    struct lik_metal_run *run = host;
    const struct lik_metal_kernel *kernel = &lik_metal_kernels[dispatch->kernel];
    struct lik_metal_pipeline pipeline;
    const struct metal_size groups = {(objc_uint)dispatch->threadgroups, 1, 1},
                            threads = {LIK_METAL_THREADS, 1, 1};
    int status = lik_metal_pipeline(run->gpu, kernel->name, &pipeline);
    if (!status)
        status = open_encoder(run);
    if (status)
        return status;
    LIK_SEND(void (*)(objc_id, objc_sel, objc_id), run->encoder, lik_objc.set_pipeline, pipeline.state);
    LIK_SEND(void (*)(objc_id, objc_sel, const void *, objc_uint, objc_uint), run->encoder,
             lik_objc.set_bytes, dispatch->args, (objc_uint)kernel->args_bytes, LIK_AT_ARGS);
    for (int n = 0; n < LIK_METAL_BUFFERS && !status; n++)
        if (n != LIK_AT_ARGS && kernel->buffers >> n & 1)
            status = bind(run, n, dispatch->buffers[n]);
    if (!status)
        LIK_SEND(void (*)(objc_id, objc_sel, struct metal_size, struct metal_size), run->encoder,
                 lik_objc.dispatch, groups, threads);
    return status;
}

/* ---- a run ---- */

int lik_metal_begin(struct lik_metal_run *run, const struct lik_context *ctx)
{
    int status = lik_objc_load();
    if (status)
        return status;
    memset(run, 0, sizeof *run);
    run->gpu = lik_metal_gpu_of(ctx);
    run->pool = lik_objc.pool_push();
    return LIK_OK;
}

static int execute(struct lik_metal_run *run)
{
    typedef void (*plain)(objc_id, objc_sel);
    LIK_SEND(plain, run->commands, lik_objc.commit);
    LIK_SEND(plain, run->commands, lik_objc.wait);
    objc_uint done = lik_objc_count(run->commands, lik_objc.status);
    if (done == COMPLETED)
        return LIK_OK;
    objc_id error = done == FAILED ? lik_objc_get(run->commands, lik_objc.error) : NULL;
    return lik_fail(LIK_EDEVICE, "metal:%d, \"%s\", failed (status %lu): %.300s", run->gpu->index,
                    run->gpu->name, done, error ? lik_objc_reason(error) : "no reason given");
}

/* Rows that kernels wrote into a copy. */
static void bring_back(const struct lik_metal_region *r)
{
    const char *from = contents(r->buffer);
    for (int64_t row = 0; row < r->rows; row++)
        memcpy(r->begin + row * r->row_stride, from + row * r->row_stride, (size_t)r->row_bytes);
}

int lik_metal_end(struct lik_metal_run *run, int status)
{
    if (run->encoder)
        LIK_SEND(void (*)(objc_id, objc_sel), run->encoder, lik_objc.end_encoding);
    if (run->encoder && !status)
        status = execute(run);
    for (int i = 0; i < run->region_count; i++) {
        const struct lik_metal_region *r = &run->regions[i];
        if (!status && r->buffer && r->copied && r->rows > 0)
            bring_back(r);
        lik_objc_release(r->buffer);
    }
    lik_objc_release(run->nothing);
    lik_objc.pool_pop(run->pool);
    return status;
}
