/* What a heat map shows, and its form in a terminal; see heatmap.h. Color is a linear walk
 * through anchor colors: viridis for screens, white to black for print. The scale runs from the
 * lowest to the highest similarity shown. */
#include "heatmap_draw.h"

#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void heatmap_open(struct heatmap *map, struct engine *engine, const struct inputs *inputs, int64_t query,
                  int64_t document)
{
    *map = (struct heatmap){.inputs = inputs, .query = query, .document = document};
    int64_t cells;
    map->rows = lik_collection_length(&inputs->queries, query);
    map->columns = lik_collection_length(&inputs->documents, document);
    if (lik_mul_i64(map->rows, map->columns, &cells))
        die(EXIT_EXHAUSTED, "out of memory: %lld x %lld similarities", (long long)map->rows,
            (long long)map->columns);
    map->similarities = allocate(cells, sizeof *map->similarities, "similarities");
    map->matches = allocate(map->rows, sizeof *map->matches, "matches");
    engine_similarities(engine, inputs, query, document, map->similarities);
    map->match_count =
        map->columns ? matches_of(inputs, query, document, map->similarities, map->matches) : 0;
    map->weight = query_weight(&inputs->queries, query);
    struct lik_score op = {.struct_size = sizeof op,
                           .pairing = LIK_LIST,
                           .q = inputs->queries.tokens,
                           .d = inputs->documents.tokens,
                           .list_q = &query,
                           .list_d = &document,
                           .list_count = 1,
                           .scores = &map->score};
    engine_score(engine, &op);
    spans_get(&map->query_spans, &inputs->queries, query);
    spans_get(&map->document_spans, &inputs->documents, document);
}

void heatmap_close(struct heatmap *map)
{
    free(map->similarities);
    free(map->matches);
    spans_free(&map->query_spans);
    spans_free(&map->document_spans);
}

char *heatmap_path(const char *prefix, int svg)
{
    size_t size = strlen(prefix) + 8;
    char *path = allocate((int64_t)size, 1, "a file name");
    snprintf(path, size, "%s%s", prefix, svg ? ".svg" : ".html");
    return path;
}

enum cmap heatmap_cmap(const char *name)
{
    if (name && strcmp(name, "viridis") && strcmp(name, "grey") && strcmp(name, "gray"))
        die(EXIT_USAGE, "--cmap is viridis or grey, not '%s'", name);
    return name && name[0] == 'g' ? CMAP_GREY : CMAP_VIRIDIS;
}

/* ---- colors ---- */

struct rgb color_at(enum cmap cmap, double t)
{
    static const struct rgb viridis[] = {{68, 1, 84},    {72, 40, 120},  {62, 74, 137},  {49, 104, 142},
                                         {38, 130, 142}, {31, 158, 137}, {53, 183, 121}, {110, 206, 88},
                                         {181, 222, 43}, {253, 231, 37}};
    if (cmap == CMAP_GREY) {
        int v = (int)lround(255 - 235 * t);
        return (struct rgb){v, v, v};
    }
    double at = t * 9;
    int i = at >= 9 ? 8 : (int)at;
    double f = at - i;
    const struct rgb *a = &viridis[i], *b = &viridis[i + 1];
    return (struct rgb){(int)lround(a->r + f * (b->r - a->r)), (int)lround(a->g + f * (b->g - a->g)),
                        (int)lround(a->b + f * (b->b - a->b))};
}

double scale_place(const struct scale *scale, float value)
{
    if (!isfinite(value) || !(scale->high > scale->low))
        return isfinite(value) ? 1 : 0;
    return fmax(0,
                fmin(1, ((double)value - (double)scale->low) / ((double)scale->high - (double)scale->low)));
}

struct scale scale_of(const struct heatmap *maps, int count, enum cmap cmap)
{
    struct scale s = {INFINITY, -INFINITY, cmap};
    for (int m = 0; m < count; m++)
        for (int64_t i = 0; i < maps[m].rows * maps[m].columns; i++)
            if (isfinite(maps[m].similarities[i])) {
                s.low = fminf(s.low, maps[m].similarities[i]);
                s.high = fmaxf(s.high, maps[m].similarities[i]);
            }
    if (s.low > s.high)
        s.low = s.high = 0;
    return s;
}

float best_of_column(const struct heatmap *map, int64_t t, int64_t *row)
{
    float best = NAN;
    for (int64_t s = 0; s < map->rows; s++) {
        float value = map->similarities[s * map->columns + t];
        if (!isnan(value) && !(best >= value)) {
            best = value;
            *row = s;
        }
    }
    return best;
}

const char *heatmap_document(const struct heatmap *map, char room[24])
{
    return lik_collection_id(&map->inputs->documents, map->document, room);
}

const char *heatmap_query(const struct heatmap *map, char room[24])
{
    return lik_collection_id(&map->inputs->queries, map->query, room);
}

double mean_similarity(const struct heatmap *map)
{
    return map->weight != 0 ? (double)map->score / map->weight : 0;
}

static int by_value(const void *left, const void *right)
{
    float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

struct shading shading_of(const struct heatmap *map, const struct scale *scale)
{
    struct shading shading = {.high = scale->high};
    int64_t n = 0, row = 0;
    float *best = allocate(map->columns, sizeof *best, "similarities");
    for (int64_t t = 0; t < map->columns; t++) {
        best[n] = best_of_column(map, t, &row);
        n += isfinite(best[n]);
    }
    if (n)
        qsort(best, (size_t)n, sizeof *best, by_value);
    shading.median = n ? best[n / 2] : 0;
    free(best);
    return shading;
}

double shade(const struct shading *shading, float value)
{
    if (!isfinite(value) || value <= shading->median)
        return 0;
    return shading->high > shading->median ? fmin(1, ((double)value - (double)shading->median) /
                                                         ((double)shading->high - (double)shading->median))
                                           : 1;
}

int heatmap_weighted(const struct heatmap *map)
{
    return map->inputs->queries.tokens.weights != NULL;
}

/* ---- terminal ---- */

/* How each byte of a document's text is shown: 0 = plain, else 1 + 254 * its shade: of what is
 * above the document's median. */
static void shade_text(const struct heatmap *map, const struct scale *scale, unsigned char *shades)
{
    struct shading shading = shading_of(map, scale);
    const struct spans *s = &map->document_spans;
    for (int64_t t = 0; t < s->count; t++) {
        int64_t row = 0;
        float best = best_of_column(map, t, &row);
        double p = shade(&shading, best);
        if (s->from[t] >= 0 && p > 0)
            memset(shades + s->from[t], 1 + (int)(254 * p), (size_t)(s->to[t] - s->from[t]));
    }
}

static void start_shade(struct sink *out, int level)
{
    double t = (level - 1) / 254.0;
    struct rgb c = color_at(CMAP_VIRIDIS, t);
    int dark = c.r * 3 + c.g * 6 + c.b < 1280;
    if (terminal.color == COLOR_24BIT)
        sink_printf(out, "\x1b[48;2;%d;%d;%d;38;5;%dm", c.r, c.g, c.b, dark ? 231 : 16);
    else
        sink_printf(out, "\x1b[48;5;%d;38;5;%dm",
                    16 + 36 * ((c.r + 25) / 51) + 6 * ((c.g + 25) / 51) + (c.b + 25) / 51, dark ? 231 : 16);
}

/* The text, wrapped at words, tokens shaded; without color the winners stand in [[ ]]. */
static void put_text(struct sink *out, const struct heatmap *map, const struct scale *scale)
{
    const char *text = map->document_spans.line.text.data;
    int64_t size = map->document_spans.line.text.size;
    int column = 0, width = terminal.width;
    if (!size)
        return;
    unsigned char *shades = allocate(size + 1, 1, "shades");
    char *edge = allocate(size + 1, 1, "edges"); /* 1 = a winner begins here, 2 = ends, 3 = both */
    shade_text(map, scale, shades);
    for (int64_t i = 0; i < map->match_count; i++) {
        int64_t t = map->matches[i].document_token;
        if (t < map->document_spans.count && map->document_spans.from[t] >= 0) {
            edge[map->document_spans.from[t]] |= 1;
            edge[map->document_spans.to[t]] |= 2;
        }
    }
    for (int64_t at = 0, stop; at < size; at = stop) {
        for (stop = at; stop < size && text[stop] != ' ' && text[stop] != '\n'; stop++)
            ;
        int wide = text_columns(text + at, stop - at);
        for (int64_t i = at; !terminal.color && i < stop; i++)
            wide += (edge[i] & 1 ? 2 : 0) + (edge[i + 1] & 2 ? 2 : 0);
        if (column > 0 && column + 1 + wide > width) {
            sink_put(out, "\n", 1);
            column = 0;
        } else if (column > 0) {
            sink_put(out, " ", 1);
            column++;
        }
        for (int64_t i = at, end; i < stop; i = end) {
            for (end = i + 1; end < stop && shades[end] == shades[i] && !edge[end]; end++)
                ;
            if (!terminal.color && edge[i] & 1)
                sink_put(out, "[[", 2);
            if (terminal.color && shades[i])
                start_shade(out, shades[i]);
            sink_clean(out, text + i, end - i);
            if (terminal.color && shades[i])
                sink_put(out, "\x1b[0m", 4);
            if (!terminal.color && edge[end] & 2)
                sink_put(out, "]]", 2);
        }
        column += wide;
        stop += stop < size;
    }
    sink_put(out, "\n", 1);
    free(shades);
    free(edge);
}

static void put_label(struct sink *out, const struct spans *spans, int64_t t, int columns)
{
    char room[24];
    const char *label = spans_label(spans, t, room);
    sink_fill(out, label, (int64_t)strlen(label), columns);
}

static void put_title_line(struct sink *out, const char *what, const char *id, const struct spans *spans)
{
    int left = terminal.width - 10;
    sink_printf(out, "%-8s  ", what);
    int wide = (int)lik_min_i64(text_columns(id, (int64_t)strlen(id)), lik_max_i64(left, 1));
    sink_fill(out, id, (int64_t)strlen(id), wide);
    left -= wide + 4;
    if (spans && spans->line.text.size && left > 8) {
        int text = (int)lik_min_i64(text_columns(spans->line.text.data, spans->line.text.size), left);
        sink_put(out, "  \"", 3);
        sink_fill(out, spans->line.text.data, spans->line.text.size, text);
        sink_put(out, "\"", 1);
    }
    sink_put(out, "\n", 1);
}

static void put_score_line(struct sink *out, const struct heatmap *map)
{
    char room[24];
    put_title_line(out, "document", heatmap_document(map, room), NULL);
    sink_printf(out, "score     %.4f, mean similarity %.3f\n", (double)map->score, mean_similarity(map));
}

static void put_matches(struct sink *out, const struct heatmap *map)
{
    int weighted = heatmap_weighted(map), used = weighted ? 34 : 24;
    int label = (int)lik_max_i64(lik_min_i64(16, (terminal.width - used - 2) / 2), 4),
        bar = terminal.width - 2 * label - used;
    double largest = 0;
    bar = bar > 24 ? 24 : bar;
    for (int64_t i = 0; i < map->match_count; i++)
        largest = fmax(largest, fabs(map->matches[i].share));
    sink_fill(out, "query token", 11, label);
    sink_put(out, "  ", 2);
    sink_fill(out, "best match", 10, label);
    sink_printf(out, weighted ? "  %7s  %8s  %8s\n" : "  %7s%.0s  %8s\n", "sim", "weight", "adds");
    for (int64_t i = 0; i < map->match_count; i++) {
        const struct match *m = &map->matches[i];
        put_label(out, &map->query_spans, m->query_token, label);
        sink_put(out, "  ", 2);
        put_label(out, &map->document_spans, m->document_token, label);
        sink_printf(out, "  %7.3f", (double)m->similarity);
        if (weighted)
            sink_printf(out, "  %8.4f", m->weight);
        sink_printf(out, "  %8.4f", m->share);
        if (bar >= 4) {
            sink_put(out, "  ", 2);
            put_bar(out, largest > 0 ? m->share / largest : 0, bar);
        }
        sink_put(out, "\n", 1);
    }
}

static int by_size(const void *left, const void *right)
{
    const struct difference *a = left, *b = right;
    double x = isnan(a->value) ? -1 : fabs(a->value), y = isnan(b->value) ? -1 : fabs(b->value);
    if (x != y)
        return x < y ? 1 : -1;
    return (a->query_token > b->query_token) - (a->query_token < b->query_token);
}

struct difference *differences_of(const struct heatmap *maps, int64_t *count)
{
    struct difference *all = allocate(maps->rows, sizeof *all, "differences");
    int64_t n = 0;
    for (int64_t s = 0; s < maps->rows; s++) {
        struct difference d = {.query_token = s};
        for (int64_t i = 0; i < maps[0].match_count; i++)
            if (maps[0].matches[i].query_token == s)
                d.a = &maps[0].matches[i];
        for (int64_t i = 0; i < maps[1].match_count; i++)
            if (maps[1].matches[i].query_token == s)
                d.b = &maps[1].matches[i];
        d.value = (d.a ? d.a->share : 0) - (d.b ? d.b->share : 0);
        if (d.a || d.b)
            all[n++] = d;
    }
    if (n)
        qsort(all, (size_t)n, sizeof *all, by_size);
    *count = n;
    return all;
}

static void put_differences(struct sink *out, const struct heatmap *maps)
{
    int label = (int)lik_max_i64(lik_min_i64(16, (terminal.width - 34) / 3), 4);
    int64_t count;
    struct difference *all = differences_of(maps, &count);
    sink_fill(out, "query token", 11, label);
    sink_put(out, "  ", 2);
    sink_fill(out, "in the first", 12, label + 8);
    sink_put(out, "  ", 2);
    sink_fill(out, "in the second", 13, label + 8);
    sink_printf(out, "  %9s\n", "adds more");
    for (int64_t i = 0; i < count; i++) {
        put_label(out, &maps->query_spans, all[i].query_token, label);
        for (int m = 0; m < 2; m++) {
            const struct match *match = m ? all[i].b : all[i].a;
            sink_put(out, "  ", 2);
            if (match) {
                put_label(out, &maps[m].document_spans, match->document_token, label);
                sink_printf(out, " %7.3f", (double)match->similarity);
            } else {
                sink_fill(out, "-", 1, label + 8);
            }
        }
        sink_printf(out, "  %+9.4f\n", all[i].value);
    }
    free(all);
}

void heatmap_terminal(struct sink *out, const struct heatmap *maps, int count)
{
    struct scale scale = scale_of(maps, count, CMAP_VIRIDIS);
    char room[24];
    put_title_line(out, "query", heatmap_query(maps, room), &maps->query_spans);
    for (int m = 0; m < count; m++) {
        put_score_line(out, &maps[m]);
        sink_put(out, "\n", 1);
        if (count == 1) {
            put_matches(out, &maps[m]);
            sink_put(out, "\n", 1);
        }
        put_text(out, &maps[m], &scale);
        sink_put(out, "\n", m + 1 < count);
    }
    if (count == 2)
        put_differences(out, maps);
}
