/* What the forms of a heat map share: colors, shades, and what is compared. */
#ifndef LIK_CLI_HEATMAP_DRAW_H
#define LIK_CLI_HEATMAP_DRAW_H

#include "heatmap.h"

struct rgb {
    int r, g, b;
};

struct scale {
    float low, high;
    enum cmap cmap;
};

struct scale scale_of(const struct heatmap *maps, int count, enum cmap cmap);
double scale_place(const struct scale *scale, float value); /* 0 ... 1 */
struct rgb color_at(enum cmap cmap, double t);

/* How strongly a document's tokens are marked: from the median of their best similarities, 0,
 * up to the highest, 1. */
struct shading {
    float median, high;
};
struct shading shading_of(const struct heatmap *map, const struct scale *scale);
double shade(const struct shading *shading, float value);

/* The best similarity of a document token over the query's tokens, NaN if it has none. */
float best_of_column(const struct heatmap *map, int64_t t, int64_t *row);
double mean_similarity(const struct heatmap *map);
int heatmap_weighted(const struct heatmap *map); /* do the query's tokens have weights? */
const char *heatmap_query(const struct heatmap *map, char room[24]);
const char *heatmap_document(const struct heatmap *map, char room[24]);

struct difference {
    int64_t query_token;
    const struct match *a, *b; /* NULL = no match */
    double value;              /* share in a less share in b */
};
/* Why is the first above the second: what each query token adds to both, largest difference
 * first, in fresh memory. */
struct difference *differences_of(const struct heatmap *maps, int64_t *count);

#define MARKUP_LABEL 20 /* characters of a label */
/* Text in markup: an id or a token, in which what cannot be seen is written out, cut to its
 * first characters; a text as it is. */
void markup_text(struct sink *out, const char *text, int64_t size);
void markup_name(struct sink *out, const char *text, int64_t size);
void markup_label(struct sink *out, const struct spans *spans, int64_t t);

/* The patches of a page image over its picture, a figure a query token. */
void put_grid(struct sink *out, const struct heatmap *map, const struct scale *scale,
              const struct grid *grid);

#endif
