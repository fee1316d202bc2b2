/* How the k best are found: chunks whose scores are reduced to k keys a query before the next.
 * See cuda/topk.cu. */
#include "cuda/plan/plan.h"

#include "base/error.h"
#include "base/size.h"
#include "shared/operand.h"

#include <stdio.h>
#include <string.h>

#define CHUNK_SCORES (16ll << 20)

int lik_cuda_topk_chunk(const struct lik_score *op, int64_t row, int64_t rows, int64_t column,
                        int64_t columns, float *scores, struct lik_score *chunk)
{
    *chunk = *op;
    chunk->scores = scores;
    chunk->scores_stride = columns;
    int broken = op->pairing == LIK_ALL
                     ? lik_operand_slice(&op->d, column, columns, &chunk->d)
                     : lik_operand_slice(&op->q, row, rows, &chunk->q) ||
                           lik_operand_slice(&op->d, row * op->per_query, rows * op->per_query, &chunk->d);
    return broken ? lik_fail(LIK_EINVAL, "the addresses of q or d pass 2^63 bytes") : LIK_OK;
}

static int64_t round_to_groups(int64_t n, int64_t unit, int64_t all)
{
    if (n >= all || unit <= 1)
        return lik_min_i64(n, all);
    return lik_min_i64((n + unit - 1) / unit * unit, all);
}

/* Plans the scores of one chunk, which lays out its own in the workspace of them all. */
static int plan_chunk(const struct gpu_limits *gpu, const struct lik_score *op, int64_t row, int64_t rows,
                      int64_t column, int64_t columns, struct lik_layout *layout, struct score_plan *plan)
{
    struct lik_score chunk;
    if (rows == 0 || columns == 0)
        return LIK_OK;
    int status = lik_cuda_topk_chunk(op, row, rows, column, columns, NULL, &chunk);
    return status ? status : lik_cuda_plan_score(gpu, &chunk, layout, plan);
}

int lik_cuda_plan_topk(const struct gpu_limits *gpu, const struct lik_topk *op, struct lik_layout *layout,
                       struct topk_plan *p)
{
    const struct lik_score *s = &op->score;
    const int64_t queries = s->q.count, columns = lik_score_columns(s), k = op->k;
    *p = (struct topk_plan){.queries_per_chunk = queries, .documents_per_chunk = columns};
    if (columns >= 0xffffffffll)
        return lik_fail(LIK_EUNSUPPORTED, "%lld documents a query, top-k on CUDA takes 2^32 - 2",
                        (long long)columns);
    if (s->pairing == LIK_ALL) {
        int64_t chunk = lik_max_i64(CHUNK_SCORES / lik_max_i64(queries, 1), 4 * TOPK_RUN);
        p->documents_per_chunk = round_to_groups(chunk, s->d.group_size, columns);
    } else if (columns) {
        int64_t chunk = CHUNK_SCORES / columns, unit = s->q.group_size > 1 ? s->q.group_size : 1;
        if (s->d.group_size > 1 && s->d.group_size != s->per_query)
            chunk = queries; /* chunks would cut through groups */
        p->queries_per_chunk = round_to_groups(lik_max_i64(chunk, 1), unit, queries);
    }
    struct lik_layout whole = {0}, last = {0};
    int status = plan_chunk(gpu, s, 0, p->queries_per_chunk, 0, p->documents_per_chunk, &whole, &p->score);
    int64_t rows = queries % lik_max_i64(p->queries_per_chunk, 1);
    int64_t rest = columns % lik_max_i64(p->documents_per_chunk, 1);
    if (!status && rows)
        status = plan_chunk(gpu, s, queries - rows, rows, 0, columns, &last, &p->last_score);
    if (!status && rest)
        status = plan_chunk(gpu, s, 0, queries, columns - rest, rest, &last, &p->last_score);
    if (status)
        return status;
    if (k > TOPK_RUN / 2)
        for (p->sorted_keys = 2; p->sorted_keys < k + p->documents_per_chunk;)
            p->sorted_keys *= 2;
    int64_t runs = (p->documents_per_chunk + TOPK_RUN - 1) / TOPK_RUN,
            keys = p->sorted_keys ? p->sorted_keys : (runs + 1) * k;
    p->scores = lik_cuda_take(layout, p->queries_per_chunk * p->documents_per_chunk, 4);
    p->score_workspace = lik_cuda_take(layout, lik_max_i64(whole.bytes, last.bytes), 1);
    layout->failed |= whole.failed | last.failed;
    for (int i = 0; i < 2; i++)
        p->keys[i] = lik_cuda_take(layout, p->queries_per_chunk, keys * 8);
    for (int i = 0; i < 2; i++)
        p->best[i] = lik_cuda_take(layout, p->queries_per_chunk, k * 8);
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
    size_t n = lik_cuda_add_text(text, size, 0, "%lld queries x %lld documents at once",
                                 (long long)p->queries_per_chunk, (long long)p->documents_per_chunk);
    if (p->sorted_keys)
        n = lik_cuda_add_text(text, size, n, ", %lld keys sorted", (long long)p->sorted_keys);
    if (p->score.scores) {
        n = lik_cuda_add_text(text, size, n, "; ");
        lik_cuda_print_score(&p->score, text + n, size - n);
    }
    if (p->last_score.scores) {
        n = lik_cuda_add_text(text, size, n + strlen(text + n), "; at last ");
        lik_cuda_print_score(&p->last_score, text + n, size - n);
    }
}
