/* The thread pool: every index once, whatever calls whom; concurrent callers; a forked child;
 * one context shared by many threads; a run in a run. Small enough to run under
 * ThreadSanitizer, which does not know fork: that part is left out there. */
#include "check.h"
#include "system.h"

#include <stdatomic.h>

struct tally {
    struct lik_pool *pool; /* for nested calls */
    atomic_int *seen;      /* [n] */
    atomic_int nested;
};

static void count_index(void *arg, int64_t i)
{
    struct tally *tally = arg;
    atomic_fetch_add(&tally->seen[i], 1);
}

static void count_nested(void *arg, int64_t i)
{
    struct tally *tally = arg;
    (void)i;
    atomic_fetch_add(&tally->nested, 1);
}

static void call_nested(void *arg, int64_t i)
{
    struct tally *tally = arg;
    lik_pool_parallel_for(tally->pool, 5, count_nested, tally);
    count_index(arg, i);
}

static void check_each_once(struct lik_pool *pool, int64_t n, int nested)
{
    struct tally tally = {.pool = pool, .seen = calloc((size_t)n + 1, sizeof(atomic_int))};
    lik_pool_parallel_for(pool, n, nested ? call_nested : count_index, &tally);
    for (int64_t i = 0; i <= n; i++)
        check(atomic_load(&tally.seen[i]) == (i < n), "index %lld of %lld ran %d times", (long long)i,
              (long long)n, atomic_load(&tally.seen[i]));
    check(atomic_load(&tally.nested) == (nested ? 5 * n : 0), "%d nested tasks ran",
          atomic_load(&tally.nested));
    free(tally.seen);
}

static void check_sizes(void)
{
    static const int32_t bad[] = {0, -1, INT32_MIN, 4097, INT32_MAX}, good[] = {1, 2, 3, 8};
    static const int64_t counts[] = {0, 1, 2, 3, 7, 100, 1000};
    for (int64_t i = 0; i < COUNT(bad); i++) {
        struct lik_pool *pool = (struct lik_pool *)(void *)&totals;
        char text[32];
        snprintf(text, sizeof text, "%d", bad[i]);
        check_describe("pool of %d threads", bad[i]);
        check(lik_pool_create(bad[i], &pool) == LIK_EINVAL && !pool, "it was created");
        check(strstr(lik_last_error(), "threads") && strstr(lik_last_error(), text), "the message is \"%s\"",
              lik_last_error());
    }
    for (int64_t i = 0; i < COUNT(good); i++) {
        struct lik_pool *pool;
        check_describe("pool of %d threads", good[i]);
        if (!check_ok(lik_pool_create(good[i], &pool), "lik_pool_create"))
            continue;
        totals.cases++;
        check(lik_pool_threads(pool) == good[i], "lik_pool_threads says %d", lik_pool_threads(pool));
        for (int64_t c = 0; c < COUNT(counts); c++) {
            check_each_once(pool, counts[c], 0);
            check_each_once(pool, counts[c], 1);
        }
        for (int repeat = 0; repeat < 200; repeat++)
            check_each_once(pool, 1 + repeat % 9, 0);
        lik_pool_destroy(pool);
    }
    check_describe("pool: none");
    check_each_once(NULL, 10, 0);
    for (int repeat = 0; repeat < 50; repeat++) { /* destroyed while its workers may not have started yet */
        struct lik_pool *pool;
        if (check_ok(lik_pool_create(4, &pool), "lik_pool_create") && repeat % 2)
            check_each_once(pool, 3, 0);
        lik_pool_destroy(pool);
    }
}

/* Callers of one pool at the same time; what each did is checked by the main thread, which
 * alone counts checks. */
struct caller {
    struct lik_pool *pool;
    const struct problem *p;
    const struct lik_context *ctx;
    int64_t rounds, wrong;
    char error[200];
};

static void call_often(void *arg)
{
    struct caller *caller = arg;
    enum { N = 37 };
    atomic_int seen[N];
    struct tally tally = {.pool = caller->pool, .seen = seen};
    for (int64_t round = 0; round < caller->rounds; round++) {
        for (int i = 0; i < N; i++)
            atomic_init(&seen[i], 0);
        lik_pool_parallel_for(caller->pool, N, count_index, &tally);
        for (int i = 0; i < N; i++)
            caller->wrong += atomic_load(&seen[i]) != 1;
    }
}

/* The problem again and again into outputs of its own, every third time with a bad argument in
 * between. */
static void score_often(void *arg)
{
    struct caller *caller = arg;
    const struct problem *p = caller->p;
    struct lik_score op = p->op;
    struct lik_exec exec = {.struct_size = sizeof exec, .threads = 3, .parallel_for = lik_pool_parallel_for};
    struct lik_plan plan = {.struct_size = sizeof plan};
    exec.pool = caller->pool;
    op.scores = malloc((size_t)p->scores * sizeof(float));
    op.argmax = NULL;
    caller->wrong += lik_score_plan(caller->ctx, &op, &exec, &plan) != LIK_OK;
    exec.workspace_bytes = plan.workspace_bytes;
    caller->wrong += lik_memory_alloc(caller->ctx, plan.workspace_bytes, &exec.workspace) != LIK_OK;
    for (int64_t round = 0; round < caller->rounds; round++) {
        memset(op.scores, 0xcb, (size_t)p->scores * sizeof(float));
        caller->wrong += lik_score_run(caller->ctx, &op, &exec) != LIK_OK || *lik_last_error();
        caller->wrong += memcmp(op.scores, p->op.scores, (size_t)p->scores * sizeof(float)) != 0;
        if (round % 3 == 0) {
            struct lik_score bad = op;
            bad.q.dim = -(int64_t)(1 + (uintptr_t)caller % 1000);
            char text[32];
            snprintf(text, sizeof text, "%lld", (long long)bad.q.dim);
            caller->wrong +=
                lik_score_run(caller->ctx, &bad, &exec) != LIK_EINVAL || !strstr(lik_last_error(), text);
        }
    }
    free(op.scores);
    lik_memory_free(caller->ctx, exec.workspace);
}

/* A scheduler that runs other work on a thread that waits: the caller's runs, in its first
 * task. */
static void steal(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    for (int64_t i = 0; i < n; i++) {
        task(arg, i);
        if (i == 0)
            score_often(pool);
    }
}

/* A run inside of another's parallel_for; the outer one has an argmax and so other regions. */
static void check_run_in_run(const struct lik_context *ctx, const struct problem *p)
{
    struct caller inner = {.ctx = ctx, .p = p, .rounds = 2};
    struct lik_score op = p->op;
    struct lik_exec exec = {.struct_size = sizeof exec, .threads = 2, .parallel_for = steal, .pool = &inner};
    struct lik_plan plan = {.struct_size = sizeof plan};
    totals.cases++;
    check_describe("pool: a run in a run on %s", lik_context_name(ctx));
    op.scores = malloc((size_t)p->scores * sizeof(float));
    op.argmax = malloc((size_t)(p->scores * op.q.len_max) * sizeof(int32_t));
    op.argmax_dtype = LIK_I32;
    check_ok(lik_score_plan(ctx, &op, &exec, &plan), "lik_score_plan");
    exec.workspace_bytes = plan.workspace_bytes;
    check_ok(lik_memory_alloc(ctx, plan.workspace_bytes, &exec.workspace), "lik_memory_alloc");
    check_ok(lik_score_run(ctx, &op, &exec), "the outer run");
    check(inner.wrong == 0, "the inner runs saw %lld wrong results", (long long)inner.wrong);
    check(!memcmp(op.scores, p->op.scores, (size_t)p->scores * sizeof(float)),
          "the outer run's scores differ");
    free(op.argmax);
    free(op.scores);
    lik_memory_free(ctx, exec.workspace);
}

static void check_callers(const char *what, void (*body)(void *), const struct lik_context *ctx,
                          const struct problem *p, int64_t rounds)
{
    enum { CALLERS = 4 };
    struct lik_pool *pool;
    struct caller callers[CALLERS];
    totals.cases++;
    check_describe("pool: %s by %d callers", what, CALLERS);
    if (!check_ok(lik_pool_create(3, &pool), "lik_pool_create"))
        return;
    for (int i = 0; i < CALLERS; i++)
        callers[i] = (struct caller){.pool = pool, .ctx = ctx, .p = p, .rounds = rounds};
    threads_run(CALLERS, body, callers, sizeof *callers);
    for (int i = 0; i < CALLERS; i++)
        check(callers[i].wrong == 0, "caller %d saw %lld wrong results", i, (long long)callers[i].wrong);
    lik_pool_destroy(pool);
}

/* A child of fork() has the pool but not its threads: its calls run on its one thread; it may
 * destroy the pool. */
static int use_in_child(void *pool)
{
    int64_t before = totals.failures;
    check_each_once(pool, 50, 0);
    check_each_once(pool, 50, 1);
    lik_pool_destroy(pool);
    struct lik_pool *own;
    if (lik_pool_create(2, &own))
        return 3;
    check_each_once(own, 50, 0);
    lik_pool_destroy(own);
    return totals.failures > before;
}

static void check_fork(void)
{
    struct lik_pool *pool;
    check_describe("pool: after fork");
    if (!check_ok(lik_pool_create(3, &pool), "lik_pool_create"))
        return;
    totals.cases++;
    check_each_once(pool, 100, 0);
    int status = fork_run(use_in_child, pool);
    check(status == 0, "the child ended with status %d", status);
    check_each_once(pool, 100, 0);
    lik_pool_destroy(pool);
}

void check_pool(void)
{
    check_sizes();
    check_callers("jobs", call_often, NULL, NULL, totals.quick ? 50 : 2000);
    check_fork();
    for (int64_t i = 0; i < device_count; i++) {
        if (!devices[i].ctx)
            continue;
        struct spec spec = spec_plain(20, 30, 64, 9);
        spec.q.count = 2;
        spec.d.count = strcmp(devices[i].name, "ref") ? 211 : 3; /* 211: several items */
        spec.d.dtype = LIK_F16;
        struct problem *p = problem_make(&spec);
        if (check_ok(problem_run(p, devices[i].ctx, NULL), "lik_score_run")) {
            check_run_in_run(devices[i].ctx, p);
            check_callers(devices[i].name, score_often, devices[i].ctx, p, totals.quick ? 3 : 40);
        }
        problem_free(p);
    }
}
