/* Scores two documents for one query, two-dimensional tokens. Build: cc score.c $(pkg-config
 * --cflags --libs lik) */
#include <lik/lik.h>

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    float query[] = {1, 0, 0, 1}, documents[] = {1, 0, 0.5f, 0.5f, 0, 1, -1, 0}, scores[2];
    struct lik_score op = {.struct_size = sizeof op, .scores = scores};
    op.q = lik_tokens_padded(query, LIK_F32, 1, 2, 2);     /* 1 query of 2 tokens of 2 elements */
    op.d = lik_tokens_padded(documents, LIK_F32, 2, 2, 2); /* 2 documents of 2 tokens */

    struct lik_context *ctx = NULL;
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_exec exec = {.struct_size = sizeof exec};
    int status = lik_context_create("cpu", &ctx);
    if (!status)
        status = lik_score_plan(ctx, &op, NULL, &plan);
    if (!status) {
        exec.workspace_bytes = (plan.workspace_bytes + 63) / 64 * 64;
        exec.workspace = aligned_alloc(64, exec.workspace_bytes);
        status = lik_score_run(ctx, &op, &exec);
    }
    if (status)
        printf("%s: %s\n", lik_status_name(status), lik_last_error());
    else
        printf("%g %g on %s\n", (double)scores[0], (double)scores[1], lik_context_name(ctx));
    free(exec.workspace);
    lik_context_destroy(ctx);
    return status != 0;
}
