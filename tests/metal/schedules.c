/* Bits over schedules: scores, argmax, gradients and the k best of random problems, the lanes
 * run in order, reversed, and in as many drawn orders as there are seeds; in one only where
 * main.c was told which. */
#include "schedules.h"

#include "../check/check.h"
#include "backend.h"
#include "emulator.h"

#define SCHEDULES 34 /* in order, reversed, 32 seeds */
#define PARTS     8

/* What a run writes, or its copy. */
struct outputs {
    struct {
        const char *name;
        void *at;
        size_t bytes;
    } part[PARTS];
    int count;
};

static void add(struct outputs *out, const char *name, void *at, size_t bytes)
{
    out->part[out->count].name = name;
    out->part[out->count].at = at;
    out->part[out->count++].bytes = at ? bytes : 0;
}

static void compare(const struct outputs *got, struct outputs *first, uint64_t schedule)
{
    for (int n = 0; n < got->count; n++) {
        size_t bytes = got->part[n].bytes;
        if (schedule == 0) {
            void *copy = malloc(bytes + 1);
            if (bytes)
                memcpy(copy, got->part[n].at, bytes);
            add(first, got->part[n].name, copy, bytes);
        } else if (bytes) {
            check(!memcmp(got->part[n].at, first->part[n].at, bytes),
                  "%s differs from schedule 0's in schedule %d", got->part[n].name, (int)schedule);
        }
    }
}

static size_t rows_of(const struct lik_tokens *x)
{
    return (size_t)(x->offsets ? x->total : x->count * x->len_max);
}

/* A problem, its gradients if its dtypes have them, and its k best if its pairing does. */
static void check_problem(int64_t number, struct spec *spec, const struct lik_context *ctx)
{
    char text[700];
    size_t k = number % 5 ? 5 : 600; /* 600 keys are not sorted in threadgroup memory */
    struct problem *p = problem_make(spec);
    const struct lik_tokens *q = &p->op.q, *d = &p->op.d;
    struct outputs got = {.count = 0}, first = {.count = 0};
    size_t dim = (size_t)q->dim, scores = (size_t)p->scores;
    int with_q = q->dtype <= LIK_BF16, with_d = d->dtype <= LIK_BF16 && d->storage == LIK_DENSE;
    int dense = d->storage != LIK_ONE_HOT, ranked = spec->pairing <= LIK_CANDIDATES;
    struct rng rng = {.state = spec->seed};
    float *grad_scores = malloc((scores + 1) * sizeof *grad_scores);
    for (size_t n = 0; n < scores; n++)
        grad_scores[n] = (float)rng_normal(&rng);
    spec_describe(spec, text, sizeof text);
    struct lik_grad grad = {.struct_size = sizeof grad, .score = p->op, .grad_scores = grad_scores};
    struct lik_topk topk = {.struct_size = sizeof topk, .score = p->op, .k = (int64_t)k};
    topk.score.scores = NULL;
    topk.score.scores_stride = 0;
    topk.score.argmax = NULL;
    add(&got, "scores", p->op.scores, p->out_scores.bytes);
    add(&got, "argmax", p->op.argmax, p->out_argmax.bytes);
    size_t bytes_q = rows_of(q) * dim * lik_dtype_bytes(q->dtype),
           bytes_d = rows_of(d) * dim * lik_dtype_bytes(d->dtype);
    add(&got, "grad_q", grad.grad_q = dense && with_q ? malloc(bytes_q + 1) : NULL, bytes_q);
    add(&got, "grad_d", grad.grad_d = dense && with_d ? malloc(bytes_d + 1) : NULL, bytes_d);
    add(&got, "grad_weights", grad.grad_weights = dense && q->weights ? malloc(rows_of(q) * 4 + 1) : NULL,
        rows_of(q) * 4);
    add(&got, "values", topk.values = malloc((size_t)q->count * k * 4 + 1),
        ranked ? (size_t)q->count * k * 4 : 0);
    add(&got, "ids", topk.ids = malloc((size_t)q->count * k * 8 + 1), ranked ? (size_t)q->count * k * 8 : 0);
    int64_t only = emulated_schedule;
    for (uint64_t schedule = 0; schedule < (only < 0 ? SCHEDULES : 1); schedule++) {
        check_describe("schedules, case %lld: %s", (long long)number, text);
        emulated_schedule = only < 0 ? (int64_t)schedule : only;
        check_ok(problem_run(p, ctx, NULL), "lik_score_run");
        if (grad.grad_q || grad.grad_d || grad.grad_weights)
            check_ok(run_grad(ctx, &grad, NULL), "lik_grad_run");
        if (ranked)
            check_ok(run_topk(ctx, &topk, NULL), "lik_topk_run");
        compare(&got, &first, schedule);
    }
    emulated_schedule = only;
    for (int n = 0; n < first.count; n++)
        free(first.part[n].at);
    free(grad.grad_q);
    free(grad.grad_d);
    free(grad.grad_weights);
    free(topk.values);
    free(topk.ids);
    free(grad_scores);
    problem_free(p);
}

void check_schedules(void)
{
    static const int32_t dtypes[] = {LIK_F32, LIK_F16, LIK_BF16, LIK_E4M3, LIK_E5M2, LIK_I8};
    struct rng rng = {.state = 90};
    for (int64_t number = 0; number < 240; number++) {
        struct spec spec = spec_random(&rng, 10000);
        spec.argmax_dtype = spec.argmax_dtype ? spec.argmax_dtype : LIK_I32;
        spec.scores_gap = 0;
        spec.d.dtype = spec.d.compressed || spec.d.one_hot ? spec.d.dtype : dtypes[number % 6];
        if (number % 4 == 1 && !spec.d.one_hot)
            spec.q.dtype = spec.d.dtype; /* alike, as they mostly are */
        if (check_wanted(number, 8))
            check_problem(number, &spec, devices[0].ctx);
    }
    /* several tiles of rows, of columns and of elements, which random problems of that size
     * rarely have */
    static const int64_t q_lens[] = {40, 7, 32, 65}, d_lens[] = {70, 33, 96},
                         dims[] = {140, 128, 36, 260, 64};
    for (int64_t number = 240; number < 264; number++) {
        struct spec spec =
            spec_plain(q_lens[number % 4], d_lens[number % 3], dims[number % 5], (uint64_t)number);
        spec.d.dtype = dtypes[number % 6];
        spec.q.dtype = number < 252 ? spec.d.dtype : LIK_F32;
        spec.q.count = 1 + number % 5;
        spec.d.count = 1 + number % 2;
        spec.d.mask = number % 7 ? UNMASKED : RANDOM;
        spec.d.layout = number % 8 == 5 ? PACKED_I32 : CONTIGUOUS;
        spec.q.normalize = spec.d.normalize = number % 4 == 2;
        spec.weights = number % 2;
        if (check_wanted(number, 8))
            check_problem(number, &spec, devices[0].ctx);
    }
}
