/* How products are looked up (cuda/look_up.cu): documents of LIK_ONE_HOT, on any GPU. */
#include "cuda/plan/plan.h"

#include "base/size.h"
#include "shared/tokens.h"

#include <stdint.h>
#include <stdio.h>

#define TABLE_MOST     (32ll << 20) /* 128 MB of workspace: 8,192 elements of 4,096 query tokens */
#define PRODUCTS_LEAST 1e6          /* that a table is laid out for: it is a launch of 4 us */

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    (void)gpu;
    return op->d.storage == LIK_ONE_HOT;
}

/* Do the elements of each four query tokens lie together, aligned to 16 bytes? */
static int lies_by_fours(const struct lik_tokens *q)
{
    int64_t steps = q->dim_stride | q->strides.sequence | (q->group_size > 0 ? q->strides.group : 0);
    return q->strides.token == 1 && !q->mask && !q->offsets && q->len_max % 4 == 0 && steps % 4 == 0 &&
           q->dim_stride >= 0 && q->dim_stride < 1ll << 30 && (uintptr_t)q->data % 16 == 0;
}

/* Is it worth it to bring the table into that order? Bringing an element costs about what
 * looking up one does; looking up elements that do not lie together at all costs ten times
 * that, others twice. */
static int wants_table(const struct lik_score *op, int64_t pairs)
{
    double length =
        op->d.offsets && op->d.count ? (double)op->d.total / (double)op->d.count : (double)op->d.len_max;
    double tokens = (double)pairs * length, elements = (double)op->q.count * (double)op->q.dim;
    int apart = op->q.strides.token != 1 && op->q.len_max > 1;
    return tokens >= (apart ? 0.5 : 4) * elements &&
           tokens * (double)op->q.len_max >= (apart ? 1 : 8) * PRODUCTS_LEAST;
}

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    struct look_up_plan *p = &plan->look_up;
    int strips = (int)((op->q.len_max + LIK_STRIP_ROWS - 1) / LIK_STRIP_ROWS);
    int status = lik_cuda_tile_rows(op, strips, &plan->tiling); /* a query is a row tile */
    int64_t table;
    (void)gpu;
    if (status)
        return status;
    p->by_fours = lies_by_fours(&op->q);
    if (p->by_fours || !wants_table(op, plan->scores) || lik_mul_i64(op->q.count, op->q.dim, &table) ||
        lik_mul_i64(table, strips * LIK_STRIP_ROWS, &table) || table > TABLE_MOST)
        return LIK_OK;
    p->by_fours = 1;
    plan->table_count = table;
    return LIK_OK;
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    snprintf(text, size, "score_%s_one_hot_d%lld_look_up%s", lik_dtype_name(op->d.dtype),
             (long long)op->d.dim, plan->look_up.by_fours ? "_fours" : "");
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    n = lik_cuda_add_text(text, size, n, "%lld pairs by %s", (long long)plan->scores,
                          plan->look_up.by_fours ? "fours" : "elements");
    if (plan->table_count)
        n = lik_cuda_add_text(text, size, n, " of a table of %lld", (long long)plan->table_count);
    return n;
}

const struct score_planner lik_cuda_plans_look_up = {takes, plan, name, print};
