/* What the plans of all paths share: strips, row tiles, and text. */
#include "cuda/plan/plan.h"

#include "base/error.h"
#include "shared/tokens.h"

#include <stdarg.h>
#include <stdio.h>

int lik_cuda_vector_loads(const struct lik_tokens *x)
{
    if (x->storage != LIK_DENSE)
        return 0;
    int64_t bytes = (int64_t)lik_dtype_bytes(x->dtype), unit = bytes == 1 ? 8 : 16;
    int64_t strides = x->strides.token | (x->offsets ? 0 : x->strides.sequence | x->strides.group);
    return x->dim_stride == 1 && (int64_t)(uintptr_t)x->data % unit == 0 && strides % (unit / bytes) == 0;
}

int lik_cuda_one_scale(const struct lik_tokens *x)
{
    return !x->scale_strides.token && !x->scale_strides.sequence && !x->scale_strides.group;
}

int64_t lik_cuda_strips(const struct lik_score *op)
{
    int64_t strips = (op->q.len_max + LIK_STRIP_ROWS - 1) / LIK_STRIP_ROWS;
    return op->pairing == LIK_ALL ? lik_score_rows(op) * strips : strips;
}

int lik_cuda_tile_rows(const struct lik_score *op, int strips_per_tile, struct row_tiling *tiling)
{
    struct row_tiling t = {.rows = lik_score_rows(op), .strips_per_tile = strips_per_tile};
    t.strips_per_query = (int32_t)((op->q.len_max + LIK_STRIP_ROWS - 1) / LIK_STRIP_ROWS);
    if (op->pairing != LIK_ALL || (t.rows == 1 && t.strips_per_query <= strips_per_tile)) {
        t.parts = (t.strips_per_query + strips_per_tile - 1) / strips_per_tile;
        t.tiles = t.rows * t.parts;
    } else {
        t.tiles = (t.rows * t.strips_per_query + strips_per_tile - 1) / strips_per_tile;
    }
    if (t.tiles > INT32_MAX)
        return lik_fail(LIK_EUNSUPPORTED, "%lld tiles of queries, the CUDA backend takes %d",
                        (long long)t.tiles, INT32_MAX);
    *tiling = t;
    return LIK_OK;
}

size_t lik_cuda_add_text(char *text, size_t size, size_t used, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text + used, size - used, format, args);
    va_end(args);
    used += n > 0 ? (size_t)n : 0;
    return used < size ? used : size - 1;
}
