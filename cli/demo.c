/* lik demo: the packaged collection, ranked, measured against its baselines, and one match
 * drawn.
 *
 * The collection is real: docstrings, their token vectors, queries with one relevant document
 * each, and the rankings of BM25 and of mean-pooled vectors over the same texts (demo/README.md
 * says how they were made). Its tokens are stored as 8-bit integers; what they lose with fewer
 * bits is measured beside it. */
#include "codec.h"
#include "heatmap.h"
#include "trec.h"

#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH 10 /* of the measures */
#define SHOWN 4  /* queries, unless --all: the middles of so many equal parts, not a choice */
#define SEED  42 /* of the codec */

enum { MAXSIM, FOUR_BITS, TWO_BITS, ONE_BIT, WEIGHTED, BM25, MEAN_POOLING, RANKINGS };

struct demo {
    struct inputs inputs;
    struct engine engine;
    struct trec judgments;
    const float *weights; /* the queries' idf, as the file has it */
    char *folder;
};

struct ranking {
    const char *name;
    struct evaluation result;
    int64_t bytes; /* a token; 0 = none are scored */
    double ms;     /* a query; 0 = not timed */
};

/* folder/name in fresh memory. */
static char *join(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = allocate((int64_t)size, 1, "a file name");
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

static int holds(const char *folder, const char *name)
{
    char *path = join(folder, name);
    struct lik_io_error error;
    int there = lik_file_exists(path, &error);
    free(path);
    if (there < 0)
        die_io(there, &error);
    return there;
}

static int holds_demo(const char *folder)
{
    return holds(folder, "documents.safetensors") && holds(folder, "bm25.run"); /* not anybody's documents */
}

/* The collection: as told, installed beside the program, or in the source tree around it. */
static char *find_folder(const struct options *options)
{
    static const char *around[] = {"../share/lik/demo", "demo", "../demo", "../../demo", "../../../demo"};
    const char *told = options->data ? options->data : lik_environment("LIK_DEMO_DATA");
    char program[LIK_PATH_MAX];
    if (told && *told) {
        if (!holds_demo(told))
            die(EXIT_UNREADABLE,
                "%s holds no documents.safetensors and bm25.run: it is not the packaged collection", told);
        return join(told, ".");
    }
    int folder_size = lik_program_path(program) ? 0 : lik_path_folder(program);
    if (folder_size > 0) {
        program[folder_size - 1] = 0;
        for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
            char *folder = join(program, around[i]);
            if (holds_demo(folder))
                return folder;
            free(folder);
        }
    }
    if (holds_demo("demo"))
        return join("demo", ".");
    if (holds_demo("."))
        return join(".", ".");
    die(EXIT_UNREADABLE, "the packaged collection was not found beside the program, in ./demo or here\n"
                         "    Say where it is: --data DIR or LIK_DEMO_DATA.");
}

/* Neither the page nor the picture may be a link to one of the collection's files. */
static void keep_files(const char *folder, const struct options *options)
{
    static const char *names[] = {"documents.safetensors", "queries.safetensors", "documents.jsonl",
                                  "queries.jsonl",         "qrels.txt",           "bm25.run",
                                  "meanpool.run"};
    for (int i = 0; i < 2 * (int)(sizeof names / sizeof *names); i++) {
        char *output = heatmap_path(options->output ? options->output : "lik-demo", i & 1),
             *path = join(folder, names[i / 2]);
        inputs_keep(output, path);
        free(output);
        free(path);
    }
}

static void demo_open(struct demo *demo, const struct options *options)
{
    struct options own = *options;
    *demo = (struct demo){.folder = find_folder(options)};
    keep_files(demo->folder, options);
    char *documents = join(demo->folder, "documents.safetensors"),
         *queries = join(demo->folder, "queries.safetensors"), *texts = join(demo->folder, "documents.jsonl"),
         *query_texts = join(demo->folder, "queries.jsonl"), *judgments = join(demo->folder, "qrels.txt");
    own.text = texts;
    own.query_text = query_texts;
    engine_open(&demo->engine, options);
    inputs_open(&demo->inputs, &own, queries, documents);
    engine_refuse_bad(&demo->engine, &demo->inputs.queries, 1, 0);
    engine_refuse_bad(&demo->engine, &demo->inputs.documents, 0, 0);
    trec_read(&demo->judgments, judgments, TREC_JUDGMENTS);
    demo->judgments.path = "qrels.txt";
    demo->weights = demo->inputs.queries.tokens.weights;
    demo->inputs.queries.tokens.weights = NULL;
    free(documents);
    free(queries);
    free(texts);
    free(query_texts);
    free(judgments);
}

static void demo_close(struct demo *demo)
{
    trec_free(&demo->judgments);
    inputs_close(&demo->inputs);
    engine_close(&demo->engine);
    free(demo->folder);
}

/* The `k` best of these documents for every query, one query at a time as a search would be;
 * returns milliseconds a query. */
static double rank_queries(struct demo *demo, const struct lik_tokens *documents, int64_t k, int64_t *ids,
                           float *values)
{
    int64_t n = demo->inputs.queries.tokens.count;
    double spent = 0;
    for (int64_t q = -1; q < n; q++) { /* the first round only warms up */
        struct lik_topk op = {.struct_size = sizeof op, .k = k};
        int64_t at = lik_max_i64(q, 0);
        op.values = values + at * k;
        op.ids = ids + at * k;
        op.score = (struct lik_score){.struct_size = sizeof op.score, .pairing = LIK_ALL, .d = *documents};
        op.score.q = collection_slice(&demo->inputs.queries, at, 1);
        double start = lik_seconds();
        engine_topk(&demo->engine, &op);
        spent += q < 0 ? 0 : lik_seconds() - start;
    }
    return n ? spent * 1e3 / (double)n : 0;
}

static const struct measure *measures(void)
{
    static const struct measure both[2] = {{.kind = MEASURE_NDCG, .depth = DEPTH, .name = "nDCG@10"},
                                           {.kind = MEASURE_MRR, .depth = DEPTH, .name = "MRR@10"}};
    return both;
}

/* Measures of a ranking by ids, [queries, k]. */
static struct evaluation evaluate_ids(const struct demo *demo, int64_t k, const int64_t *ids,
                                      const float *values)
{
    const struct lik_collection *queries = &demo->inputs.queries, *documents = &demo->inputs.documents;
    struct trec run = {.entries = allocate(queries->tokens.count * k, sizeof *run.entries, "a run")};
    struct evaluation result;
    for (int64_t q = 0; q < queries->tokens.count; q++)
        for (int64_t i = 0; i < k && ids[q * k + i] >= 0; i++) {
            char room[24]; /* unused: both sides of the packaged collection have ids */
            struct trec_entry e = {.score = values[q * k + i]};
            e.query = lik_collection_id(queries, q, room);
            e.document = lik_collection_id(documents, ids[q * k + i], room);
            e.query_size = (int64_t)strlen(e.query);
            e.document_size = (int64_t)strlen(e.document);
            run.entries[run.count++] = e;
        }
    trec_sort(&run, TREC_RUN);
    evaluate(&run, &demo->judgments, measures(), 2, 1, &result);
    free(run.entries);
    return result;
}

static void rank(struct demo *demo, const struct lik_tokens *documents, struct ranking *ranking, int64_t *ids,
                 float *values)
{
    ranking->ms = rank_queries(demo, documents, DEPTH, ids, values);
    ranking->bytes = token_bytes(documents);
    ranking->result = evaluate_ids(demo, DEPTH, ids, values);
}

/* Ranks the documents compressed to 4, 2 and 1 bits an element, by one training: the quantiles
 * of fewer buckets are among those of more. Returns its milliseconds. */
static double rank_compressed(struct demo *demo, struct ranking *rankings, int64_t *ids, float *values)
{
    const struct lik_collection *d = &demo->inputs.documents;
    struct lik_train train = {.x = d->tokens, .bits = 4, .seed = SEED};
    struct trained trained[3];
    uint8_t *residuals = allocate(d->rows, lik_max_i64(d->tokens.dim, 1), "residuals");
    int32_t *codes = allocate(d->rows, sizeof *codes, "codes");
    double start = lik_seconds();
    train.x.normalize = 1;
    train.centroid_count = codec_auto_centroids(d->rows);
    codec_train(&trained[0], &demo->engine, &train);
    codec_narrow(&trained[1], &trained[0], 2);
    codec_narrow(&trained[2], &trained[0], 1);
    double ms = (lik_seconds() - start) * 1e3;
    for (int i = 0; i < 3; i++) {
        int64_t count = train.centroid_count;
        struct lik_tokens x = d->tokens;
        codec_encode(&trained[i], &demo->engine, &train.x, codes, residuals, NULL);
        x.data = residuals;
        x.dtype = LIK_F32;
        x.scale = NULL;
        x.normalize = 1;
        x = lik_tokens_compressed(x, &trained[i].codec, codes, lik_compressed_codes_dtype(count));
        rank(demo, &x, &rankings[i], ids, values);
    }
    for (int i = 2; i >= 0; i--)
        codec_free(&trained[i]);
    free(residuals);
    free(codes);
    return ms;
}

static struct evaluation evaluate_file(const struct demo *demo, const char *name)
{
    struct evaluation result;
    struct trec run;
    char *path = join(demo->folder, name);
    trec_read(&run, path, TREC_RUN);
    evaluate(&run, &demo->judgments, measures(), 2, 1, &result);
    trec_free(&run);
    free(path);
    return result;
}

/* ---- what is shown ---- */

/* Bytes of the characters of a label that are shown. */
static int label_bytes(const char *label)
{
    return (int)text_prefix(label, lik_min_i64((int64_t)strlen(label), 160), 40);
}

/* The strongest token matches of a query's best document, on one line. */
static void put_best_matches(struct sink *out, struct demo *demo, int64_t q, int64_t d)
{
    struct heatmap map;
    char a[24], b[24];
    heatmap_open(&map, &demo->engine, &demo->inputs, q, d);
    matches_sort(map.matches, map.match_count);
    int left = terminal.width - 16;
    sink_printf(out, "  best matches:");
    for (int64_t i = 0; i < map.match_count && i < 5; i++) {
        char text[512];
        const char *s = spans_label(&map.query_spans, map.matches[i].query_token, a),
                   *t = spans_label(&map.document_spans, map.matches[i].document_token, b);
        snprintf(text, sizeof text, "%s %.*s ~ %.*s %.2f", i ? "," : "", label_bytes(s), s, label_bytes(t), t,
                 (double)map.matches[i].similarity);
        left -= text_columns(text, (int64_t)strlen(text));
        if (left < 0)
            break;
        sink_clean(out, text, (int64_t)strlen(text));
    }
    sink_put(out, "\n", 1);
    heatmap_close(&map);
}

/* Rank of the query's relevant document among its `k` best, 0 = not there; *name is its id. */
static int64_t rank_of_relevant(const struct demo *demo, int64_t q, int64_t k, const int64_t *ids,
                                const struct trec_entry **relevant)
{
    char room[24], other[24];
    const char *id = lik_collection_id(&demo->inputs.queries, q, room);
    *relevant = NULL;
    for (int64_t i = 0; i < demo->judgments.count && !*relevant; i++) {
        const struct trec_entry *e = &demo->judgments.entries[i];
        if (e->grade > 0 && e->query_size == (int64_t)strlen(id) &&
            !memcmp(e->query, id, (size_t)e->query_size))
            *relevant = e;
    }
    for (int64_t i = 0; i < k && *relevant && ids[q * k + i] >= 0; i++) {
        const char *name = lik_collection_id(&demo->inputs.documents, ids[q * k + i], other);
        if ((int64_t)strlen(name) == (*relevant)->document_size &&
            !memcmp(name, (*relevant)->document, strlen(name)))
            return i + 1;
    }
    return 0;
}

/* Shows queries and their best documents; returns the first of them whose best document is the
 * relevant one, or 0. */
static int64_t put_queries(struct demo *demo, const struct options *options, const int64_t *ids,
                           const float *values, double ms)
{
    struct options own = *options;
    struct results results;
    int64_t n = demo->inputs.queries.tokens.count, shown = options->k ? lik_min_i64(options->k, DEPTH) : 3;
    int64_t step = options->all ? 1 : lik_max_i64(n / SHOWN, 1), first = step / 2, told = 0, good = -1;
    own.table = 1;
    own.output = NULL;
    results_open(&results, &own, &demo->inputs, &demo->engine, shown);
    for (int64_t q = first; q < n; q += step, told++) {
        struct hit hits[DEPTH];
        const struct trec_entry *relevant;
        int64_t count = 0, rank = rank_of_relevant(demo, q, DEPTH, ids, &relevant);
        for (; count < shown && ids[q * DEPTH + count] >= 0; count++)
            hits[count] = (struct hit){ids[q * DEPTH + count], values[q * DEPTH + count]};
        results_query(&results, q, hits, count, ms, demo->inputs.documents.tokens.count);
        results.out.buffer.size -= results.out.buffer.size > 0; /* the empty line moves below what follows */
        if (count)
            put_best_matches(&results.out, demo, q, hits[0].document);
        good = good < 0 && rank == 1 ? q : good;
        if (relevant) {
            sink_printf(&results.out, "  relevant: ");
            sink_clean(&results.out, relevant->document, relevant->document_size);
            sink_printf(&results.out, rank ? ", found at rank %lld\n" : ", not among the first 10\n",
                        (long long)rank);
        }
        sink_put(&results.out, "\n", 1);
    }
    sink_printf(&results.out, "Scores are without the queries' idf weights, as of `lik score --no-weights`; "
                              "the table has them in a row of its own.\n");
    if (!options->all)
        sink_printf(&results.out, "These are %lld of %lld queries, evenly spaced; --all shows every one.\n\n",
                    (long long)told, (long long)n);
    results_close(&results);
    return lik_max_i64(good, 0);
}

/* Mean and standard error of the paired difference a - b of the first measure. */
static void paired(const struct evaluation *a, const struct evaluation *b, double *mean, double *error)
{
    int64_t n = lik_min_i64(a->queries, b->queries);
    double sum = 0, squares = 0;
    for (int64_t q = 0; q < n; q++)
        sum += a->values[2 * q] - b->values[2 * q];
    *mean = n ? sum / (double)n : NAN;
    for (int64_t q = 0; q < n; q++)
        squares += pow(a->values[2 * q] - b->values[2 * q] - *mean, 2);
    *error = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : NAN;
}

static void put_rankings(struct sink *out, const struct ranking *rankings, double training_ms)
{
    sink_printf(out, "%-22s %-16s %-16s %-24s %-12s %s\n", "ranking", "nDCG@10 (s.e.)", "MRR@10 (s.e.)",
                "nDCG@10 less MaxSim's", "bytes/token", "ms/query");
    for (int i = 0; i < RANKINGS; i++) {
        const struct evaluation *e = &rankings[i].result;
        char difference[48] = "";
        double mean, error;
        paired(e, &rankings[0].result, &mean, &error);
        if (i)
            snprintf(difference, sizeof difference, "%+.3f (%.3f)", mean, error);
        sink_printf(out, "%-22s %.3f (%.3f)    %.3f (%.3f)", rankings[i].name, e->mean[0], e->error[0],
                    e->mean[1], e->error[1]);
        if (i || rankings[i].ms > 0)
            sink_printf(out, "    %s", difference);
        if (rankings[i].ms > 0)
            sink_printf(out, "%*s %-12lld %.2f", 24 - (int)strlen(difference), "",
                        (long long)rankings[i].bytes, rankings[i].ms);
        sink_put(out, "\n", 1);
    }
    sink_printf(
        out,
        "Means over %lld queries; s.e. is the standard error, in the third column of the paired difference,\n"
        "which below about twice its standard error is noise. Tokens come as 8-bit integers with a scale "
        "each;\n"
        "the codec of 4, 2 and 1 bits was trained in %.0f ms.\n\n",
        (long long)rankings[0].result.queries, training_ms);
}

/* Writes the heat map of a query and its best document as page and picture. `out` says so and
 * is closed first: when a file changes, nothing else can fail. */
static void write_heatmaps(struct demo *demo, const struct options *options, struct sink *out, int64_t query,
                           int64_t document)
{
    const char *prefix = options->output ? options->output : "lik-demo";
    enum cmap cmap = heatmap_cmap(options->cmap);
    struct heatmap map;
    struct sink files[2];
    char room[24], *paths[2];
    heatmap_open(&map, &demo->engine, &demo->inputs, query, document);
    for (int i = 0; i < 2; i++)
        paths[i] = heatmap_path(prefix, i);
    sinks_open(&files[0], paths[0], &files[1], paths[1]);
    heatmap_html(&files[0], &map, 1, cmap, NULL);
    heatmap_svg(&files[1], &map, 1, cmap);
    const char *id = lik_collection_id(&demo->inputs.queries, query, room);
    sink_printf(out, "The token heat map of query ");
    sink_clean(out, id, (int64_t)strlen(id));
    sink_printf(out, " and its best document: ");
    for (int i = 0; i < 2; i++) {
        sink_printf(out, i ? " and " : "");
        sink_clean(out, paths[i], (int64_t)strlen(paths[i]));
        free(paths[i]);
    }
    sink_put(out, "\n", 1);
    sink_close(out);
    sinks_close(&files[0], &files[1]);
    heatmap_close(&map);
}

int command_demo(struct options *options)
{
    struct demo demo;
    struct sink out;
    char workers[48], variant[64];
    heatmap_cmap(options->cmap);
    demo_open(&demo, options);
    const struct lik_collection *d = &demo.inputs.documents;
    int64_t n = demo.inputs.queries.tokens.count, size = lik_max_i64(n, 1) * DEPTH;
    int64_t *ids = allocate(2 * size, sizeof *ids, "the best documents");
    float *values = allocate(2 * size, sizeof *values, "the best scores");
    struct ranking rankings[RANKINGS] = {[MAXSIM] = {.name = "MaxSim"},
                                         [FOUR_BITS] = {.name = "MaxSim, 4-bit tokens"},
                                         [TWO_BITS] = {.name = "MaxSim, 2-bit tokens"},
                                         [ONE_BIT] = {.name = "MaxSim, 1-bit tokens"},
                                         [WEIGHTED] = {.name = "MaxSim, idf weights"},
                                         [BM25] = {.name = "BM25"},
                                         [MEAN_POOLING] = {.name = "mean pooling"}};
    if (!n || !d->tokens.count || !d->has_ids || !demo.inputs.queries.has_ids)
        die(EXIT_UNREADABLE,
            "%s is not the packaged collection: it has %lld queries and %lld documents, or no ids",
            demo.folder, (long long)n, (long long)d->tokens.count);
    rank(&demo, &d->tokens, &rankings[MAXSIM], ids, values);
    memcpy(variant, demo.engine.library.variant, sizeof variant);
    double training_ms = rank_compressed(&demo, rankings + FOUR_BITS, ids + size, values + size);
    demo.inputs.queries.tokens.weights = demo.weights;
    rank(&demo, &d->tokens, &rankings[WEIGHTED], ids + size, values + size);
    demo.inputs.queries.tokens.weights = NULL;
    rankings[BM25].result = evaluate_file(&demo, "bm25.run");
    rankings[MEAN_POOLING].result = evaluate_file(&demo, "meanpool.run");
    sink_open(&out, NULL);
    sink_printf(&out,
                "%lld documents of %lld tokens, %lld queries, %lld dimensions, %s\nscored exactly on %s with "
                "%s (%s)\n\n",
                (long long)d->tokens.count, (long long)d->rows, (long long)n, (long long)d->tokens.dim,
                lik_dtype_name(d->tokens.dtype), lik_context_name(demo.engine.library.context),
                engine_workers(&demo.engine, workers), variant);
    sink_close(&out);
    int64_t drawn = put_queries(&demo, options, ids, values, rankings[MAXSIM].ms);
    sink_open(&out, NULL);
    put_rankings(&out, rankings, training_ms);
    write_heatmaps(&demo, options, &out, drawn, ids[drawn * DEPTH]);
    for (int i = 0; i < RANKINGS; i++)
        evaluation_free(&rankings[i].result);
    free(ids);
    free(values);
    demo_close(&demo);
    return EXIT_OK;
}
