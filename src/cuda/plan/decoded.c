/* How many queries meet documents on Hopper that are not multiplied as they are stored: in
 * chunks that are decoded first (cuda/scan/decode.cu), or widened from 8 bits (cuda/widen.cu).
 * Decoding a chunk costs about as much as scanning it for three row tiles, widening it as much
 * as what the Hopper loop spends on that for three of its own, and a launch. */
#include "cuda/plan/plan.h"

#include "base/size.h"
#include "shared/operand.h"

#define CHUNK_BYTES (128ll << 20) /* of decoded tokens */
/* of all queries: fewer are scanned, in passes of 16 strips where groups take them */
#define STRIPS_LEAST(op) (lik_cuda_scan_in_groups(op) && !(op)->argmax ? 113 : 7)
/* The same of 8 bits, and how many tokens have to be met by how many strips more to be worth
 * the launch. */
#define WIDEN_STRIPS 24
#define WIDEN_LEAST  500000
#define WIDEN_DIM    512

/* Documents that a chunk may be cut from anywhere: all of one length, each with all queries. */
static int cuts(const struct lik_score *op)
{
    const struct lik_tokens *d = &op->d;
    return op->pairing == LIK_ALL && !d->offsets && d->len_max > 0 && d->len_max < 1 << 24 && d->count > 0;
}

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    return lik_cuda_plans_scan.takes(gpu, op) && op->d.dtype != LIK_F32 && cuts(op) && !op->d.mask &&
           !lik_cuda_scan_in_integers(op) && lik_cuda_strips(op) >= STRIPS_LEAST(op);
}

static int takes_bytes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    const struct lik_tokens *q = &op->q, *d = &op->d;
    const int64_t strips = lik_cuda_strips(op);
    return lik_cuda_plans_sm90.takes(gpu, op) && lik_dtype_bytes(d->dtype) == 1 && !d->normalize &&
           !(q->dtype == LIK_I8 && d->dtype == LIK_I8) && cuts(op) && !d->group_size && d->dim % 16 == 0 &&
           d->dim <= WIDEN_DIM && strips > WIDEN_STRIPS &&
           d->count * d->len_max >= WIDEN_LEAST / (strips - WIDEN_STRIPS);
}

/* The problem of a chunk's documents, decoded. Addresses are of no memory. */
static struct lik_score chunk_of(const struct lik_score *op, int64_t documents)
{
    struct lik_score chunk = *op;
    struct lik_tokens *d = &chunk.d;
    *d = lik_tokens_padded((const void *)(uintptr_t)4096, op->d.dtype, documents, op->d.len_max, op->d.dim);
    if (op->d.storage == LIK_RESIDUAL) {
        d->scale = op->d.normalize || op->d.scale ? (const float *)(uintptr_t)4096 : NULL; /* factors */
        d->scale_strides = (struct lik_strides){.sequence = d->len_max, .token = 1};
        return chunk;
    }
    d->dtype = op->q.dtype == LIK_BF16 ? LIK_BF16 : LIK_F16;
    d->mask = op->d.mask;
    d->mask_strides = op->d.mask_strides;
    d->scale = op->d.scale;
    d->scale_strides = op->d.scale_strides;
    return chunk;
}

static int plan_chunks(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    struct decoded_plan *p = &plan->decoded;
    const int64_t bytes = op->d.len_max * op->d.dim * 2, count = op->d.count;
    int64_t documents = lik_max_i64(CHUNK_BYTES / bytes, 1);
    if (documents > gpu->processors) /* whole rounds of documents */
        documents -= documents % gpu->processors;
    p->documents_per_chunk = lik_min_i64(documents, count);
    p->token_bytes = p->documents_per_chunk * bytes;
    plan->token_bytes = p->token_bytes;
    struct lik_score chunk = chunk_of(op, p->documents_per_chunk);
    int status = lik_cuda_plans_sm90.plan(gpu, &chunk, plan);
    chunk = chunk_of(op, count % p->documents_per_chunk);
    if (status || !chunk.d.count)
        return status;
    struct score_plan last = *plan; /* its row tiles, too */
    status = lik_cuda_plans_sm90.plan(gpu, &chunk, &last);
    p->last = last.sm90;
    return status;
}

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    plan->scan.copy_bytes = (int32_t)lik_cuda_scan_copy_bytes(&op->d);
    plan->centroid_bytes = (op->d.codec->centroid_count + 1) * op->d.dim * 2;
    int status = plan_chunks(gpu, op, plan);
    plan->token_bytes += plan->decoded.documents_per_chunk * op->d.len_max * 4; /* their factors */
    return status;
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    (void)plan;
    lik_cuda_add_text(text, size, 0, "score_%s_d%lld_sm90_decoded_%dbits", lik_dtype_name(op->d.dtype),
                      (long long)op->d.dim, op->d.codec->bits);
}

static void name_bytes(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    (void)plan;
    lik_cuda_add_text(text, size, 0, "score_%s_d%lld_sm90_widened", lik_dtype_name(op->d.dtype),
                      (long long)op->d.dim);
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    n = lik_cuda_add_text(text, size, n, "%lld documents at once, %lld bytes; ",
                          (long long)plan->decoded.documents_per_chunk, (long long)plan->token_bytes);
    n = lik_cuda_plans_sm90.print(plan, text, size, n);
    if (!plan->decoded.last.schedule.blocks)
        return n;
    struct score_plan last = *plan;
    last.sm90 = plan->decoded.last;
    n = lik_cuda_add_text(text, size, n, "; at last ");
    return lik_cuda_plans_sm90.print(&last, text, size, n);
}

const struct score_planner lik_cuda_plans_decoded = {takes, plan, name, print};
const struct score_planner lik_cuda_plans_widened = {takes_bytes, plan_chunks, name_bytes, print};
