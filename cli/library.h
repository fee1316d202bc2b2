/* The library as the command holds it: a context, a pool of threads, and what a status means
 * for the program. Below engine.h and staged.h, which run operations. */
#ifndef LIK_CLI_LIBRARY_H
#define LIK_CLI_LIBRARY_H

#include "cli.h"

struct library {
    struct lik_context *context;
    struct lik_pool *pool;
    int32_t threads;
    char variant[64]; /* of the last run */
};
void library_open(struct library *library, const struct options *options);
void library_close(struct library *library);
/* Ends the program with the library's message unless `status` is LIK_OK. */
void library_check(int status);
/* The pool's threads; the workspace is the caller's to add. */
struct lik_exec library_exec(const struct library *library);

/* lik_tokens_slice, whose refusal ends the program. */
struct lik_tokens tokens_slice(const struct lik_tokens *all, int64_t first, int64_t count);

#endif
