/* How many queries meet compressed documents on Hopper: in chunks that are decoded first
 * (cuda/scan/decode.cu). Decoding a chunk costs about as much as scanning it for three row
 * tiles. */
#include "cuda/plan/plan.h"

#include "base/size.h"
#include "shared/operand.h"

#define CHUNK_BYTES (128ll << 20) /* of decoded tokens */
/* of all queries: fewer are scanned, in passes of 16 strips where groups take them */
#define STRIPS_LEAST(op) (lik_cuda_scan_in_groups(op) && !(op)->argmax ? 113 : 7)

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    const struct lik_tokens *d = &op->d;
    return lik_cuda_plans_scan.takes(gpu, op) && d->dtype != LIK_F32 && op->pairing == LIK_ALL && !d->mask &&
           !lik_cuda_scan_in_integers(op) && !d->offsets && d->len_max > 0 && d->len_max < 1 << 24 &&
           d->count > 0 && lik_cuda_strips(op) >= STRIPS_LEAST(op);
}

/* The problem of a chunk's documents, decoded. Addresses are of no memory. */
static struct lik_score chunk_of(const struct lik_score *op, int64_t documents)
{
    struct lik_score chunk = *op;
    struct lik_tokens *d = &chunk.d;
    *d = (struct lik_tokens){.struct_size = sizeof *d, .dtype = op->d.dtype, .count = documents};
    d->len_max = op->d.len_max;
    d->dim = op->d.dim;
    d->dim_stride = 1;
    d->strides = (struct lik_strides){.sequence = d->len_max * d->dim, .token = d->dim};
    d->data = (const void *)(uintptr_t)4096;
    d->normalize = op->d.normalize || op->d.scale; /* factors, that is */
    return chunk;
}

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    struct decoded_plan *p = &plan->decoded;
    const int64_t bytes = op->d.len_max * op->d.dim * 2, count = op->d.count;
    int64_t documents = lik_max_i64(CHUNK_BYTES / bytes, 1);
    if (documents > gpu->processors) /* whole rounds of documents */
        documents -= documents % gpu->processors;
    p->documents_per_chunk = lik_min_i64(documents, count);
    p->token_bytes = p->documents_per_chunk * bytes;
    plan->scan.copy_bytes = (int32_t)lik_cuda_scan_copy_bytes(&op->d);
    plan->centroid_bytes = (op->d.codec->centroid_count + 1) * op->d.dim * 2;
    plan->token_bytes = p->token_bytes + p->documents_per_chunk * op->d.len_max * 4;
    struct score_plan last = *plan;
    struct lik_score chunk = chunk_of(op, count % p->documents_per_chunk);
    last.columns = chunk.d.count;
    int status = last.columns ? lik_cuda_plans_sm90.plan(gpu, &chunk, &last) : LIK_OK;
    p->last = last.sm90;
    chunk = chunk_of(op, p->documents_per_chunk);
    return status ? status : lik_cuda_plans_sm90.plan(gpu, &chunk, plan);
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    (void)plan;
    lik_cuda_add_text(text, size, 0, "score_%s_d%lld_sm90_decoded_%dbits", lik_dtype_name(op->d.dtype),
                      (long long)op->d.dim, op->d.codec->bits);
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    n = lik_cuda_add_text(text, size, n, "%lld documents at once, %lld bytes; ",
                          (long long)plan->decoded.documents_per_chunk, (long long)plan->token_bytes);
    return lik_cuda_plans_sm90.print(plan, text, size, n);
}

const struct score_planner lik_cuda_plans_decoded = {takes, plan, name, print};
