/* Reading TREC files and computing measures; see trec.h. */
#include "trec.h"

#include "base/size.h"
#include "io/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare_text(const char *a, int64_t a_size, const char *b, int64_t b_size)
{
    int order = memcmp(a, b, (size_t)lik_min_i64(a_size, b_size));
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int by_query(const struct trec_entry *a, const struct trec_entry *b)
{
    return compare_text(a->query, a->query_size, b->query, b->query_size);
}

static int by_rank(const void *left, const void *right)
{
    const struct trec_entry *a = left, *b = right;
    int order = by_query(a, b);
    if (order)
        return order;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return compare_text(b->document, b->document_size, a->document, a->document_size);
}

static int by_document(const void *left, const void *right)
{
    const struct trec_entry *a = left, *b = right;
    int order = by_query(a, b);
    return order ? order : compare_text(a->document, a->document_size, b->document, b->document_size);
}

void trec_sort(struct trec *trec, enum trec_kind kind)
{
    if (kind != TREC_PAIRS && trec->count)
        qsort(trec->entries, (size_t)trec->count, sizeof *trec->entries,
              kind == TREC_RUN ? by_rank : by_document);
}

int64_t trec_query_end(const struct trec *trec, int64_t i)
{
    int64_t end = i + 1;
    while (end < trec->count && !by_query(&trec->entries[i], &trec->entries[end]))
        end++;
    return end;
}

struct field {
    const char *at;
    int64_t size;
};

/* Splits a line at white space; returns the number of fields, at most `most` + 1. */
static int split(const char *at, const char *end, struct field *fields, int most)
{
    int n = 0;
    for (;;) {
        while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
            at++;
        if (at == end || n > most)
            return n;
        const char *start = at;
        while (at < end && *at != ' ' && *at != '\t' && *at != '\r')
            at++;
        if (n < most)
            fields[n] = (struct field){start, at - start};
        n++;
    }
}

/* The beginning of a field, for a message: NUL bytes, which would end it, are written out. */
static const char *field_text(struct field field, char text[64])
{
    int64_t n = 0;
    for (int64_t i = 0; i < lik_min_i64(field.size, 40) && n < 62; i++) {
        text[n++] = field.at[i] ? field.at[i] : '\\';
        if (!field.at[i])
            text[n++] = '0';
    }
    text[n] = 0;
    return text;
}

/* A score in f32, as trec_eval has it. What does not fit is no score: it would be equal to
 * others that do not. */
static const char *parse_score(struct field field, float *out)
{
    double value;
    int status = lik_text_number(field.at, field.size, &value);
    if (status < 0)
        die(EXIT_EXHAUSTED, "out of memory: a score of %lld characters", (long long)field.size);
    if (status)
        return "is not a number";
    int infinity = field.at[field.size - 1] > '9'; /* the word, not 1e400 */
    if (!infinity && fabs(value) >= 3.4028235677973366e38)
        return "does not fit float32";
    *out = (float)value;
    return NULL;
}

static const char *parse_grade(struct field field, int64_t *out)
{
    return lik_text_integer(field.at, field.size, out) ? "is not a whole number of 64 bits" : NULL;
}

static void read_line(struct trec *trec, enum trec_kind kind, const char *at, const char *end, int64_t line)
{
    static const char *forms[] = {"query Q0 document rank score tag", "query 0 document grade",
                                  "query document"};
    static const int wanted[] = {6, 4, 2};
    struct field fields[6];
    int n = split(at, end, fields, wanted[kind]);
    if (!n)
        return;
    if (n != wanted[kind])
        die(EXIT_UNREADABLE, "%s, line %lld has %s%d field%s, %d are needed: %s", trec->path, (long long)line,
            n > wanted[kind] ? "more than " : "", n > wanted[kind] ? wanted[kind] : n, n == 1 ? "" : "s",
            wanted[kind], forms[kind]);
    struct field document = fields[kind == TREC_PAIRS ? 1 : 2];
    struct trec_entry *entry = &trec->entries[trec->count++];
    *entry = (struct trec_entry){.query = fields[0].at,
                                 .query_size = fields[0].size,
                                 .document = document.at,
                                 .document_size = document.size,
                                 .line = line};
    const char *fault = lik_name_fault(entry->query, entry->query_size);
    if (!fault)
        fault = lik_name_fault(entry->document, entry->document_size);
    if (fault)
        die(EXIT_UNREADABLE, "%s, line %lld: an id %s", trec->path, (long long)line, fault);
    char text[64];
    if (kind == TREC_RUN && (fault = parse_score(fields[4], &entry->score)))
        die(EXIT_UNREADABLE, "%s, line %lld: the score '%s' %s", trec->path, (long long)line,
            field_text(fields[4], text), fault);
    if (kind == TREC_JUDGMENTS && (fault = parse_grade(fields[3], &entry->grade)))
        die(EXIT_UNREADABLE, "%s, line %lld: the grade '%s' %s", trec->path, (long long)line,
            field_text(fields[3], text), fault);
    if (memchr(at, 0, (size_t)(end - at)))
        die(EXIT_UNREADABLE, "%s, line %lld holds a NUL byte, which no text does", trec->path,
            (long long)line);
}

static void refuse_duplicates(const struct trec *trec)
{
    struct trec copy = {.count = trec->count,
                        .entries = allocate(trec->count, sizeof *trec->entries, "the run's lines")};
    if (trec->count)
        memcpy(copy.entries, trec->entries, (size_t)trec->count * sizeof *trec->entries);
    trec_sort(&copy, TREC_JUDGMENTS);
    for (int64_t i = 1; i < copy.count; i++) {
        struct trec_entry a = copy.entries[i - 1], b = copy.entries[i];
        if (by_document(&a, &b))
            continue;
        free(copy.entries);
        die(EXIT_UNREADABLE, "%s, lines %lld and %lld both name document '%.*s' for query '%.*s'", trec->path,
            (long long)lik_min_i64(a.line, b.line), (long long)lik_max_i64(a.line, b.line),
            (int)a.document_size, a.document, (int)a.query_size, a.query);
    }
    free(copy.entries);
}

void trec_read(struct trec *trec, const char *path, enum trec_kind kind)
{
    struct lik_io_error error;
    *trec = (struct trec){.path = strcmp(path, "-") ? path : "standard input"};
    int status = lik_map_open(path, &trec->map, &error);
    if (status)
        die_io(status, &error);
    int64_t mark = lik_text_begin(&trec->map, trec->path, &error), lines = 1, line = 0;
    if (mark < 0)
        die_io((int)mark, &error);
    const char *begin = (const char *)trec->map.data + mark,
               *end = (const char *)trec->map.data + trec->map.size;
    for (const char *at = begin; at < end && (at = memchr(at, '\n', (size_t)(end - at))); at++)
        lines++;
    trec->entries = allocate(lines, sizeof *trec->entries, "the lines of a TREC file");
    for (const char *at = begin, *stop; at < end; at = stop + (stop < end)) {
        stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        read_line(trec, kind, at, stop, ++line);
    }
    trec_sort(trec, kind);
    if (kind != TREC_PAIRS)
        refuse_duplicates(trec);
}

void trec_free(struct trec *trec)
{
    lik_map_close(&trec->map);
    free(trec->entries);
    *trec = (struct trec){0};
}

/* ---- measures ---- */

int measures_parse(const char *list, struct measure measures[MEASURES_MAX])
{
    static const char *names[] = {
        [MEASURE_NDCG] = "ndcg", [MEASURE_MRR] = "mrr", [MEASURE_RECALL] = "recall", [MEASURE_MAP] = "map"};
    int count = 0;
    for (const char *at = list; *at;) {
        size_t size = strcspn(at, ","), name = strcspn(at, ",@");
        struct measure *m = &measures[count];
        int kind = 0;
        if (count == MEASURES_MAX)
            die(EXIT_USAGE, "at most %d measures at once", MEASURES_MAX);
        while (kind < 4 && (strlen(names[kind]) != name || strncmp(names[kind], at, name)))
            kind++;
        if (kind == 4 || size >= sizeof m->name)
            die(EXIT_USAGE,
                "unknown measure '%.*s'\n    There are ndcg@K, mrr@K, recall@K and map; without @K the whole "
                "run "
                "counts.",
                (int)size, at);
        m->kind = (enum measure_kind)kind;
        m->depth = 0;
        if (name < size) {
            if (lik_text_whole(at + name + 1, (int64_t)(size - name - 1), &m->depth) || m->depth < 1)
                die(EXIT_USAGE, "measure '%.*s': a number of at least 1 must follow the @", (int)size, at);
        }
        snprintf(m->name, sizeof m->name, "%.*s", (int)size, at);
        count++;
        at += size + (at[size] == ',');
    }
    if (!count)
        die(EXIT_USAGE, "no measure is named");
    return count;
}

static int descending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a < b) - (a > b);
}

/* One query: `run` in rank order, `judged` ordered by document. */
static double measure_query(const struct measure *m, const struct trec_entry *run, int64_t run_count,
                            const struct trec_entry *judged, int64_t judged_count, int64_t *ideal)
{
    int64_t relevant = 0, found = 0, depth = m->depth ? lik_min_i64(m->depth, run_count) : run_count;
    double sum = 0, best = 0;
    for (int64_t i = 0; i < judged_count; i++) {
        ideal[i] = judged[i].grade > 0 ? judged[i].grade : 0;
        relevant += judged[i].grade > 0;
    }
    for (int64_t i = 0; i < depth; i++) {
        const struct trec_entry *hit =
            bsearch(&run[i], judged, (size_t)judged_count, sizeof *judged, by_document);
        if (!hit || hit->grade < 1)
            continue;
        found++;
        if (m->kind == MEASURE_NDCG)
            sum += (double)hit->grade / log2((double)i + 2);
        if (m->kind == MEASURE_MAP)
            sum += (double)found / (double)(i + 1);
        if (m->kind == MEASURE_MRR)
            return 1 / (double)(i + 1);
    }
    if (!relevant)
        return 0;
    if (m->kind == MEASURE_RECALL)
        return (double)found / (double)relevant;
    if (m->kind == MEASURE_MAP)
        return sum / (double)relevant;
    if (m->kind == MEASURE_MRR)
        return 0;
    qsort(ideal, (size_t)judged_count, sizeof *ideal, descending);
    for (int64_t i = 0; i < (m->depth ? lik_min_i64(m->depth, judged_count) : judged_count); i++)
        best += (double)ideal[i] / log2((double)i + 2);
    return sum / best;
}

void evaluate(const struct trec *run, const struct trec *judgments, const struct measure *measures, int count,
              int complete, struct evaluation *out)
{
    *out = (struct evaluation){0};
    out->values = allocate((judgments->count + 1) * count, sizeof *out->values, "values of the measures");
    out->of = allocate(judgments->count + 1, sizeof *out->of, "queries");
    int64_t *ideal = allocate(judgments->count + 1, sizeof *ideal, "judgments");
    int64_t i = 0, j = 0;
    while (i < run->count || j < judgments->count) {
        int order = i == run->count         ? 1
                    : j == judgments->count ? -1
                                            : by_query(&run->entries[i], &judgments->entries[j]);
        int64_t i_end = order <= 0 ? trec_query_end(run, i) : i,
                j_end = order >= 0 ? trec_query_end(judgments, j) : j;
        out->unjudged += order < 0;
        out->missing += order > 0;
        if (order == 0 || (order > 0 && complete)) {
            out->of[out->queries] = &judgments->entries[j];
            for (int m = 0; m < count; m++)
                out->values[out->queries * count + m] = measure_query(
                    &measures[m], run->entries + i, i_end - i, judgments->entries + j, j_end - j, ideal);
            out->queries++;
        }
        i = i_end;
        j = j_end;
    }
    free(ideal);
    for (int m = 0; m < count; m++) {
        double sum = 0, squares = 0, n = (double)out->queries;
        for (int64_t q = 0; q < out->queries; q++)
            sum += out->values[q * count + m];
        out->mean[m] = n > 0 ? sum / n : NAN;
        for (int64_t q = 0; q < out->queries; q++)
            squares +=
                (out->values[q * count + m] - out->mean[m]) * (out->values[q * count + m] - out->mean[m]);
        out->error[m] = n > 1 ? sqrt(squares / (n - 1) / n) : NAN;
    }
}

void evaluation_free(struct evaluation *evaluation)
{
    free(evaluation->values);
    free(evaluation->of);
    *evaluation = (struct evaluation){0};
}
