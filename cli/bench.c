/* lik bench: how fast this machine scores, for a table of shapes or for given files.
 *
 * Each case runs once to warm up, then `rounds` times; the median and the best are told. Work
 * is counted as 2 * query tokens * document tokens * dim, whatever the kernel really does. */
#include "bench.h"

#include "base/dtype.h"
#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct bench_case {
    const char *what;
    int64_t queries, documents, query_tokens, document_tokens, dim;
    int32_t dtype;
    int quick;
};

static const struct bench_case cases[] = {
    {"text", 1, 1000, 32, 300, 128, LIK_F32, 1},     {"text", 1, 1000, 32, 300, 128, LIK_F16, 1},
    {"text", 1, 1000, 32, 300, 128, LIK_BF16, 1},    {"text", 1, 1000, 32, 300, 128, LIK_I8, 1},
    {"page", 1, 100, 32, 1030, 128, LIK_F32, 0},     {"page", 1, 100, 20, 1030, 128, LIK_F16, 0},
    {"in-batch", 32, 32, 32, 180, 128, LIK_F32, 0},  {"dim 48", 1, 1000, 32, 300, 48, LIK_F32, 0},
    {"dim 768", 1, 200, 32, 300, 768, LIK_F32, 0},   {"short", 1, 20000, 32, 7, 128, LIK_F32, 0},
    {"one token", 1, 50000, 32, 1, 128, LIK_F32, 0}, {"beyond cache", 1, 20000, 32, 128, 128, LIK_F16, 0},
};

struct timing {
    double median, best, flops, bytes;
    const char *storage; /* of the documents */
    char variant[64];
};

static double uniform(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (double)(*state >> 11) * 0x1p-53 * 2 - 1;
}

/* Random unit tokens in `dtype`, with scales for i8 in *scale. */
static void *make_tokens(int64_t rows, int64_t dim, int32_t dtype, uint64_t seed, float **scale)
{
    char *data = allocate(rows * dim, (int64_t)lik_dtype_bytes(dtype), "bench vectors");
    double *token = allocate(dim, sizeof *token, "a token");
    *scale = dtype == LIK_I8 ? allocate(rows, sizeof **scale, "scales") : NULL;
    uint64_t state = seed * 0x9e3779b97f4a7c15u | 1;
    for (int64_t row = 0; row < rows; row++) {
        double sum = 0, largest = 0;
        for (int64_t i = 0; i < dim; i++) {
            token[i] = uniform(&state);
            sum += token[i] * token[i];
            largest = fmax(largest, fabs(token[i]));
        }
        double norm = sqrt(sum);
        for (int64_t i = 0; i < dim; i++)
            if (*scale)
                ((int8_t *)data)[row * dim + i] = (int8_t)lround(token[i] / largest * 127);
            else
                lik_store_f32(data, dtype, row * dim + i, (float)(token[i] / norm));
        if (*scale)
            (*scale)[row] = (float)(largest / 127 / norm);
    }
    free(token);
    return data;
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static struct timing time_scores(struct engine *engine, const struct lik_score *op, int64_t rounds)
{
    struct timing t = {0};
    double *spent = allocate(rounds, sizeof *spent, "timings");
    engine_score(engine, op);
    for (int64_t i = 0; i < rounds; i++) {
        double start = lik_seconds();
        engine_score(engine, op);
        spent[i] = lik_seconds() - start;
    }
    qsort(spent, (size_t)rounds, sizeof *spent, ascending);
    t.median = rounds % 2 ? spent[rounds / 2] : (spent[rounds / 2 - 1] + spent[rounds / 2]) / 2;
    t.best = spent[0];
    t.storage = storage_name(&op->d);
    memcpy(t.variant, engine->library.variant, sizeof t.variant);
    free(spent);
    return t;
}

static struct timing run_case(struct engine *engine, const struct bench_case *c, int64_t rounds)
{
    float *q_scale, *d_scale;
    /* i8 documents meet f32 queries, as they do in use */
    int32_t q_dtype = c->dtype == LIK_I8 ? LIK_F32 : c->dtype;
    void *q = make_tokens(c->queries * c->query_tokens, c->dim, q_dtype, 1, &q_scale);
    void *d = make_tokens(c->documents * c->document_tokens, c->dim, c->dtype, 2, &d_scale);
    struct lik_score op = {.struct_size = sizeof op, .pairing = LIK_ALL};
    op.q = lik_tokens_padded(q, q_dtype, c->queries, c->query_tokens, c->dim);
    op.d = lik_tokens_padded(d, c->dtype, c->documents, c->document_tokens, c->dim);
    op.d.scale = d_scale;
    op.scores = allocate(c->queries * c->documents, sizeof *op.scores, "scores");
    struct timing t = time_scores(engine, &op, rounds);
    int64_t rows = c->documents * c->document_tokens;
    t.flops = 2 * (double)(c->queries * c->query_tokens) * (double)rows * (double)c->dim;
    t.bytes = (double)rows * (double)token_bytes(&op.d);
    free(q);
    free(d);
    free(q_scale);
    free(d_scale);
    free(op.scores);
    return t;
}

static void put(struct sink *out, int json, const char *what, const struct bench_case *c,
                const struct timing *t)
{
    if (json) {
        sink_printf(out, "{\"case\": ");
        sink_quote(out, what, (int64_t)strlen(what));
        sink_printf(
            out,
            ", \"queries\": %lld, \"documents\": %lld, \"query_tokens\": %lld, \"document_tokens\": %lld, "
            "\"dim\": %lld, "
            "\"dtype\": \"%s\", \"median_ms\": %.6g, \"best_ms\": %.6g, \"gflops\": %.6g, \"gb_per_s\": "
            "%.6g, "
            "\"variant\": \"%s\"}\n",
            (long long)c->queries, (long long)c->documents, (long long)c->query_tokens,
            (long long)c->document_tokens, (long long)c->dim, t->storage, t->median * 1e3, t->best * 1e3,
            t->flops / t->median * 1e-9, t->bytes / t->median * 1e-9, t->variant);
        return;
    }
    char shape[64], tokens[32];
    snprintf(tokens, sizeof tokens, "%lld", (long long)c->document_tokens);
    snprintf(shape, sizeof shape, "%lldx%lld . %lldx%s d%lld %s", (long long)c->queries,
             (long long)c->query_tokens, (long long)c->documents, tokens, (long long)c->dim, t->storage);
    sink_printf(out, "| %-12.40s | %-30s | %9.3f | %9.3f | %7.1f | %6.1f | %s |\n", what, shape,
                t->median * 1e3, t->best * 1e3, t->flops / t->median * 1e-9, t->bytes / t->median * 1e-9,
                t->variant);
}

void bench_head(struct sink *out, const struct engine *engine)
{
    char workers[48];
    const char *hardware = lik_context_hardware(engine->library.context);
    sink_printf(out, "lik %s, %s, %s%s%s\n\n", lik_version(), lik_context_name(engine->library.context),
                hardware, *hardware ? ", " : "", engine_workers(engine, workers));
    sink_printf(out, "| %-12s | %-30s | %9s | %9s | %7s | %6s | %s |\n", "case",
                "queries . documents, dim, dtype", "median ms", "best ms", "GFLOP/s", "GB/s", "code");
    sink_printf(out, "| --- | --- | --- | --- | --- | --- | --- |\n");
}

static void bench_files(struct engine *engine, const struct options *options, struct sink *out,
                        int64_t rounds)
{
    struct inputs inputs;
    inputs_open(&inputs, options, options->arguments[0], options->arguments[1]);
    const struct lik_collection *q = &inputs.queries, *d = &inputs.documents;
    int64_t cells;
    if (lik_mul_i64(q->tokens.count, d->tokens.count, &cells))
        die(EXIT_EXHAUSTED, "out of memory: %lld x %lld scores", (long long)q->tokens.count,
            (long long)d->tokens.count);
    struct lik_score op = {.struct_size = sizeof op, .pairing = LIK_ALL, .q = q->tokens, .d = d->tokens};
    op.scores = allocate(cells, sizeof *op.scores, "scores");
    struct timing t = time_scores(engine, &op, rounds);
    t.flops = 2 * (double)q->rows * (double)d->rows * (double)d->tokens.dim;
    t.bytes = (double)d->rows * (double)token_bytes(&d->tokens);
    struct bench_case c = {.queries = q->tokens.count, .documents = d->tokens.count, .dim = d->tokens.dim};
    c.query_tokens = q->tokens.count ? q->rows / q->tokens.count : 0; /* mean lengths */
    c.document_tokens = d->tokens.count ? d->rows / d->tokens.count : 0;
    put(out, options->json, "files", &c, &t);
    free(op.scores);
    inputs_close(&inputs);
}

void bench_cases(struct engine *engine, struct sink *out, int json, int quick, int64_t rounds)
{
    int count = (int)(sizeof cases / sizeof *cases);
    progress_begin("bench", "cases");
    for (int i = 0; i < count; i++) {
        if (quick && !cases[i].quick)
            continue;
        struct timing t = run_case(engine, &cases[i], rounds);
        put(out, json, cases[i].what, &cases[i], &t);
        progress_update((double)(i + 1) / count, i + 1);
    }
    progress_end();
}

int command_bench(struct options *options)
{
    struct engine engine;
    struct sink out;
    int64_t rounds = options->rounds ? options->rounds : 7;
    if (options->argument_count == 1)
        die(EXIT_USAGE, "lik bench takes QUERIES and DOCUMENTS, or nothing; only '%s' was given",
            options->arguments[0]);
    engine_open(&engine, options);
    sink_open(&out, NULL);
    if (!options->json)
        bench_head(&out, &engine);
    if (options->argument_count)
        bench_files(&engine, options, &out, rounds);
    else
        bench_cases(&engine, &out, options->json, options->quick, rounds);
    sink_close(&out);
    engine_close(&engine);
    return EXIT_OK;
}
