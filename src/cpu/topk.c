/* Top-k: the score driver with heaps as its sink. After the slots' scratch come the heaps of
 * slots 1 ... slots - 1 and all counts; slot 0 fills the outputs, into which the others'
 * entries are merged at the end. */
#include "cpu/driver.h"

#include <math.h>
#include <string.h>

struct topk_regions {
    int64_t heap_k;
    size_t counts, values, ids;
};

static int plan_topk(const struct lik_cpu_kernels *kernels, const struct lik_topk *op,
                     const struct lik_exec *exec, struct lik_cpu_plan *plan, struct topk_regions *at,
                     struct lik_layout *layout)
{
    int status = lik_cpu_plan_score(kernels, &op->score, exec, plan, layout);
    if (status)
        return status;
    int64_t queries = op->score.q.count;
    at->heap_k = lik_max_i64(lik_min_i64(op->k, lik_score_columns(&op->score)), 1);
    at->counts = lik_layout_take(layout, queries, plan->slots * 8, 8);
    at->ids = lik_layout_take(layout, queries * at->heap_k, (plan->slots - 1) * 8, 8);
    at->values = lik_layout_take(layout, queries * at->heap_k, (plan->slots - 1) * 4, 4);
    if (layout->failed)
        return lik_fail(LIK_EINVAL, "the heaps of %lld threads, %lld queries and k %lld pass 2^63 bytes",
                        (long long)plan->slots, (long long)queries, (long long)op->k);
    return LIK_OK;
}

int lik_cpu_topk(const struct lik_context *ctx, const struct lik_topk *op, struct lik_exec *exec,
                 struct lik_plan *plan)
{
    struct lik_cpu_job job = {.kernels = ctx->kernels, .op = &op->score, .exec = exec, .topk = op};
    struct topk_regions at;
    struct lik_layout layout = {0};
    char *scratch;
    int status = plan_topk(job.kernels, op, exec, &job.plan, &at, &layout);
    if (status)
        return status;
    if (plan) {
        lik_cpu_name(job.kernels, "topk", &op->score, &job.plan, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    status = lik_workspace_take(ctx, exec, &layout, &scratch);
    if (status)
        return status;
    int64_t queries = op->score.q.count;
    job.heap_k = at.heap_k;
    job.heap_counts = (int64_t *)(void *)(scratch + at.counts);
    job.heap_values = (float *)(void *)(scratch + at.values);
    job.heap_ids = (int64_t *)(void *)(scratch + at.ids);
    memset(job.heap_counts, 0, (size_t)(job.plan.slots * queries) * sizeof *job.heap_counts);
    lik_cpu_run(&job, scratch);
    for (int64_t q = 0; q < queries; q++) {
        struct lik_heap heap = {
            .values = op->values + q * op->k, .ids = op->ids + q * op->k, .count = job.heap_counts[q]};
        heap.k = op->k;
        heap.smallest = op->smallest;
        for (int64_t s = 1; s < job.plan.slots; s++) {
            int64_t first = ((s - 1) * queries + q) * at.heap_k;
            for (int64_t n = 0; n < job.heap_counts[s * queries + q]; n++)
                lik_heap_push(&heap, job.heap_values[first + n], job.heap_ids[first + n]);
        }
        lik_heap_finish(&heap, NAN);
    }
    return LIK_OK;
}
