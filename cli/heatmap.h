/* The token heat map of one query against one or two documents: in a terminal, as a page, as a
 * picture.
 *
 * Files are self-contained: nothing is fetched, no script is needed, and they are dark where
 * their reader is. Two documents share one color scale. Of a long document the matrix has the
 * neighborhoods of the winners, a strip the whole. */
#ifndef LIK_CLI_HEATMAP_H
#define LIK_CLI_HEATMAP_H

#include "results.h"
#include "spans.h"

struct heatmap {
    const struct inputs *inputs;
    int64_t query, document;
    int64_t rows, columns; /* query tokens, document tokens */
    float *similarities;   /* [rows, columns], NaN = dropped by a mask */
    struct match *matches; /* [match_count], in order of the query */
    int64_t match_count;
    float score;
    double weight; /* sum of the query's weights */
    struct spans query_spans, document_spans;
};

enum cmap { CMAP_VIRIDIS, CMAP_GREY };

/* Tokens `first` and on of a document are the patches of a page image, row by row. */
struct grid {
    int64_t rows, columns, first; /* rows 0: there is none */
    const char *image;            /* a PNG's path, or NULL */
};
/* "HxW" or "HxW+FIRST"; ends the program if it is none. */
void grid_parse(struct grid *grid, const char *text, const char *image);

void heatmap_open(struct heatmap *map, struct engine *engine, const struct inputs *inputs, int64_t query,
                  int64_t document);
void heatmap_close(struct heatmap *map);
/* `count` is 1 or 2, the query the same. */
void heatmap_terminal(struct sink *out, const struct heatmap *maps, int count);
void heatmap_html(struct sink *out, const struct heatmap *maps, int count, enum cmap cmap,
                  const struct grid *grid);
void heatmap_svg(struct sink *out, const struct heatmap *maps, int count, enum cmap cmap);
/* "PREFIX.html" or, if `svg`, "PREFIX.svg" in fresh memory: what demo writes. */
char *heatmap_path(const char *prefix, int svg);
enum cmap heatmap_cmap(const char *name); /* NULL = viridis; ends the program if unknown */

#endif
