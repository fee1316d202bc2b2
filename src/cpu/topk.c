/* Top-k: the score driver with heaps as its sink. After the slots' scratch come the heaps of slots 1 ... slots - 1 and all
 * counts; slot 0 fills the outputs, into which the others' entries are merged at the end. */
#include "cpu/driver.h"

#include "base/size.h"

#include <math.h>
#include <string.h>

struct topk_layout {
    int64_t heap_k;
    size_t counts, values, ids, bytes;
};

static int plan_topk(const struct lik_topk *op, const struct lik_exec *exec,
                     struct lik_cpu_plan *plan, struct topk_layout *layout)
{
    *layout = (struct topk_layout){0};
    int status = lik_cpu_plan_score(&op->score, exec, plan);
    if (status)
        return status;
    int64_t scratch, counts, entries, end;
    layout->heap_k = lik_max_i64(lik_min_i64(op->k, lik_score_columns(&op->score)), 1);
    if (lik_mul_i64((int64_t)plan->slot_bytes, plan->slots, &scratch) ||
        lik_mul_i64(plan->slots * 8, op->score.q.count, &counts) ||
        lik_mul_i64(plan->slots - 1, op->score.q.count * layout->heap_k, &entries) || lik_mul_i64(entries, 12, &end) ||
        lik_add_i64(end, scratch, &end) || lik_add_i64(end, counts, &end))
        return lik_fail(LIK_EINVAL, "the heaps of %lld threads, %lld queries and k %lld pass 2^63 bytes",
                        (long long)plan->slots, (long long)op->score.q.count, (long long)op->k);
    layout->counts = (size_t)scratch;
    layout->ids = layout->counts + (size_t)counts;
    layout->values = layout->ids + (size_t)entries * 8;
    layout->bytes = layout->values + (size_t)entries * 4;
    return LIK_OK;
}

int lik_cpu_topk_plan(const struct lik_context *ctx, const struct lik_topk *op, const struct lik_exec *exec,
                      struct lik_plan *out)
{
    struct lik_cpu_plan plan;
    struct topk_layout layout;
    int status = plan_topk(op, exec, &plan, &layout);
    if (status)
        return status;
    out->workspace_bytes = layout.bytes;
    if (out->struct_size)
        lik_cpu_name(ctx, "topk", &op->score, &plan, out->variant, sizeof out->variant);
    return LIK_OK;
}

int lik_cpu_topk_run(const struct lik_context *ctx, const struct lik_topk *op, const struct lik_exec *exec)
{
    struct lik_cpu_job job = {.kernels = ctx->kernels, .op = &op->score, .exec = exec, .topk = op};
    struct topk_layout layout;
    int status = plan_topk(op, exec, &job.plan, &layout);
    if (status)
        return status;
    char *scratch = exec->workspace;
    int64_t queries = op->score.q.count;
    job.heap_k = layout.heap_k;
    job.heap_counts = (int64_t *)(void *)(scratch + layout.counts);
    job.heap_values = (float *)(void *)(scratch + layout.values);
    job.heap_ids = (int64_t *)(void *)(scratch + layout.ids);
    memset(job.heap_counts, 0, (size_t)(job.plan.slots * queries) * sizeof *job.heap_counts);
    lik_cpu_run(&job, scratch);
    for (int64_t q = 0; q < queries; q++) {
        struct lik_heap heap = {.values = op->values + q * op->k, .ids = op->ids + q * op->k, .count = job.heap_counts[q]};
        heap.k = op->k;
        heap.smallest = op->smallest;
        for (int64_t s = 1; s < job.plan.slots; s++) {
            int64_t at = ((s - 1) * queries + q) * layout.heap_k;
            for (int64_t n = 0; n < job.heap_counts[s * queries + q]; n++)
                lik_heap_push(&heap, job.heap_values[at + n], job.heap_ids[at + n]);
        }
        lik_heap_finish(&heap, NAN);
    }
    return LIK_OK;
}
