/* How gradients are taken: factors of the operand that is gathered, of a list the entries of
 * each sequence side by side, then a row of a gradient a simdgroup. */
#include "metal/pass.h"
#include "metal/plan.h"

#include "base/error.h"

#include <stdio.h>

static int wants_q(const struct lik_grad *op)
{
    return op->grad_q || op->grad_weights;
}

int lik_metal_plan_grad(const struct lik_grad *op, struct lik_layout *layout, struct lik_metal_grad_plan *p)
{
    const struct lik_score *s = &op->score;
    *p = (struct lik_metal_grad_plan){0};
    int status = lik_metal_check(s);
    if (status)
        return status;
    p->q_factor_count = op->grad_d || op->grad_weights ? lik_metal_factor_count(&s->q) : 0;
    p->d_factor_count = wants_q(op) ? lik_metal_factor_count(&s->d) : 0;
    if (s->pairing == LIK_LIST) {
        if (s->list_count >= 1ll << 31 || s->q.count >= 0xffffffffll || s->d.count >= 0xffffffffll)
            return lik_fail(LIK_EUNSUPPORTED,
                            "list_count is %lld, q.count %lld and d.count %lld; gradients on Metal take "
                            "2^31 - 1 entries of 2^32 - 2 sequences",
                            (long long)s->list_count, (long long)s->q.count, (long long)s->d.count);
        for (p->key_count = 2; p->key_count < s->list_count;)
            p->key_count *= 2;
    }
    p->q_factors = lik_layout_take(layout, p->q_factor_count, 4, LIK_METAL_ALIGN);
    p->d_factors = lik_layout_take(layout, p->d_factor_count, 4, LIK_METAL_ALIGN);
    p->q_keys = lik_layout_take(layout, wants_q(op) ? p->key_count : 0, 8, LIK_METAL_ALIGN);
    p->d_keys = lik_layout_take(layout, op->grad_d ? p->key_count : 0, 8, LIK_METAL_ALIGN);
    return LIK_OK;
}

/* The list's entries, sorted by the sequence of one operand and their own number. */
static int sort_list(const struct lik_score *op, int of_queries, int64_t key_count, uint64_t *keys,
                     const struct lik_metal_queue *queue)
{
    struct lik_metal_dispatch dispatch = {.kernel = LIK_METAL_LIST_KEYS};
    struct lik_metal_list_keys args = {of_queries, of_queries ? op->q.count : op->d.count, op->list_count,
                                       key_count, 0};
    args.threadgroups = dispatch.threadgroups = lik_metal_groups(key_count, LIK_METAL_THREADS);
    dispatch.args = &args;
    dispatch.buffers[LIK_AT_LIST_Q] = op->list_q;
    dispatch.buffers[LIK_AT_LIST_D] = op->list_d;
    dispatch.buffers[LIK_AT_KEYS_OUT] = keys;
    int status = queue->dispatch(queue->host, &dispatch);
    return status ? status : lik_metal_run_sort(keys, 1, key_count, queue);
}

static int run_gradient(const struct lik_grad *op, const struct lik_metal_grad_plan *p, char *workspace,
                        enum lik_metal_kernel_number kernel, int of_queries, void *out,
                        const struct lik_metal_queue *queue)
{
    const struct lik_score *s = &op->score;
    const struct lik_tokens *x = of_queries ? &s->q : &s->d;
    struct lik_metal_dispatch dispatch = {.kernel = kernel};
    struct lik_metal_grad args = {
        .q = lik_metal_tokens_of(&s->q),
        .d = lik_metal_tokens_of(&s->d),
        .pairing = s->pairing,
        .per_query = s->per_query,
        .list_count = s->list_count,
        .score_rows = lik_score_rows(s),
        .score_columns = lik_score_columns(s),
        .grad_scores_stride = op->grad_scores_stride,
        .argmax_bytes = (int64_t)lik_dtype_bytes(s->argmax_dtype),
        .of_queries = of_queries,
        .rows = lik_tokens_rows(x),
        .out_dtype = kernel == LIK_METAL_GRAD ? x->dtype : LIK_F32,
        .accumulate = op->accumulate != 0,
    };
    if (!out || args.rows == 0)
        return LIK_OK;
    args.threadgroups = dispatch.threadgroups = lik_metal_groups(args.rows, LIK_METAL_SIMDS);
    dispatch.args = &args;
    lik_metal_name_operands(s, p->q_factor_count ? workspace + p->q_factors : NULL,
                            p->d_factor_count ? workspace + p->d_factors : NULL, &dispatch);
    dispatch.buffers[LIK_AT_GRAD_SCORES] = op->grad_scores;
    dispatch.buffers[LIK_AT_SCALE] = kernel == LIK_METAL_GRAD ? x->scale : NULL;
    dispatch.buffers[LIK_AT_OUT] = out;
    if (p->key_count)
        dispatch.buffers[LIK_AT_KEYS] = workspace + (of_queries ? p->q_keys : p->d_keys);
    return queue->dispatch(queue->host, &dispatch);
}

int lik_metal_run_grad(const struct lik_grad *op, const struct lik_metal_grad_plan *p, char *workspace,
                       const struct lik_metal_queue *queue)
{
    const struct lik_score *s = &op->score;
    int status = LIK_OK;
    if (p->q_factor_count)
        status = lik_metal_run_factors(&s->q, (float *)(void *)(workspace + p->q_factors), queue);
    if (!status && p->d_factor_count)
        status = lik_metal_run_factors(&s->d, (float *)(void *)(workspace + p->d_factors), queue);
    if (!status && p->key_count && wants_q(op))
        status = sort_list(s, 1, p->key_count, (uint64_t *)(void *)(workspace + p->q_keys), queue);
    if (!status && p->key_count && op->grad_d)
        status = sort_list(s, 0, p->key_count, (uint64_t *)(void *)(workspace + p->d_keys), queue);
    if (!status)
        status = run_gradient(op, p, workspace, LIK_METAL_GRAD, 1, op->grad_q, queue);
    if (!status)
        status = run_gradient(op, p, workspace, LIK_METAL_GRAD, 0, op->grad_d, queue);
    if (!status)
        status = run_gradient(op, p, workspace, LIK_METAL_GRAD_WEIGHTS, 1, op->grad_weights, queue);
    return status;
}

void lik_metal_name_grad(const struct lik_grad *op, const struct lik_metal_grad_plan *p, char *text,
                         size_t size)
{
    const struct lik_score *s = &op->score;
    (void)p;
    snprintf(text, size, "grad_%s_%s_d%lld_metal", lik_dtype_name(s->q.dtype), lik_dtype_name(s->d.dtype),
             (long long)s->d.dim);
}
