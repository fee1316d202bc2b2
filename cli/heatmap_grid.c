/* The patches of a page image over its picture: a document of ColPali's kind, whose tokens are
 * the cells of a grid. The picture is in the page once, in base64. */
#include "heatmap_draw.h"

#include "io/file.h"
#include "io/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PICTURE 240 /* pixels of a figure's width */

void grid_parse(struct grid *grid, const char *text, const char *image)
{
    *grid = (struct grid){.image = image};
    const char *cross = text ? strchr(text, 'x') : NULL, *plus = text ? strchr(text, '+') : NULL;
    if (!text && image)
        die(EXIT_USAGE, "--image needs --grid HxW: how many patches the picture has");
    if (!text)
        return;
    int64_t end = plus ? plus - text : (int64_t)strlen(text);
    if (!cross || cross - text > end || lik_text_whole(text, cross - text, &grid->rows) ||
        lik_text_whole(cross + 1, end - (cross + 1 - text), &grid->columns) ||
        (plus && lik_text_whole(plus + 1, (int64_t)strlen(plus + 1), &grid->first)) || grid->rows < 1 ||
        grid->columns < 1 || grid->rows > 4096 || grid->columns > 4096)
        die(EXIT_USAGE,
            "--grid is HxW, rows and columns of patches, or HxW+FIRST, the token of the first one; not '%s'",
            text);
}

static void put_base64(struct sink *out, const uint8_t *data, int64_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int64_t i = 0; i < size; i += 3) {
        int left = size - i < 3 ? (int)(size - i) : 3;
        uint32_t bits = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                        (left > 2 ? data[i + 2] : 0);
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63], digits[bits >> 6 & 63],
                        digits[bits & 63]};
        memset(four + left + 1, '=', (size_t)(3 - left));
        sink_put(out, four, 4);
    }
}

static uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Puts the picture where figures may use it; returns its height over its width. */
static double put_picture(struct sink *out, const char *path)
{
    static const uint8_t magic[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    struct lik_io_error error;
    struct lik_map map;
    int status = lik_map_open(path, &map, &error);
    if (status)
        die_io(status, &error);
    if (map.size < 33 || memcmp(map.data, magic, sizeof magic) ||
        memcmp((const char *)map.data + 12, "IHDR", 4))
        die(EXIT_INCOMPATIBLE, "%s is no PNG: save the page's picture as one", path);
    const uint8_t *data = map.data;
    uint32_t width = big_endian(data + 16), height = big_endian(data + 20);
    if (!width || !height || width > INT32_MAX || height > INT32_MAX)
        die(EXIT_UNREADABLE, "%s: its picture is %u x %u pixels", path, width, height);
    double ratio = (double)height / (double)width;
    sink_printf(out,
                "<svg width=\"0\" height=\"0\" aria-hidden=\"true\"><defs><image id=\"page\" width=\"1\" "
                "height=\"%.6f\" preserveAspectRatio=\"none\" href=\"data:image/png;base64,",
                ratio);
    put_base64(out, data, map.size);
    sink_printf(out, "\"/></defs></svg>\n");
    lik_map_close(&map);
    return ratio;
}

/* One figure: what the query token `s` finds on the page, or with -1 the best of all of
 * them. */
static void put_figure(struct sink *out, const struct heatmap *map, const struct scale *scale,
                       const struct grid *grid, double ratio, int64_t s)
{
    double width = 1.0 / (double)grid->columns, height = ratio / (double)grid->rows;
    struct shading shading = shading_of(map, scale);
    int64_t winner = -1, row = 0;
    const struct match *match = NULL;
    for (int64_t i = 0; i < map->match_count; i++)
        if (map->matches[i].query_token == s)
            match = &map->matches[i];
    if (match)
        winner = match->document_token - grid->first;
    sink_printf(out,
                "<figure><svg role=\"img\" width=\"%d\" height=\"%.0f\" viewBox=\"0 0 1 %.6f\" aria-label=\"",
                PICTURE, PICTURE * ratio, ratio);
    if (s < 0)
        sink_printf(out, "All query tokens");
    else
        markup_label(out, &map->query_spans, s);
    sink_printf(out, " on the page\">%s", grid->image ? "<use href=\"#page\"/>" : "");
    for (int64_t i = 0; i < grid->rows * grid->columns; i++) {
        int64_t t = grid->first + i;
        float value = s < 0 ? best_of_column(map, t, &row) : map->similarities[s * map->columns + t];
        double p = shade(&shading, value);
        struct rgb c = color_at(scale->cmap, scale_place(scale, value));
        if (p > 0.02)
            sink_printf(out,
                        "<rect x=\"%.5f\" y=\"%.5f\" width=\"%.5f\" height=\"%.5f\" fill=\"#%02x%02x%02x\" "
                        "fill-opacity=\"%.2f\"/>",
                        width * (double)(i % grid->columns), height * (double)(i / grid->columns), width,
                        height, c.r, c.g, c.b, 0.8 * p);
    }
    if (winner >= 0 && winner < grid->rows * grid->columns)
        sink_printf(out,
                    "<rect class=\"hit\" x=\"%.5f\" y=\"%.5f\" width=\"%.5f\" height=\"%.5f\" fill=\"none\" "
                    "stroke=\"#e4002b\" stroke-width=\"%.5f\"/>",
                    width * (double)(winner % grid->columns), height * (double)(winner / grid->columns),
                    width, height, fmin(width, height) / 5);
    sink_printf(out, "</svg><figcaption>");
    if (s < 0)
        sink_printf(out, "all query tokens");
    else
        markup_label(out, &map->query_spans, s);
    if (match)
        sink_printf(out, ": %.3f", (double)match->similarity);
    if (match && (winner < 0 || winner >= grid->rows * grid->columns))
        sink_printf(out, ", beside the page");
    sink_printf(out, "</figcaption></figure>\n");
}

void put_grid(struct sink *out, const struct heatmap *map, const struct scale *scale, const struct grid *grid)
{
    int64_t patches = grid->rows * grid->columns;
    if (grid->first + patches > map->columns)
        die(EXIT_INCOMPATIBLE, "--grid %lldx%lld+%lld needs %lld tokens, the document has %lld",
            (long long)grid->rows, (long long)grid->columns, (long long)grid->first,
            (long long)(grid->first + patches), (long long)map->columns);
    double ratio = (double)grid->rows / (double)grid->columns;
    if (grid->image)
        ratio = put_picture(out, grid->image);
    sink_printf(out, "<div class=\"pages\">\n");
    for (int64_t s = -1; s < map->rows; s++)
        put_figure(out, map, scale, grid, ratio, s);
    sink_printf(out, "</div>\n");
}
