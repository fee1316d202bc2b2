/* Operations whose operands and results lie in host memory, on a context that has memory of its
 * own. Documents go through it in pieces: while one is scored, the next is copied. What
 * engine_score says of operands holds here. The tables of a codec are copied when it is met
 * first: while the staged way is open it stays where it is, and as it is. */
#ifndef LIK_CLI_STAGED_H
#define LIK_CLI_STAGED_H

#include "library.h"

/* `way` is the text of LIK_STAGED, or NULL. The library stays where it is, and is closed
 * later. */
struct staged *staged_open(struct library *library, const char *way);
void staged_close(struct staged *staged); /* NULL does nothing */
int64_t staged_piece_bytes(const struct staged *staged);
void staged_score(struct staged *staged, const struct lik_score *op);
void staged_topk(struct staged *staged, const struct lik_topk *op);
/* In one piece: x is to be small enough for the device. Of a larger one, staged_train takes so
 * many documents, evenly spaced, as are. */
void staged_train(struct staged *staged, const struct lik_train *op);
void staged_encode(struct staged *staged, const struct lik_encode *op);

#endif
