/* Drawing token similarities; see heatmap.h. Color is a linear walk through anchor colors:
 * viridis for screens, white to black for print. The scale runs from the lowest to the highest
 * similarity shown. */
#include "heatmap.h"

#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CELL       15    /* pixels of a cell */
#define LABEL_MAX  20    /* characters of a token label */
#define TITLES_MAX 20000 /* cells up to which each has a tooltip */

struct rgb {
    int r, g, b;
};

struct scale {
    float low, high;
    enum cmap cmap;
};

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

static struct rgb color_at(enum cmap cmap, double t)
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

static double place(const struct scale *scale, float value)
{
    if (!isfinite(value) || !(scale->high > scale->low))
        return isfinite(value) ? 1 : 0;
    return fmax(0,
                fmin(1, ((double)value - (double)scale->low) / ((double)scale->high - (double)scale->low)));
}

static struct scale scale_of(const struct heatmap *maps, int count, enum cmap cmap)
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

/* The best similarity of each document token over the query's tokens, NaN if it has none. */
static float best_of_column(const struct heatmap *map, int64_t t, int64_t *row)
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

static const char *document_id(const struct heatmap *map, char room[24])
{
    return lik_collection_id(&map->inputs->documents, map->document, room);
}

static const char *query_id(const struct heatmap *map, char room[24])
{
    return lik_collection_id(&map->inputs->queries, map->query, room);
}

static double mean_similarity(const struct heatmap *map)
{
    return map->weight != 0 ? (double)map->score / map->weight : 0;
}

/* ---- terminal ---- */

/* How each byte of a document's text is shown: 0 = plain, else 1 + 254 * place in the scale,
 * for matched tokens. */
static void shade_text(const struct heatmap *map, const struct scale *scale, unsigned char *shade)
{
    const struct spans *s = &map->document_spans;
    for (int64_t t = 0; t < s->count; t++) {
        int64_t row = 0;
        float best = best_of_column(map, t, &row);
        if (s->from[t] >= 0 && isfinite(best))
            memset(shade + s->from[t], 1 + (int)(254 * place(scale, best)), (size_t)(s->to[t] - s->from[t]));
    }
}

static void start_shade(struct sink *out, int shade)
{
    double t = (shade - 1) / 254.0;
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
    unsigned char *shade = allocate(size + 1, 1, "shades");
    char *edge = allocate(size + 1, 1, "edges"); /* 1 = a winner begins here, 2 = ends, 3 = both */
    shade_text(map, scale, shade);
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
            for (end = i + 1; end < stop && shade[end] == shade[i] && !edge[end]; end++)
                ;
            if (!terminal.color && edge[i] & 1)
                sink_put(out, "[[", 2);
            if (terminal.color && shade[i])
                start_shade(out, shade[i]);
            sink_clean(out, text + i, end - i);
            if (terminal.color && shade[i])
                sink_put(out, "\x1b[0m", 4);
            if (!terminal.color && edge[end] & 2)
                sink_put(out, "]]", 2);
        }
        column += wide;
        stop += stop < size;
    }
    sink_put(out, "\n", 1);
    free(shade);
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
    put_title_line(out, "document", document_id(map, room), NULL);
    sink_printf(out, "score     %.4f, mean similarity %.3f\n", (double)map->score, mean_similarity(map));
}

static void put_matches(struct sink *out, const struct heatmap *map)
{
    int label = (int)lik_max_i64(lik_min_i64(16, (terminal.width - 26) / 2), 4),
        bar = terminal.width - 2 * label - 24;
    double largest = 0;
    bar = bar > 24 ? 24 : bar;
    for (int64_t i = 0; i < map->match_count; i++)
        largest = fmax(largest, fabs(map->matches[i].share));
    sink_fill(out, "query token", 11, label);
    sink_put(out, "  ", 2);
    sink_fill(out, "best match", 10, label);
    sink_printf(out, "  %7s  %8s\n", "sim", "adds");
    for (int64_t i = 0; i < map->match_count; i++) {
        const struct match *m = &map->matches[i];
        put_label(out, &map->query_spans, m->query_token, label);
        sink_put(out, "  ", 2);
        put_label(out, &map->document_spans, m->document_token, label);
        sink_printf(out, "  %7.3f  %8.4f", (double)m->similarity, m->share);
        if (bar >= 4) {
            sink_put(out, "  ", 2);
            put_bar(out, largest > 0 ? m->share / largest : 0, bar);
        }
        sink_put(out, "\n", 1);
    }
}

struct difference {
    int64_t query_token;
    const struct match *a, *b; /* NULL = no match */
    double value;              /* share in a less share in b */
};

static int by_size(const void *left, const void *right)
{
    const struct difference *a = left, *b = right;
    double x = isnan(a->value) ? -1 : fabs(a->value), y = isnan(b->value) ? -1 : fabs(b->value);
    if (x != y)
        return x < y ? 1 : -1;
    return (a->query_token > b->query_token) - (a->query_token < b->query_token);
}

/* Why is the first above the second: what each query token adds to both, largest difference
 * first. */
static struct difference *differences_of(const struct heatmap *maps, int64_t *count)
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
    put_title_line(out, "query", query_id(maps, room), &maps->query_spans);
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

/* ---- markup ---- */

static void put_escaped(struct sink *out, const char *text, int64_t size)
{
    for (const char *at = text, *end = text + size; at < end;) {
        uint32_t code;
        int length = lik_utf8_decode(at, end, &code);
        if (!length || (code < 0x20 && code != '\n') || (code >= 0x7f && code < 0xa0) || code == 0xfffe ||
            code == 0xffff)
            sink_put(out, " ", 1);
        else if (code == '<')
            sink_put(out, "&lt;", 4);
        else if (code == '>')
            sink_put(out, "&gt;", 4);
        else if (code == '&')
            sink_put(out, "&amp;", 5);
        else if (code == '"')
            sink_put(out, "&quot;", 6);
        else
            sink_put(out, at, length);
        at += length ? length : 1;
    }
}

/* An id or a token, which must be told from others: what cannot be seen is written as in a
 * terminal. Texts are not, since a page shows each in a paragraph of its own, as its writing
 * system wants it. */
static void put_name(struct sink *out, const char *text, int64_t size)
{
    for (const char *at = text, *end = text + size; at < end;) {
        char shown[12];
        int columns, length = text_character(at, end, shown, &columns);
        put_escaped(out, shown, (int64_t)strlen(shown));
        at += length;
    }
}

static void put_escaped_label(struct sink *out, const struct spans *spans, int64_t t)
{
    char room[24];
    const char *label = spans_label(spans, t, room);
    int64_t size = (int64_t)strlen(label), fit = text_prefix(label, size, LABEL_MAX);
    put_name(out, label, fit);
    if (fit < size)
        sink_put(out, "\u2026", 3);
}

static int label_columns(const struct spans *spans, int64_t count)
{
    char room[24];
    int64_t most = 2;
    for (int64_t t = 0; t < count; t++) {
        const char *label = spans_label(spans, t, room);
        most = lik_max_i64(most, text_columns(label, (int64_t)strlen(label)));
    }
    return (int)lik_min_i64(most, LABEL_MAX + 1);
}

/* Where a matrix stands in its picture, in pixels. */
struct frame {
    int left, top, width, height; /* of the labels, and of everything */
    double cell;                  /* width of a cell */
};

static struct frame frame_of(const struct heatmap *map)
{
    struct frame f;
    f.left = 12 + 7 * label_columns(&map->query_spans, map->rows);
    f.cell = fmax(2, fmin(CELL, 1600.0 / (double)lik_max_i64(map->columns, 1)));
    f.top = f.cell < 9 ? 8 : 10 + 7 * label_columns(&map->document_spans, map->columns);
    f.width = (int)lik_min_i64(f.left + (int64_t)ceil(f.cell * (double)map->columns) + 12, INT32_MAX);
    f.height = (int)lik_min_i64(f.top + CELL * map->rows + 8, INT32_MAX);
    return f;
}

/* Rank of cell t in its row: 0 the best, 1 and 2 the runners-up, 3 any other. */
static int standing(const struct heatmap *map, int64_t s, int64_t t)
{
    const float *row = map->similarities + s * map->columns;
    int better = 0;
    for (int64_t i = 0; i < map->columns && better < 3; i++)
        better += row[i] > row[t] || (row[i] == row[t] && i < t);
    return better;
}

static void put_row(struct sink *out, const struct heatmap *map, const struct frame *f,
                    const struct scale *scale, int64_t s)
{
    int titles = map->rows * map->columns <= TITLES_MAX;
    double y = f->top + (double)CELL * (double)s;
    sink_printf(out, "<g class=\"row\"><text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">", f->left - 5,
                y + CELL - 4);
    put_escaped_label(out, &map->query_spans, s);
    sink_printf(out, "</text>\n");
    for (int64_t t = 0; t < map->columns; t++) {
        float value = map->similarities[s * map->columns + t];
        if (isnan(value))
            continue;
        struct rgb c = color_at(scale->cmap, place(scale, value));
        int rank = standing(map, s, t);
        sink_printf(out, "<rect x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%d\" fill=\"#%02x%02x%02x\"%s",
                    f->left + f->cell * (double)t, y, f->cell, CELL, c.r, c.g, c.b,
                    rank == 0  ? " class=\"best\""
                    : rank < 3 ? " class=\"next\""
                               : "");
        if (!titles) {
            sink_printf(out, "/>");
            continue;
        }
        sink_printf(out, "><title>");
        put_escaped_label(out, &map->query_spans, s);
        sink_printf(out, " \u00d7 ");
        put_escaped_label(out, &map->document_spans, t);
        sink_printf(out, ": %.3f</title></rect>", (double)value);
    }
    sink_printf(out, "</g>\n");
}

/* One matrix with its labels; the winner of each row is framed. */
static void put_matrix(struct sink *out, const struct heatmap *map, const struct scale *scale)
{
    struct frame f = frame_of(map);
    for (int64_t t = 0; t < map->columns && f.cell >= 9; t++) {
        double x = f.left + f.cell * ((double)t + 0.5) + 4;
        sink_printf(out, "<text transform=\"translate(%.1f %d) rotate(-90)\">", x, f.top - 5);
        put_escaped_label(out, &map->document_spans, t);
        sink_printf(out, "</text>\n");
    }
    for (int64_t s = 0; s < map->rows; s++)
        put_row(out, map, &f, scale, s);
    for (int64_t i = 0; i < map->match_count; i++)
        sink_printf(
            out,
            "<rect x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%d\" fill=\"none\" stroke=\"#e4002b\" "
            "stroke-width=\"1.5\" pointer-events=\"none\"/>\n",
            f.left + f.cell * (double)map->matches[i].document_token + 0.75,
            f.top + (double)CELL * (double)map->matches[i].query_token + 0.75, f.cell - 1.5, CELL - 2);
}

static const char style[] =
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#222}"
    ".row:hover .best{stroke:#e4002b;stroke-width:4}.row:hover .next{stroke:#ff8a00;stroke-width:2}"
    ".row:hover text{font-weight:bold}";

static void put_legend(struct sink *out, const struct scale *scale, int x, int y)
{
    for (int i = 0; i < 60; i++) {
        struct rgb c = color_at(scale->cmap, i / 59.0);
        sink_printf(out, "<rect x=\"%d\" y=\"%d\" width=\"3\" height=\"10\" fill=\"#%02x%02x%02x\"/>",
                    x + 50 + 2 * i, y, c.r, c.g, c.b);
    }
    sink_printf(
        out, "\n<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%.2f</text><text x=\"%d\" y=\"%d\">%.2f</text>\n",
        x + 46, y + 9, (double)scale->low, x + 175, y + 9, (double)scale->high);
}

static void put_caption(struct sink *out, const struct heatmap *map)
{
    char room[24];
    const char *id = query_id(map, room);
    put_name(out, id, (int64_t)strlen(id));
    sink_printf(out, " \u00d7 ");
    id = document_id(map, room);
    put_name(out, id, (int64_t)strlen(id));
    sink_printf(out, ": score %.4f, mean similarity %.3f", (double)map->score, mean_similarity(map));
}

void heatmap_svg(struct sink *out, const struct heatmap *maps, int count, enum cmap cmap)
{
    struct scale scale = scale_of(maps, count, cmap);
    int64_t width = 280, height = 24, y = 0;
    for (int m = 0; m < count; m++) {
        struct frame f = frame_of(&maps[m]);
        width = lik_max_i64(width, f.width);
        height += f.height + 22;
    }
    sink_printf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%lld\" height=\"%lld\" viewBox=\"0 0 %lld "
                "%lld\">\n<style>%s</style>\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
                (long long)width, (long long)height, (long long)width, (long long)height, style);
    for (int m = 0; m < count; m++) {
        sink_printf(out, "<g transform=\"translate(0 %lld)\"><text x=\"8\" y=\"15\">", (long long)y);
        put_caption(out, &maps[m]);
        sink_printf(out, "</text></g>\n<g transform=\"translate(0 %lld)\">\n", (long long)y + 18);
        put_matrix(out, &maps[m], &scale);
        sink_printf(out, "</g>\n");
        y += frame_of(&maps[m]).height + 22;
    }
    put_legend(out, &scale, 8, (int)y + 4);
    sink_printf(out, "</svg>\n");
}

static void put_html_text(struct sink *out, const struct heatmap *map, const struct scale *scale)
{
    const struct spans *s = &map->document_spans;
    const char *text = s->line.text.data;
    int64_t at = 0;
    if (!s->line.text.size)
        return;
    sink_printf(out, "<p class=\"text\">");
    for (int64_t t = 0; t < s->count; t++) {
        int64_t row = 0;
        float best = best_of_column(map, t, &row);
        if (s->from[t] < 0 || !isfinite(best))
            continue;
        double p = place(scale, best);
        put_escaped(out, text + at, s->from[t] - at);
        sink_printf(out, "<span style=\"background:rgba(255,176,0,%.2f)\" title=\"", p * p);
        put_escaped_label(out, &map->query_spans, row);
        sink_printf(out, ": %.3f\">", (double)best);
        put_escaped(out, text + s->from[t], s->to[t] - s->from[t]);
        sink_printf(out, "</span>");
        at = s->to[t];
    }
    put_escaped(out, text + at, s->line.text.size - at);
    sink_printf(out, "</p>\n");
}

static void put_html_matches(struct sink *out, const struct heatmap *map)
{
    double largest = 0, sum = 0;
    for (int64_t i = 0; i < map->match_count; i++)
        largest = fmax(largest, fabs(map->matches[i].share));
    sink_printf(
        out,
        "<table><tr><th>query token</th><th>best match</th><th>similarity</th><th>adds</th><th></th></tr>\n");
    for (int64_t i = 0; i < map->match_count; i++) {
        const struct match *m = &map->matches[i];
        sum += m->share;
        sink_printf(out, "<tr><td>");
        put_escaped_label(out, &map->query_spans, m->query_token);
        sink_printf(out, "</td><td>");
        put_escaped_label(out, &map->document_spans, m->document_token);
        sink_printf(out,
                    "</td><td class=\"n\">%.3f</td><td class=\"n\">%.4f</td><td><div class=\"bar\" "
                    "style=\"width:%.0fpx\"></div></td></tr>\n",
                    (double)m->similarity, m->share, largest > 0 ? fmax(0, m->share / largest * 160) : 0);
    }
    sink_printf(out, "<tr><th colspan=\"3\">score</th><th class=\"n\">%.4f</th><td></td></tr></table>\n",
                sum);
}

static void put_html_differences(struct sink *out, const struct heatmap *maps)
{
    int64_t count;
    struct difference *all = differences_of(maps, &count);
    sink_printf(out, "<h2>Why one is above the other</h2>\n<table><tr><th>query token</th><th>in the "
                     "first</th><th></th><th>in the second</th>"
                     "<th></th><th>adds more</th></tr>\n");
    for (int64_t i = 0; i < count; i++) {
        sink_printf(out, "<tr><td>");
        put_escaped_label(out, &maps->query_spans, all[i].query_token);
        sink_printf(out, "</td>");
        for (int m = 0; m < 2; m++) {
            const struct match *match = m ? all[i].b : all[i].a;
            sink_printf(out, "<td>");
            if (match)
                put_escaped_label(out, &maps[m].document_spans, match->document_token);
            sink_printf(out, "</td><td class=\"n\">");
            if (match)
                sink_printf(out, "%.3f", (double)match->similarity);
            sink_printf(out, "</td>");
        }
        sink_printf(out, "<td class=\"n\">%+.4f</td></tr>\n", all[i].value);
    }
    sink_printf(out, "</table>\n");
    free(all);
}

void heatmap_html(struct sink *out, const struct heatmap *maps, int count, enum cmap cmap)
{
    struct scale scale = scale_of(maps, count, cmap);
    sink_printf(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>");
    put_caption(out, maps);
    sink_printf(out,
                "</title>\n<style>%s\nbody{font:15px/1.5 system-ui,sans-serif;margin:2em "
                "auto;max-width:1200px;padding:0 "
                "1em;color:#222;background:#fff}"
                "h1{font-size:1.3em}h2{font-size:1.1em;margin-top:2em}.map{overflow-x:auto}table{border-"
                "collapse:collapse;"
                "margin:1em 0}"
                "td,th{padding:1px 10px 1px "
                "0;text-align:left;font-weight:normal}th{color:#666}.n{text-align:right;font-variant-numeric:"
                "tabular-nums}"
                ".bar{height:.7em;background:#31688e}.text{max-width:50em}svg{display:block}</style>\n</"
                "head>\n<body>\n<h1>",
                style);
    if (maps->query_spans.line.text.size)
        put_escaped(out, maps->query_spans.line.text.data, maps->query_spans.line.text.size);
    else
        put_caption(out, maps);
    sink_printf(out, "</h1>\n");
    for (int m = 0; m < count; m++) {
        struct frame f = frame_of(&maps[m]);
        int width = f.width > 240 ? f.width : 240;
        sink_printf(out, "<h2>");
        put_caption(out, &maps[m]);
        sink_printf(out, "</h2>\n");
        put_html_text(out, &maps[m], &scale);
        sink_printf(
            out, "<div class=\"map\"><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\">\n",
            width, f.height + 18);
        put_matrix(out, &maps[m], &scale);
        put_legend(out, &scale, 0, f.height + 2);
        sink_printf(out, "</svg></div>\n");
        put_html_matches(out, &maps[m]);
    }
    if (count == 2)
        put_html_differences(out, maps);
    sink_printf(
        out,
        "<p>Rows are query tokens, columns document tokens; the best match of each row is framed and adds up "
        "to the score. lik %s</p>\n"
        "</body>\n</html>\n",
        lik_version());
}
