/* Training: the shuffling, what k-means and quantiles must satisfy in f64, the same bits for
 * any number of threads and any layout, backends against the oracle. */
#include "check.h"

#include "shared/sample.h"

#define DIM_MOST    24
#define TOKENS_MOST 3000
#define CENTROIDS   400

static float tokens[TOKENS_MOST * DIM_MOST];

/* What one run gave. */
struct trained {
    float centroids[CENTROIDS * DIM_MOST], cutoffs[255], weights[256];
    struct lik_train_found found;
};

/* Trains into buffers of exactly their size; everything that is no output stays 0. */
static int run(const struct lik_context *ctx, struct lik_train op, int32_t threads, struct trained *out)
{
    struct lik_exec exec = exec_of(threads);
    size_t size = (size_t)(op.centroid_count * op.x.dim) * 4, buckets = op.bits ? 4u << op.bits : 0;
    struct buffer centroids = buffer_make(size, AT_END, 4), weights = buffer_make(buckets, AT_END, 4);
    struct buffer cutoffs = buffer_make(buckets ? buckets - 4 : 0, AT_END, 4);
    struct buffer found = buffer_make(sizeof out->found, AT_END, 8);
    memset(out, 0, sizeof *out);
    op.centroids = (float *)(void *)centroids.data;
    op.cutoffs = op.bits ? (float *)(void *)cutoffs.data : NULL;
    op.weights = op.bits ? (float *)(void *)weights.data : NULL;
    op.found = (struct lik_train_found *)(void *)found.data;
    int status = run_train(ctx, &op, &exec);
    struct buffer *all[] = {&centroids, &cutoffs, &weights, &found};
    void *const to[] = {out->centroids, out->cutoffs, out->weights, &out->found};
    for (int b = 0; b < 4; b++) {
        memcpy(to[b], all[b]->data, all[b]->bytes);
        buffer_check(all[b], "an output of lik_train_run");
        buffer_free(all[b]);
    }
    return status;
}

/* Directions around `clusters` centers, one after another. */
static void draw(int64_t count, int64_t dim, int64_t clusters, double noise, uint64_t seed)
{
    struct rng rng = {.state = seed};
    static double centers[CENTROIDS * DIM_MOST];
    for (int64_t k = 0; k < clusters * dim; k++)
        centers[k] = rng_normal(&rng);
    for (int64_t n = 0; n < count; n++) {
        double squares = 0, row[DIM_MOST];
        for (int64_t k = 0; k < dim; k++) {
            row[k] = centers[n % clusters * dim + k] + noise * rng_normal(&rng);
            squares += row[k] * row[k];
        }
        for (int64_t k = 0; k < dim; k++)
            tokens[n * dim + k] = (float)(row[k] / sqrt(squares));
    }
}

static struct lik_train train_of(int64_t count, int64_t dim, int64_t centroids, int32_t bits)
{
    struct lik_train op = {.struct_size = sizeof op, .centroid_count = centroids, .bits = bits, .seed = 42};
    op.x = lik_tokens_padded(tokens, LIK_F32, 1, count, dim);
    return op;
}

/* ---- the shuffling ---- */

static void check_shuffling(void)
{
    check_describe("codec: the shuffling");
    for (int64_t count = 1; count < 300; count += count < 70 ? 1 : 37)
        for (uint64_t seed = 0; seed < 4; seed++) {
            char seen[300] = {0};
            for (int64_t n = 0; n < count; n++) {
                int64_t at = lik_shuffled(n, count, seed);
                if (check(at >= 0 && at < count && !seen[at], "entry %lld of %lld is %lld", (long long)n,
                          (long long)count, (long long)at))
                    seen[at] = 1;
            }
        }
    int64_t stay = 0, same = 0, low = 0;
    for (int64_t n = 0; n < 10000; n++) {
        stay += lik_shuffled(n, 10000, 1) == n;
        same += lik_shuffled(n, 10000, 1) == lik_shuffled(n, 10000, 2);
        low += n < 5000 && lik_shuffled(n, 10000, 1) < 5000;
    }
    check(stay < 12 && same < 12 && low > 2350 && low < 2650, "%lld stay, %lld are the same, %lld of 5000",
          (long long)stay, (long long)same, (long long)low);
    check(lik_shuffled(INT64_C(1) << 40, (INT64_C(1) << 40) + 1, 3) >= 0, "a large count fails");
}

/* ---- in f64 ---- */

static int64_t nearest(const struct trained *out, int64_t centroids, const float *token, int64_t dim)
{
    int64_t best = 0;
    double most = -INFINITY;
    for (int64_t c = 0; c < centroids; c++) {
        double product = 0;
        for (int64_t k = 0; k < dim; k++)
            product += (double)token[k] * (double)out->centroids[c * dim + k];
        if (product > most) {
            most = product;
            best = c;
        }
    }
    return best;
}

/* Mean squared residual of all tokens. */
static double residual_of(const struct trained *out, int64_t centroids, int64_t count, int64_t dim)
{
    double sum = 0;
    for (int64_t n = 0; n < count; n++) {
        int64_t c = nearest(out, centroids, tokens + n * dim, dim);
        for (int64_t k = 0; k < dim; k++) {
            double r = (double)tokens[n * dim + k] - (double)out->centroids[c * dim + k];
            sum += r * r;
        }
    }
    return sum / (double)count;
}

static void check_units(const struct trained *out, int64_t centroids, int64_t dim)
{
    for (int64_t c = 0; c < centroids; c++) {
        double squares = 0;
        for (int64_t k = 0; k < dim; k++)
            squares += (double)out->centroids[c * dim + k] * (double)out->centroids[c * dim + k];
        check_close("length of centroid", c, sqrt(squares), 1, 1e-6);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int64_t n, double at)
{
    double position = at * (double)(n - 1);
    int64_t below = (int64_t)position;
    double next = sorted[below + 1 < n ? below + 1 : below];
    return sorted[below] + (position - (double)below) * (next - sorted[below]);
}

/* So few tokens that none is held out: k-means comes to rest, every centroid is then the
 * direction of its tokens, and the buckets are quantiles of all residuals. */
static void check_rest(const struct device *device, int32_t bits, uint64_t seed)
{
    enum { COUNT_ = 19, DIM = 16, K = 4 };
    static struct trained out;
    static double residuals[COUNT_ * DIM], sums[K * DIM];
    struct lik_train op = train_of(COUNT_, DIM, K, bits);
    draw(COUNT_, DIM, 5, 0.6, seed);
    op.iterations = 40;
    op.seed = seed;
    check_describe("codec: k-means at rest, %d bits, seed %llu on %s", bits, (unsigned long long)seed,
                   device->name);
    if (!check_ok(run(device->ctx, op, 1, &out), "lik_train_run"))
        return;
    check(out.found.points == COUNT_ && out.found.held_out == 0, "%lld points, %lld held out",
          (long long)out.found.points, (long long)out.found.held_out);
    check_units(&out, K, DIM);
    memset(sums, 0, sizeof sums);
    double squares = 0;
    for (int64_t n = 0; n < COUNT_; n++) {
        int64_t c = nearest(&out, K, tokens + n * DIM, DIM);
        for (int64_t k = 0; k < DIM; k++) {
            double r = (double)tokens[n * DIM + k] - (double)out.centroids[c * DIM + k];
            sums[c * DIM + k] += (double)tokens[n * DIM + k];
            residuals[n * DIM + k] = r;
            squares += r * r;
        }
    }
    for (int64_t c = 0; c < K; c++) {
        double norm = 0;
        for (int64_t k = 0; k < DIM; k++)
            norm += sums[c * DIM + k] * sums[c * DIM + k];
        for (int64_t k = 0; k < DIM && norm > 0; k++)
            check_close("centroid", c * DIM + k, (double)out.centroids[c * DIM + k],
                        sums[c * DIM + k] / sqrt(norm), 1e-6);
    }
    check_close("mean squared residual", 0, out.found.mean_squared_residual, squares / (double)COUNT_, 1e-6);
    qsort(residuals, COUNT_ * DIM, sizeof *residuals, by_value);
    int64_t buckets = (int64_t)1 << bits;
    for (int64_t b = 0; bits && b < buckets; b++) {
        double at = ((double)b + 0.5) / (double)buckets;
        check_close("weight", b, (double)out.weights[b], quantile(residuals, COUNT_ * DIM, at), 1e-6);
        if (b + 1 < buckets)
            check_close("cutoff", b, (double)out.cutoffs[b],
                        quantile(residuals, COUNT_ * DIM, (double)(b + 1) / (double)buckets), 1e-6);
    }
}

/* As many centroids as tokens: each is one. */
static void check_own(const struct device *device)
{
    static struct trained out;
    struct lik_train op = train_of(100, 8, 100, 2);
    char seen[100] = {0};
    draw(100, 8, 100, 0.1, 3);
    check_describe("codec: as many centroids as tokens on %s", device->name);
    if (!check_ok(run(device->ctx, op, 2, &out), "lik_train_run"))
        return;
    for (int64_t n = 0; n < 100; n++) {
        int64_t c = nearest(&out, 100, tokens + n * 8, 8);
        check(!seen[c], "centroid %lld is nearest twice", (long long)c);
        seen[c] = 1;
    }
    check(out.found.mean_squared_residual < 1e-12 && out.found.reseeded == 0 && out.found.held_out == 0,
          "residual %g, %lld began anew, %lld held out", out.found.mean_squared_residual,
          (long long)out.found.reseeded, (long long)out.found.held_out);
}

static void check_quality(const struct device *device)
{
    static struct trained one, out, medium;
    int ref = !strcmp(device->level, "ref");
    int64_t count = ref ? 600 : TOKENS_MOST, clusters = ref ? 6 : 30;
    struct lik_train op = train_of(count, DIM_MOST, 2 * clusters, 4);
    draw(count, DIM_MOST, clusters, 0.3, 9);
    check_describe("codec: quality on %s", device->name);
    op.iterations = 1;
    int ok = check_ok(run(device->ctx, op, 2, &one), "lik_train_run");
    op.iterations = 8;
    ok = ok && check_ok(run(device->ctx, op, 2, &out), "lik_train_run");
    op.precision = LIK_MEDIUM;
    if (!ok || !check_ok(run(device->ctx, op, 2, &medium), "lik_train_run"))
        return;
    double first = residual_of(&one, 2 * clusters, count, DIM_MOST);
    double last = residual_of(&out, 2 * clusters, count, DIM_MOST);
    double rounded = residual_of(&medium, 2 * clusters, count, DIM_MOST);
    check(last < first && last < 0.25, "the residual is %g after one iteration, %g after eight", first, last);
    check(rounded < 1.2 * last + 0.02, "the residual is %g with LIK_MEDIUM, %g without", rounded, last);
    check(fabs(out.found.mean_squared_residual - last) < 0.2 * last, "found is %g, the residual %g",
          out.found.mean_squared_residual, last);
    check_units(&out, 2 * clusters, DIM_MOST);
    check(out.found.held_out == count / 20 && out.found.points == count - count / 20,
          "%lld held out, %lld points", (long long)out.found.held_out, (long long)out.found.points);
    op.points_per_centroid = 3;
    check_ok(run(device->ctx, op, 2, &medium), "lik_train_run");
    check(medium.found.points == 6 * clusters, "%lld points, of 3 a centroid",
          (long long)medium.found.points);
    for (int b = 0; b < 15; b++)
        check(out.weights[b] <= out.cutoffs[b] && out.cutoffs[b] <= out.weights[b + 1],
              "buckets do not ascend at %d", b);
}

/* Backends against the oracle, whose sums are in f64 throughout. */
static void check_oracle(const struct lik_context *oracle)
{
    static struct trained want, got;
    const int gpu = totals.gpu;
    for (int round = 0; round < 6; round++) {
        struct lik_train op = train_of(200 + round, 5 + 3 * round, 7 + round, 1 << round % 4);
        draw(200 + round, 5 + 3 * round, 9, 0.4, (uint64_t)round + 70);
        op.seed = (uint64_t)round;
        check_describe("codec: training %d by the oracle", round);
        totals.gpu = 0; /* its operands are the host's */
        int ok = check_ok(run(oracle, op, 1, &want), "lik_train_run");
        totals.gpu = gpu;
        if (!ok)
            return;
        for (int64_t d = 1; d < device_count; d++) {
            check_describe("codec: training %d on %s against the oracle", round, devices[d].name);
            if (!devices[d].ctx || !check_ok(run(devices[d].ctx, op, 3, &got), "lik_train_run"))
                continue;
            for (int64_t k = 0; k < op.centroid_count * op.x.dim; k++)
                check_close("centroid", k, (double)got.centroids[k], (double)want.centroids[k], 2e-6);
            for (int64_t b = 0; b < 1 << op.bits; b++)
                check_close("weight", b, (double)got.weights[b], (double)want.weights[b], 2e-6);
            check_close("residual", 0, got.found.mean_squared_residual, want.found.mean_squared_residual,
                        1e-5);
            check(got.found.points == want.found.points && got.found.held_out == want.found.held_out &&
                      got.found.reseeded == want.found.reseeded,
                  "%lld points, %lld held out, %lld anew", (long long)got.found.points,
                  (long long)got.found.held_out, (long long)got.found.reseeded);
        }
    }
}

/* ---- the same bits ---- */

static void same(const struct device *device, struct lik_train op, int32_t threads,
                 const struct trained *want, const char *how)
{
    static struct trained got;
    if (check_ok(run(device->ctx, op, threads, &got), how))
        check(!memcmp(&got, want, sizeof got), "%s, %d threads: other bytes", how, threads);
}

/* The tokens of generated problems, in their layout, on any number of threads, and copied into
 * plain layouts, packed and masked. */
static void check_same(const struct device *device, int64_t number, struct rng *rng)
{
    static struct trained first;
    struct spec spec = spec_random(rng, 30000);
    spec.d.values = NORMAL;
    spec.d.one_hot = 0; /* codes are no tokens to learn from */
    if (!check_wanted(number, 6))
        return;
    struct problem *p = problem_make(&spec);
    struct lik_train op = {.struct_size = sizeof op, .x = p->op.d, .bits = 1 << number % 4};
    int64_t rows = op.x.count * op.x.len_max, dim = op.x.dim, kept = 0;
    for (int64_t row = 0; row < rows; row++)
        kept += p->d.kept[row];
    op.centroid_count = kept < 2 ? 1 : 1 + rng_below(rng, kept < 20 ? kept : 20);
    op.precision = (int32_t)number % 3;
    check_describe("codec: training case %lld on %s: %lld tokens of dim %lld", (long long)number,
                   device->name, (long long)kept, (long long)dim);
    if (kept > 0 && op.centroid_count * dim <= CENTROIDS * DIM_MOST &&
        check_ok(run(device->ctx, op, 1, &first), "lik_train_run")) {
        for (int32_t threads = 2; threads <= (totals.gpu ? 2 : 8); threads += threads == 2 ? 1 : 5)
            same(device, op, threads, &first, "as it is");
        /* as dense f32 rows, which count as the tokens do */
        float *all = calloc((size_t)(rows * dim) + 1, 4), *only = calloc((size_t)(kept * dim) + 1, 4);
        int64_t offsets[3] = {0, kept / 3, kept};
        struct lik_decode decode = {.struct_size = sizeof decode, .x = op.x, .out_dtype = LIK_F32};
        float *out = calloc((size_t)((op.x.offsets ? op.x.total : rows) * dim) + 1, 4);
        decode.out = out;
        check_ok(run_decode(device->ctx, &decode, NULL), "lik_decode_run");
        for (int64_t i = 0, n = 0; i < op.x.count; i++)
            for (int64_t t = 0; t < problem_length(&op.x, i); t++) {
                const float *row = out + problem_row(&op.x, i, t) * dim;
                memcpy(all + (i * op.x.len_max + t) * dim, row, (size_t)dim * 4);
                if (p->d.kept[i * op.x.len_max + t])
                    memcpy(only + n++ * dim, row, (size_t)dim * 4);
            }
        if (strcmp(device->level, "ref")) { /* whose tokens are not rounded to f32 */
            op.x = lik_tokens_packed(only, LIK_F32, 2, kept, kept, dim, offsets, LIK_I64);
            same(device, op, 2, &first, "packed");
            op.x = lik_tokens_padded(all, LIK_F32, p->op.d.count, p->op.d.len_max, dim);
            op.x.mask = p->d.kept;
            same(device, op, 3, &first, "masked");
        }
        free(all);
        free(only);
        free(out);
    }
    problem_free(p);
}

/* Tokens without a direction take no part. */
static void check_directions(const struct device *device)
{
    static struct trained out;
    struct lik_train op = train_of(300, 8, 6, 4);
    draw(300, 8, 6, 0.2, 11);
    for (int64_t n = 0; n < 300; n += 3)
        for (int64_t k = 0; k < 8; k++)
            tokens[n * 8 + k] = n % 9 == 0 ? 0 : n % 9 == 3 ? NAN : INFINITY;
    check_describe("codec: tokens without a direction on %s", device->name);
    if (check_ok(run(device->ctx, op, 2, &out), "lik_train_run")) {
        check_units(&out, 6, 8);
        for (int b = 0; b < 16; b++)
            check(fabsf(out.weights[b]) < 2, "weight %d is %g", b, (double)out.weights[b]);
        check(out.found.mean_squared_residual < 1, "the residual is %g", out.found.mean_squared_residual);
    }
    memset(tokens, 0, sizeof tokens);
    if (check_ok(run(device->ctx, op, 2, &out), "lik_train_run")) {
        for (int64_t k = 0; k < 6 * 8; k++)
            check(out.centroids[k] == 0, "a centroid of nothing has %g", (double)out.centroids[k]);
        check(out.weights[3] == 0 && out.cutoffs[14] == 0 && out.found.mean_squared_residual == 0,
              "nothing has buckets");
    }
    /* one direction many times: all but one cluster stay empty, each time */
    for (int64_t n = 0; n < 300; n++)
        tokens[n * 8 + n % 2] = 1;
    if (check_ok(run(device->ctx, op, 2, &out), "lik_train_run")) {
        check_units(&out, 6, 8);
        check(out.found.reseeded == 16, "%lld began anew", (long long)out.found.reseeded);
    }
}

void check_training(void)
{
    check_shuffling();
    for (int64_t d = 0; d < device_count; d++) {
        struct rng rng = {.state = 501};
        if (!devices[d].ctx)
            continue;
        for (uint64_t seed = 0; seed < 5; seed++)
            check_rest(&devices[d], seed ? 1 << (seed - 1) : 0, seed);
        check_own(&devices[d]);
        check_quality(&devices[d]);
        check_directions(&devices[d]);
        for (int64_t n = 0; n < 60; n++)
            check_same(&devices[d], n, &rng);
    }
    struct lik_context *oracle = NULL;
    check_describe("codec: the oracle");
    if (check_ok(lik_context_create("ref", &oracle), "lik_context_create"))
        check_oracle(oracle);
    lik_context_destroy(oracle);
}
