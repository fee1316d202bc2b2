/* lik_metal_host: the host's half of the Metal backend on the mock (mock.h): what it asks Metal
 * for and in which order, what it lets go, what it says when something fails, and that results
 * are those of the reference. Closes with a line of counts; exit status 1 if something does not
 * hold. */
#include "mock.h"

#include "base/dtype.h"
#include "lik/lik.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int checks, failures;

__attribute__((format(printf, 2, 3))) static int check(int holds, const char *format, ...)
{
    va_list args;
    checks++;
    if (holds)
        return 1;
    failures++;
    va_start(args, format);
    printf("FAILED ");
    vprintf(format, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    return 0;
}

/* ---- problems ---- */

struct problem {
    struct lik_score op;
    void *q, *d, *memory; /* memory: of d, if it is pages of its own */
    size_t mapped;
    float *scores;
    int32_t *argmax;
    int64_t rows, columns;
};

static float noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*state >> 33) * 0x1p-31 * 2 - 1);
}

static void fill(void *data, int32_t dtype, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++)
        lik_store_f32(data, dtype, i, noise(&seed));
}

/* Queries of 5 tokens by documents of 9, `dim` elements; `shift` bytes past a page's
 * beginning. */
static struct problem problem_make(int32_t dtype, int64_t queries, int64_t documents, int64_t dim,
                                   size_t shift)
{
    struct problem p = {.op = LIK_SCORE_INIT, .rows = queries, .columns = documents};
    int64_t q = queries * 5 * dim, d = documents * 9 * dim, bytes = (int64_t)lik_dtype_bytes(dtype);
    p.mapped = (size_t)(d * bytes) + shift;
    p.memory = mmap(NULL, p.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p.q = calloc((size_t)q, (size_t)bytes);
    p.d = (char *)p.memory + shift;
    p.scores = calloc((size_t)(queries * documents), sizeof *p.scores);
    p.argmax = calloc((size_t)(queries * documents * 5), sizeof *p.argmax);
    if (!p.q || p.memory == MAP_FAILED || !p.scores || !p.argmax)
        exit(2);
    fill(p.q, dtype, q, 1);
    fill(p.d, dtype, d, 2);
    p.op.q = lik_tokens_padded(p.q, dtype, queries, 5, dim);
    p.op.d = lik_tokens_padded(p.d, dtype, documents, 9, dim);
    p.op.scores = p.scores;
    p.op.argmax = p.argmax;
    p.op.argmax_dtype = LIK_I32;
    return p;
}

static void problem_free(struct problem *p)
{
    munmap(p->memory, p->mapped);
    free(p->q);
    free(p->scores);
    free(p->argmax);
}

static void *lend(void *memory, size_t bytes)
{
    void **at = memory;
    free(*at);
    return *at = aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static int run_score(const struct lik_context *ctx, const struct lik_score *op)
{
    void *memory = NULL;
    struct lik_exec exec = {.struct_size = sizeof exec, .get_workspace = lend, .lender = &memory};
    int status = lik_score_run(ctx, op, &exec);
    free(memory);
    return status;
}

static struct lik_context *open_device(const char *name)
{
    struct lik_context *ctx = NULL;
    int status = lik_context_create(name, &ctx);
    check(status == LIK_OK, "%s: %s", name, lik_last_error());
    return ctx;
}

/* The problem on the mock has the reference's results. */
static void compare(const struct lik_context *ctx, struct problem *p, const char *what)
{
    struct lik_context *ref = open_device("ref");
    int64_t n = p->rows * p->columns, wrong = 0, winners = 0;
    float *want = calloc((size_t)n, sizeof *want);
    int32_t *index = calloc((size_t)n * 5, sizeof *index);
    struct lik_score op = p->op;
    op.scores = want;
    op.scores_stride = 0;
    op.argmax = index;
    check(run_score(ref, &op) == LIK_OK, "%s by ref: %s", what, lik_last_error());
    if (check(run_score(ctx, &p->op) == LIK_OK, "%s: %s", what, lik_last_error())) {
        int64_t stride = p->op.scores_stride ? p->op.scores_stride : p->columns;
        for (int64_t i = 0; i < n; i++) {
            float got = p->op.scores[i / p->columns * stride + i % p->columns];
            wrong += !(fabsf(got - want[i]) <= 1e-4f * (1 + fabsf(want[i])));
        }
        for (int64_t i = 0; i < n * 5; i++)
            winners += p->argmax[i] != index[i];
        check(!wrong && !winners, "%s: %lld scores and %lld winners of %lld are wrong", what,
              (long long)wrong, (long long)winners, (long long)n);
    }
    lik_context_destroy(ref);
    free(want);
    free(index);
}

/* ---- faults ---- */

/* In a process of its own: some faults are remembered for the life of one. */
static void apart(const char *what, void (*body)(void))
{
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        exit(2);
    if (child == 0) {
        checks = failures = 0;
        body();
        fflush(stdout);
        _exit(failures || mock_violations() ? 1 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    check(WIFEXITED(status) && !WEXITSTATUS(status), "%s: the process ended with status %x", what, status);
}

static const struct {
    int fault, status, at_open; /* at_open: the context is refused, else the run */
    const char *words;
} faults[] = {
    {MOCK_NO_LIBOBJC, LIK_EDEVICE, 1, "there is no Metal here: /"},
    {MOCK_NO_METAL, LIK_EDEVICE, 1, "there is no Metal here: /"},
    {MOCK_NO_SYMBOL, LIK_EDEVICE, 1, "MTLCopyAllDevices is not in the system's libraries"},
    {MOCK_NO_DEVICE, LIK_EDEVICE, 1, "the system lists no GPU"},
    {MOCK_OLD_DEVICE, LIK_EUNSUPPORTED, 1, "\"Mock M1\", has no simdgroup matrices"},
    {MOCK_NO_QUEUE, LIK_EDEVICE, 1, "gives no command queue"},
    {MOCK_COMPILE, LIK_EDEVICE, 0, "does not compile the kernels: program_source:12:5: error"},
    {MOCK_NO_KERNEL, LIK_EDEVICE, 0, "the compiled source has no kernel lik_"},
    {MOCK_PIPELINE, LIK_EDEVICE, 0, "threadgroup memory of the mock is exceeded"},
    {MOCK_NARROW, LIK_EUNSUPPORTED, 0, "in simdgroups of 16 and threadgroups of at most 1024"},
    {MOCK_NO_BUFFER, LIK_ENOMEM, 0, "metal:0 has no buffer of "},
    {MOCK_NO_COMMANDS, LIK_EDEVICE, 0, "gives no command buffer"},
    {MOCK_NO_ENCODER, LIK_EDEVICE, 0, "gives no command encoder"},
    {MOCK_FAULT_OF_GPU, LIK_EDEVICE, 0, "Caused GPU Hang Error (mock)"},
};
static int fault_at;

static void one_fault(void)
{
    struct lik_context *ctx = NULL;
    int status = LIK_OK, compiled = 0;
    mock_set_fault(faults[fault_at].fault);
    for (int again = 0; again < 2; again++) { /* a reason is not lost */
        status = lik_context_create("metal", &ctx);
        if (faults[fault_at].at_open) {
            check(status == faults[fault_at].status && !ctx &&
                      strstr(lik_last_error(), faults[fault_at].words),
                  "fault %d: %s: %s", faults[fault_at].fault, lik_status_name(status), lik_last_error());
            continue;
        }
        check(status == LIK_OK, "fault %d: %s", faults[fault_at].fault, lik_last_error());
        struct problem p = problem_make(LIK_F16, 2, 3, 16, 0);
        memset(p.scores, 0x55, 6 * sizeof *p.scores);
        status = run_score(ctx, &p.op);
        check(status == faults[fault_at].status && strstr(lik_last_error(), faults[fault_at].words),
              "fault %d: %s: %s", faults[fault_at].fault, lik_status_name(status), lik_last_error());
        for (int i = 0; i < 24; i++)
            check(((const unsigned char *)p.scores)[i] == 0x55, "fault %d: scores were written",
                  faults[fault_at].fault);
        if (again)
            check(mock_count().libraries == compiled, "what does not compile was compiled again");
        compiled = mock_count().libraries;
        problem_free(&p);
        lik_context_destroy(ctx);
    }
    check(mock_alive(NULL) == 0, "fault %d: %d objects still live", faults[fault_at].fault, mock_alive(NULL));
    if (faults[fault_at].fault == MOCK_COMPILE || faults[fault_at].at_open)
        return;
    mock_set_fault(-1); /* what was not remembered is over */
    ctx = open_device("metal");
    struct problem p = problem_make(LIK_F16, 2, 3, 16, 0);
    compare(ctx, &p, "after a fault");
    problem_free(&p);
    lik_context_destroy(ctx);
}

static void names(void)
{
    static const char *const bad[] = {"metal:", "metal:-1", "metal:x", "metal:0x", "metal: 0", "metal:+0"};
    struct lik_context *ctx = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check(lik_context_create(bad[i], &ctx) == LIK_EINVAL && strstr(lik_last_error(), bad[i]), "%s: %s",
              bad[i], lik_last_error());
    check(lik_context_create("metal:1", &ctx) == LIK_EDEVICE && strstr(lik_last_error(), "there are 1"),
          "metal:1: %s", lik_last_error());
    check(lik_context_create("metal:99999999999999999999", &ctx) == LIK_EDEVICE, "a large number");
    ctx = open_device("metal:0");
    check(!strcmp(lik_context_name(ctx), "metal:0") && !strcmp(lik_context_hardware(ctx), "Mock M1"),
          "it is %s, %s", lik_context_name(ctx), lik_context_hardware(ctx));
    lik_context_destroy(ctx);
}

static void old_system(void)
{
    mock_set_fault(MOCK_OLD_OPTIONS);
    struct lik_context *ctx = open_device("metal");
    struct problem p = problem_make(LIK_F32, 2, 3, 16, 0);
    compare(ctx, &p, "before macOS 15");
    check(mock_math_was_safe(), "fast math before macOS 15");
    problem_free(&p);
    lik_context_destroy(ctx);
}

static struct lik_context *of_parent;

static void in_child(void)
{
    struct lik_context *ctx = NULL;
    struct problem p = problem_make(LIK_F16, 2, 3, 16, 0);
    check(lik_context_create("metal", &ctx) == LIK_EDEVICE && strstr(lik_last_error(), "before it forked"),
          "a context after fork(): %s", lik_last_error());
    check(run_score(of_parent, &p.op) == LIK_EDEVICE && strstr(lik_last_error(), "before it forked"),
          "a run after fork(): %s", lik_last_error());
    lik_context_destroy(of_parent);
    problem_free(&p);
}

/* ---- order, counts, memory ---- */

static void repeated_runs(const struct lik_context *ctx)
{
    struct problem p = problem_make(LIK_F16, 3, 4, 32, 0);
    struct lik_plan plan = LIK_PLAN_INIT;
    check(lik_score_plan(ctx, &p.op, NULL, &plan) == LIK_OK && strstr(plan.variant, "metal"),
          "its plan is %s", plan.variant);
    compare(ctx, &p, "a first run");
    struct mock_counts first = mock_count();
    compare(ctx, &p, "a second run");
    struct mock_counts second = mock_count();
    check(first.libraries == 1 && second.libraries == 1, "compiled %d times", second.libraries);
    check(second.pipelines == first.pipelines, "%d pipelines more", second.pipelines - first.pipelines);
    check(second.commits == first.commits + 1, "%d command buffers a run", second.commits - first.commits);
    check(mock_math_was_safe(), "fast math");
    check(mock_alive(NULL) == 0, "%d objects still live", mock_alive(NULL));
    check(mock_alive("MTLCommandQueue") == 1 && mock_alive("MTLDevice") == 1, "%d queues, %d devices",
          mock_alive("MTLCommandQueue"), mock_alive("MTLDevice"));
    problem_free(&p);
}

static void large_arrays(const struct lik_context *ctx)
{
    for (size_t shift = 0; shift <= 4098; shift += 2049) { /* of elements that lie odd, too */
        struct problem p = problem_make(LIK_F16, 1, 200, 64, shift / 2 * 2);
        int around = mock_count().buffers_around;
        compare(ctx, &p, "documents where they lie");
        check(mock_count().buffers_around > around, "documents of 230 KB were copied");
        mock_set_fault(MOCK_NO_COPYLESS);
        memset(p.scores, 0, 200 * sizeof *p.scores);
        compare(ctx, &p, "documents in a copy");
        mock_set_fault(-1);
        problem_free(&p);
    }
}

/* Between rows of the scores there are bytes that nobody may write. */
static void rows_with_gaps(const struct lik_context *ctx)
{
    struct problem p = problem_make(LIK_F32, 6, 7, 24, 0);
    float *wide = calloc(6 * 2000, sizeof *wide);
    for (int i = 0; i < 6 * 2000; i++)
        wide[i] = 77;
    p.op.scores = wide;
    p.op.scores_stride = 2000;
    compare(ctx, &p, "rows 2000 apart");
    for (int i = 0; i < 6 * 2000; i++)
        if (i % 2000 >= 7 && wide[i] != 77) {
            check(0, "element %d between the rows was written", i);
            break;
        }
    free(wide);
    problem_free(&p);
}

/* Documents from the last one back: the array's address is not its lowest. */
static void backwards(const struct lik_context *ctx)
{
    struct problem p = problem_make(LIK_F32, 2, 40, 64, 0);
    p.op.d.data = (const float *)p.d + 39 * 9 * 64;
    p.op.d.strides.sequence = -9 * 64;
    compare(ctx, &p, "a stride below zero");
    p.op.q = p.op.d; /* the same address, one document and all */
    p.op.q.count = 2;
    p.op.q.len_max = 5;
    compare(ctx, &p, "queries that are documents");
    mock_set_fault(MOCK_NO_COPYLESS);
    compare(ctx, &p, "queries that are documents, in a copy");
    mock_set_fault(-1);
    problem_free(&p);
}

/* What is written lies where it is only if nobody else's bytes are in its cache lines. */
static void large_results(const struct lik_context *ctx)
{
    struct problem p = problem_make(LIK_F16, 96, 128, 8, 0);
    float *memory = aligned_alloc(128, 96 * 128 * 4 + 256);
    if (!memory)
        exit(2);
    for (int shift = 0; shift < 2; shift++) {
        int around = mock_count().buffers_around;
        p.op.scores = memory + shift;
        compare(ctx, &p, "scores of 48 KB");
        around = mock_count().buffers_around - around; /* the argmax begins within a line */
        check(around == 1 - shift, "scores %d floats into a line: %d buffers around them", shift, around);
    }
    free(memory);
    problem_free(&p);
}

static void lists(const struct lik_context *ctx)
{
    struct problem p = problem_make(LIK_F16, 3, 4, 16, 0);
    const int64_t list_q[] = {0, 2, 1, 2, 0}, list_d[] = {3, 3, 0, 1, 3};
    p.op.pairing = LIK_LIST;
    p.op.list_q = list_q;
    p.op.list_d = list_d;
    p.op.list_count = p.rows = 5;
    p.columns = 1;
    compare(ctx, &p, "a list");
    problem_free(&p);
}

static void gradients(const struct lik_context *ctx)
{
    struct lik_context *ref = open_device("ref");
    struct problem p = problem_make(LIK_F32, 3, 8, 200, 0);
    compare(ctx, &p, "the winners");
    int64_t nq = 3 * 5 * 200, nd = 8 * 9 * 200;
    float g[24], *got = calloc((size_t)(nq + nd), sizeof *got),
                 *want = calloc((size_t)(nq + nd), sizeof *want);
    fill(g, LIK_F32, 24, 3);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        void *memory = NULL;
        struct lik_exec exec = {.struct_size = sizeof exec, .get_workspace = lend, .lender = &memory};
        struct lik_grad op = LIK_GRAD_INIT;
        op.score = p.op;
        op.grad_scores = g;
        op.accumulate = accumulate;
        op.grad_q = want;
        op.grad_d = want + nq;
        check(lik_grad_run(ref, &op, &exec) == LIK_OK, "gradients by ref: %s", lik_last_error());
        op.grad_q = got;
        op.grad_d = got + nq;
        check(lik_grad_run(ctx, &op, &exec) == LIK_OK, "gradients: %s", lik_last_error());
        int64_t wrong = 0;
        for (int64_t i = 0; i < nq + nd; i++)
            wrong += !(fabsf(got[i] - want[i]) <= 1e-5f);
        check(!wrong, "%lld of %lld gradients are wrong, accumulate %d", (long long)wrong,
              (long long)(nq + nd), accumulate);
        free(memory);
    }
    free(got);
    free(want);
    problem_free(&p);
    lik_context_destroy(ref);
}

static void best_documents(const struct lik_context *ctx)
{
    struct lik_context *ref = open_device("ref");
    struct problem p = problem_make(LIK_F16, 3, 50, 32, 0);
    float values[2][3 * 7];
    int64_t ids[2][3 * 7];
    for (int i = 0; i < 2; i++) {
        void *memory = NULL;
        struct lik_exec exec = {.struct_size = sizeof exec, .get_workspace = lend, .lender = &memory};
        struct lik_topk op = LIK_TOPK_INIT;
        op.score = p.op;
        op.k = 7;
        op.id_base = 100;
        op.values = values[i];
        op.ids = ids[i];
        check(lik_topk_run(i ? ref : ctx, &op, &exec) == LIK_OK, "top-k: %s", lik_last_error());
        free(memory);
    }
    check(!memcmp(ids[0], ids[1], sizeof ids[0]), "other documents than the reference's");
    problem_free(&p);
    lik_context_destroy(ref);
}

static void empty_problems(const struct lik_context *ctx)
{
    struct problem p = problem_make(LIK_F32, 2, 3, 8, 0);
    int commits = mock_count().commits;
    p.op.d.count = p.columns = 0;
    check(run_score(ctx, &p.op) == LIK_OK, "no documents: %s", lik_last_error());
    check(mock_count().commits == commits, "nothing was sent to the GPU");
    p.op.d.count = p.columns = 3;
    p.op.d.len_max = 0;
    compare(ctx, &p, "documents without tokens");
    p.op.d.len_max = 9;
    p.op.q.len_max = 0;
    check(run_score(ctx, &p.op) == LIK_OK && p.scores[0] == 0, "queries without tokens: %s",
          lik_last_error());
    problem_free(&p);
}

static void *in_thread(void *arg)
{
    struct lik_context *ctx = open_device("metal");
    struct problem p = problem_make(LIK_BF16, 2, 5, 40, 0);
    for (int i = 0; i < 5; i++)
        compare(ctx, &p, "in a thread");
    problem_free(&p);
    lik_context_destroy(ctx);
    return arg;
}

/* The first contexts of a process, several at once. */
static void threads(void)
{
    pthread_t all[4];
    for (int i = 0; i < 4; i++)
        if (pthread_create(&all[i], NULL, in_thread, NULL))
            exit(2);
    for (int i = 0; i < 4; i++)
        pthread_join(all[i], NULL);
    check(mock_count().libraries == 1 && mock_alive("MTLCommandQueue") == 1 && mock_alive(NULL) == 0,
          "%d libraries, %d queues, %d objects", mock_count().libraries, mock_alive("MTLCommandQueue"),
          mock_alive(NULL));
}

int main(void)
{
    for (fault_at = 0; fault_at < (int)(sizeof faults / sizeof *faults); fault_at++)
        apart(faults[fault_at].words, one_fault);
    apart("names", names);
    apart("an older system", old_system);
    apart("threads", threads);
    struct lik_context *ctx = open_device("metal");
    repeated_runs(ctx);
    large_arrays(ctx);
    rows_with_gaps(ctx);
    backwards(ctx);
    large_results(ctx);
    lists(ctx);
    gradients(ctx);
    best_documents(ctx);
    empty_problems(ctx);
    of_parent = ctx;
    apart("a child of fork()", in_child);
    lik_context_destroy(ctx);
    check(mock_alive(NULL) == 0, "%d objects still live", mock_alive(NULL));
    check(mock_violations() == 0, "%d calls were wrong", mock_violations());
    printf("%d checks, %d failures\n", checks, failures);
    return failures ? 1 : 0;
}
