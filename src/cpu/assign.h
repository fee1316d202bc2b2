/* The nearest centroids of blocks of tokens, and the rows they come from: what encoding and
 * training have in common.
 *
 * A block is the one query of a score whose one document is the centroids, with the argmax: the
 * codes are those of lik_score. Blocks run whole in one slot, so any number of them may run at
 * once. */
#ifndef LIK_CPU_ASSIGN_H
#define LIK_CPU_ASSIGN_H

#include "cpu/driver.h"
#include "shared/residual.h"

struct lik_cpu_assign {
    const struct lik_cpu_kernels *kernels;
    struct lik_score op; /* q: a block of f32 rows; d: the centroids */
    struct lik_exec exec;
    struct lik_cpu_plan plan;
    int64_t block;                      /* the most tokens of one */
    size_t base, rows, winners, scores; /* byte offsets into a slot's scratch; base: of the score's */
};

/* Plans blocks of `tokens` in all, on so many threads, and lays out what a slot needs. */
LIK_STATUS lik_cpu_assign_plan(struct lik_cpu_assign *assign, const struct lik_cpu_kernels *kernels,
                               const struct lik_tokens *centroids, int32_t precision, int64_t tokens,
                               int32_t threads, struct lik_layout *slot);
/* The slot's rows, [block, dim], to be filled with the tokens as they count. */
float *lik_cpu_assign_rows(const struct lik_cpu_assign *assign, char *scratch);
/* The centroid of each of the first `count` rows. */
const int32_t *lik_cpu_assign_run(const struct lik_cpu_assign *assign, int64_t count, char *scratch);

/* A walk over the rows of a contiguous array, those of dropped tokens and of none included. */
struct lik_cpu_rows_walk {
    const struct lik_tokens *x;
    int64_t row, i, begin, end; /* begin ... end - 1: rows of sequence i, which `row` is in */
};

static inline struct lik_cpu_rows_walk lik_cpu_walk(const struct lik_tokens *x, int64_t row)
{
    struct lik_cpu_rows_walk walk = {.x = x, .row = row};
    return walk;
}

/* Steps over one row; its token in *t, or 0 if it has none that is kept. */
int lik_cpu_walk_next(struct lik_cpu_rows_walk *walk, int64_t *i, int64_t *t);

/* Token t of sequence i as it counts. */
void lik_cpu_load_vector(const struct lik_cpu_reader *reader, int64_t i, int64_t t, float *dst);

#endif
