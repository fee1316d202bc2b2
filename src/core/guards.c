/* Test builds: what stands between a workspace's regions must be as it was when a run is over.
 * Under AddressSanitizer the gaps of host memory can't even be read meanwhile. */
#include "core/guards.h"

#ifdef LIK_GUARD_WORKSPACE

#include "base/layout.h"

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

void lik_layout_planned(const struct lik_layout *l)
{
    planned = *l;
}

/* Copy n of a gap, where backends take the workspace to begin. */
static unsigned char *gap_at(const struct lik_context *ctx, const struct lik_exec *exec,
                             const struct lik_gap *gap, int64_t n)
{
    uintptr_t align = ctx->backend->host_memory ? 64 : 256;
    uintptr_t begin = ((uintptr_t)exec->workspace + align - 1) & ~(align - 1);
    return (unsigned char *)begin + gap->at + n * gap->step;
}

int lik_guards_paint(const struct lik_context *ctx, const struct lik_exec *exec)
{
    unsigned char paint[LIK_GAP_BYTES];
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

int lik_guards_check(const struct lik_context *ctx, const struct lik_exec *exec)
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
    return status;
}

#else
typedef int lik_guards_are_off; /* a file may not be empty */
#endif
