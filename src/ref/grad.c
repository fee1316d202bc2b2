/* The gradients of the oracle, each element of an output computed whole and written once.
 *
 * Score n of query i and document j is the sum over s of w[s] * p[s], where p[s] is the product
 * of the vectors of query token s and of document token argmax[n, s]. So with g =
 * grad_scores[n] * w[s], a query token's vector receives g times the vectors of the document
 * tokens that it met as maxima, a document token's vector receives g times the vectors of the
 * query tokens that it won, and w[s] receives grad_scores[n] * p[s].
 *
 * A vector v is a factor times the stored elements, so these receive that factor times what v
 * does, G; with normalization the factor times G - <G, v> v, or 0 where the norm is clamped. A
 * token without a maximum gets 0.
 *
 * Rather than collect a list of meetings, which would need memory, `visit` walks over them anew
 * for each SPAN of dims. */
#include "ref/ref.h"

/* The token whose gradient is taken, and what is gathered for elements from ... from + n - 1 of
 * it. */
struct gather {
    const struct lik_grad *op;
    int64_t i, t; /* sequence and token */
    int is_query;
    struct lik_ref_token own;
    int64_t from, n;
    int64_t meetings;
    double along;  /* <G, v>, gathered if the token is normalized */
    double weight; /* the gradient of the query token's weight */
    double sum[LIK_REF_SPAN];
};

/* Adds what the token receives from query token s and document token t of one score. */
static void meet(struct gather *g, double grad_score, int64_t i, int64_t s, int64_t j, int64_t t)
{
    const struct lik_score *op = &g->op->score;
    struct lik_ref_token other = g->is_query ? lik_ref_token(&op->d, j, t) : lik_ref_token(&op->q, i, s);
    double factor = grad_score * lik_ref_weight(&op->q, i, s);
    g->meetings++;
    if (g->own.of->normalize || (g->is_query && g->op->grad_weights)) {
        double product = lik_ref_product(&g->own, &other);
        g->along += factor * product;
        g->weight += grad_score * product;
    }
    float span[LIK_REF_SPAN];
    lik_ref_load(&other, g->from, g->n, span);
    for (int64_t k = 0; k < g->n; k++)
        g->sum[k] += factor * other.factor * (double)span[k];
}

/* All meetings of the token in score (row, column), if it belongs to the pair at all. */
static void visit_score(struct gather *g, int64_t row, int64_t column)
{
    const struct lik_score *op = &g->op->score;
    int64_t i = lik_score_query(op, row), j = lik_score_document(op, row, column);
    int64_t score = row * lik_score_columns(op) + column;
    double grad_score = (double)g->op->grad_scores[row * g->op->grad_scores_stride + column];
    if (g->is_query) {
        int64_t t = i == g->i ? lik_argmax_at(op, score, g->t) : -1;
        if (t >= 0)
            meet(g, grad_score, i, g->t, j, t);
        return;
    }
    for (int64_t s = 0; j == g->i && s < lik_tokens_length(&op->q, i); s++)
        if (lik_argmax_at(op, score, s) == g->t && lik_token_kept(&op->q, i, s))
            meet(g, grad_score, i, s, j, g->t);
}

/* The rows and columns of the scores that sequence g->i takes part in; of a list every row has
 * to be looked at. */
static void visit(struct gather *g)
{
    const struct lik_score *op = &g->op->score;
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op);
    int64_t row = 0, row_end = rows, column = 0, column_end = columns;
    if (op->pairing == LIK_PAIRS || (op->pairing != LIK_LIST && g->is_query)) {
        row = g->i;
        row_end = row + 1;
    } else if (op->pairing == LIK_ALL) {
        column = g->i;
        column_end = column + 1;
    } else if (op->pairing == LIK_CANDIDATES) {
        row = g->i / op->per_query;
        row_end = row + 1;
        column = g->i % op->per_query;
        column_end = column + 1;
    }
    for (int64_t r = row; r < row_end; r++)
        for (int64_t c = column; c < column_end; c++)
            visit_score(g, r, c);
}

static void put(const struct lik_grad *op, void *out, int32_t dtype, int64_t at, double value)
{
    if (op->accumulate)
        value += (double)lik_load_f32(out, dtype, at);
    lik_store_f32(out, dtype, at, (float)value);
}

/* Gradient of one kept token (and of its weight) into row `at` of the outputs; either output
 * may be NULL. */
static void grad_token(struct gather *g, void *out, float *out_weights, int64_t at)
{
    const struct lik_tokens *x = g->own.of;
    for (g->from = 0; g->from < x->dim; g->from += LIK_REF_SPAN) {
        float own[LIK_REF_SPAN];
        g->n = lik_min_i64(LIK_REF_SPAN, x->dim - g->from);
        g->meetings = 0;
        g->along = g->weight = 0;
        memset(g->sum, 0, sizeof g->sum);
        visit(g);
        if (out_weights && g->from == 0)
            put(g->op, out_weights, LIK_F32, at, g->weight);
        if (!out)
            break;
        lik_ref_load(&g->own, g->from, g->n, own);
        for (int64_t k = 0; k < g->n; k++) {
            double value = g->sum[k];
            if (x->normalize)
                value -= g->along * g->own.factor * (double)own[k];
            value = g->meetings && !g->own.clamped ? value * g->own.factor : 0;
            put(g->op, out, x->dtype, at * x->dim + g->from + k, value);
        }
    }
}

static void zero_row(const struct lik_grad *op, const struct lik_tokens *x, void *out, float *out_weights,
                     int64_t at)
{
    if (op->accumulate)
        return;
    for (int64_t k = 0; out && k < x->dim; k++)
        put(op, out, x->dtype, at * x->dim + k, 0);
    if (out_weights)
        put(op, out_weights, LIK_F32, at, 0);
}

/* Gradients of one operand: every row of its contiguous array, those outside the sequences
 * included. */
static void grad_operand(const struct lik_grad *op, const struct lik_tokens *x, int is_query, void *out,
                         float *out_weights)
{
    int64_t row = 0;
    if (!out && !out_weights)
        return;
    for (int64_t i = 0; i < x->count; i++) {
        for (; row < lik_tokens_row(x, i); row++)
            zero_row(op, x, out, out_weights, row);
        for (int64_t t = 0; t < lik_tokens_length(x, i); t++, row++) {
            struct gather g = {.op = op, .i = i, .t = t, .is_query = is_query};
            if (!lik_token_kept(x, i, t)) {
                zero_row(op, x, out, out_weights, row);
                continue;
            }
            g.own = lik_ref_token(x, i, t);
            grad_token(&g, out, out_weights, row);
        }
    }
    for (; row < lik_tokens_rows(x); row++)
        zero_row(op, x, out, out_weights, row);
}

int lik_ref_grad_run(const struct lik_grad *op)
{
    grad_operand(op, &op->score.q, 1, op->grad_q, op->grad_weights);
    grad_operand(op, &op->score.d, 0, op->grad_d, NULL);
    return LIK_OK;
}
