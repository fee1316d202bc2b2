/* The k best of each query in the oracle: every score is inserted into the ordered list, which
 * is the output itself. */
#include "ref/ref.h"

static void insert(const struct lik_topk *op, float *values, int64_t *ids, int64_t *filled, float value,
                   int64_t id)
{
    int64_t at = *filled;
    if (at < op->k)
        ++*filled;
    else if (lik_topk_before(value, id, values[at - 1], ids[at - 1], op->smallest))
        at--;
    else
        return;
    for (; at > 0 && lik_topk_before(value, id, values[at - 1], ids[at - 1], op->smallest); at--) {
        values[at] = values[at - 1];
        ids[at] = ids[at - 1];
    }
    values[at] = value;
    ids[at] = id;
}

int lik_ref_topk_run(const struct lik_topk *op)
{
    const struct lik_score *problem = &op->score;
    for (int64_t i = 0; i < problem->q.count; i++) {
        float *values = op->values + i * op->k;
        int64_t *ids = op->ids + i * op->k, filled = 0;
        for (int64_t column = 0; column < lik_score_columns(problem); column++) {
            float score = lik_ref_score(problem, i, lik_score_document(problem, i, column), 0, 0);
            insert(op, values, ids, &filled, score, op->id_base + column);
        }
        for (; filled < op->k; filled++) {
            values[filled] = NAN;
            ids[filled] = -1;
        }
    }
    return LIK_OK;
}
