/* What the scan of compressed documents (cuda/scan) takes, and how it will run. */
#include "cuda/plan/plan.h"

#include "base/dtype.h"
#include "shared/operand.h"

/* Bytes that a copy may take: all rows, and the tokens in them, begin at multiples of it. */
int64_t lik_cuda_scan_copy_bytes(const struct lik_tokens *d)
{
    const struct lik_strides *s = &d->strides;
    int64_t all = lik_residual_bytes(d->dim, d->codec->bits) | (int64_t)(uintptr_t)d->data | s->token;
    if (!d->offsets)
        all |= s->sequence | (d->group_size > 0 ? s->group : 0);
    return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : all % 4 == 0 ? 4 : 1;
}

/* Do all documents meet the same queries, and do their tokens lie one behind another, in copies
 * of 16 bytes? Then warps multiply in groups. */
int lik_cuda_scan_in_groups(const struct lik_score *op)
{
    const struct lik_tokens *d = &op->d;
    return (op->pairing == LIK_ALL || op->q.count == 1) && d->dim == GROUP_DIM && d->codec->bits < 8 &&
           lik_cuda_scan_copy_bytes(d) == 16 &&
           (!d->codec->bits || d->strides.token == lik_residual_bytes(d->dim, d->codec->bits)) &&
           d->codes_dtype != LIK_I16 && d->codes_strides.token == 1 &&
           (!d->scale || (d->scale_strides.token == 1 && (uintptr_t)d->scale % 4 == 0));
}

/* One that does is decoded nowhere, whatever the number of queries: other products have other
 * bits. */
int lik_cuda_scan_in_integers(const struct lik_score *op)
{
    return op->precision == LIK_MEDIUM && lik_cuda_scan_in_groups(op);
}

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    const struct lik_tokens *q = &op->q, *d = &op->d;
    return gpu->hopper && d->storage == LIK_RESIDUAL && q->dtype == d->dtype &&
           (d->dtype != LIK_F32 || lik_cuda_scan_in_groups(op)) && !q->scale && !(d->scale && d->normalize) &&
           d->dim % 32 == 0 && d->dim <= SCAN_DIM && d->dim > 0 && lik_cuda_scan_copy_bytes(d) >= 4 &&
           d->count <= INT32_MAX &&
           lik_score_rows(op) * lik_score_columns(op) < INT32_MAX / 2 / lik_max_i64(q->len_max, 1);
}

static int plan_groups(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    struct scan_plan *p = &plan->scan;
    const int64_t strips = lik_cuda_strips(op),
                  documents = op->pairing == LIK_LIST ? op->list_count : plan->columns;
    const int bits = op->d.codec->bits;
    p->integers = lik_cuda_scan_in_integers(op);
    p->group_rows = op->d.dtype == LIK_F32 && !p->integers ? GROUP_F32
                    : strips <= 2 || op->argmax            ? 32
                    : strips <= 8                          ? 128
                                                           : 256;
    p->blocks = (int32_t)lik_min_i64(documents, gpu->processors);
    p->copy_bytes = 16;
    if (p->integers) {
        plan->centroid_bytes = (op->d.codec->centroid_count + 1) * GROUP_I8_CENTROID;
        p->ring_row = GROUP_I8_ROW(bits);
        p->shared_bytes = GROUP_I8_RING(p->group_rows) - GROUP_QUERIES +
                          GROUP_I8_WARPS(p->group_rows) * GROUP_I8_RING_BYTES(bits);
        return lik_cuda_tile_rows(op, p->group_rows / LIK_STRIP_ROWS, &plan->tiling);
    }
    const int warps = GROUP_WARPS(p->group_rows);
    p->ring_row = GROUP_RING_ROW(bits);
    const int low = GROUP_RINGS_LOW(p->group_rows, bits);
    int32_t end = GROUP_RING(p->group_rows) + (warps < low ? warps : low) * GROUP_RING_BYTES(bits);
    if (bits)
        end = GROUP_TABLE(p->group_rows) + 65536 + (warps > low ? warps - low : 0) * GROUP_RING_BYTES(bits);
    p->shared_bytes = end - GROUP_QUERIES;
    return lik_cuda_tile_rows(op, (op->d.dtype == LIK_F32 ? 32 : p->group_rows) / LIK_STRIP_ROWS,
                              &plan->tiling);
}

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    const struct lik_tokens *d = &op->d;
    struct scan_plan *p = &plan->scan;
    plan->centroid_bytes = (d->codec->centroid_count + 1) * d->dim * (int64_t)lik_dtype_bytes(d->dtype);
    if (lik_cuda_scan_in_groups(op))
        return plan_groups(gpu, op, plan);
    int status = lik_cuda_tile_rows(op, 2, &plan->tiling);
    if (status)
        return status;
    int64_t items = plan->tiling.tiles * plan->columns;
    int32_t row = (int32_t)lik_residual_bytes(d->dim, d->codec->bits);
    p->blocks = (int32_t)lik_min_i64((items + SCAN_WARPS - 1) / SCAN_WARPS, gpu->processors);
    p->copy_bytes = (int32_t)lik_cuda_scan_copy_bytes(d);
    p->ring_row = (row + 15) / 16 * 16;
    if (p->ring_row % 32 == 0)
        p->ring_row += 16;
    int32_t table = d->codec->bits == 0 ? 0 : (d->codec->bits == 1 ? 32 : 256) * 128;
    p->shared_bytes = table + SCAN_WARPS * SCAN_STAGES * SCAN_TOKENS * p->ring_row;
    return LIK_OK;
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    lik_cuda_add_text(text, size, 0, "score_%s_d%lld_scan_%s%dbits", lik_dtype_name(op->d.dtype),
                      (long long)op->d.dim, plan->scan.integers ? "i8_" : "", op->d.codec->bits);
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    const struct scan_plan *p = &plan->scan;
    return lik_cuda_add_text(text, size, n,
                             "%d blocks of %d warps, %d bytes; copies of %d to rows of %d; %lld bytes of "
                             "centroids",
                             p->blocks,
                             p->integers     ? GROUP_I8_WARPS(p->group_rows)
                             : p->group_rows ? GROUP_WARPS(p->group_rows)
                                             : SCAN_WARPS,
                             p->shared_bytes, p->copy_bytes, p->ring_row, (long long)plan->centroid_bytes);
}

const struct score_planner lik_cuda_plans_scan = {takes, plan, name, print};
