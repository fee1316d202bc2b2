/* Merging partial top-k results: a heap of the k best in the output arrays takes every entry of
 * every part. */
#include "base/error.h"
#include "base/size.h"
#include "shared/heap.h"

#include <math.h>

int lik_merge_topk(int64_t parts, int64_t queries, int64_t k_in, const float *values_in,
                   const int64_t *ids_in, int64_t k, int32_t smallest, float *values, int64_t *ids)
{
    int64_t in, out;
    if (parts < 0 || queries < 0 || k_in < 0)
        return lik_fail(LIK_EINVAL, "parts, queries and k_in are %lld, %lld and %lld, must not be negative",
                        (long long)parts, (long long)queries, (long long)k_in);
    if (k < 1)
        return lik_fail(LIK_EINVAL, "k is %lld, must be at least 1", (long long)k);
    if (lik_mul_i64(parts, queries, &in) || lik_mul_i64(in, k_in, &in) || lik_mul_i64(in, 8, &in))
        return lik_fail(LIK_EINVAL, "parts x queries x k_in is %lld x %lld x %lld and passes 2^60",
                        (long long)parts, (long long)queries, (long long)k_in);
    if (lik_mul_i64(queries, k, &out) || lik_mul_i64(out, 8, &out))
        return lik_fail(LIK_EINVAL, "queries x k is %lld x %lld and passes 2^60", (long long)queries,
                        (long long)k);
    if (in > 0 && (!values_in || !ids_in))
        return lik_fail(LIK_EINVAL, "%s is NULL, %lld entries are to be read",
                        values_in ? "ids_in" : "values_in", (long long)(in / 8));
    if (out > 0 && (!values || !ids))
        return lik_fail(LIK_EINVAL, "%s is NULL, %lld entries are to be written", values ? "ids" : "values",
                        (long long)(out / 8));
    if ((uintptr_t)values_in % sizeof *values_in || (uintptr_t)ids_in % sizeof *ids_in ||
        (uintptr_t)values % sizeof *values || (uintptr_t)ids % sizeof *ids)
        return lik_fail(LIK_EINVAL,
                        "values_in, ids_in, values and ids are %p, %p, %p and %p: not all are aligned",
                        (const void *)values_in, (const void *)ids_in, (void *)values, (void *)ids);
    for (int64_t q = 0; q < queries; q++) {
        struct lik_heap heap = {.values = values + q * k, .ids = ids + q * k, .k = k, .smallest = smallest};
        for (int64_t p = 0; p < parts; p++)
            for (int64_t j = 0; j < k_in; j++) {
                int64_t at = (p * queries + q) * k_in + j;
                if (ids_in[at] >= 0)
                    lik_heap_push(&heap, values_in[at], ids_in[at]);
            }
        lik_heap_finish(&heap, NAN);
    }
    return lik_succeed();
}
