/* What a kernel has to see for itself, since nobody looked before: the front door cannot see
 * what lies in a device's memory. The plans are called past it. */
#include "schedules.h"

#include "../check/check.h"
#include "emulator.h"
#include "metal/plan.h"

#include <sys/mman.h>

enum { DIM = 20, TOKENS = 6 };

static const struct lik_metal_queue queue = {emulator_dispatch, NULL};

static void run(struct lik_score *op)
{
    struct lik_layout layout = {0};
    struct lik_metal_score_plan plan;
    op->q.scale_dtype = op->d.scale_dtype = LIK_F32;
    if (!op->scores_stride)
        op->scores_stride = op->pairing == LIK_ALL ? op->d.count : 1;
    if (!check_ok(lik_metal_plan_score(op, &layout, &plan), "lik_metal_plan_score"))
        return;
    char *workspace = malloc((size_t)layout.bytes + 1);
    check_ok(lik_metal_run_score(op, &plan, workspace, &queue), "lik_metal_run_score");
    free(workspace);
}

/* Scores of which `wrong` of n say that their pair is out of range, by NaN and an argmax of
 * -1. */
static void expect(const struct lik_score *op, int64_t n, int wrong)
{
    int64_t len = op->q.len_max;
    const int32_t *argmax = op->argmax;
    check(isnan(op->scores[n]) == wrong, "score %lld is %g", (long long)n, (double)op->scores[n]);
    for (int64_t s = 0; s < len; s++)
        check((argmax[n * len + s] < 0) == wrong, "argmax[%lld, %lld] is %d", (long long)n, (long long)s,
              argmax[n * len + s]);
}

static struct buffer elements(int64_t count)
{
    struct buffer b = buffer_make((size_t)count * sizeof(float), AT_END, 16);
    for (int64_t n = 0; n < count; n++)
        ((float *)(void *)b.data)[n] = (float)(n % 7 - 3);
    return b;
}

/* List entries of sequences that are none. */
static void check_lists(void)
{
    int64_t list_q[] = {0, -1, 1, 2, 1, 0, INT64_MIN, 1}, list_d[] = {2, 0, 3, 1, 1, -1, 0, INT64_MAX};
    int wrong[] = {0, 1, 1, 1, 0, 1, 1, 1};
    float scores[8];
    int32_t argmax[8 * TOKENS];
    struct buffer q = elements(2 * TOKENS * DIM), d = elements(3 * TOKENS * DIM);
    struct lik_score op = {.struct_size = sizeof op, .pairing = LIK_LIST, .list_count = 8};
    op.q = lik_tokens_padded(q.data, LIK_F32, 2, TOKENS, DIM);
    op.d = lik_tokens_padded(d.data, LIK_F32, 3, TOKENS, DIM);
    op.list_q = list_q;
    op.list_d = list_d;
    op.scores = scores;
    op.argmax = argmax;
    op.argmax_dtype = LIK_I32;
    check_describe("bounds: list entries");
    run(&op);
    for (int64_t n = 0; n < 8; n++)
        expect(&op, n, wrong[n]);
    buffer_free(&q);
    buffer_free(&d);
}

/* Offsets past the rows, that go back, below 0, and of a sequence longer than len_max. */
static void check_offsets(int32_t dtype)
{
    int64_t wide[] = {0, 3, 2, 8, 14, 13, 16, -1}, n_max = COUNT(wide) - 1;
    int wrong[] = {0, 1, 0, 0, 1, 0, 1};
    int32_t narrow[8];
    float scores[14];
    int32_t argmax[14 * TOKENS];
    struct buffer q = elements(2 * TOKENS * DIM), d = elements(16 * DIM);
    for (int64_t n = 0; n <= n_max; n++)
        narrow[n] = (int32_t)wide[n];
    struct lik_score op = {
        .struct_size = sizeof op, .scores = scores, .argmax = argmax, .argmax_dtype = LIK_I32};
    op.q = lik_tokens_padded(q.data, LIK_F32, 2, TOKENS, DIM);
    op.d = lik_tokens_packed(d.data, LIK_F32, n_max, 6, 16, DIM,
                             dtype == LIK_I32 ? (const void *)narrow : wide, dtype);
    check_describe("bounds: offsets of %s", lik_dtype_name(dtype));
    run(&op);
    for (int64_t n = 0; n < 2 * n_max; n++)
        expect(&op, n, wrong[n % n_max]);
    op.d.total = 15; /* the sequence that ends at row 16 is past it */
    run(&op);
    for (int64_t n = 0; n < 2 * n_max; n++)
        expect(&op, n, wrong[n % n_max] || n % n_max == 5);
    op.d.total = 16;
    op.d.len_max = 5; /* that of 6 tokens is too long */
    run(&op);
    for (int64_t n = 0; n < 2 * n_max; n++)
        expect(&op, n, wrong[n % n_max] || n % n_max == 2 || n % n_max == 3);
    buffer_free(&q);
    buffer_free(&d);
}

/* Codes past the centroids make a token NaN, and nothing is read for it. */
static void check_far_codes(void)
{
    int32_t codes[2 * TOKENS] = {0, 1, 2, 1, 0, 2, 0, 1, 3, 1, -1, 2};
    float weights[2] = {-0.5f, 0.5f}, scores[2];
    int32_t argmax[2 * TOKENS];
    unsigned char bytes[2 * TOKENS * 3] = {0};
    struct buffer q = elements(TOKENS * DIM), centroids = elements(3 * DIM);
    struct lik_codec codec = {
        .struct_size = sizeof codec, .bits = 1, .centroids = centroids.data, .centroid_count = 3};
    codec.centroids_dtype = codec.weights_dtype = LIK_F32;
    codec.weights = weights;
    struct lik_score op = {
        .struct_size = sizeof op, .scores = scores, .argmax = argmax, .argmax_dtype = LIK_I32};
    op.q = lik_tokens_padded(q.data, LIK_F32, 1, TOKENS, DIM);
    op.d = lik_tokens_compressed(lik_tokens_padded(bytes, LIK_F32, 2, TOKENS, DIM), &codec, codes, LIK_I32);
    check_describe("bounds: codes");
    run(&op);
    check(!isnan(scores[0]) && isnan(scores[1]), "the scores are %g and %g", (double)scores[0],
          (double)scores[1]);
    check(argmax[TOKENS] == 2, "the first NaN is token %d", argmax[TOKENS]);
    buffer_free(&q);
    buffer_free(&centroids);
}

/* Sequences further apart than 32 bits count, in either direction. */
static void check_far_apart(void)
{
    const int64_t apart = 5ll << 30;
    char *map = mmap(NULL, (size_t)apart * 2, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check_describe("bounds: sequences %lld bytes apart", (long long)apart);
    if (!check(map != MAP_FAILED, "there are no addresses for them"))
        return;
    float scores[2];
    int32_t argmax[2 * TOKENS];
    struct buffer q = elements(TOKENS * DIM);
    for (int64_t k = 0; k < TOKENS * DIM; k++) {
        map[k] = (char)(k % 5);
        map[apart + k] = (char)(k % 3 - 1);
    }
    struct lik_score op = {
        .struct_size = sizeof op, .scores = scores, .argmax = argmax, .argmax_dtype = LIK_I32};
    op.q = lik_tokens_padded(q.data, LIK_F32, 1, TOKENS, DIM);
    op.d = lik_tokens_padded(map, LIK_I8, 2, TOKENS, DIM);
    for (int backwards = 0; backwards < 2; backwards++) {
        float want[2] = {0, 0};
        op.d.data = backwards ? map + apart : map;
        op.d.strides.sequence = backwards ? -apart : apart;
        run(&op);
        for (int j = 0; j < 2; j++)
            for (int64_t s = 0; s < TOKENS; s++) {
                float best = -INFINITY;
                for (int64_t t = 0; t < TOKENS; t++) {
                    float product = 0;
                    for (int64_t k = 0; k < DIM; k++)
                        product += ((float *)(void *)q.data)[s * DIM + k] *
                                   (float)map[(j != backwards ? apart : 0) + t * DIM + k];
                    best = product > best ? product : best;
                }
                want[j] += best;
            }
        check(scores[0] == want[0] && scores[1] == want[1], "the scores are %g and %g, expected %g and %g",
              (double)scores[0], (double)scores[1], (double)want[0], (double)want[1]);
    }
    munmap(map, (size_t)apart * 2);
    buffer_free(&q);
}

/* Tokens whose elements are no multiple of four, where four could be read at once: what stands
 * between them is NaN. */
static void check_between(void)
{
    enum { FEW = 6, APART = 8 };
    float scores[1];
    int32_t argmax[TOKENS];
    struct buffer q = elements(TOKENS * APART), d = elements(TOKENS * APART);
    for (int64_t n = 0; n < TOKENS * APART; n++)
        if (n % APART >= FEW)
            ((float *)(void *)q.data)[n] = ((float *)(void *)d.data)[n] = NAN;
    struct lik_score op = {
        .struct_size = sizeof op, .scores = scores, .argmax = argmax, .argmax_dtype = LIK_I32};
    op.q = lik_tokens_padded(q.data, LIK_F32, 1, TOKENS, FEW);
    op.d = lik_tokens_padded(d.data, LIK_F32, 1, TOKENS, FEW);
    op.q.strides.token = op.d.strides.token = APART;
    check_describe("bounds: between tokens");
    run(&op);
    expect(&op, 0, 0);
    buffer_free(&q);
    buffer_free(&d);
}

void check_bounds(void)
{
    totals.cases += 6;
    check_between();
    check_lists();
    check_offsets(LIK_I32);
    check_offsets(LIK_I64);
    check_far_codes();
    check_far_apart();
}
