/* The k best (score, id) pairs seen so far: a heap in two arrays with the worst kept pair at
 * its root, so that a pair that does not qualify costs one comparison. Order: lik_topk_before,
 * which is total, so the result does not depend on the order of arrival. */
#ifndef LIK_SHARED_HEAP_H
#define LIK_SHARED_HEAP_H

#include "shared/tokens.h"

struct lik_heap {
    float *values;
    int64_t *ids;
    int64_t count, k;
    int32_t smallest;
};

/* Is entry a worse than entry b? */
LIK_INLINE int lik_heap_worse(const struct lik_heap *h, int64_t a, int64_t b)
{
    return lik_topk_before(h->values[b], h->ids[b], h->values[a], h->ids[a], h->smallest);
}

LIK_INLINE void lik_heap_swap(struct lik_heap *h, int64_t a, int64_t b)
{
    float value = h->values[a];
    int64_t id = h->ids[a];
    h->values[a] = h->values[b];
    h->ids[a] = h->ids[b];
    h->values[b] = value;
    h->ids[b] = id;
}

LIK_INLINE void lik_heap_sink(struct lik_heap *h, int64_t at, int64_t count)
{
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && lik_heap_worse(h, child + 1, child))
            child++;
        if (!lik_heap_worse(h, child, at))
            return;
        lik_heap_swap(h, at, child);
        at = child;
    }
}

LIK_INLINE void lik_heap_push(struct lik_heap *h, float value, int64_t id)
{
    if (h->count == h->k) {
        if (!lik_topk_before(value, id, h->values[0], h->ids[0], h->smallest))
            return;
        h->values[0] = value;
        h->ids[0] = id;
        lik_heap_sink(h, 0, h->count);
        return;
    }
    int64_t at = h->count++;
    h->values[at] = value;
    h->ids[at] = id;
    for (int64_t parent; at > 0 && lik_heap_worse(h, at, parent = (at - 1) / 2); at = parent)
        lik_heap_swap(h, at, parent);
}

/* Sorts the entries best first and fills the slots from count to k with id -1 and the value
 * `filler`. */
LIK_INLINE void lik_heap_finish(struct lik_heap *h, float filler)
{
    for (int64_t n = h->count - 1; n > 0; n--) {
        lik_heap_swap(h, 0, n);
        lik_heap_sink(h, 0, n);
    }
    for (int64_t i = h->count; i < h->k; i++) {
        h->values[i] = filler;
        h->ids[i] = -1;
    }
}

#endif
