/* lik score and lik rerank: top-k of all documents, all scores, or the scores of listed pairs.
 *
 * Queries go in blocks whose results fit in memory, documents in slices of a fraction of a
 * second. A score depends on its pair alone, so neither shows in the results. */
#include "results.h"
#include "trec.h"

#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES (256ll << 20) /* results of one block of queries */

struct scoring {
    struct inputs inputs;
    struct engine engine;
    const struct options *options;
    double check_seconds, score_seconds, flops; /* flops: done so far */
};

static int64_t find(const struct lik_collection *c, const char *name, int64_t size);

/* How many lines of the run name a pair of these files. */
static int64_t named(const struct trec *run, const struct inputs *inputs)
{
    int64_t count = 0;
    for (int64_t i = 0; i < run->count; i++)
        count += find(&inputs->queries, run->entries[i].query, run->entries[i].query_size) >= 0 &&
                 find(&inputs->documents, run->entries[i].document, run->entries[i].document_size) >= 0;
    return count;
}

/* Opens queries and documents, in the order of earlier versions too, DOCUMENTS QUERIES, where
 * more names of a run fit that one. */
static void open_either(struct inputs *inputs, const struct options *options, const struct trec *run)
{
    const char *first = options->arguments[0], *second = options->arguments[1];
    struct lik_io_error error, other;
    struct inputs turned;
    int status = inputs_try(inputs, options, first, second, &error);
    int64_t fit = status ? 0 : named(run, inputs);
    if (!status && fit == run->count)
        return;
    /* standard input is not read again */
    if (strcmp(first, "-") && strcmp(second, "-") && !inputs_try(&turned, options, second, first, &other)) {
        if (named(run, &turned) > fit) {
            note("the order is QUERIES DOCUMENTS RUN: %s has the run's queries, %s its documents", second,
                 first);
            if (!status)
                inputs_close(inputs);
            *inputs = turned;
            return;
        }
        inputs_close(&turned);
    }
    if (status)
        die_io(status, &error);
}

/* Opens everything and makes sure that no query holds a NaN. */
static void scoring_open(struct scoring *s, const struct options *options, const struct trec *run)
{
    *s = (struct scoring){.options = options};
    engine_open(&s->engine, options);
    if (run) {
        open_either(&s->inputs, options, run);
        inputs_look(&s->inputs, options);
    } else {
        inputs_open(&s->inputs, options, options->arguments[0], options->arguments[1]);
    }
    inputs_tell_weights(&s->inputs);
    double start = lik_seconds();
    engine_refuse_bad(&s->engine, &s->inputs.queries, 1, options->skip_bad);
    if (options->skip_bad)
        engine_refuse_bad(&s->engine, &s->inputs.documents, 0, 1);
    s->check_seconds = lik_seconds() - start;
}

static void scoring_close(struct scoring *s, double write_seconds)
{
    char workers[48];
    if (s->options->verbose)
        note("open %.1f ms, check %.1f ms, score %.1f ms (%s, %s, %.1f GFLOP/s), write %.1f ms",
             s->inputs.seconds * 1e3, s->check_seconds * 1e3, s->score_seconds * 1e3,
             s->engine.library.variant, engine_workers(&s->engine, workers),
             s->score_seconds > 0 ? s->flops / s->score_seconds * 1e-9 : 0, write_seconds * 1e3);
    inputs_close(&s->inputs);
    engine_close(&s->engine);
}

/* A NaN among the tokens of these documents ends the program, with the count of all of them. */
static void check_slice(struct scoring *s, int64_t first, int64_t count)
{
    struct bad_rows bad = {0};
    double start = lik_seconds();
    engine_find_bad(&s->engine, &s->inputs.documents, first, count, &bad);
    if (bad.rows)
        engine_refuse_bad(&s->engine, &s->inputs.documents, 0, 0);
    s->check_seconds += lik_seconds() - start;
}

/* ---- top-k ---- */

/* The best k of queries first ... first + count - 1 among all documents, into values and ids,
 * [count, k] each. The arrays have room for three times that: the best so far, those of the
 * slice, and both merged. */
static void topk_block(struct scoring *s, int64_t first, int64_t count, int64_t k, float *values,
                       int64_t *ids)
{
    const struct lik_collection *d = &s->inputs.documents, *q = &s->inputs.queries;
    int64_t from, n, size = count * k, all_rows = lik_max_i64(lik_collection_row(d, d->tokens.count, 0), 1);
    struct slicer slicer = {.documents = d, .flops_per_row = flops_per_row(q, first, count)};
    double block = (double)first / (double)q->tokens.count, part = (double)count / (double)q->tokens.count;
    for (int64_t i = 0; i < size; i++) {
        values[i] = NAN;
        ids[i] = -1;
    }
    while (slicer_next(&slicer, &from, &n)) {
        struct lik_topk op = {
            .struct_size = sizeof op, .k = k, .id_base = from, .values = values + size, .ids = ids + size};
        op.score = (struct lik_score){.struct_size = sizeof op.score, .pairing = LIK_ALL};
        op.score.q = collection_slice(q, first, count);
        op.score.d = collection_slice(d, from, n);
        if (first == 0)
            check_slice(s, from, n);
        double start = lik_seconds();
        engine_topk(&s->engine, &op);
        if (from == 0 && n == d->tokens.count) {
            memcpy(values, values + size, (size_t)size * sizeof *values);
            memcpy(ids, ids + size, (size_t)size * sizeof *ids);
        } else {
            if (lik_merge_topk(2, count, k, values, ids, k, 0, values + 2 * size, ids + 2 * size))
                die(EXIT_INCOMPATIBLE, "%s", lik_last_error());
            memcpy(values, values + 2 * size, (size_t)size * sizeof *values);
            memcpy(ids, ids + 2 * size, (size_t)size * sizeof *ids);
        }
        s->score_seconds += lik_seconds() - start;
        progress_update(block + part * (double)slicer.rows_done / (double)all_rows,
                        (double)slicer.rows_done +
                            (double)all_rows * (double)(first / lik_max_i64(count, 1)));
    }
    s->flops += flops_per_row(q, first, count) * (double)slicer.rows_done;
}

static void run_topk(struct scoring *s, struct results *results, int64_t k)
{
    int64_t queries = s->inputs.queries.tokens.count, documents = s->inputs.documents.tokens.count;
    int64_t block = lik_min_i64(lik_max_i64(BLOCK_BYTES / (36 * k), 1), lik_max_i64(queries, 1));
    float *values = allocate(3 * block * k, sizeof *values, "the best scores");
    int64_t *ids = allocate(3 * block * k, sizeof *ids, "the best documents");
    struct hit *hits = allocate(k, sizeof *hits, "hits");
    for (int64_t first = 0; first < queries; first += block) {
        int64_t count = lik_min_i64(block, queries - first);
        double before = s->score_seconds;
        progress_begin("score", "tokens");
        topk_block(s, first, count, k, values, ids);
        progress_end();
        double ms = (s->score_seconds - before) * 1e3 / (double)count;
        for (int64_t i = 0; i < count; i++) {
            int64_t n = 0;
            for (; n < k && ids[i * k + n] >= 0; n++)
                hits[n] = (struct hit){ids[i * k + n], values[i * k + n]};
            results_query(results, first + i, hits, n, ms, documents);
        }
    }
    free(values);
    free(ids);
    free(hits);
}

/* ---- all scores ---- */

/* Scores of queries first ... first + count - 1 with all documents, [count, documents]. */
static void all_block(struct scoring *s, int64_t first, int64_t count, float *scores)
{
    const struct lik_collection *d = &s->inputs.documents, *q = &s->inputs.queries;
    int64_t from, n, all_rows = lik_max_i64(lik_collection_row(d, d->tokens.count, 0), 1);
    struct slicer slicer = {.documents = d, .flops_per_row = flops_per_row(q, first, count)};
    while (slicer_next(&slicer, &from, &n)) {
        struct lik_score op = {.struct_size = sizeof op,
                               .pairing = LIK_ALL,
                               .scores = scores + from,
                               .scores_stride = d->tokens.count};
        op.q = collection_slice(q, first, count);
        op.d = collection_slice(d, from, n);
        if (first == 0)
            check_slice(s, from, n);
        double start = lik_seconds();
        engine_score(&s->engine, &op);
        s->score_seconds += lik_seconds() - start;
        progress_update(((double)first + (double)count * (double)slicer.rows_done / (double)all_rows) /
                            (double)q->tokens.count,
                        (double)slicer.rows_done);
    }
    s->flops += slicer.flops_per_row * (double)slicer.rows_done;
}

/* Opens an .npy file of f32 for results in their natural order. */
static void open_matrix(struct sink *out, const struct options *options, int rank, const int64_t *shape)
{
    struct lik_io_error error;
    if (options->json || options->trec || options->table)
        die(EXIT_USAGE, "-o %s writes arrays, which --json, --trec and --table do not go with",
            options->output);
    sink_open(out, options->output);
    int status = lik_npy_write_header(&out->file, LIK_ARRAY_F32, rank, shape, &error);
    if (status)
        die_io(status, &error);
}

/* Every score: as a matrix in the order of the documents if -o names an .npy, else ranked. */
static int run_all(struct scoring *s)
{
    int64_t queries = s->inputs.queries.tokens.count, documents = s->inputs.documents.tokens.count;
    int64_t block =
        lik_min_i64(lik_max_i64(BLOCK_BYTES / (4 * lik_max_i64(documents, 1)), 1), lik_max_i64(queries, 1));
    int matrix = lik_path_ends(s->options->output, ".npy"), code = EXIT_OK;
    float *scores = allocate(block * documents, sizeof *scores, "scores");
    struct hit *hits = allocate(matrix ? 1 : documents, sizeof *hits, "hits");
    struct results results = {0};
    struct sink out;
    if (matrix)
        open_matrix(&out, s->options, 2, (int64_t[]){queries, documents});
    else
        results_open(&results, s->options, &s->inputs, &s->engine, documents);
    for (int64_t first = 0; first < queries; first += block) {
        int64_t count = lik_min_i64(block, queries - first);
        double before = s->score_seconds;
        progress_begin("score", "tokens");
        all_block(s, first, count, scores);
        progress_end();
        double ms = (s->score_seconds - before) * 1e3 / (double)count;
        if (matrix)
            sink_put(&out, (const char *)scores, count * documents * (int64_t)sizeof *scores);
        for (int64_t i = 0; i < (matrix ? 0 : count); i++) {
            for (int64_t j = 0; j < documents; j++)
                hits[j] = (struct hit){j, scores[i * documents + j]};
            hits_sort(hits, documents);
            results_query(&results, first + i, hits, documents, ms, documents);
        }
    }
    if (matrix)
        sink_close(&out);
    else
        code = results_close(&results);
    free(scores);
    free(hits);
    scoring_close(s, results.seconds);
    return code;
}

/* ---- listed pairs ---- */

struct pairs {
    int64_t *queries, *documents, *entries; /* [count]; entries: of the file, one a pair */
    float *scores;                          /* [count] */
    int64_t count, unknown;
};

/* Looks a name of a TREC file up; -1 if it is not there. */
static int64_t find(const struct lik_collection *c, const char *name, int64_t size)
{
    char text[1001]; /* the reader allows ids of at most 1000 bytes */
    memcpy(text, name, (size_t)size);
    text[size] = 0;
    return lik_collection_find(c, text);
}

static void resolve(struct scoring *s, const struct trec *trec, struct pairs *pairs)
{
    *pairs = (struct pairs){0};
    pairs->queries = allocate(trec->count, sizeof *pairs->queries, "pairs");
    pairs->documents = allocate(trec->count, sizeof *pairs->documents, "pairs");
    pairs->entries = allocate(trec->count, sizeof *pairs->entries, "pairs");
    pairs->scores = allocate(trec->count, sizeof *pairs->scores, "scores of pairs");
    const struct trec_entry *lost = NULL;
    int lost_query = 0;
    for (int64_t i = 0; i < trec->count; i++) {
        const struct trec_entry *e = &trec->entries[i];
        int64_t q = find(&s->inputs.queries, e->query, e->query_size),
                d = find(&s->inputs.documents, e->document, e->document_size);
        if (q < 0 || d < 0) {
            if (!pairs->unknown++ || e->line < lost->line) {
                lost = e;
                lost_query = q < 0;
            }
            continue;
        }
        pairs->queries[pairs->count] = q;
        pairs->entries[pairs->count] = i;
        pairs->documents[pairs->count++] = d;
    }
    if (pairs->unknown && s->options->skip_missing)
        warn("%lld of %lld lines of %s name a query or document that is not there; they are passed over",
             (long long)pairs->unknown, (long long)trec->count, trec->path);
    else if (pairs->unknown)
        die(EXIT_INCOMPATIBLE,
            "%s, line %lld: %s '%.*s' is not in %s (%lld of %lld lines name something unknown)\n    Name the "
            "sequences with --%sids FILE%s.",
            trec->path, (long long)lost->line, lost_query ? "query" : "document",
            (int)(lost_query ? lost->query_size : lost->document_size),
            lost_query ? lost->query : lost->document,
            lost_query ? s->inputs.queries.path : s->inputs.documents.path, (long long)pairs->unknown,
            (long long)trec->count, lost_query ? "query-" : "",
            s->options->pairs ? "" : ", or pass over such lines with --skip-missing");
}

static void free_pairs(struct pairs *pairs)
{
    free(pairs->queries);
    free(pairs->documents);
    free(pairs->entries);
    free(pairs->scores);
}

/* Scores the pairs in slices; a NaN score is traced to the tokens that made it. */
static void score_pairs(struct scoring *s, struct pairs *pairs)
{
    const struct lik_collection *q = &s->inputs.queries, *d = &s->inputs.documents;
    double rate = 4e9, done = 0;
    progress_begin("score", "pairs");
    for (int64_t first = 0, n; first < pairs->count; first += n) {
        double flops = 0, start = lik_seconds();
        for (n = 0; first + n < pairs->count && (n == 0 || flops < rate * 0.25); n++)
            flops += 2 * (double)lik_collection_length(q, pairs->queries[first + n]) *
                     (double)lik_collection_length(d, pairs->documents[first + n]) * (double)q->tokens.dim;
        struct lik_score op = {.struct_size = sizeof op,
                               .pairing = LIK_LIST,
                               .q = q->tokens,
                               .d = d->tokens,
                               .list_q = pairs->queries + first,
                               .list_d = pairs->documents + first,
                               .list_count = n,
                               .scores = pairs->scores + first};
        engine_score(&s->engine, &op);
        double spent = lik_seconds() - start;
        s->score_seconds += spent;
        done += flops;
        rate = fmax(done / fmax(s->score_seconds, 1e-6), 1e8);
        for (int64_t i = first; i < first + n; i++) {
            struct bad_rows bad = {0};
            if (!isnan(pairs->scores[i]))
                continue;
            engine_find_bad(&s->engine, d, pairs->documents[i], 1, &bad);
            if (bad.rows)
                engine_refuse_bad(&s->engine, &s->inputs.documents, 0, 0);
        }
        progress_update((double)(first + n) / (double)pairs->count, (double)(first + n));
    }
    progress_end();
    s->flops += done;
}

/* Pairs in the order of their file; the rank is that within the query. */
static int run_pairs(struct scoring *s)
{
    struct trec trec;
    struct pairs pairs;
    int code = EXIT_OK;
    trec_read(&trec, s->options->pairs, TREC_PAIRS);
    resolve(s, &trec, &pairs);
    if (lik_path_ends(s->options->output, ".npy")) {
        struct sink out;
        open_matrix(&out, s->options, 1, &pairs.count);
        score_pairs(s, &pairs);
        sink_put(&out, (const char *)pairs.scores, pairs.count * (int64_t)sizeof *pairs.scores);
        sink_close(&out);
        scoring_close(s, 0);
    } else {
        struct results results;
        results_open(&results, s->options, &s->inputs, &s->engine, 1);
        score_pairs(s, &pairs);
        struct hit *hits = allocate(pairs.count, sizeof *hits, "hits");
        double ms = pairs.count ? s->score_seconds * 1e3 / (double)pairs.count : 0;
        /* runs of lines with the same query */
        for (int64_t first = 0, end; first < pairs.count; first = end) {
            for (end = first; end < pairs.count && pairs.queries[end] == pairs.queries[first]; end++)
                hits[end - first] = (struct hit){pairs.documents[end], pairs.scores[end]};
            results_query(&results, pairs.queries[first], hits, end - first, ms * (double)(end - first),
                          end - first);
        }
        code = results_close(&results);
        free(hits);
        scoring_close(s, results.seconds);
    }
    free_pairs(&pairs);
    trec_free(&trec);
    return code;
}

/* ---- commands ---- */

int command_score(struct options *options)
{
    struct scoring s;
    struct results results;
    if (options->all + (options->k > 0) + (options->pairs != NULL) > 1)
        die(EXIT_USAGE, "-k, --all and --pairs exclude each other");
    scoring_open(&s, options, NULL);
    if (options->pairs)
        return run_pairs(&s);
    if (options->all)
        return run_all(&s);
    int64_t documents = s.inputs.documents.tokens.count, k = options->k ? options->k : 10;
    if (options->k > documents)
        warn("-k %lld, but there are only %lld documents", (long long)k, (long long)documents);
    k = lik_max_i64(lik_min_i64(k, documents), 1);
    results_open(&results, options, &s.inputs, &s.engine, k);
    run_topk(&s, &results, k);
    int code = results_close(&results);
    scoring_close(&s, results.seconds);
    return code;
}

static int by_query(const void *left, const void *right)
{
    const int64_t *a = left, *b = right;
    return a[0] != b[0] ? (a[0] > b[0]) - (a[0] < b[0]) : (a[1] > b[1]) - (a[1] < b[1]);
}

/* Orders pairs by query, so that each query's come together. Two names of a run may be one
 * document, its id and its number: the result would name it twice, which no run may. */
static void group(struct pairs *pairs, const struct trec *trec)
{
    int64_t (*all)[3] = allocate(pairs->count, sizeof *all, "pairs");
    for (int64_t i = 0; i < pairs->count; i++) {
        all[i][0] = pairs->queries[i];
        all[i][1] = pairs->documents[i];
        all[i][2] = pairs->entries[i];
    }
    qsort(all, (size_t)pairs->count, sizeof *all, by_query);
    const struct trec_entry *a = NULL, *b = NULL;
    for (int64_t i = 0; i < pairs->count; i++) {
        pairs->queries[i] = all[i][0];
        pairs->documents[i] = all[i][1];
        if (i && !a && !by_query(all[i - 1], all[i])) {
            a = &trec->entries[all[i - 1][2]];
            b = &trec->entries[all[i][2]];
        }
    }
    free(all);
    if (a && a->line > b->line) {
        const struct trec_entry *first = b;
        b = a;
        a = first;
    }
    if (a)
        die(EXIT_UNREADABLE,
            "%s, lines %lld and %lld name one document for one query: '%.*s' for '%.*s', and '%.*s' for "
            "'%.*s'",
            trec->path, (long long)a->line, (long long)b->line, (int)a->document_size, a->document,
            (int)a->query_size, a->query, (int)b->document_size, b->document, (int)b->query_size, b->query);
}

int command_rerank(struct options *options)
{
    struct scoring s;
    struct trec trec;
    struct pairs pairs;
    struct results results;
    int64_t most = 0;
    if (options->all && options->k)
        die(EXIT_USAGE, "-k and --all exclude each other");
    trec_read(&trec, options->arguments[2], TREC_RUN);
    scoring_open(&s, options, &trec);
    resolve(&s, &trec, &pairs);
    group(&pairs, &trec);
    int64_t queries = s.inputs.queries.tokens.count;
    int64_t *begin = allocate(queries + 1, sizeof *begin, "queries"); /* of each query's pairs */
    for (int64_t i = 0; i < pairs.count; i++)
        begin[pairs.queries[i] + 1]++;
    for (int64_t i = 0; i < queries; i++) {
        most = lik_max_i64(most, begin[i + 1]);
        begin[i + 1] += begin[i];
    }
    /* Every document of the run comes back unless -k says otherwise; for the eye, the best
     * ten. */
    int64_t shown = terminal.out_tty && !options->output && !options->json && !options->trec ? 10 : most;
    int64_t k = options->all ? most : lik_min_i64(options->k ? options->k : shown, lik_max_i64(most, 1));
    struct hit *hits = allocate(most, sizeof *hits, "hits");
    results_open(&results, options, &s.inputs, &s.engine, k);
    score_pairs(&s, &pairs);
    for (int64_t q = 0; q < queries; q++) {
        int64_t count = begin[q + 1] - begin[q];
        for (int64_t i = 0; i < count; i++)
            hits[i] = (struct hit){pairs.documents[begin[q] + i], pairs.scores[begin[q] + i]};
        hits_sort(hits, count);
        double share = pairs.count ? (double)count / (double)pairs.count : 0;
        if (count || results.arrays)
            results_query(&results, q, hits, lik_min_i64(count, k), s.score_seconds * 1e3 * share, count);
    }
    int code = results_close(&results);
    scoring_close(&s, results.seconds);
    free(hits);
    free(begin);
    free_pairs(&pairs);
    trec_free(&trec);
    return code;
}
