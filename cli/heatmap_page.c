/* A heat map as a page and as a picture; see heatmap.h. Colors that follow the reader's
 * preference have their light value in an attribute, for programs that know no style sheets. */
#include "heatmap_draw.h"

#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CELL       15    /* pixels of a cell */
#define CELL_MIN   9     /* narrowest that has a label */
#define WIDTH_MAX  1600  /* pixels of a matrix that shows every token */
#define SHOWN_MAX  400   /* columns of a long document's matrix */
#define STRIP_BINS 1000  /* of the strip */
#define LABEL_MAX  20    /* characters of a token label */
#define TITLES_MAX 20000 /* cells up to which each has a tooltip */
#define GAP        (-1)  /* a column that stands for tokens left out */

static int label_columns(const struct spans *spans, int64_t t)
{
    char room[24];
    const char *label = spans_label(spans, t, room);
    return (int)lik_min_i64(text_columns(label, (int64_t)strlen(label)), MARKUP_LABEL + 1);
}

/* ---- layout ---- */

/* Which tokens have a column, and where everything stands, in pixels. */
struct layout {
    int64_t *tokens, shown; /* GAP: tokens are left out here */
    int whole;              /* every token is shown */
    int left, top, right, height;
    double cell;
};

/* Columns around the winners, merged where they touch. */
static void choose_columns(const struct heatmap *map, struct layout *f)
{
    int64_t around = lik_max_i64(2, lik_min_i64(8, SHOWN_MAX / (2 * lik_max_i64(map->match_count, 1))));
    char *near = allocate(map->columns, 1, "columns");
    for (int64_t i = 0; i < map->match_count; i++) {
        int64_t t = map->matches[i].document_token, from = lik_max_i64(t - around, 0);
        memset(near + from, 1, (size_t)(lik_min_i64(t + around + 1, map->columns) - from));
    }
    for (int64_t t = 0; t < map->columns; t++) {
        if (near[t])
            f->tokens[f->shown++] = t;
        else if (!f->shown || f->tokens[f->shown - 1] != GAP)
            f->tokens[f->shown++] = GAP;
    }
    free(near);
}

static struct layout layout_of(const struct heatmap *map)
{
    struct layout f = {.whole = map->columns * CELL_MIN <= WIDTH_MAX, .cell = CELL};
    int rows = 2, columns = 2;
    f.tokens = allocate(map->columns + 1, sizeof *f.tokens, "columns");
    if (f.whole) {
        for (int64_t t = 0; t < map->columns; t++)
            f.tokens[f.shown++] = t;
        f.cell = fmax(CELL_MIN, fmin(CELL, (double)WIDTH_MAX / (double)lik_max_i64(map->columns, 1)));
    } else {
        choose_columns(map, &f);
    }
    for (int64_t s = 0; s < map->rows; s++)
        rows = rows > label_columns(&map->query_spans, s) ? rows : label_columns(&map->query_spans, s);
    for (int64_t i = 0; i < f.shown; i++)
        if (f.tokens[i] != GAP && label_columns(&map->document_spans, f.tokens[i]) > columns)
            columns = label_columns(&map->document_spans, f.tokens[i]);
    f.left = 12 + 7 * rows + (heatmap_weighted(map) ? 50 : 0);
    f.top = 10 + 7 * columns;
    f.right = (int)lik_min_i64((int64_t)ceil(f.cell * (double)f.shown) + 30, INT32_MAX / 2);
    f.height = (int)lik_min_i64(f.top + CELL * map->rows + 20, INT32_MAX / 2);
    return f;
}

/* The column of a token that is shown. */
static int64_t column_of(const struct layout *f, int64_t token)
{
    for (int64_t i = 0; i < f->shown; i++)
        if (f->tokens[i] == token)
            return i;
    return 0;
}

/* ---- the matrix ---- */

/* Rank of cell t in its row: 0 the best, 1 and 2 the runners-up, 3 any other. */
static int standing(const struct heatmap *map, int64_t s, int64_t t)
{
    const float *row = map->similarities + s * map->columns;
    int better = 0;
    for (int64_t i = 0; i < map->columns && better < 3; i++)
        better += row[i] > row[t] || (row[i] == row[t] && i < t);
    return better;
}

static void put_cell(struct sink *out, const struct heatmap *map, const struct layout *f,
                     const struct scale *scale, int64_t s, int64_t i, double x)
{
    int64_t t = f->tokens[i];
    float value = t == GAP ? NAN : map->similarities[s * map->columns + t];
    if (isnan(value))
        return;
    struct rgb c = color_at(scale->cmap, scale_place(scale, value));
    int rank = standing(map, s, t);
    sink_printf(out, "<rect x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%d\" fill=\"#%02x%02x%02x\"%s",
                x + f->cell * (double)i, f->top + (double)CELL * (double)s, f->cell, CELL, c.r, c.g, c.b,
                rank == 0  ? " class=\"best\""
                : rank < 3 ? " class=\"next\""
                           : "");
    if (map->rows * f->shown > TITLES_MAX) {
        sink_printf(out, "/>");
        return;
    }
    sink_printf(out, "><title>");
    markup_label(out, &map->query_spans, s);
    sink_printf(out, " \u00d7 ");
    markup_label(out, &map->document_spans, t);
    sink_printf(out, " (%lld): %.3f</title></rect>", (long long)t, (double)value);
}

/* Labels of the rows, and the weights where there are any, up to x. */
static void put_row_labels(struct sink *out, const struct heatmap *map, const struct layout *f, int x)
{
    int weighted = heatmap_weighted(map);
    if (weighted)
        sink_printf(out,
                    "<text class=\"dim\" x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"#666\">weight</text>\n",
                    x - 5, f->top - 5);
    for (int64_t s = 0; s < map->rows; s++) {
        double y = f->top + (double)CELL * (double)s + CELL - 4;
        sink_printf(out, "<text x=\"%d\" y=\"%.0f\" text-anchor=\"end\" fill=\"#222\">",
                    x - 5 - 50 * weighted, y);
        markup_label(out, &map->query_spans, s);
        sink_printf(out, "</text>\n");
        if (!weighted)
            continue;
        const struct lik_collection *q = &map->inputs->queries;
        sink_printf(out,
                    "<text class=\"dim\" x=\"%d\" y=\"%.0f\" text-anchor=\"end\" fill=\"#666\">%.2f</text>\n",
                    x - 5, y, (double)q->tokens.weights[lik_collection_row(q, map->query, s)]);
    }
}

/* Numbers below every tenth token, and where a neighborhood begins. */
static void put_ticks(struct sink *out, const struct layout *f, int64_t rows, double left)
{
    double y = f->top + (double)CELL * (double)rows;
    for (int64_t i = 0, last = -100; i < f->shown; i++) {
        int64_t t = f->tokens[i];
        double x = left + f->cell * ((double)i + 0.5);
        if (t == GAP)
            sink_printf(out,
                        "<text class=\"dim\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\" "
                        "fill=\"#666\">\u22ef</text>\n",
                        x, f->top + (double)CELL * (double)rows / 2 + 4);
        int begins = t != GAP && i > 0 && f->tokens[i - 1] == GAP;
        if (t == GAP || (t % 10 && !begins) || (double)(i - last) * f->cell < 34)
            continue;
        last = i;
        sink_printf(out,
                    "<path class=\"axis\" d=\"M%.1f %.0fv3\" stroke=\"#666\"/><text class=\"dim\" x=\"%.1f\" "
                    "y=\"%.0f\" "
                    "text-anchor=\"middle\" fill=\"#666\">%lld</text>\n",
                    x, y, x, y + 13, (long long)t);
    }
}

/* The matrix with labels above and ticks below, its cells from `left` on; the winner of each
 * row is framed. */
static void put_matrix(struct sink *out, const struct heatmap *map, const struct layout *f,
                       const struct scale *scale, int left)
{
    for (int64_t i = 0; i < f->shown; i++) {
        if (f->tokens[i] == GAP)
            continue;
        sink_printf(out, "<text transform=\"translate(%.1f %d) rotate(-90)\" fill=\"#222\">",
                    left + f->cell * ((double)i + 0.5) + 4, f->top - 5);
        markup_label(out, &map->document_spans, f->tokens[i]);
        sink_printf(out, "</text>\n");
    }
    for (int64_t s = 0; s < map->rows; s++) {
        sink_printf(out, "<g class=\"row\">");
        for (int64_t i = 0; i < f->shown; i++)
            put_cell(out, map, f, scale, s, i, left);
        sink_printf(out, "</g>\n");
    }
    for (int64_t i = 0; i < map->match_count; i++)
        sink_printf(out,
                    "<rect class=\"hit\" x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%d\" fill=\"none\" "
                    "stroke=\"#e4002b\" stroke-width=\"1.5\" pointer-events=\"none\"/>\n",
                    left + f->cell * (double)column_of(f, map->matches[i].document_token),
                    f->top + (double)CELL * (double)map->matches[i].query_token, f->cell, CELL);
    put_ticks(out, f, map->rows, left);
}

/* The whole of a long document in one row: the best similarity of each stretch of tokens, marks
 * below the winners, numbers along it. `width` pixels from x on. */
static void put_strip(struct sink *out, const struct heatmap *map, const struct scale *scale, int x, int y,
                      int width)
{
    int64_t bins = lik_min_i64(STRIP_BINS, map->columns), step = 1;
    double pixels = (double)width / (double)bins, each = (double)width / (double)map->columns;
    for (int64_t b = 0; b < bins; b++) {
        float best = NAN;
        int64_t row = 0, end = (b + 1) * map->columns / bins;
        for (int64_t t = b * map->columns / bins; t < end; t++) {
            float value = best_of_column(map, t, &row);
            if (!isnan(value) && !(best >= value))
                best = value;
        }
        struct rgb c = color_at(scale->cmap, scale_place(scale, best));
        if (!isnan(best))
            sink_printf(out,
                        "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"14\" fill=\"#%02x%02x%02x\"/>",
                        x + pixels * (double)b, y, pixels + 0.2, c.r, c.g, c.b);
    }
    sink_put(out, "\n", 1);
    for (int64_t i = 0; i < map->match_count; i++) {
        double at = x + each * ((double)map->matches[i].document_token + 0.5);
        sink_printf(out, "<path class=\"hit\" d=\"M%.1f %dl-3 6h6z\" fill=\"#e4002b\"><title>", at, y + 15);
        markup_label(out, &map->query_spans, map->matches[i].query_token);
        sink_printf(out, " \u00d7 ");
        markup_label(out, &map->document_spans, map->matches[i].document_token);
        sink_printf(out, " (%lld)</title></path>", (long long)map->matches[i].document_token);
    }
    while (each * (double)step < 60)
        step *= step % 3 ? 5 : 2; /* 1, 5, 25, ..: any few numbers do */
    for (int64_t t = 0; t < map->columns; t += step)
        sink_printf(out, "<text class=\"dim\" x=\"%.1f\" y=\"%d\" fill=\"#666\">%lld</text>\n",
                    x + each * (double)t, y + 33, (long long)t);
}

static const char picture_style[] =
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#222}.dim{fill:#666}"
    ".row:hover .best{stroke:#e4002b;stroke-width:4}.row:hover .next{stroke:#ff8a00;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e8eb}.dim{fill:#9aa2ad}.paper{fill:#15171b}"
    ".axis{stroke:#9aa2ad}rect.hit{stroke:#ff4d6d}path.hit{fill:#ff4d6d}}";

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
    const char *id = heatmap_query(map, room);
    markup_name(out, id, (int64_t)strlen(id));
    sink_printf(out, " \u00d7 ");
    id = heatmap_document(map, room);
    markup_name(out, id, (int64_t)strlen(id));
    sink_printf(out, ": score %.4f, mean similarity %.3f", (double)map->score, mean_similarity(map));
}

/* ---- the picture ---- */

void heatmap_svg(struct sink *out, const struct heatmap *maps, int count, enum cmap cmap)
{
    struct scale scale = scale_of(maps, count, cmap);
    struct layout f[2];
    int64_t width = 280, height = 24, y = 0;
    for (int m = 0; m < count; m++) {
        f[m] = layout_of(&maps[m]);
        width = lik_max_i64(width, f[m].left + f[m].right);
        height += f[m].height + 22 + (f[m].whole ? 0 : 44);
    }
    sink_printf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%lld\" height=\"%lld\" viewBox=\"0 0 %lld "
                "%lld\" role=\"img\">\n<title>",
                (long long)width, (long long)height, (long long)width, (long long)height);
    put_caption(out, maps);
    sink_printf(out,
                "</title>\n<style>%s</style>\n"
                "<rect class=\"paper\" width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
                picture_style);
    for (int m = 0; m < count; m++) {
        sink_printf(out, "<g transform=\"translate(0 %lld)\"><text x=\"8\" y=\"15\">", (long long)y);
        put_caption(out, &maps[m]);
        sink_printf(out, "</text></g>\n<g transform=\"translate(0 %lld)\">\n", (long long)y + 18);
        put_row_labels(out, &maps[m], &f[m], f[m].left);
        put_matrix(out, &maps[m], &f[m], &scale, f[m].left);
        if (!f[m].whole)
            put_strip(out, &maps[m], &scale, f[m].left, f[m].height + 4,
                      (int)lik_max_i64(width - f[m].left - 24, 200));
        sink_printf(out, "</g>\n");
        y += f[m].height + 22 + (f[m].whole ? 0 : 44);
        free(f[m].tokens);
    }
    put_legend(out, &scale, 8, (int)y + 4);
    sink_printf(out, "</svg>\n");
}

/* ---- the page ---- */

/* Is the token one of the winners? */
static int won(const struct heatmap *map, int64_t t)
{
    for (int64_t i = 0; i < map->match_count; i++)
        if (map->matches[i].document_token == t)
            return 1;
    return 0;
}

static void put_html_text(struct sink *out, const struct heatmap *map, const struct scale *scale)
{
    const struct spans *s = &map->document_spans;
    struct shading shading = shading_of(map, scale);
    const char *text = s->line.text.data;
    int64_t at = 0;
    if (!s->line.text.size)
        return;
    sink_printf(out, "<p class=\"text\">");
    for (int64_t t = 0; t < s->count; t++) {
        int64_t row = 0;
        float best = best_of_column(map, t, &row);
        double p = shade(&shading, best);
        if (s->from[t] < 0 || p <= 0)
            continue;
        markup_text(out, text + at, s->from[t] - at);
        sink_printf(out, "<span%s style=\"--p:%.2f\" title=\"", won(map, t) ? " class=\"won\"" : "", p * p);
        markup_label(out, &map->query_spans, row);
        sink_printf(out, ": %.3f\">", (double)best);
        markup_text(out, text + s->from[t], s->to[t] - s->from[t]);
        sink_printf(out, "</span>");
        at = s->to[t];
    }
    markup_text(out, text + at, s->line.text.size - at);
    sink_printf(out, "</p>\n");
}

static void put_html_matches(struct sink *out, const struct heatmap *map)
{
    double largest = 0, sum = 0;
    int weighted = heatmap_weighted(map);
    for (int64_t i = 0; i < map->match_count; i++)
        largest = fmax(largest, fabs(map->matches[i].share));
    sink_printf(
        out,
        "<table><caption>What each query token adds</caption><thead><tr><th scope=\"col\">query "
        "token</th><th scope=\"col\">best match</th><th scope=\"col\" class=\"n\">similarity</th>%s<th "
        "scope=\"col\" class=\"n\">adds</th><th></th></tr></thead>\n",
        weighted ? "<th scope=\"col\" class=\"n\">weight</th>" : "");
    for (int64_t i = 0; i < map->match_count; i++) {
        const struct match *m = &map->matches[i];
        sum += m->share;
        sink_printf(out, "<tr><td>");
        markup_label(out, &map->query_spans, m->query_token);
        sink_printf(out, "</td><td>");
        markup_label(out, &map->document_spans, m->document_token);
        sink_printf(out, "</td><td class=\"n\">%.3f</td>", (double)m->similarity);
        if (weighted)
            sink_printf(out, "<td class=\"n\">%.4f</td>", m->weight);
        sink_printf(out,
                    "<td class=\"n\">%.4f</td><td><div class=\"bar\" aria-hidden=\"true\" "
                    "style=\"width:%.0fpx\"></div></td></tr>\n",
                    m->share, largest > 0 ? fmax(0, m->share / largest * 160) : 0);
    }
    sink_printf(
        out,
        "<tr><th scope=\"row\" colspan=\"%d\">score</th><td class=\"n\">%.4f</td><td></td></tr></table>\n",
        3 + weighted, sum);
}

static void put_html_differences(struct sink *out, const struct heatmap *maps)
{
    int64_t count;
    struct difference *all = differences_of(maps, &count);
    sink_printf(out, "<h2>Why one is above the other</h2>\n<table><tr><th scope=\"col\">query token</th><th "
                     "scope=\"col\">in the first</th><th></th><th scope=\"col\">in the second</th>"
                     "<th></th><th scope=\"col\">adds more</th></tr>\n");
    for (int64_t i = 0; i < count; i++) {
        sink_printf(out, "<tr><td>");
        markup_label(out, &maps->query_spans, all[i].query_token);
        sink_printf(out, "</td>");
        for (int m = 0; m < 2; m++) {
            const struct match *match = m ? all[i].b : all[i].a;
            sink_printf(out, "<td>");
            if (match)
                markup_label(out, &maps[m].document_spans, match->document_token);
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

/* The matrix of a page: labels that stay while the cells scroll, then the strip and the
 * scale. */
static void put_html_matrix(struct sink *out, const struct heatmap *map, const struct scale *scale)
{
    struct layout f = layout_of(map);
    int below = f.whole ? 18 : 62, width = f.right > 230 ? f.right : 230;
    sink_printf(out,
                "<div class=\"map\" tabindex=\"0\" role=\"group\" aria-label=\"Token similarities\"><svg "
                "class=\"labels\" aria-hidden=\"true\" width=\"%d\" height=\"%d\"><rect class=\"paper\" "
                "width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
                f.left, f.height);
    put_row_labels(out, map, &f, f.left);
    sink_printf(
        out,
        "</svg><svg class=\"cells\" role=\"img\" aria-label=\"Similarities of %lld query tokens, down, and "
        "%lld document tokens, across; the table below has the best of each row\" width=\"%d\" "
        "height=\"%d\">\n",
        (long long)map->rows, (long long)map->columns, width, f.height);
    put_matrix(out, map, &f, scale, 0);
    sink_printf(
        out,
        "</svg></div>\n<svg class=\"below\" role=\"img\" aria-label=\"%s\" width=\"1000\" height=\"%d\">\n",
        f.whole ? "Color scale" : "The whole document, its winners marked, and the color scale", below);
    if (!f.whole)
        put_strip(out, map, scale, 8, 2, 980);
    put_legend(out, scale, 0, below - 14);
    sink_printf(out, "</svg>\n");
    if (!f.whole)
        sink_printf(out,
                    "<p class=\"dim\">%lld tokens: the matrix has the neighborhoods of the best matches, the "
                    "strip all "
                    "of them.</p>\n",
                    (long long)map->columns);
    free(f.tokens);
}

static const char page_style[] =
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;"
    "color:#222;background:#fff}"
    "h1{font-size:1.3em}h2{font-size:1.1em;margin-top:2em}"
    ".map{display:flex;overflow-x:auto}.map svg{flex:none}.labels{position:sticky;left:0}svg{display:block}"
    ".below{max-width:100%}"
    "table{border-collapse:collapse;margin:1em 0}caption{text-align:left;color:#666}"
    "td,th{padding:1px 10px 1px 0;text-align:left;font-weight:normal}th,.dim{color:#666}"
    "th.n,.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".bar{height:.7em;background:#31688e}.text{max-width:50em}"
    ".text span{background:rgba(255,176,0,calc(var(--p)*.85))}.won{border-bottom:2px solid #e4002b}"
    ".pages{display:flex;flex-wrap:wrap;gap:16px}figure{margin:0}figcaption{font-size:13px}"
    "@media(prefers-color-scheme:dark){.text span{background:rgba(255,176,0,calc(var(--p)*.5))}"
    "body{color:#e6e8eb;background:#15171b}"
    "th,.dim,caption{color:#9aa2ad}.bar{background:#5aa9dd}.won{border-color:#ff4d6d}}";

void heatmap_html(struct sink *out, const struct heatmap *maps, int count, enum cmap cmap,
                  const struct grid *grid)
{
    struct scale scale = scale_of(maps, count, cmap);
    sink_printf(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                     "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
    put_caption(out, maps);
    sink_printf(out, "</title>\n<style>%s\n%s</style>\n</head>\n<body>\n<main>\n<h1>", picture_style,
                page_style);
    if (maps->query_spans.line.text.size)
        markup_text(out, maps->query_spans.line.text.data, maps->query_spans.line.text.size);
    else
        put_caption(out, maps);
    sink_printf(out, "</h1>\n");
    for (int m = 0; m < count; m++) {
        sink_printf(out, "<h2>");
        put_caption(out, &maps[m]);
        sink_printf(out, "</h2>\n");
        int is_long = maps[m].columns * CELL_MIN > WIDTH_MAX; /* its text comes last */
        if (!is_long)
            put_html_text(out, &maps[m], &scale);
        if (grid && grid->rows)
            put_grid(out, &maps[m], &scale, grid);
        put_html_matrix(out, &maps[m], &scale);
        put_html_matches(out, &maps[m]);
        if (is_long)
            put_html_text(out, &maps[m], &scale);
    }
    if (count == 2)
        put_html_differences(out, maps);
    sink_printf(out,
                "<p class=\"dim\">Rows are query tokens, columns document tokens; the best match of each row "
                "is framed and "
                "adds up to the score%s. Words are shaded from the document's median up. lik %s</p>\n"
                "</main>\n</body>\n</html>\n",
                heatmap_weighted(maps) ? ", times its weight" : "", lik_version());
}
