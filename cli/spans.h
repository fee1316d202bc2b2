/* The text of a query or document, and where each of its tokens stands in it. */
#ifndef LIK_CLI_SPANS_H
#define LIK_CLI_SPANS_H

#include "cli.h"

struct spans {
    struct lik_line line; /* line.text: the text, or the tokens joined if there is none */
    const char **token;   /* [count] the token as its tokenizer wrote it */
    int64_t *from, *to;   /* [count] bytes in the text; -1 = not found there (a special token) */
    int64_t count;        /* tokens: as many as the sequence has rows, or 0 if they are not known */
};

/* Returns 0 if nothing is known of sequence i. Free in any case; the struct may be used again,
 * zero it first. */
int spans_get(struct spans *spans, const struct lik_collection *c, int64_t i);
void spans_free(struct spans *spans);
/* A label of row t: the token without its tokenizer's marks, or "#t"; `room` holds at least 24
 * bytes. */
const char *spans_label(const struct spans *spans, int64_t t, char *room);

#endif
