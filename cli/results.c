/* Results as a table, TSV, JSON lines, a TREC run or arrays; see results.h. */
#include "results.h"
#include "spans.h"

#include "base/size.h"
#include "shared/tokens.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EMPHASIZED 3 /* tokens of a snippet */

/* The library's order of top-k, for qsort. */
static int compare(float a, int64_t id_a, float b, int64_t id_b)
{
    return lik_topk_before(b, id_b, a, id_a, 0) - lik_topk_before(a, id_a, b, id_b, 0);
}

static int by_rank(const void *left, const void *right)
{
    const struct hit *a = left, *b = right;
    return compare(a->score, a->document, b->score, b->document);
}

void hits_sort(struct hit *hits, int64_t count)
{
    if (count)
        qsort(hits, (size_t)count, sizeof *hits, by_rank);
}

/* ---- matches and snippets ---- */

int64_t matches_of(const struct inputs *inputs, int64_t q, int64_t d, const float *similarities,
                   struct match *out)
{
    const struct lik_collection *queries = &inputs->queries;
    int64_t rows = lik_collection_length(queries, q), columns = lik_collection_length(&inputs->documents, d),
            n = 0;
    for (int64_t s = 0; s < rows; s++) {
        int64_t best = -1;
        for (int64_t t = 0; t < columns; t++) {
            float value = similarities[s * columns + t];
            if (isnan(value) && lik_collection_keeps(queries, q, s) &&
                lik_collection_keeps(&inputs->documents, d, t)) {
                best = t; /* as the argmax has it */
                break;
            }
            if (!isnan(value) && (best < 0 || value > similarities[s * columns + best]))
                best = t;
        }
        if (best < 0)
            continue;
        float value = similarities[s * columns + best];
        double weight =
            queries->tokens.weights ? (double)queries->tokens.weights[lik_collection_row(queries, q, s)] : 1;
        out[n++] = (struct match){s, best, value, weight, weight * (double)value};
    }
    return n;
}

/* Matches of one pair in fresh memory. */
static struct match *find_matches(struct engine *engine, const struct inputs *inputs, int64_t q, int64_t d,
                                  int64_t *count)
{
    int64_t rows = lik_collection_length(&inputs->queries, q),
            columns = lik_collection_length(&inputs->documents, d), cells;
    if (lik_mul_i64(rows, columns, &cells))
        die(EXIT_EXHAUSTED, "out of memory: %lld x %lld similarities", (long long)rows, (long long)columns);
    float *similarities = allocate(cells, sizeof *similarities, "similarities");
    struct match *matches = allocate(rows, sizeof *matches, "matches");
    engine_similarities(engine, inputs, q, d, similarities);
    *count = columns ? matches_of(inputs, q, d, similarities, matches) : 0;
    free(similarities);
    return matches;
}

void put_bar(struct sink *out, double value, int columns)
{
    static const char *eighths[] = {"",       "\u258f", "\u258e", "\u258d", "\u258c",
                                    "\u258b", "\u258a", "\u2589", "\u2588"};
    int filled = (int)lround(fmax(0, fmin(value, 1)) * columns * 8), used = 0; /* NaN counts as 0 */
    if (!terminal.utf8)
        filled = (filled + 4) / 8 * 8;
    for (; filled > 0; filled -= 8, used++) {
        const char *cell = !terminal.utf8 ? "#" : eighths[filled < 8 ? filled : 8];
        sink_put(out, cell, (int64_t)strlen(cell));
    }
    for (; used < columns; used++)
        sink_put(out, " ", 1);
}

static int by_share(const void *left, const void *right)
{
    const struct match *a = left, *b = right;
    double x = isnan(a->share) ? -INFINITY : a->share, y = isnan(b->share) ? -INFINITY : b->share;
    if (x != y)
        return x < y ? 1 : -1;
    return (a->query_token > b->query_token) - (a->query_token < b->query_token);
}

void matches_sort(struct match *matches, int64_t count)
{
    if (count)
        qsort(matches, (size_t)count, sizeof *matches, by_share);
}

/* Where a snippet of `columns` begins: at the text's start if the first emphasized token shows
 * there, else shortly before that token, at a word. */
static int64_t snippet_start(const char *text, int64_t size, int64_t from, int64_t to, int columns)
{
    if (from < 0 || to <= text_prefix(text, size, columns - 2))
        return 0;
    int64_t start = from;
    while (start > 0 && (from - start < columns / 3 || text[start - 1] != ' ') && from - start < columns / 2)
        start--;
    while (start < from && ((unsigned char)text[start] & 0xc0) == 0x80)
        start++;
    return start;
}

void put_snippet(struct sink *out, struct engine *engine, const struct inputs *inputs, int64_t q, int64_t d,
                 int columns)
{
    struct spans spans = {0};
    int64_t count = 0;
    if (!spans_get(&spans, &inputs->documents, d) || columns < 4) {
        spans_free(&spans);
        return;
    }
    const char *text = spans.line.text.data;
    int64_t size = spans.line.text.size;
    char *bold = allocate(size + 1, 1, "a snippet");
    int64_t first_from = -1, first_to = -1;
    struct match *matches = spans.count ? find_matches(engine, inputs, q, d, &count) : NULL;
    matches_sort(matches, count);
    for (int64_t i = 0, emphasized = 0; i < count && emphasized < EMPHASIZED; i++) {
        int64_t from = spans.from[matches[i].document_token], to = spans.to[matches[i].document_token];
        if (from < 0 || bold[from])
            continue;
        memset(bold + from, 1, (size_t)(to - from));
        if (!emphasized++)
            first_from = from, first_to = to;
    }
    int64_t at = snippet_start(text, size, first_from, first_to, columns);
    int mark = terminal.utf8 ? 1 : 3, left = columns;
    if (at > 0) {
        sink_put(out, terminal.utf8 ? "\u2026" : "...", 3);
        left -= mark;
    }
    int64_t end = at + text_prefix(text + at, size - at, left);
    if (end < size)
        end = at + text_prefix(text + at, size - at, left - mark);
    while (at < end) {
        int64_t stop = at;
        while (stop < end && bold[stop] == bold[at])
            stop++;
        if (bold[at] && terminal.color)
            sink_put(out, "\x1b[1m", 4);
        sink_clean(out, text + at, stop - at);
        if (bold[at] && terminal.color)
            sink_put(out, "\x1b[0m", 4);
        at = stop;
    }
    if (end < size)
        sink_put(out, terminal.utf8 ? "\u2026" : "...", 3);
    free(bold);
    free(matches);
    spans_free(&spans);
}

/* ---- forms ---- */

char *results_ids_path(const char *output)
{
    size_t stem = strlen(output) - 4;
    char *ids = allocate((int64_t)stem + 16, 1, "a file name");
    snprintf(ids, stem + 16, "%.*s.ids.npy", (int)stem, output);
    return ids;
}

static void open_arrays(struct results *r, int64_t rows)
{
    struct lik_io_error error;
    const char *path = r->options->output;
    char *ids = results_ids_path(path);
    int64_t shape[2] = {rows, r->width};
    sinks_open(&r->out, path, &r->ids, ids);
    free(ids);
    int status = lik_npy_write_header(&r->out.file, LIK_ARRAY_F32, 2, shape, &error);
    if (!status)
        status = lik_npy_write_header(&r->ids.file, LIK_ARRAY_I64, 2, shape, &error);
    if (status)
        die_io(status, &error);
}

void results_open(struct results *r, const struct options *options, struct inputs *inputs,
                  struct engine *engine, int64_t width)
{
    *r = (struct results){.inputs = inputs, .engine = engine, .options = options, .width = width};
    if (options->json + options->table + (options->trec != NULL) > 1)
        die(EXIT_USAGE, "--json, --trec and --table exclude each other");
    if (options->output && !*options->output)
        die(EXIT_USAGE, "-o needs a file name");
    if (options->trec && (!*options->trec || strpbrk(options->trec, " \t\r\n\v\f")))
        die(EXIT_USAGE, "--trec='%s': a tag is one word", options->trec);
    r->format = options->json                                              ? FORMAT_JSON
                : options->trec                                            ? FORMAT_TREC
                : options->table || (terminal.out_tty && !options->output) ? FORMAT_TABLE
                                                                           : FORMAT_TSV;
    r->with_matches = r->format == FORMAT_JSON && !options->all && !options->pairs;
    r->arrays = lik_path_ends(options->output, ".npy");
    if (r->arrays && (options->json || options->trec || options->table))
        die(EXIT_USAGE, "-o %s writes arrays, which --json, --trec and --table do not go with",
            options->output);
    if (r->arrays)
        open_arrays(r, inputs->queries.tokens.count);
    else
        sink_open(&r->out, options->output);
}

static void put_arrays(struct results *r, const struct hit *hits, int64_t count)
{
    for (int64_t i = 0; i < r->width; i++) {
        float score = i < count ? hits[i].score : NAN;
        int64_t id = i < count ? hits[i].document : -1;
        sink_put(&r->out, (const char *)&score, sizeof score);
        sink_put(&r->ids, (const char *)&id, sizeof id);
    }
}

static void put_tsv(struct results *r, int64_t q, const struct hit *hits, int64_t count)
{
    char a[24], b[24];
    const char *query = lik_collection_id(&r->inputs->queries, q, a);
    for (int64_t i = 0; i < count; i++) {
        const char *id = lik_collection_id(&r->inputs->documents, hits[i].document, b);
        sink_text(&r->out, query, (int64_t)strlen(query));
        sink_put(&r->out, "\t", 1);
        sink_text(&r->out, id, (int64_t)strlen(id));
        sink_printf(&r->out, "\t%lld\t%.9g\n", (long long)i + 1,
                    isnan(hits[i].score) ? (double)NAN : (double)hits[i].score); /* without a sign */
    }
}

static const struct lik_collection *sorted_documents; /* for the comparison below */

/* As trec_eval sorts what it reads: equal scores by id, descending. */
static int by_trec_rank(const void *left, const void *right)
{
    const struct hit *a = left, *b = right;
    char room_a[24], room_b[24];
    int order = compare(a->score, 0, b->score, 0);
    return order ? order
                 : strcmp(lik_collection_id(sorted_documents, b->document, room_b),
                          lik_collection_id(sorted_documents, a->document, room_a));
}

static void put_trec_id(struct sink *out, const struct lik_collection *c, int64_t i)
{
    char room[24];
    const char *id = lik_collection_id(c, i, room);
    if (strpbrk(id, " \t"))
        die(EXIT_INCOMPATIBLE, "%s: the id '%s' holds white space, which a TREC run cannot", c->path, id);
    sink_text(out, id, (int64_t)strlen(id));
}

static void put_trec(struct results *r, int64_t q, const struct hit *hits, int64_t count)
{
    struct sink *out = &r->out;
    struct hit *sorted = allocate(count, sizeof *sorted, "hits");
    if (count)
        memcpy(sorted, hits, (size_t)count * sizeof *hits);
    sorted_documents = &r->inputs->documents;
    if (count)
        qsort(sorted, (size_t)count, sizeof *sorted, by_trec_rank);
    /* NaN comes last, and is no score of a run */
    for (int64_t i = 0; i < count && !isnan(sorted[i].score); i++) {
        put_trec_id(out, &r->inputs->queries, q);
        sink_put(out, " Q0 ", 4);
        put_trec_id(out, &r->inputs->documents, sorted[i].document);
        sink_printf(out, " %lld %.9g ", (long long)i + 1, (double)sorted[i].score);
        sink_text(out, r->options->trec, (int64_t)strlen(r->options->trec));
        sink_put(out, "\n", 1);
    }
    free(sorted);
}

static void put_json(struct results *r, int64_t q, const struct hit *hits, int64_t count, double ms,
                     int64_t scored)
{
    struct sink *out = &r->out;
    char room[24];
    const char *id = lik_collection_id(&r->inputs->queries, q, room);
    double weight = query_weight(&r->inputs->queries, q);
    sink_printf(out, "{\"query\": ");
    sink_quote(out, id, (int64_t)strlen(id));
    sink_printf(out,
                ", \"took_ms\": %.6g, \"stages\": {\"open_ms\": %.6g, \"score_ms\": %.6g}, \"scored\": %lld, "
                "\"hits\": [",
                ms, r->inputs->seconds * 1e3, ms, (long long)scored);
    for (int64_t i = 0; i < count; i++) {
        id = lik_collection_id(&r->inputs->documents, hits[i].document, room);
        sink_printf(out, "%s{\"id\": ", i ? ", " : "");
        sink_quote(out, id, (int64_t)strlen(id));
        sink_printf(out, ", \"score\": ");
        sink_number(out, (double)hits[i].score);
        sink_printf(out, ", \"normalized\": ");
        sink_number(out, weight != 0 ? (double)hits[i].score / weight : 0);
        if (r->with_matches) {
            int64_t n;
            struct match *matches = find_matches(r->engine, r->inputs, q, hits[i].document, &n);
            sink_printf(out, ", \"matches\": [");
            for (int64_t m = 0; m < n; m++) {
                sink_printf(out, "%s[%lld, %lld, ", m ? ", " : "", (long long)matches[m].query_token,
                            (long long)matches[m].document_token);
                sink_number(out, (double)matches[m].similarity);
                sink_put(out, "]", 1);
            }
            sink_put(out, "]", 1);
            free(matches);
        }
        sink_put(out, "}", 1);
    }
    sink_printf(out, "]}\n");
}

/* The line above a query's hits: its id and text, and on the right what it took. */
static void put_heading(struct results *r, int64_t q, double ms, int64_t scored)
{
    struct sink *out = &r->out;
    struct spans spans = {0};
    char room[24], right[96];
    const char *id = lik_collection_id(&r->inputs->queries, q, room), *dot = terminal.utf8 ? "\u00b7" : "-";
    snprintf(right, sizeof right, "%.*f ms %s %lld documents", ms < 10 ? 2 : 0, ms, dot, (long long)scored);
    int right_columns = text_columns(right, (int64_t)strlen(right)),
        left = terminal.width - right_columns - 2;
    int id_columns = text_columns(id, (int64_t)strlen(id));
    if (left < 16 || id_columns + 2 > left) {
        left = terminal.width;
        right[0] = 0;
    }
    if (terminal.color)
        sink_put(out, "\x1b[1m", 4);
    id_columns = (int)lik_min_i64(id_columns, left);
    sink_fill(out, id, (int64_t)strlen(id), id_columns);
    if (terminal.color)
        sink_put(out, "\x1b[0m", 4);
    left -= id_columns;
    if (spans_get(&spans, &r->inputs->queries, q) && left > 12) {
        int text = (int)lik_min_i64(text_columns(spans.line.text.data, spans.line.text.size), left - 4);
        sink_put(out, "  \"", 3);
        sink_fill(out, spans.line.text.data, spans.line.text.size, text);
        sink_put(out, "\"", 1);
        left -= text + 4;
    }
    spans_free(&spans);
    if (right[0])
        sink_printf(out, "%*s  %s", left, "", right);
    sink_put(out, "\n", 1);
}

/* Columns of the table. On a narrow terminal all of them shrink in favor of the snippet. */
struct columns {
    int rank, id, score, mean, bar, snippet;
};

static struct columns columns_of(const struct results *r, const struct hit *hits, int64_t count)
{
    int narrow = terminal.width < 100;
    struct columns c = {.rank = 3, .id = 2, .score = 9, .mean = 6, .bar = narrow ? 5 : 8};
    char room[24];
    for (int64_t i = count; i > 999; i /= 10)
        c.rank++;
    for (int64_t i = 0; i < count; i++) {
        const char *id = lik_collection_id(&r->inputs->documents, hits[i].document, room);
        c.id = (int)lik_max_i64(c.id, text_columns(id, (int64_t)strlen(id)));
    }
    c.id = (int)lik_min_i64(c.id, narrow ? 22 : 40);
    int left = terminal.width - c.rank - 2 - c.score - c.mean - 2;
    c.id = (int)lik_max_i64(lik_min_i64(c.id, left), 2);
    left -= c.id;
    c.bar = left >= c.bar + 2 ? c.bar : 0;
    left -= c.bar ? c.bar + 2 : 0;
    c.snippet = left >= 12 ? left - 2 : 0;
    return c;
}

/* An id in `columns`; of a longer one the end is shown, which tells names of one family
 * apart. */
static void put_id(struct sink *out, const char *id, int columns)
{
    int64_t size = (int64_t)strlen(id);
    int mark = terminal.utf8 ? 1 : 3;
    if (text_columns(id, size) > columns && columns > mark + 2) {
        while (size > 0 && text_columns(id, size) > columns - mark) {
            char shown[12];
            int step = text_character(id, id + size, shown, &(int){0});
            id += step;
            size -= step;
        }
        sink_put(out, terminal.utf8 ? "\u2026" : "...", 3);
        columns -= mark;
    }
    sink_fill(out, id, size, columns);
}

static void put_table(struct results *r, int64_t q, const struct hit *hits, int64_t count, double ms,
                      int64_t scored)
{
    struct sink *out = &r->out;
    const struct lik_collection *d = &r->inputs->documents;
    struct columns c = columns_of(r, hits, count);
    char room[24], number[48];
    double weight = query_weight(&r->inputs->queries, q);
    put_heading(r, q, ms, scored);
    for (int64_t i = 0; i < count; i++) {
        const char *id = lik_collection_id(d, hits[i].document, room);
        double score = (double)hits[i].score, mean = weight != 0 ? score / weight : 0;
        sink_printf(out, "%*lld  ", c.rank, (long long)i + 1);
        put_id(out, id, c.id);
        snprintf(number, sizeof number, fabs(score) < 1e4 ? "%10.4f" : "%10.4g", score);
        sink_put(out, number, (int64_t)strlen(number));
        snprintf(number, sizeof number, fabs(mean) < 100 ? "%7.3f" : "%7.2g", mean);
        sink_put(out, number, (int64_t)strlen(number));
        if (c.bar) {
            sink_put(out, "  ", 2);
            put_bar(out, mean, c.bar);
        }
        if (c.snippet && lik_collection_text_line(d, hits[i].document) >= 0) {
            sink_put(out, "  ", 2);
            put_snippet(out, r->engine, r->inputs, q, hits[i].document, c.snippet);
        }
        sink_put(out, "\n", 1);
    }
    sink_put(out, "\n", 1);
}

void results_query(struct results *r, int64_t q, const struct hit *hits, int64_t count, double ms,
                   int64_t scored)
{
    double start = lik_seconds();
    r->queries++;
    r->hits += count;
    for (int64_t i = 0; i < count; i++)
        r->bad += !isfinite(hits[i].score);
    if (r->arrays)
        put_arrays(r, hits, count);
    else if (r->format == FORMAT_JSON)
        put_json(r, q, hits, count, ms, scored);
    else if (r->format == FORMAT_TREC)
        put_trec(r, q, hits, count);
    else if (r->format == FORMAT_TABLE)
        put_table(r, q, hits, count, ms, scored);
    else
        put_tsv(r, q, hits, count);
    r->seconds += lik_seconds() - start;
}

int results_close(struct results *r)
{
    double start = lik_seconds();
    if (r->arrays)
        sinks_close(&r->out, &r->ids);
    else
        sink_close(&r->out);
    r->seconds += lik_seconds() - start;
    if (r->bad)
        warn("%lld scores are not finite: some tokens hold infinities or are too large; see `lik info "
             "--check`",
             (long long)r->bad);
    return !r->hits && r->options->fail_empty ? EXIT_EMPTY : EXIT_OK;
}
