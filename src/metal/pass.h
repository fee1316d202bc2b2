/* What the plans of the three verbs share. */
#ifndef LIK_METAL_PASS_H
#define LIK_METAL_PASS_H

#include "metal/plan.h"

#include "shared/tokens.h"

#define LIK_METAL_ALIGN         256
#define LIK_METAL_GROUPS_MAX    (1 << 20) /* threadgroups of a grid; they take further items in turn */
#define LIK_METAL_ENOUGH_GROUPS 1024      /* that keep any Apple GPU busy */

/* Scores of a problem that are taken at once: rows row ..., columns column .... */
struct lik_metal_part {
    int64_t row, rows, column, columns;
    float *scores;
    int64_t scores_stride;
};

/* A status, and a message, where the kernels' 32-bit arithmetic does not reach. */
LIK_STATUS lik_metal_check(const struct lik_score *op);

/* The operand without its addresses. */
struct lik_metal_tokens lik_metal_tokens_of(const struct lik_tokens *x);

/* Factors that an operand needs: one a row, or 0 where it has neither scale nor
 * normalization. */
int64_t lik_metal_factor_count(const struct lik_tokens *x);
LIK_STATUS lik_metal_run_factors(const struct lik_tokens *x, float *out, const struct lik_metal_queue *queue);

/* Names the buffers of both operands, the list and the argmax. */
void lik_metal_name_operands(const struct lik_score *op, const void *q_factors, const void *d_factors,
                             struct lik_metal_dispatch *dispatch);

/* Threadgroups for items of which each takes so many. */
int64_t lik_metal_groups(int64_t items, int64_t each);

/* A forward pass whose scores are a part of the problem's: the same plan for every part of the
 * same size. Factors are planned and taken once for all. */
LIK_STATUS lik_metal_plan_score_part(const struct lik_score *op, int64_t rows, int64_t columns,
                                     struct lik_metal_score_plan *plan);
void lik_metal_cut_score(int64_t rows, int64_t columns, struct lik_metal_score_plan *plan);
void lik_metal_take_factors(const struct lik_score *op, struct lik_layout *layout,
                            struct lik_metal_score_plan *plan);
LIK_STATUS lik_metal_run_score_factors(const struct lik_score *op, const struct lik_metal_score_plan *plan,
                                       char *workspace, const struct lik_metal_queue *queue);
LIK_STATUS lik_metal_run_score_part(const struct lik_score *op, const struct lik_metal_score_plan *plan,
                                    char *workspace, const struct lik_metal_part *part,
                                    const struct lik_metal_queue *queue);

/* Sorts `padded` keys, a power of two, of each of `queries`, in place. */
LIK_STATUS lik_metal_run_sort(uint64_t *keys, int64_t queries, int64_t padded,
                              const struct lik_metal_queue *queue);

#endif
