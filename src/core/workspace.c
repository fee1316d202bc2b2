/* Workspace. See workspace.h.
 *
 * Backends on a device align what they are given to 256 bytes; plans leave room for it. */
#include "core/workspace.h"

#define ALIGN_HOST   64
#define ALIGN_DEVICE 256

static uintptr_t begin_of(const struct lik_context *ctx, const struct lik_exec *exec)
{
    uintptr_t align = ctx->backend->host_memory ? ALIGN_HOST : ALIGN_DEVICE;
    return ((uintptr_t)exec->workspace + align - 1) & ~(align - 1);
}

static int bytes_of(const struct lik_context *ctx, const struct lik_layout *layout, size_t *bytes)
{
    if (layout->failed || layout->bytes > PTRDIFF_MAX - 2 * ALIGN_DEVICE)
        return lik_fail(LIK_EINVAL, "the workspace passes 2^%d bytes", (int)(8 * sizeof(size_t)) - 1);
    *bytes = (size_t)layout->bytes;
    if (*bytes && !ctx->backend->host_memory)
        *bytes = (size_t)lik_round_up(layout->bytes, ALIGN_DEVICE) + ALIGN_DEVICE;
    return LIK_OK;
}

int lik_workspace_plan(const struct lik_context *ctx, const struct lik_layout *layout, struct lik_plan *plan)
{
    return bytes_of(ctx, layout, &plan->workspace_bytes);
}

#ifdef LIK_GUARD_WORKSPACE

#include <string.h>

#define PAINT 0xb7

#if defined(__SANITIZE_ADDRESS__)
#define LIK_POISON 1
#elif defined(__clang__)
#if __has_feature(address_sanitizer)
#define LIK_POISON 1
#endif
#endif
#ifdef LIK_POISON
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(at, bytes)   ((void)(at), (void)(bytes))
#define __asan_unpoison_memory_region(at, bytes) ((void)(at), (void)(bytes))
#endif

static _Thread_local struct lik_layout planned;

void lik_guards_begin(struct lik_layout *outer)
{
    *outer = planned;
    planned = (struct lik_layout){0};
}

/* Copy n of a gap, where backends take the workspace to begin. */
static unsigned char *gap_at(const struct lik_context *ctx, const struct lik_exec *exec,
                             const struct lik_gap *gap, int64_t n)
{
    return (unsigned char *)begin_of(ctx, exec) + gap->at + n * gap->step;
}

/* Waits for what still runs in the stream. */
static int paint_guards(const struct lik_context *ctx, const struct lik_exec *exec,
                        const struct lik_layout *layout)
{
    unsigned char paint[LIK_GAP_BYTES];
    planned = *layout;
    int host = ctx->backend->host_memory;
    int status = host || !planned.gap_count ? LIK_OK : ctx->backend->stream_synchronize(ctx, exec->stream);
    memset(paint, PAINT, sizeof paint);
    for (int i = 0; i < planned.gap_count; i++)
        for (int64_t n = 0; n < planned.gaps[i].times && !status; n++) {
            unsigned char *gap = gap_at(ctx, exec, &planned.gaps[i], n);
            if (!host) {
                status = ctx->backend->memory_copy(ctx, gap, paint, sizeof paint);
                continue;
            }
            memcpy(gap, paint, sizeof paint);
            __asan_poison_memory_region(gap, sizeof paint);
        }
    return status;
}

int lik_guards_check(const struct lik_context *ctx, const struct lik_exec *exec,
                     const struct lik_layout *outer)
{
    unsigned char found[LIK_GAP_BYTES];
    int host = ctx->backend->host_memory;
    int status = host || !planned.gap_count ? LIK_OK : ctx->backend->stream_synchronize(ctx, exec->stream);
    for (int i = 0; i < planned.gap_count; i++)
        for (int64_t n = 0; n < planned.gaps[i].times; n++) {
            unsigned char *gap = gap_at(ctx, exec, &planned.gaps[i], n);
            if (host) {
                __asan_unpoison_memory_region(gap, sizeof found);
                memcpy(found, gap, sizeof found);
            } else if (!status) {
                status = ctx->backend->memory_copy(ctx, found, gap, sizeof found);
            }
            for (int b = 0; !status && b < LIK_GAP_BYTES; b++)
                if (found[b] != PAINT)
                    status = lik_fail(
                        LIK_EDEVICE,
                        "the run wrote %d bytes past region %d of the workspace (copy %lld), byte %lld", b, i,
                        (long long)n, (long long)(planned.gaps[i].at + n * planned.gaps[i].step + b));
        }
    planned = *outer;
    return status;
}

#else

static int paint_guards(const struct lik_context *ctx, const struct lik_exec *exec,
                        const struct lik_layout *layout)
{
    (void)ctx, (void)exec, (void)layout;
    return LIK_OK;
}
#endif

int lik_workspace_take(const struct lik_context *ctx, struct lik_exec *exec, const struct lik_layout *layout,
                       char **memory)
{
    size_t needed = 0;
    int status = bytes_of(ctx, layout, &needed);
    if (status)
        return status;
    if (needed > 0 && exec->get_workspace && (!exec->workspace || exec->workspace_bytes < needed)) {
        exec->workspace = exec->get_workspace(exec->lender, needed);
        exec->workspace_bytes = needed;
        if (!exec->workspace)
            return lik_fail(LIK_ENOMEM, "exec.get_workspace has no %zu bytes", needed);
    }
    if (needed > 0 && (!exec->workspace || exec->workspace_bytes < needed))
        return lik_fail(LIK_EWORKSPACE, "exec.workspace has %zu bytes, the plan needs %zu",
                        exec->workspace ? exec->workspace_bytes : 0, needed);
    if (needed > 0 && (uintptr_t)exec->workspace % ALIGN_HOST)
        return lik_fail(LIK_EINVAL, "exec.workspace is %p, must be aligned to %d bytes", exec->workspace,
                        ALIGN_HOST);
    *memory = (char *)begin_of(ctx, exec);
    return paint_guards(ctx, exec, layout);
}
