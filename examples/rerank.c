/* Reranks what a first stage found, BM25 for example: a function to embed in a server.
 *
 *     cc -O2 rerank.c $(pkg-config --cflags --libs lik)
 *
 * Context and documents serve all threads at once; a struct worker is one thread's own. */
#include <lik/lik.h>

#include <stdio.h>
#include <stdlib.h>

enum { CANDIDATES_MOST = 1000 };

struct worker {
    void *memory; /* grows to what the largest call took, and is used again */
    size_t bytes;
};

struct found {
    int64_t document;
    float score;
};

static void *grow(void *lender, size_t bytes)
{
    struct worker *w = lender;
    free(w->memory);
    w->bytes = (bytes + 63) / 64 * 64;
    w->memory = aligned_alloc(64, w->bytes);
    w->bytes = w->memory ? w->bytes : 0;
    return w->memory;
}

static int best_first(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->document < y->document ? -1 : 1;
}

/* The candidates and their scores for one query, best first; the status, of which
 * lik_last_error() says more. */
static int rerank(struct lik_context *ctx, const struct lik_tokens *documents, const struct lik_tokens *query,
                  const int64_t *candidates, int64_t count, struct worker *worker, struct found *found)
{
    static const int64_t first_query[CANDIDATES_MOST];
    float scores[CANDIDATES_MOST];
    struct lik_score op = LIK_SCORE_INIT;
    struct lik_exec exec = LIK_EXEC_INIT;
    op.q = *query;
    op.d = *documents;
    op.pairing = LIK_LIST;
    op.list_q = first_query;
    op.list_d = candidates;
    op.list_count = count < CANDIDATES_MOST ? count : CANDIDATES_MOST; /* the first stage's best */
    op.scores = scores;
    exec.workspace = worker->memory;
    exec.workspace_bytes = worker->bytes;
    exec.get_workspace = grow;
    exec.lender = worker;
    int status = lik_score_run(ctx, &op, &exec);
    for (int64_t i = 0; !status && i < op.list_count; i++)
        found[i] = (struct found){candidates[i], scores[i]};
    if (!status)
        qsort(found, (size_t)op.list_count, sizeof *found, best_first);
    return status;
}

/* Three documents of 2, 1 and 3 tokens of two elements, of which a first stage found two. */
int main(void)
{
    float tokens[] = {1, 0, 0.6f, 0.8f, 0, 1, -1, 0, 0, -1, 0.8f, 0.6f}, words[] = {1, 0, 0, 1};
    int64_t offsets[] = {0, 2, 3, 6}, candidates[] = {2, 0};
    struct lik_tokens documents = lik_tokens_packed(tokens, LIK_F32, 3, 0, 6, 2, offsets, LIK_I64);
    struct lik_tokens query = lik_tokens_padded(words, LIK_F32, 1, 2, 2);
    struct lik_context *ctx = NULL;
    struct worker worker = {0};
    struct found found[2];
    int status = lik_context_create("cpu", &ctx);
    if (!status)
        status = rerank(ctx, &documents, &query, candidates, 2, &worker, found);
    for (int i = 0; !status && i < 2; i++)
        printf("document %lld: %g\n", (long long)found[i].document, (double)found[i].score);
    if (status)
        printf("%s: %s\n", lik_status_name(status), lik_last_error());
    free(worker.memory);
    lik_context_destroy(ctx);
    return status != 0;
}
