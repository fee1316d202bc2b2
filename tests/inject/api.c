/* The C API without memory and without threads: every allocation and thread of a call fails in
 * turn, once and from then on. Each must end with LIK_ENOMEM and a message, leave its output
 * empty and nothing behind, and the next call be right. Operations allocate nothing and start
 * nothing, so that a run without memory gives the bits of one with it.
 *
 * lik_inject SCENARIO runs one and prints how many runs it made; without arguments it lists
 * them. */
#include "inject.h"

#include "lik/lik.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4

static long runs;
static int failures;

#define EXPECT(condition)                                                   \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            failures++;                                                     \
        }                                                                   \
    } while (0)

/* A call that makes one object from memory and threads. */
struct maker {
    const char *what;
    int (*make)(void **out);
    void (*drop)(void *made);
};

static struct lik_context *context; /* for makers that need one */

static int make_context(void **out)
{
    return lik_context_create("cpu", (struct lik_context **)out);
}

static int make_generic(void **out)
{
    return lik_context_create("cpu:generic", (struct lik_context **)out);
}

static int make_ref(void **out)
{
    return lik_context_create("ref", (struct lik_context **)out);
}

static void drop_context(void *made)
{
    lik_context_destroy(made);
}

static int make_pool(void **out)
{
    return lik_pool_create(THREADS, (struct lik_pool **)out);
}

static void drop_pool(void *made)
{
    lik_pool_destroy(made);
}

static int make_memory(void **out)
{
    return lik_memory_alloc(context, 1000, out);
}

static void drop_memory(void *made)
{
    lik_memory_free(context, made);
}

static int threads_now(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/task");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

static void fail_in_turn(const struct maker *maker, const char *kind, int action)
{
    void *made;
    EXPECT(maker->make(&made) == LIK_OK && made);
    maker->drop(made);
    for (int ever = 0; ever < 2; ever++) {
        long seen, n = 0;
        do {
            long live = inject_live();
            made = &made;
            inject_arm(kind, ++n, ever, action);
            int status = maker->make(&made);
            seen = inject_disarm();
            runs++;
            if (inject_hits()) {
                EXPECT(status == LIK_ENOMEM);
                EXPECT(!made);
                EXPECT(strlen(lik_last_error()) > 8);
                EXPECT(inject_live() <= live);
            } else {
                EXPECT(status == LIK_OK && made);
                maker->drop(made);
            }
            EXPECT(threads_now() == 1);
            EXPECT(maker->make(&made) == LIK_OK && made && !*lik_last_error()); /* the next call is right */
            maker->drop(made);
        } while (n <= seen && n < 1000);
    }
}

static void fail_all(const struct maker *maker)
{
    fail_in_turn(maker, "memory", ENOMEM);
    fail_in_turn(maker, "thread", EAGAIN);
}

static void scenario_contexts(void)
{
    fail_all(&(struct maker){"cpu", make_context, drop_context});
    fail_all(&(struct maker){"cpu:generic", make_generic, drop_context});
    fail_all(&(struct maker){"ref", make_ref, drop_context});
}

static void scenario_pools(void)
{
    fail_all(&(struct maker){"pool", make_pool, drop_pool});
}

static void scenario_memory(void)
{
    EXPECT(lik_context_create("cpu", &context) == LIK_OK);
    fail_all(&(struct maker){"memory", make_memory, drop_memory});
    lik_context_destroy(context);
}

/* ---- operations ---- */

enum { QUERIES = 3, QUERY_TOKENS = 5, DOCUMENTS = 70, DOCUMENT_TOKENS = 11, DIM = 24, K = 4, CENTROIDS = 9 };

struct results {
    float scores[QUERIES * DOCUMENTS], values[QUERIES * K], grad_q[QUERIES * QUERY_TOKENS * DIM],
        grad_d[DOCUMENTS * DOCUMENT_TOKENS * DIM], merged[QUERIES * K];
    float decoded[DOCUMENTS * DOCUMENT_TOKENS * DIM], inv_norms[DOCUMENTS * DOCUMENT_TOKENS];
    float centroids[CENTROIDS * DIM], cutoffs[3], weights[4];
    int32_t argmax[QUERIES * DOCUMENTS * QUERY_TOKENS], codes[DOCUMENTS * DOCUMENT_TOKENS];
    uint8_t residuals[DOCUMENTS * DOCUMENT_TOKENS * DIM / 4], bytes[DOCUMENTS * DOCUMENT_TOKENS * DIM];
    float scales[DOCUMENTS * DOCUMENT_TOKENS];
    int64_t ids[QUERIES * K], merged_ids[QUERIES * K];
};

static float q[QUERIES * QUERY_TOKENS * DIM], d[DOCUMENTS * DOCUMENT_TOKENS * DIM], ones[QUERIES * DOCUMENTS];

/* The codec's verbs, one on what the other made. */
static int compute_codec(const struct lik_context *ctx, const struct lik_exec *exec, struct results *r)
{
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_codec codec = {.struct_size = sizeof codec,
                              .bits = 2,
                              .centroids = r->centroids,
                              .centroid_count = CENTROIDS,
                              .centroids_dtype = LIK_F32,
                              .weights_dtype = LIK_F32,
                              .weights = r->weights};
    struct lik_train train = {.struct_size = sizeof train,
                              .centroid_count = CENTROIDS,
                              .bits = 2,
                              .centroids = r->centroids,
                              .cutoffs = r->cutoffs,
                              .weights = r->weights};
    train.x = lik_tokens_padded(d, LIK_F32, DOCUMENTS, DOCUMENT_TOKENS, DIM);
    struct lik_encode encode = {.struct_size = sizeof encode,
                                .x = train.x,
                                .codec = &codec,
                                .cutoffs = r->cutoffs,
                                .codes_dtype = LIK_I32,
                                .codes = r->codes,
                                .residuals = r->residuals,
                                .inv_norms = r->inv_norms};
    struct lik_decode decode = {.struct_size = sizeof decode, .out_dtype = LIK_F32, .out = r->decoded};
    decode.x = lik_tokens_padded(r->residuals, LIK_F32, DOCUMENTS, DOCUMENT_TOKENS, DIM);
    decode.x = lik_tokens_compressed(decode.x, &codec, r->codes, LIK_I32);
    decode.x.scale = r->inv_norms;
    struct lik_quantize quantize = {.struct_size = sizeof quantize,
                                    .x = decode.x,
                                    .values_dtype = LIK_I8,
                                    .values = r->bytes,
                                    .scales = r->scales};
    int status;
    if ((status = lik_train_plan(ctx, &train, exec, &plan)) || (status = lik_train_run(ctx, &train, exec)) ||
        (status = lik_encode_plan(ctx, &encode, exec, &plan)) ||
        (status = lik_encode_run(ctx, &encode, exec)) ||
        (status = lik_decode_plan(ctx, &decode, exec, &plan)) ||
        (status = lik_decode_run(ctx, &decode, exec)) ||
        (status = lik_quantize_plan(ctx, &quantize, exec, &plan)))
        return status;
    return lik_quantize_run(ctx, &quantize, exec);
}

/* Everything that computes, on a context and a pool, with workspaces that are there; returns
 * the first status. */
static int compute(const struct lik_context *ctx, struct lik_pool *pool, void *workspace, size_t bytes,
                   struct results *r)
{
    struct lik_exec exec = {.struct_size = sizeof exec,
                            .workspace = workspace,
                            .workspace_bytes = bytes,
                            .threads = lik_pool_threads(pool),
                            .parallel_for = lik_pool_parallel_for,
                            .pool = pool};
    struct lik_plan plan = {.struct_size = sizeof plan};
    struct lik_score score = {.struct_size = sizeof score, .scores = r->scores, .argmax = r->argmax};
    score.q = lik_tokens_padded(q, LIK_F32, QUERIES, QUERY_TOKENS, DIM);
    score.d = lik_tokens_padded(d, LIK_F32, DOCUMENTS, DOCUMENT_TOKENS, DIM);
    score.argmax_dtype = LIK_I32;
    struct lik_topk topk = {
        .struct_size = sizeof topk, .score = score, .k = K, .values = r->values, .ids = r->ids};
    topk.score.scores = NULL;
    topk.score.argmax = NULL;
    struct lik_grad grad = {.struct_size = sizeof grad,
                            .score = score,
                            .grad_scores = ones,
                            .grad_q = r->grad_q,
                            .grad_d = r->grad_d};
    int status;
    if ((status = lik_score_plan(ctx, &score, &exec, &plan)) ||
        (status = lik_score_run(ctx, &score, &exec)) || (status = lik_topk_plan(ctx, &topk, &exec, &plan)) ||
        (status = lik_topk_run(ctx, &topk, &exec)) || (status = lik_grad_plan(ctx, &grad, &exec, &plan)) ||
        (status = lik_grad_run(ctx, &grad, &exec)) || (status = compute_codec(ctx, &exec, r)))
        return status;
    return lik_merge_topk(1, QUERIES, K, r->values, r->ids, K, 0, r->merged, r->merged_ids);
}

static void scenario_runs(void)
{
    static const char *const devices[] = {"cpu", "cpu:generic", "ref"};
    static struct results before, after;
    size_t bytes = 64u << 20;
    void *workspace = aligned_alloc(64, bytes);
    EXPECT(workspace);
    for (int i = 0; i < 3; i++)
        for (int threads = 1; threads <= THREADS; threads += THREADS - 1) {
            struct lik_context *ctx = NULL;
            struct lik_pool *pool = NULL;
            EXPECT(lik_context_create(devices[i], &ctx) == LIK_OK &&
                   lik_pool_create(threads, &pool) == LIK_OK);
            memset(&before, 0, sizeof before);
            memset(&after, 0, sizeof after);
            EXPECT(compute(ctx, pool, workspace, bytes, &before) == LIK_OK);
            static const char *const kinds[] = {"memory", "thread", "system"};
            for (int kind = 0; kind < 3; kind++) {
                inject_arm(kinds[kind], 1, 1, ENOMEM);
                int status = compute(ctx, pool, workspace, bytes, &after);
                EXPECT(inject_disarm() == 0); /* nothing was asked for */
                EXPECT(status == LIK_OK && !memcmp(&before, &after, sizeof before));
                runs++;
            }
            /* A pool that could not be made does not keep the calls from running without it. */
            struct lik_pool *none = NULL;
            inject_arm("memory", 1, 1, ENOMEM);
            EXPECT(lik_pool_create(THREADS, &none) == LIK_ENOMEM && !none);
            EXPECT(compute(ctx, none, workspace, bytes, &after) == LIK_OK &&
                   !memcmp(&before, &after, sizeof before));
            inject_disarm();
            runs++;
            lik_pool_destroy(pool);
            lik_context_destroy(ctx);
        }
    free(workspace);
}

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {{"contexts", scenario_contexts},
                 {"pools", scenario_pools},
                 {"memory", scenario_memory},
                 {"runs", scenario_runs}};

int main(int argc, char **argv)
{
    uint32_t state = 1;
    for (size_t i = 0; i < sizeof q / sizeof *q; i++)
        q[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f - 0.5f;
    for (size_t i = 0; i < sizeof d / sizeof *d; i++)
        d[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f - 0.5f;
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        ones[i] = 1;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        if (argc < 2)
            printf("%s\n", scenarios[i].name);
        else if (!strcmp(argv[1], scenarios[i].name))
            scenarios[i].run();
    if (argc > 1)
        printf("%ld runs\n", runs);
    return failures || (argc > 1 && !runs);
}
