/* TREC runs and judgments, and the measures trec_eval takes of them, with its rules: a run is
 * ordered by score (in f32) and, where scores are equal, by document id descending, whatever
 * its ranks say; a grade of 1 or more is relevant; gains are the grades; queries without
 * judgments do not count. */
#ifndef LIK_CLI_TREC_H
#define LIK_CLI_TREC_H

#include "cli.h"

/* One line; the names point into the file, or wherever the maker of the entry keeps them. */
struct trec_entry {
    const char *query, *document;
    int64_t query_size, document_size;
    float score;   /* runs */
    int64_t grade; /* judgments */
    int64_t line;
};

struct trec {
    struct lik_map map;
    const char *path;
    struct trec_entry *entries; /* ordered by query, then runs by rank and judgments by document */
    int64_t count;
};

enum trec_kind { TREC_RUN, TREC_JUDGMENTS, TREC_PAIRS /* `query document`; the order of the file is kept */ };
/* Ends the program if the file is no such file, or names a document twice for a query (pairs
 * may). */
void trec_read(struct trec *trec, const char *path, enum trec_kind kind);
/* Puts entries made otherwise into order. */
void trec_sort(struct trec *trec, enum trec_kind kind);
void trec_free(struct trec *trec);
/* Index behind the entries of the query that entry `i` belongs to. */
int64_t trec_query_end(const struct trec *trec, int64_t i);

enum measure_kind { MEASURE_NDCG, MEASURE_MRR, MEASURE_RECALL, MEASURE_MAP };

struct measure {
    enum measure_kind kind;
    int64_t depth; /* 0 = the whole run */
    char name[32];
};
#define MEASURES_MAX 16
/* "ndcg@10,mrr@10,map" and so on; ends the program if a name is unknown. Returns how many. */
int measures_parse(const char *list, struct measure measures[MEASURES_MAX]);

struct evaluation {
    int64_t queries;              /* that count */
    int64_t missing, unjudged;    /* judged but not in the run; in the run but not judged */
    double *values;               /* [queries, measures] */
    const struct trec_entry **of; /* [queries] an entry that names the query */
    double mean[MEASURES_MAX],
        error[MEASURES_MAX]; /* error: standard error of the mean, NaN for fewer than 2 queries */
};
/* `complete`: judged queries that the run lacks count as 0. */
void evaluate(const struct trec *run, const struct trec *judgments, const struct measure *measures, int count,
              int complete, struct evaluation *out);
void evaluation_free(struct evaluation *evaluation);

#endif
