/* Memory and streams of a context: checked here, served here where the operands lie in host
 * memory, else by the backend. */
#include "base/system.h"
#include "core/backend.h"

#include <string.h>

static int check_context(const struct lik_context *ctx)
{
    return ctx ? LIK_OK : lik_fail(LIK_EINVAL, "ctx is NULL");
}

static int finish(int status)
{
    return status ? status : lik_succeed();
}

static int host_alloc(size_t bytes, void **out)
{
    *out = lik_aligned_alloc(64, bytes);
    return *out ? LIK_OK : lik_fail(LIK_ENOMEM, "no memory for %zu bytes", bytes);
}

int lik_memory_alloc(const struct lik_context *ctx, size_t bytes, void **out)
{
    if (!out)
        return lik_fail(LIK_EINVAL, "out is NULL");
    *out = NULL;
    if (check_context(ctx))
        return LIK_EINVAL;
    if (bytes > (size_t)PTRDIFF_MAX - 63)
        return lik_fail(LIK_EINVAL, "bytes is %zu, must be at most %zu", bytes, (size_t)PTRDIFF_MAX - 63);
    if (!bytes)
        return lik_succeed();
    int status =
        ctx->backend->host_memory ? host_alloc(bytes, out) : ctx->backend->memory_alloc(ctx, bytes, out);
    if (status)
        *out = NULL;
    return finish(status);
}

void lik_memory_free(const struct lik_context *ctx, void *memory)
{
    if (!ctx || !memory)
        return;
    if (ctx->backend->host_memory)
        lik_aligned_free(memory);
    else
        ctx->backend->memory_free(ctx, memory);
}

int lik_memory_copy(const struct lik_context *ctx, void *to, const void *from, size_t bytes)
{
    if (check_context(ctx))
        return LIK_EINVAL;
    if (bytes && (!to || !from))
        return lik_fail(LIK_EINVAL, "%s is NULL, bytes is %zu", to ? "from" : "to", bytes);
    if (!bytes)
        return lik_succeed();
    if (!ctx->backend->host_memory)
        return finish(ctx->backend->memory_copy(ctx, to, from, bytes));
    memcpy(to, from, bytes);
    return lik_succeed();
}

int lik_memory_info(const struct lik_context *ctx, size_t *free_bytes, size_t *total_bytes)
{
    size_t available = 0, all = 0;
    if (check_context(ctx))
        return LIK_EINVAL;
    if (!free_bytes || !total_bytes)
        return lik_fail(LIK_EINVAL, "%s is NULL", free_bytes ? "total_bytes" : "free_bytes");
    int status = ctx->backend->host_memory ? LIK_OK : ctx->backend->memory_info(ctx, &available, &all);
    if (status)
        return status;
    *free_bytes = available;
    *total_bytes = all;
    return lik_succeed();
}

int lik_stream_create(const struct lik_context *ctx, void **out)
{
    if (!out)
        return lik_fail(LIK_EINVAL, "out is NULL");
    *out = NULL;
    if (check_context(ctx))
        return LIK_EINVAL;
    return finish(ctx->backend->host_memory ? LIK_OK : ctx->backend->stream_create(ctx, out));
}

int lik_stream_synchronize(const struct lik_context *ctx, void *stream)
{
    if (check_context(ctx))
        return LIK_EINVAL;
    return finish(ctx->backend->host_memory ? LIK_OK : ctx->backend->stream_synchronize(ctx, stream));
}

void lik_stream_destroy(const struct lik_context *ctx, void *stream)
{
    if (ctx && stream && !ctx->backend->host_memory)
        ctx->backend->stream_destroy(ctx, stream);
}
