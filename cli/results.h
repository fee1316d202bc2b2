/* Ranked documents of queries, in the form that was asked for. */
#ifndef LIK_CLI_RESULTS_H
#define LIK_CLI_RESULTS_H

#include "engine.h"

struct hit {
    int64_t document;
    float score;
};

struct results {
    struct sink out, ids; /* ids: the second file of an .npy result */
    struct inputs *inputs;
    struct engine *engine;
    const struct options *options;
    enum format format;
    int arrays, with_matches;
    int64_t width, queries, hits, bad; /* width: columns of an .npy result; bad: scores that are not finite */
    double seconds;                    /* spent in writing */
};

/* `width`: hits a query at most, the columns of .npy results. */
void results_open(struct results *results, const struct options *options, struct inputs *inputs,
                  struct engine *engine, int64_t width);
/* The hits of query q, best first; `scored` documents took `ms` milliseconds. */
void results_query(struct results *results, int64_t q, const struct hit *hits, int64_t count, double ms,
                   int64_t scored);
/* Ends the output; returns EXIT_OK or, with --fail-empty, EXIT_EMPTY. */
int results_close(struct results *results);

/* x.ids.npy for the output x.npy, in fresh memory. */
char *results_ids_path(const char *output);

/* Best first: higher score, then lower number; NaN last. */
void hits_sort(struct hit *hits, int64_t count);

/* One token of a query, the document's token nearest to it, and what that adds to the score. */
struct match {
    int64_t query_token, document_token;
    float similarity;
    double weight; /* of the query token; 1 without weights */
    double share;  /* weight * similarity */
};
/* For each kept token of query q its best match in document d, in order of the query; `out` has
 * room for the query's length. `similarities` is what engine_similarities gave. Returns how
 * many. */
int64_t matches_of(const struct inputs *inputs, int64_t q, int64_t d, const float *similarities,
                   struct match *out);
/* The match that adds most first, equal ones in the query's order: qsort keeps no order, and
 * another without memory. */
void matches_sort(struct match *matches, int64_t count);
/* The bar of `value` in 0 ... 1, `columns` wide. */
void put_bar(struct sink *out, double value, int columns);
/* A snippet of document d at most `columns` wide, its best-matching tokens emphasized. */
void put_snippet(struct sink *out, struct engine *engine, const struct inputs *inputs, int64_t q, int64_t d,
                 int columns);

#endif
