/* Gradients from the argmax: gathers of winning rows, every output row owned by one task,
 * written once.
 *
 *     grad_q[i, s] = sum over scores n of query i of g[n] w[i, s] d[n][argmax[n, s]]
 *         (tasks: (query, up to 32 tokens))
 *     grad_d[j, t] = sum over (n, s) of document j, argmax[n, s] = t, of g[n] w[i, s] q[i, s]
 *         (tasks: documents)
 *
 * The second needs for each document token the list of its winners: a counting sort of the
 * document's argmax entries by t, stable, so that the order of summation is that of (n, s)
 * whatever the number of threads. Sums are f32; a row goes through its normalization's Jacobian
 * and is rounded to the operand's dtype once. An explicit list of pairs is first sorted by
 * query and by document in the same way. */
#include "cpu/driver.h"

#include "base/dtype.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GROUP 32 /* query tokens of a task: their sums stay in L1 */

struct grad_regions {
    size_t q_start, q_order, d_start, d_order; /* LIK_LIST: [count + 1] and [list_count] */
    size_t slots;                              /* from here the slots' scratch */
    size_t sums, row, entries, heads, slot_bytes;
    int64_t slot_count;
};

struct grad_job {
    const struct lik_cpu_kernels *kernels;
    const struct lik_grad *op;
    struct lik_cpu_reader queries, documents;
    struct grad_regions at;
    char *workspace;
    atomic_llong next;
};

/* The scores one sequence takes part in: score rows / columns first, first + step, ... or
 * entries of a sorted list. */
struct incidence {
    int64_t count;
    int64_t row, column, row_step, column_step;
    const int64_t *order;
};

static struct incidence scores_of_query(const struct grad_job *job, int64_t i)
{
    const struct lik_score *op = &job->op->score;
    struct incidence in = {.count = lik_score_columns(op), .row = i, .column_step = 1};
    if (op->pairing == LIK_LIST) {
        const int64_t *start = (const int64_t *)(const void *)(job->workspace + job->at.q_start);
        in.order = (const int64_t *)(const void *)(job->workspace + job->at.q_order) + start[i];
        in.count = start[i + 1] - start[i];
        in.column_step = 0;
    }
    return in;
}

static struct incidence scores_of_document(const struct grad_job *job, int64_t j)
{
    const struct lik_score *op = &job->op->score;
    struct incidence in = {.count = 1, .row = j};
    if (op->pairing == LIK_ALL) {
        in = (struct incidence){.count = op->q.count, .column = j, .row_step = 1};
    } else if (op->pairing == LIK_CANDIDATES) {
        in = (struct incidence){.count = 1, .row = j / op->per_query, .column = j % op->per_query};
    } else if (op->pairing == LIK_LIST) {
        const int64_t *start = (const int64_t *)(const void *)(job->workspace + job->at.d_start);
        in.order = (const int64_t *)(const void *)(job->workspace + job->at.d_order) + start[j];
        in.count = start[j + 1] - start[j];
    }
    return in;
}

static void incidence_at(const struct incidence *in, int64_t n, int64_t *row, int64_t *column)
{
    *row = in->order ? in->order[n] : in->row + n * in->row_step;
    *column = in->column + n * in->column_step;
}

static int64_t winner_at(const struct lik_score *op, int64_t row, int64_t column, int64_t s)
{
    return lik_argmax_at(op, row * lik_score_columns(op) + column, s);
}

static float scale_at(const struct lik_tokens *x, int64_t i, int64_t t)
{
    return x->scale ? lik_load_f32(x->scale, x->scale_dtype,
                                   lik_tokens_base(x, &x->scale_strides, i) + t * x->scale_strides.token)
                    : 1.0f;
}

/* Token t of sequence i as f32, in place if it is stored so, else in `buffer`; its factor in
 * *factor. */
static const float *token_at(const struct grad_job *job, const struct lik_tokens *x, int64_t i, int64_t t,
                             float *buffer, float *factor)
{
    const float *token = buffer;
    if (lik_cpu_in_place(x))
        token = (const float *)x->data + lik_tokens_base(x, &x->strides, i) + t * x->strides.token;
    else
        lik_cpu_load_token(x == job->documents.x ? &job->documents : &job->queries, i, t, buffer);
    *factor = lik_cpu_token_factor(job->kernels, x, scale_at(x, i, t), token);
    return token;
}

static float weight_at(const struct lik_tokens *q, int64_t i, int64_t s)
{
    return q->weights ? q->weights[lik_tokens_base(q, &q->weights_strides, i) + s * q->weights_strides.token]
                      : 1.0f;
}

/* Takes the gradient of the effective token (scaled, normalized) in `sums` to that of the
 * stored one, in place. A token whose norm is below the clamp has no direction: its gradient is
 * zero, where the quotient's would be 1e12 times rounding noise. */
static void through_token(const struct grad_job *job, const struct lik_tokens *x, int64_t i, int64_t t,
                          float *sums, float *buffer)
{
    if (!x->normalize && !x->scale)
        return;
    float factor, along = 0;
    const float *token = token_at(job, x, i, t, buffer, &factor);
    if (x->normalize) {
        if (fabsf(scale_at(x, i, t)) * lik_cpu_norm(job->kernels, token, x->dim) < (float)LIK_NORM_MIN) {
            memset(sums, 0, (size_t)x->dim * sizeof *sums);
            return;
        }
        along = -job->kernels->dot(sums, token, x->dim) * factor * factor;
    }
    for (int64_t k = 0; k < x->dim; k++)
        sums[k] = (x->normalize ? sums[k] + along * token[k] : sums[k]) * factor;
}

static void store_row(const struct grad_job *job, const struct lik_tokens *x, void *gradient, int64_t row,
                      float *sums, float *buffer)
{
    char *out = (char *)gradient + row * x->dim * (int64_t)lik_dtype_bytes(x->dtype);
    if (job->op->accumulate) {
        job->kernels->widen(buffer, out, x->dtype, x->dim);
        job->kernels->add_scaled(sums, buffer, 1.0f, x->dim);
    }
    job->kernels->narrow(out, sums, x->dtype, x->dim);
}

/* g times the product of a query token and a document token. Where the stored elements' product
 * leaves the range of f32, or that of the factors does, the query's elements take its factor
 * first, in `room`. */
static float weight_term(const struct grad_job *job, float g, const float *query, float q_factor,
                         const float *token, float factor, float *room)
{
    int64_t dim = job->op->score.q.dim;
    float product = job->kernels->dot(query, token, dim), size = fabsf(product),
          factors = fabsf(factor * q_factor);
    int underflow = size < 0x1p-110f && (size > 0 || factors > 1e9f); /* 0 is mostly what it seems */
    if (size <= FLT_MAX && !underflow && factors >= FLT_MIN && factors <= FLT_MAX)
        return g * factor * q_factor * product;
    for (int64_t k = 0; k < dim; k++)
        room[k] = query[k] * q_factor;
    return g * factor * job->kernels->dot(room, token, dim);
}

static void query_task(struct grad_job *job, char *scratch, int64_t i, int64_t first)
{
    const struct lik_score *op = &job->op->score;
    const struct lik_tokens *q = &op->q;
    int64_t dim = q->dim, last = lik_min_i64(first + GROUP, lik_tokens_length(q, i)),
            out = lik_tokens_row(q, i);
    float *sums = (float *)(void *)(scratch + job->at.sums),
          *buffer = (float *)(void *)(scratch + job->at.row);
    float *weight_sums = buffer + 2 * dim;
    if (first >= last)
        return;
    memset(sums, 0, (size_t)((last - first) * dim) * sizeof *sums);
    memset(weight_sums, 0, GROUP * sizeof *weight_sums);
    /* query tokens of the group with a maximum: the others may be dropped ones, which are never
     * read */
    uint32_t met = 0;
    struct incidence in = scores_of_query(job, i);
    for (int64_t n = 0; n < in.count; n++) {
        int64_t row, column;
        incidence_at(&in, n, &row, &column);
        int64_t j = lik_score_document(op, row, column), length = lik_tokens_length(&op->d, j);
        float g = job->op->grad_scores[row * job->op->grad_scores_stride + column];
        for (int64_t s = first; s < last; s++) {
            int64_t t = winner_at(op, row, column, s);
            if (t < 0 || t >= length)
                continue;
            met |= (uint32_t)1 << (s - first);
            float factor;
            const float *token = token_at(job, &op->d, j, t, buffer, &factor);
            if (job->op->grad_q)
                job->kernels->add_scaled(sums + (s - first) * dim, token, g * weight_at(q, i, s) * factor,
                                         dim);
            if (job->op->grad_weights) {
                float q_factor;
                const float *query = token_at(job, q, i, s, buffer + dim, &q_factor);
                weight_sums[s - first] += weight_term(job, g, query, q_factor, token, factor, buffer + dim);
            }
        }
    }
    for (int64_t s = first; s < last; s++) {
        if (job->op->grad_q) {
            if (met >> (s - first) & 1)
                through_token(job, q, i, s, sums + (s - first) * dim, buffer);
            store_row(job, q, job->op->grad_q, out + s, sums + (s - first) * dim, buffer);
        }
        if (job->op->grad_weights)
            job->op->grad_weights[out + s] =
                (job->op->accumulate ? job->op->grad_weights[out + s] : 0) + weight_sums[s - first];
    }
}

/* Sorts the document's argmax entries by token: entries[heads[t] ... heads[t + 1]) are those
 * that token t won. */
static void sort_winners(const struct grad_job *job, const struct incidence *in, int64_t length,
                         int64_t *entries, int64_t *heads)
{
    const struct lik_score *op = &job->op->score;
    int64_t tokens = op->q.len_max, row, column;
    memset(heads, 0, (size_t)(length + 2) * sizeof *heads);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t n = 0; n < in->count; n++) {
            incidence_at(in, n, &row, &column);
            int64_t here = lik_tokens_length(&op->q, lik_score_query(op, row));
            for (int64_t s = 0; s < here; s++) {
                int64_t t = winner_at(op, row, column, s);
                if (t < 0 || t >= length)
                    continue;
                if (pass == 0)
                    heads[t + 2]++;
                else
                    entries[heads[t + 1]++] = n * tokens + s;
            }
        }
        for (int64_t t = 0; pass == 0 && t < length; t++)
            heads[t + 2] += heads[t + 1];
    }
}

static void document_task(struct grad_job *job, char *scratch, int64_t j)
{
    const struct lik_score *op = &job->op->score;
    const struct lik_tokens *q = &op->q, *d = &op->d;
    int64_t dim = d->dim, length = lik_tokens_length(d, j), out = lik_tokens_row(d, j);
    float *sums = (float *)(void *)(scratch + job->at.sums),
          *buffer = (float *)(void *)(scratch + job->at.row);
    int64_t *entries = (int64_t *)(void *)(scratch + job->at.entries);
    int64_t *heads = (int64_t *)(void *)(scratch + job->at.heads);
    struct incidence in = scores_of_document(job, j);
    sort_winners(job, &in, length, entries, heads);
    for (int64_t t = 0; t < length; t++) {
        memset(sums, 0, (size_t)dim * sizeof *sums);
        for (int64_t e = heads[t]; e < heads[t + 1]; e++) {
            int64_t n = entries[e] / q->len_max, s = entries[e] % q->len_max, row, column;
            incidence_at(&in, n, &row, &column);
            int64_t i = lik_score_query(op, row);
            float factor, g = job->op->grad_scores[row * job->op->grad_scores_stride + column];
            const float *token = token_at(job, q, i, s, buffer, &factor);
            job->kernels->add_scaled(sums, token, g * weight_at(q, i, s) * factor, dim);
        }
        if (heads[t + 1] > heads[t])
            through_token(job, d, j, t, sums, buffer);
        else if (job->op->accumulate)
            continue;
        store_row(job, d, job->op->grad_d, out + t, sums, buffer);
    }
}

static int64_t query_groups(const struct lik_score *op)
{
    return (op->q.len_max + GROUP - 1) / GROUP;
}

static void query_slot(void *arg, int64_t slot)
{
    struct grad_job *job = arg;
    const struct lik_score *op = &job->op->score;
    int64_t groups = query_groups(op), tasks = op->q.count * groups, n;
    char *scratch = job->workspace + job->at.slots + (size_t)slot * job->at.slot_bytes;
    while ((n = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) < tasks)
        query_task(job, scratch, n / groups, n % groups * GROUP);
}

static void document_slot(void *arg, int64_t slot)
{
    struct grad_job *job = arg;
    char *scratch = job->workspace + job->at.slots + (size_t)slot * job->at.slot_bytes;
    int64_t n;
    while ((n = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) < job->op->score.d.count)
        document_task(job, scratch, n);
}

static int lay_out(const struct lik_grad *op, const struct lik_exec *exec, struct grad_regions *at,
                   struct lik_layout *layout)
{
    const struct lik_score *score = &op->score;
    int64_t per_document = score->pairing == LIK_ALL    ? score->q.count
                           : score->pairing == LIK_LIST ? score->list_count
                                                        : 1;
    int64_t entries, listed = 0, q_starts = 0, d_starts = 0;
    struct lik_layout slot = {0};
    *at = (struct grad_regions){.slot_count = exec->threads};
    if (lik_mul_i64(op->grad_d ? per_document : 0, score->q.len_max, &entries))
        layout->failed = 1;
    if (score->pairing == LIK_LIST) {
        listed = score->list_count;
        if (lik_add_i64(score->q.count, 1, &q_starts) || lik_add_i64(score->d.count, 1, &d_starts))
            layout->failed = 1;
    }
    at->q_start = lik_layout_take(layout, q_starts, 8, 64);
    at->q_order = lik_layout_take(layout, listed, 8, 64);
    at->d_start = lik_layout_take(layout, d_starts, 8, 64);
    at->d_order = lik_layout_take(layout, listed, 8, 64);
    at->sums = lik_layout_take(&slot, GROUP * score->q.dim, 4, 64);
    at->row = lik_layout_take(&slot, 2 * score->q.dim + GROUP, 4, 64);
    at->entries = lik_layout_take(&slot, entries, 8, 64);
    at->heads = lik_layout_take(&slot, op->grad_d ? score->d.len_max + 2 : 0, 8, 64);
    at->slots = lik_layout_repeat(layout, &slot, at->slot_count, 64, &at->slot_bytes);
    if (layout->failed)
        return lik_fail(LIK_EINVAL, "the gradient's workspace for %lld threads passes 2^63 bytes",
                        (long long)at->slot_count);
    return LIK_OK;
}

/* order = list positions sorted by their sequence, stable; start[i] ... start[i + 1] are those
 * of sequence i. */
static void sort_list(const int64_t *list, int64_t n, int64_t count, int64_t *start, int64_t *order)
{
    memset(start, 0, (size_t)(count + 1) * sizeof *start);
    for (int64_t e = 0; e < n; e++)
        start[list[e] + 1]++;
    for (int64_t i = 0; i < count; i++)
        start[i + 1] += start[i];
    for (int64_t e = 0; e < n; e++)
        order[start[list[e]]++] = e;
    memmove(start + 1, start, (size_t)count * sizeof *start);
    start[0] = 0;
}

/* Rows of a packed gradient that no sequence covers. */
static void clear_outside(const struct lik_tokens *x, char *gradient, int64_t row_bytes)
{
    if (!gradient || !x->offsets)
        return;
    int64_t first = lik_offset_at(x, 0), last = lik_offset_at(x, x->count);
    memset(gradient, 0, (size_t)(first * row_bytes));
    memset(gradient + last * row_bytes, 0, (size_t)((x->total - last) * row_bytes));
}

int lik_cpu_grad(const struct lik_context *ctx, const struct lik_grad *op, struct lik_exec *exec,
                 struct lik_plan *plan)
{
    const struct lik_score *score = &op->score;
    struct grad_job job = {.kernels = ctx->kernels, .op = op};
    struct lik_layout layout = {0};
    int status = lay_out(op, exec, &job.at, &layout);
    if (status)
        return status;
    if (plan) {
        snprintf(plan->variant, sizeof plan->variant, "grad_%s_d%lld_%s", lik_dtype_name(score->d.dtype),
                 (long long)score->d.dim, job.kernels->level);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    status = lik_workspace_take(ctx, exec, &layout, &job.workspace);
    if (status)
        return status;
    lik_cpu_reader_init(&job.queries, job.kernels, &score->q);
    lik_cpu_reader_init(&job.documents, job.kernels, &score->d);
    if (score->pairing == LIK_LIST) {
        char *w = job.workspace;
        sort_list(score->list_q, score->list_count, score->q.count, (int64_t *)(void *)(w + job.at.q_start),
                  (int64_t *)(void *)(w + job.at.q_order));
        sort_list(score->list_d, score->list_count, score->d.count, (int64_t *)(void *)(w + job.at.d_start),
                  (int64_t *)(void *)(w + job.at.d_order));
    }
    if (!op->accumulate) {
        clear_outside(&score->q, op->grad_q, score->q.dim * (int64_t)lik_dtype_bytes(score->q.dtype));
        clear_outside(&score->d, op->grad_d, score->d.dim * (int64_t)lik_dtype_bytes(score->d.dtype));
        clear_outside(&score->q, (char *)op->grad_weights, sizeof(float));
    }
    if (op->grad_q || op->grad_weights) {
        int64_t tasks = score->q.count * query_groups(score);
        atomic_store(&job.next, 0);
        exec->parallel_for(exec->pool, lik_min_i64(job.at.slot_count, lik_max_i64(tasks, 1)), query_slot,
                           &job);
    }
    if (op->grad_d) {
        atomic_store(&job.next, 0);
        exec->parallel_for(exec->pool, lik_min_i64(job.at.slot_count, lik_max_i64(score->d.count, 1)),
                           document_slot, &job);
    }
    return LIK_OK;
}
