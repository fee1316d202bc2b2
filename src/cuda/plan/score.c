/* How a forward pass will run: by which path, in which row tiles, with what beside it. */
#include "cuda/plan/plan.h"

#include "shared/tokens.h"

#include <stdio.h>

static const struct score_planner *const planners[SCORE_PATHS] = {
    [SCORE_LOOK_UP] = &lik_cuda_plans_look_up, [SCORE_BYTES] = &lik_cuda_plans_bytes,
    [SCORE_WIDENED] = &lik_cuda_plans_widened, [SCORE_SM90] = &lik_cuda_plans_sm90,
    [SCORE_DECODED] = &lik_cuda_plans_decoded, [SCORE_SCAN] = &lik_cuda_plans_scan,
    [SCORE_MMA] = &lik_cuda_plans_mma,
};

int lik_cuda_plan_score(const struct gpu_limits *gpu, const struct lik_score *op, struct lik_layout *layout,
                        struct score_plan *p)
{
    *p = (struct score_plan){.path = SCORE_MMA, .columns = lik_score_columns(op)};
    if (op->d.storage == LIK_ONE_HOT)
        p->path = SCORE_LOOK_UP;
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
    p->table = lik_cuda_take(layout, p->table_count, 4);
    p->centroids = lik_cuda_take(layout, p->centroid_bytes, 1);
    p->tokens = lik_cuda_take(layout, p->token_bytes, 1);
    return LIK_OK;
}

void lik_cuda_name_score(const struct score_plan *p, const struct lik_score *op, char *text, size_t size)
{
    planners[p->path]->name(p, op, text, size);
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
