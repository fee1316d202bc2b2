/* How the k best are found: chunks whose scores are reduced to k keys a query before the next.
 * See cuda/topk.cu. */
#include "cuda/plan/plan.h"

#include "base/error.h"
#include "base/size.h"
#include "shared/tokens.h"

#include <stdio.h>

#define CHUNK_SCORES (16ll << 20)

void lik_cuda_cut(struct lik_tokens *x, int64_t first, int64_t count)
{
    struct lik_strides *const strides[] = {&x->strides, &x->mask_strides, &x->scale_strides,
                                           &x->weights_strides};
    const void *const used[] = {x->data, x->mask, x->scale, x->weights};
    int64_t by[4] = {0};
    x->count = count;
    if (first == 0) /* and so where there is no data */
        return;
    if (x->offsets) {
        x->offsets = (const char *)x->offsets + first * (int64_t)lik_dtype_bytes(x->offsets_dtype);
        return;
    }
    for (int i = 0; i < 4; i++)
        if (used[i] && x->len_max > 0) /* other strides may be anything */
            by[i] =
                x->group_size > 0 ? first / x->group_size * strides[i]->group : first * strides[i]->sequence;
    x->data = (const char *)x->data + by[0] * (int64_t)lik_dtype_bytes(x->dtype);
    x->mask = x->mask ? x->mask + by[1] : NULL;
    x->scale = x->scale ? x->scale + by[2] : NULL;
    x->weights = x->weights ? x->weights + by[3] : NULL;
}

struct lik_score lik_cuda_chunk(const struct lik_score *op, int64_t row, int64_t rows, int64_t column,
                                int64_t columns, float *scores)
{
    struct lik_score chunk = *op;
    if (op->pairing == LIK_ALL) {
        lik_cuda_cut(&chunk.d, column, columns);
    } else {
        lik_cuda_cut(&chunk.q, row, rows);
        lik_cuda_cut(&chunk.d, row * op->per_query, rows * op->per_query);
    }
    chunk.scores = scores;
    chunk.scores_stride = columns;
    return chunk;
}

static int64_t round_to_groups(int64_t n, int64_t unit, int64_t all)
{
    if (n >= all || unit <= 1)
        return lik_min_i64(n, all);
    return lik_min_i64((n + unit - 1) / unit * unit, all);
}

int lik_cuda_plan_topk(const struct gpu_limits *gpu, const struct lik_topk *op, struct lik_layout *layout,
                       struct topk_plan *p)
{
    const struct lik_score *s = &op->score;
    const int64_t queries = s->q.count, columns = lik_score_columns(s), k = op->k;
    *p = (struct topk_plan){.queries = queries, .columns = columns};
    if (columns >= 0xffffffffll)
        return lik_fail(LIK_EUNSUPPORTED, "%lld documents a query, top-k on CUDA takes 2^32 - 2",
                        (long long)columns);
    if (s->pairing == LIK_ALL) {
        int64_t chunk = lik_max_i64(CHUNK_SCORES / lik_max_i64(queries, 1), 4 * TOPK_RUN);
        p->columns = round_to_groups(chunk, s->d.group_size, columns);
    } else if (columns) {
        int64_t chunk = CHUNK_SCORES / columns, unit = s->q.group_size > 1 ? s->q.group_size : 1;
        if (s->d.group_size > 1 && s->d.group_size != s->per_query)
            chunk = queries; /* chunks would cut through groups */
        p->queries = round_to_groups(lik_max_i64(chunk, 1), unit, queries);
    }
    struct lik_layout score = {0};
    size_t step;
    if (p->queries && p->columns) {
        struct lik_score chunk = lik_cuda_chunk(s, 0, p->queries, 0, p->columns, NULL);
        int status = lik_cuda_plan_score(gpu, &chunk, &score, &p->score);
        if (status)
            return status;
    }
    if (k > TOPK_RUN / 2)
        for (p->sorted_keys = 2; p->sorted_keys < k + p->columns;)
            p->sorted_keys *= 2;
    int64_t runs = (p->columns + TOPK_RUN - 1) / TOPK_RUN,
            keys = p->sorted_keys ? p->sorted_keys : (runs + 1) * k;
    p->scores = lik_cuda_take(layout, p->queries * p->columns, 4);
    p->score_workspace = lik_layout_repeat(layout, &score, 1, 256, &step);
    for (int i = 0; i < 2; i++)
        p->keys[i] = lik_cuda_take(layout, p->queries, keys * 8);
    for (int i = 0; i < 2; i++)
        p->best[i] = lik_cuda_take(layout, p->queries, k * 8);
    return LIK_OK;
}

void lik_cuda_name_topk(const struct topk_plan *p, const struct lik_topk *op, char *text, size_t size)
{
    char score[64] = "";
    if (p->score.scores)
        lik_cuda_name_score(&p->score, &op->score, score, sizeof score);
    snprintf(text, size, "topk_%.56s", score);
}

void lik_cuda_print_topk(const struct topk_plan *p, char *text, size_t size)
{
    int n = snprintf(text, size, "%lld queries x %lld documents at once", (long long)p->queries,
                     (long long)p->columns);
    if (n > 0 && (size_t)n < size && p->sorted_keys)
        n += snprintf(text + n, size - (size_t)n, ", %lld keys sorted", (long long)p->sorted_keys);
    if (n > 0 && (size_t)n + 2 < size && p->score.scores) {
        n += snprintf(text + n, size - (size_t)n, "; ");
        lik_cuda_print_score(&p->score, text + n, size - (size_t)n);
    }
}
