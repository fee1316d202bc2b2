/* How a forward pass will run: by which path, in which row tiles, with what beside it. */
#include "cuda/plan/plan.h"

#include "base/error.h"
#include "base/size.h"
#include "shared/tokens.h"

#include <stdarg.h>
#include <stdio.h>

int lik_cuda_vector_loads(const struct lik_tokens *x)
{
    int64_t bytes = (int64_t)lik_dtype_bytes(x->dtype), unit = bytes == 1 ? 8 : 16;
    int64_t strides = x->strides.token | (x->offsets ? 0 : x->strides.sequence | x->strides.group);
    return x->dim_stride == 1 && (int64_t)(uintptr_t)x->data % unit == 0 && strides % (unit / bytes) == 0;
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

static const struct score_planner *const planners[SCORE_PATHS] = {
    [SCORE_SM90] = &lik_cuda_plans_sm90,
    [SCORE_MMA] = &lik_cuda_plans_mma,
};

int lik_cuda_plan_score(const struct gpu_limits *gpu, const struct lik_score *op, struct lik_layout *layout,
                        struct score_plan *p)
{
    *p = (struct score_plan){.path = SCORE_MMA, .columns = lik_score_columns(op)};
    p->q_vector = lik_cuda_vector_loads(&op->q);
    p->d_vector = lik_cuda_vector_loads(&op->d);
    lik_cuda_mma_products(gpu, op, &p->mma); /* names what there is nothing to do for, too */
    p->scores = lik_score_rows(op) * p->columns;
    if (p->scores == 0 || op->q.len_max == 0)
        return LIK_OK;
    for (p->path = 0; !planners[p->path]->takes(gpu, op);)
        p->path++;
    int status = planners[p->path]->plan(gpu, op, p);
    if (status)
        return status;
    const struct row_tiling *t = &p->tiling;
    if (t->parts ? t->strips_per_query > t->strips_per_tile : t->strips_per_tile % t->strips_per_query != 0)
        p->partial_count = p->scores * t->strips_per_query;
    p->factor = lik_cuda_take(layout, p->factor_count, 4);
    p->partial = lik_cuda_take(layout, p->partial_count, 4);
    return LIK_OK;
}

void lik_cuda_name_score(const struct score_plan *p, const struct lik_score *op, char *text, size_t size)
{
    planners[p->path]->name(p, op, text, size);
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

void lik_cuda_print_score(const struct score_plan *p, char *text, size_t size)
{
    if (!p->scores || !p->tiling.tiles) {
        snprintf(text, size, "nothing to multiply");
        return;
    }
    size_t n = lik_cuda_add_text(text, size, 0, "%lld row tiles of %d strips, %d a query%s; ",
                                 (long long)p->tiling.tiles, p->tiling.strips_per_tile,
                                 p->tiling.strips_per_query, p->tiling.parts ? " each" : "");
    n = planners[p->path]->print(p, text, size, n);
    if (p->factor_count)
        n = lik_cuda_add_text(text, size, n, "; %lld factors", (long long)p->factor_count);
    if (p->partial_count)
        lik_cuda_add_text(text, size, n, "; %lld partial sums", (long long)p->partial_count);
}
