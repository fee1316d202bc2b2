/* Training a codec: k-means, then quantiles.
 *
 * Tokens are read where they stand, each time they are looked at; what a run remembers is where
 * the shuffled ones are and which centroid each has. Assignment is that of assign.h. For the
 * sums the tokens are sorted by centroid, stably, and each centroid is one task's, which adds
 * its tokens in f64 in the order of the shuffle: the same bits for any number of threads. */
#include "cpu/assign.h"

#include "base/dtype.h"
#include "cpu/stream.h"
#include "shared/sample.h"

#include <string.h>

#define CENTROIDS_PER_TASK 16
#define PLACES_PER_TASK    1024
#define AHEAD              8  /* tokens that are asked for before they are loaded */
#define DIGIT_BITS         11 /* of the radix sort: three passes */

struct train_regions {
    size_t starts, sequence, token, codes, heads, order, is_new, bytes, scales, elements, sorted, squares,
        digits;
    size_t slots, sum, row, slot_bytes;
};

struct train_job {
    const struct lik_train *op;
    const struct lik_exec *exec;
    struct lik_cpu_reader reader;
    struct lik_cpu_assign assign;  /* k-means */
    struct lik_cpu_assign nearest; /* the residuals: by f32 products */
    struct train_regions at;
    char *workspace;
    atomic_llong next;
    int64_t tasks;
    int64_t kept, held_out, points;
    int64_t next_point;          /* counted on and on: whom the next empty cluster gets */
    int64_t *starts;             /* [count + 1]: kept tokens before sequence i */
    int64_t *sequence;           /* [held_out + points], of the shuffled tokens */
    int32_t *token;              /* likewise; -1: it has no direction */
    int32_t *codes;              /* [points] */
    int64_t *heads;              /* [centroids + 2]: where in `order` a centroid's points begin */
    int64_t *order;              /* [points]: sorted by centroid */
    int8_t *is_new;              /* [centroids]: was left without points */
    int8_t *bytes;               /* LIK_MEDIUM: centroids as integers, [centroids, dim], */
    float *scales;               /* and their units */
    int64_t bucket_tokens;       /* how many make the buckets, the first of the shuffled ones */
    uint32_t *elements, *sorted; /* [bucket_tokens, dim]: of their residuals, as numbers that sort likewise */
    double *squares;             /* [bucket_tokens]: summed; -1: the token has no direction */
};

static void *scratch_of(const struct train_job *job, int64_t slot, size_t region)
{
    return job->workspace + job->at.slots + (size_t)slot * job->at.slot_bytes + region;
}

/* Runs `tasks` tasks of a phase. */
static void run_phase(struct train_job *job, int64_t tasks, void (*slot)(void *arg, int64_t slot))
{
    job->tasks = tasks;
    atomic_store(&job->next, 0);
    if (tasks > 0)
        job->exec->parallel_for(job->exec->pool, lik_min_i64(job->exec->threads, tasks), slot, job);
}

static int next_task(struct train_job *job, int64_t *task)
{
    *task = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
    return *task < job->tasks;
}

/* ---- which tokens ---- */

static void count_kept(struct train_job *job)
{
    const struct lik_tokens *x = &job->op->x;
    job->starts[0] = 0;
    for (int64_t i = 0; i < x->count; i++)
        job->starts[i + 1] = job->starts[i] + lik_tokens_kept(x, i);
    job->kept = job->starts[x->count];
}

/* The sequence and number of kept token n. */
static void find_token(const struct train_job *job, int64_t n, int64_t *i, int64_t *t)
{
    const struct lik_tokens *x = &job->op->x;
    int64_t low = 0, high = x->count;
    while (low < high) { /* low: how many sequences begin at or before n */
        int64_t middle = low + (high - low) / 2;
        if (job->starts[middle] <= n)
            low = middle + 1;
        else
            high = middle;
    }
    *i = low - 1;
    n -= job->starts[*i];
    *t = n;
    if (!x->mask)
        return;
    for (*t = 0; !lik_token_kept(x, *i, *t) || n-- > 0;)
        ++*t;
}

static void place_slot(void *arg, int64_t slot)
{
    struct train_job *job = arg;
    float *row = scratch_of(job, slot, job->at.row);
    int64_t all = job->held_out + job->points, task, i, t;
    while (next_task(job, &task)) {
        int64_t n = task * PLACES_PER_TASK, end = lik_min_i64(n + PLACES_PER_TASK, all);
        for (; n < end; n++) {
            find_token(job, lik_shuffled(n, job->kept, job->op->seed), &i, &t);
            lik_cpu_load_vector(&job->reader, i, t, row);
            float norm = lik_cpu_norm(job->reader.kernels, row, job->op->x.dim);
            job->sequence[n] = i;
            job->token[n] = norm >= (float)LIK_NORM_MIN && norm <= FLT_MAX ? (int32_t)t : -1;
        }
    }
}

/* ---- k-means ---- */

/* The centroid as the direction of the sum; 0 if it has none. */
static int take_direction(float *centroid, const double *sum, int64_t dim)
{
    double squares = 0;
    for (int64_t k = 0; k < dim; k++)
        squares += sum[k] * sum[k];
    int has = squares > 0 && squares <= DBL_MAX;
    double factor = has ? 1 / sqrt(squares) : 0;
    for (int64_t k = 0; k < dim; k++)
        centroid[k] = has ? (float)(sum[k] * factor) : 0;
    return has;
}

static void prefetch_point(const struct train_job *job, int64_t p)
{
    int64_t n = job->held_out + p;
    if (job->token[n] >= 0)
        lik_cpu_prefetch_token(&job->op->x, job->sequence[n], job->token[n]);
}

static void add_point(const struct train_job *job, int64_t p, float *row, double *sum)
{
    int64_t n = job->held_out + p;
    lik_cpu_load_vector(&job->reader, job->sequence[n], job->token[n], row);
    for (int64_t k = 0; k < job->op->x.dim; k++)
        sum[k] += (double)row[k];
}

/* Centroid c begins from the next point that has a direction. */
static void begin_anew(struct train_job *job, int64_t c)
{
    const struct lik_train *op = job->op;
    double *sum = scratch_of(job, 0, job->at.sum);
    float *row = scratch_of(job, 0, job->at.row);
    memset(op->centroids + c * op->x.dim, 0, (size_t)op->x.dim * sizeof *op->centroids);
    for (int64_t tries = 0; tries < job->points; tries++) {
        int64_t p = job->next_point++ % job->points;
        if (job->token[job->held_out + p] < 0)
            continue;
        memset(sum, 0, (size_t)op->x.dim * sizeof *sum);
        add_point(job, p, row, sum);
        if (take_direction(op->centroids + c * op->x.dim, sum, op->x.dim))
            return;
    }
}

/* Points of a block to their centroids; -1 for those without a direction. */
static void assign_slot(void *arg, int64_t slot)
{
    struct train_job *job = arg;
    char *scratch = scratch_of(job, slot, 0);
    float *rows = lik_cpu_assign_rows(&job->assign, scratch);
    int64_t dim = job->op->x.dim, task;
    while (next_task(job, &task)) {
        int64_t first = task * job->assign.block, count = 0;
        int64_t end = lik_min_i64(first + job->assign.block, job->points);
        for (int64_t p = first; p < end; p++) {
            int64_t n = job->held_out + p;
            if (p + AHEAD < end)
                prefetch_point(job, p + AHEAD);
            if (job->token[n] >= 0)
                lik_cpu_load_vector(&job->reader, job->sequence[n], job->token[n], rows + count++ * dim);
        }
        const int32_t *codes = lik_cpu_assign_run(&job->assign, count, scratch);
        for (int64_t p = first; p < end; p++)
            job->codes[p] = job->token[job->held_out + p] >= 0 ? *codes++ : -1;
    }
}

/* Sorts points by centroid: order[heads[c] ... heads[c + 1]) are those of centroid c. */
static void sort_points(struct train_job *job)
{
    int64_t centroids = job->op->centroid_count;
    memset(job->heads, 0, (size_t)(centroids + 2) * sizeof *job->heads);
    for (int64_t p = 0; p < job->points; p++)
        if (job->codes[p] >= 0)
            job->heads[job->codes[p] + 2]++;
    for (int64_t c = 0; c < centroids; c++)
        job->heads[c + 2] += job->heads[c + 1];
    for (int64_t p = 0; p < job->points; p++)
        if (job->codes[p] >= 0)
            job->order[job->heads[job->codes[p] + 1]++] = p;
}

static void move_slot(void *arg, int64_t slot)
{
    struct train_job *job = arg;
    const struct lik_train *op = job->op;
    double *sum = scratch_of(job, slot, job->at.sum);
    float *row = scratch_of(job, slot, job->at.row);
    int64_t dim = op->x.dim, task;
    while (next_task(job, &task)) {
        int64_t c = task * CENTROIDS_PER_TASK;
        for (int64_t end = lik_min_i64(c + CENTROIDS_PER_TASK, op->centroid_count); c < end; c++) {
            memset(sum, 0, (size_t)dim * sizeof *sum);
            for (int64_t e = job->heads[c]; e < job->heads[c + 1]; e++) {
                if (e + AHEAD < job->heads[op->centroid_count])
                    prefetch_point(job, job->order[e + AHEAD]);
                add_point(job, job->order[e], row, sum);
            }
            job->is_new[c] = (int8_t)!take_direction(op->centroids + c * dim, sum, dim);
        }
    }
}

/* LIK_MEDIUM: the centroids as 8-bit integers, each with a unit of its own. */
static void quantize_slot(void *arg, int64_t slot)
{
    struct train_job *job = arg;
    int64_t dim = job->op->x.dim, task;
    (void)slot;
    while (next_task(job, &task)) {
        int64_t c = task * CENTROIDS_PER_TASK;
        for (int64_t end = lik_min_i64(c + CENTROIDS_PER_TASK, job->op->centroid_count); c < end; c++) {
            const float *centroid = job->op->centroids + c * dim;
            job->scales[c] = job->assign.kernels->quantize(job->bytes + c * dim, centroid, dim, 0);
        }
    }
}

/* Returns how many clusters began anew. */
static int64_t iterate(struct train_job *job)
{
    int64_t centroids = job->op->centroid_count, anew = 0;
    if (job->bytes)
        run_phase(job, lik_divide_up(centroids, CENTROIDS_PER_TASK), quantize_slot);
    run_phase(job, lik_divide_up(job->points, job->assign.block), assign_slot);
    sort_points(job);
    run_phase(job, lik_divide_up(centroids, CENTROIDS_PER_TASK), move_slot);
    for (int64_t c = 0; c < centroids; c++)
        if (job->is_new[c]) {
            begin_anew(job, c);
            anew++;
        }
    return anew;
}

/* ---- buckets ---- */

/* Residuals of a block of tokens as numbers that sort as they do; after those of tokens without
 * a direction the largest number. */
static void residual_slot(void *arg, int64_t slot)
{
    struct train_job *job = arg;
    char *scratch = scratch_of(job, slot, 0);
    int64_t dim = job->op->x.dim, task;
    const int wanted = job->op->bits > 0;
    while (next_task(job, &task)) {
        float *rows = lik_cpu_assign_rows(&job->nearest, scratch);
        int64_t first = task * job->nearest.block, count = 0;
        int64_t end = lik_min_i64(first + job->nearest.block, job->bucket_tokens);
        for (int64_t n = first; n < end; n++)
            if (job->token[n] >= 0)
                lik_cpu_load_vector(&job->reader, job->sequence[n], job->token[n], rows + count++ * dim);
        const int32_t *codes = lik_cpu_assign_run(&job->nearest, count, scratch);
        for (int64_t n = first; n < end; n++) {
            uint32_t *elements = job->elements + n * dim;
            job->squares[n] = -1;
            if (wanted)
                memset(elements, 0xff, (size_t)dim * sizeof *elements);
            if (job->token[n] < 0)
                continue;
            const float *centroid = job->op->centroids + *codes++ * dim;
            double squares = 0;
            for (int64_t k = 0; k < dim; k++) {
                float element = rows[k] - centroid[k];
                squares += (double)element * (double)element;
                if (wanted)
                    elements[k] = lik_order_of_f32(element);
            }
            job->squares[n] = squares;
            rows += dim;
        }
    }
}

/* Sorts the elements, digit by digit from the lowest; `digits` has a count for each digit. */
static void sort_elements(struct train_job *job, int64_t n, int64_t *digits)
{
    for (int shift = 0; shift < 32; shift += DIGIT_BITS) {
        const uint32_t mask = (1u << DIGIT_BITS) - 1;
        memset(digits, 0, sizeof *digits << DIGIT_BITS);
        for (int64_t e = 0; e < n; e++)
            digits[job->elements[e] >> shift & mask]++;
        for (int64_t d = 0, before = 0; d <= mask; d++) {
            int64_t here = digits[d];
            digits[d] = before;
            before += here;
        }
        for (int64_t e = 0; e < n; e++)
            job->sorted[digits[job->elements[e] >> shift & mask]++] = job->elements[e];
        uint32_t *swap = job->elements;
        job->elements = job->sorted;
        job->sorted = swap;
    }
}

static float quantile(const struct train_job *job, int64_t n, int64_t part, int64_t parts)
{
    int64_t below;
    if (n == 0)
        return 0;
    double share = lik_quantile_position(n, part, parts, &below);
    double low = (double)lik_f32_of_order(job->elements[below]);
    return (float)(share > 0 ? low + share * ((double)lik_f32_of_order(job->elements[below + 1]) - low)
                             : low);
}

static void make_buckets(struct train_job *job, struct lik_train_found *found)
{
    const struct lik_train *op = job->op;
    job->bucket_tokens = job->held_out ? job->held_out : lik_min_i64(job->points, LIK_HELD_OUT_MAX);
    int64_t tokens = 0;
    double squares = 0;
    run_phase(job, lik_divide_up(job->bucket_tokens, job->nearest.block), residual_slot);
    for (int64_t n = 0; n < job->bucket_tokens; n++)
        if (job->squares[n] >= 0) {
            squares += job->squares[n];
            tokens++;
        }
    found->mean_squared_residual = tokens ? squares / (double)tokens : 0;
    if (!op->bits)
        return;
    int64_t n = tokens * op->x.dim, buckets = (int64_t)1 << op->bits;
    sort_elements(job, job->bucket_tokens * op->x.dim, (int64_t *)(void *)(job->workspace + job->at.digits));
    for (int64_t b = 0; b < buckets; b++) {
        op->weights[b] = quantile(job, n, 2 * b + 1, 2 * buckets);
        if (b + 1 < buckets)
            op->cutoffs[b] = quantile(job, n, b + 1, buckets);
    }
}

/* ---- the verb ---- */

static int lay_out(const struct lik_context *ctx, struct train_job *job, struct lik_layout *layout)
{
    const struct lik_train *op = job->op;
    const int medium = op->precision == LIK_MEDIUM;
    struct lik_codec codec = lik_train_codec(op);
    struct lik_tokens centroids = lik_centroids(&codec, op->x.dim), integers = centroids;
    int64_t rows = lik_tokens_rows(&op->x), count = op->centroid_count, dim = op->x.dim;
    int64_t points = lik_train_points(op, rows), buckets = lik_train_bucket_tokens(op, rows), elements;
    int64_t placed = lik_min_i64(rows, points + LIK_HELD_OUT_MAX);
    struct lik_layout slot = {0};
    struct train_regions *at = &job->at;
    int32_t threads = job->exec->threads;
    int status = lik_cpu_assign_plan(&job->nearest, ctx->kernels, &centroids, LIK_HIGHEST,
                                     medium ? buckets : points, threads, &slot);
    job->assign = job->nearest;
    if (medium && !status) {
        integers.dtype = LIK_I8;
        integers.strides.token = dim;
        integers.scale = op->centroids; /* only whether there is one counts to the plan */
        integers.scale_strides.token = 1;
        status =
            lik_cpu_assign_plan(&job->assign, ctx->kernels, &integers, LIK_MEDIUM, points, threads, &slot);
    }
    if (status)
        return status;
    at->sum = lik_layout_take(&slot, dim, 8, 64);
    at->row = lik_layout_take(&slot, dim, 4, 64);
    if (lik_mul_i64(op->bits ? buckets : 0, dim, &elements))
        layout->failed = 1;
    at->starts = lik_layout_take(layout, op->x.count + 1, 8, 64);
    at->sequence = lik_layout_take(layout, placed, 8, 64);
    at->token = lik_layout_take(layout, placed, 4, 64);
    at->codes = lik_layout_take(layout, points, 4, 64);
    at->heads = lik_layout_take(layout, count + 2, 8, 64);
    at->order = lik_layout_take(layout, points, 8, 64);
    at->is_new = lik_layout_take(layout, count, 1, 64);
    at->bytes = lik_layout_take(layout, medium ? count * dim : 0, 1, 64);
    at->scales = lik_layout_take(layout, medium ? count : 0, 4, 64);
    at->elements = lik_layout_take(layout, elements, 4, 64);
    at->sorted = lik_layout_take(layout, elements, 4, 64);
    at->squares = lik_layout_take(layout, buckets, 8, 64);
    at->digits = lik_layout_take(layout, op->bits ? 1 << DIGIT_BITS : 0, 8, 64);
    at->slots = lik_layout_repeat(layout, &slot, threads, 64, &at->slot_bytes);
    if (layout->failed)
        return lik_fail(LIK_EINVAL, "the workspace to train on %lld tokens passes 2^63 bytes",
                        (long long)rows);
    return LIK_OK;
}

static void *region(const struct train_job *job, size_t at)
{
    return job->workspace + at;
}

static void find_regions(struct train_job *job)
{
    const struct train_regions *at = &job->at;
    job->starts = region(job, at->starts);
    job->sequence = region(job, at->sequence);
    job->token = region(job, at->token);
    job->codes = region(job, at->codes);
    job->heads = region(job, at->heads);
    job->order = region(job, at->order);
    job->is_new = region(job, at->is_new);
    job->elements = region(job, at->elements);
    job->sorted = region(job, at->sorted);
    job->squares = region(job, at->squares);
    if (job->op->precision != LIK_MEDIUM)
        return;
    job->bytes = region(job, at->bytes);
    job->scales = region(job, at->scales);
    job->assign.op.d.data = job->bytes;
    job->assign.op.d.scale = job->scales;
}

static void train(struct train_job *job)
{
    const struct lik_train *op = job->op;
    count_kept(job);
    job->held_out = lik_train_held_out(op, job->kept);
    job->points = lik_train_points(op, job->kept);
    struct lik_train_found found = {.points = job->points, .held_out = job->held_out};
    run_phase(job, lik_divide_up(job->held_out + job->points, PLACES_PER_TASK), place_slot);
    for (int64_t c = 0; c < op->centroid_count; c++)
        begin_anew(job, c);
    for (int32_t i = 0; i < op->iterations; i++)
        found.reseeded += iterate(job);
    make_buckets(job, &found);
    if (op->found)
        *op->found = found;
}

int lik_cpu_train(const struct lik_context *ctx, const struct lik_train *op, struct lik_exec *exec,
                  struct lik_plan *plan)
{
    struct train_job job = {.op = op, .exec = exec};
    struct lik_layout layout = {0};
    int status = lay_out(ctx, &job, &layout);
    if (status)
        return status;
    if (plan) {
        lik_cpu_name_tokens(ctx->kernels, "train", &op->x, job.assign.plan.loader->suffix, plan->variant,
                            sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    status = lik_workspace_take(ctx, exec, &layout, &job.workspace);
    if (status)
        return status;
    find_regions(&job);
    lik_cpu_reader_init(&job.reader, ctx->kernels, &op->x);
    train(&job);
    return LIK_OK;
}
