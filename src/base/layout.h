/* How a workspace is laid out: a cursor that hands out its regions one after another. Plan and
 * run make the same calls, so that they agree about every offset.
 *
 * A build with LIK_GUARD_WORKSPACE leaves a gap behind each region. The front door paints
 * them before a run and looks at them after it (core/workspace.c): a region that is too
 * small for what is written to it shows there. */
#ifndef LIK_BASE_LAYOUT_H
#define LIK_BASE_LAYOUT_H

#include "base/size.h"

#ifdef LIK_GUARD_WORKSPACE
#include <stdlib.h>

#define LIK_GAP_BYTES 256
#define LIK_GAPS_MAX  96

struct lik_gap {
    int64_t at, times, step; /* LIK_GAP_BYTES at `at`, and so on `times` times in all, `step` bytes apart */
};
#endif

struct lik_layout {
    int64_t bytes; /* what is handed out */
    int failed;    /* it would pass 2^63 bytes; what was handed out since means nothing */
#ifdef LIK_GUARD_WORKSPACE
    int gap_count;
    struct lik_gap gaps[LIK_GAPS_MAX];
#endif
};

static inline void lik_layout_gap(struct lik_layout *l, int64_t at, int64_t times, int64_t step)
{
#ifdef LIK_GUARD_WORKSPACE
    struct lik_gap gap = {at, times, step};
    if (l->gap_count == LIK_GAPS_MAX) /* it is too small: no run would be watched, or be at all */
        abort();
    l->gaps[l->gap_count++] = gap;
#endif
    (void)l, (void)at, (void)times, (void)step;
}

/* The offset of `count` entries of `size` bytes, at the next multiple of `align`, a power of
 * two. */
static inline size_t lik_layout_take(struct lik_layout *l, int64_t count, int64_t size, int64_t align)
{
    int64_t at, bytes;
    if (l->failed || lik_add_i64(l->bytes, align - 1, &at) || lik_mul_i64(count, size, &bytes) ||
        lik_add_i64(at &= ~(align - 1), bytes, &bytes)) {
        l->failed = 1;
        return 0;
    }
#ifdef LIK_GUARD_WORKSPACE
    if (bytes > 0) { /* behind nothing there is no gap: who needs no workspace gets none */
        lik_layout_gap(l, bytes, 1, 0);
        if (lik_add_i64(bytes, LIK_GAP_BYTES, &bytes))
            l->failed = 1;
    }
#endif
    l->bytes = bytes;
    return (size_t)at;
}

/* Bytes behind the region taken last that nothing looks at: watched builds do without them. */
static inline void lik_layout_spare(struct lik_layout *l, int64_t count, int64_t size)
{
#ifdef LIK_GUARD_WORKSPACE
    (void)l, (void)count, (void)size;
#else
    lik_layout_take(l, count, size, 1);
#endif
}

/* The offset of `times` copies of what `inner` laid out, the first and every next at a multiple
 * of `align`, *step bytes apart. */
static inline size_t lik_layout_repeat(struct lik_layout *l, const struct lik_layout *inner, int64_t times,
                                       int64_t align, size_t *step)
{
    int64_t at, each, bytes;
    if (l->failed || inner->failed || lik_add_i64(l->bytes, align - 1, &at) ||
        lik_add_i64(inner->bytes, align - 1, &each) || lik_mul_i64(each &= ~(align - 1), times, &bytes) ||
        lik_add_i64(at &= ~(align - 1), bytes, &bytes)) {
        l->failed = 1;
        return 0;
    }
#ifdef LIK_GUARD_WORKSPACE
    for (int i = 0; i < inner->gap_count; i++)
        lik_layout_gap(l, at + inner->gaps[i].at, times, each);
#endif
    l->bytes = bytes;
    *step = (size_t)each;
    return (size_t)at;
}

#endif
