/* Top-k of every device against a full sort of the same device's scores, bit for bit; the merge
 * of shards against the whole; and lik_merge_topk alone against a sort. */
#include "check.h"

struct entry {
    float value;
    int64_t id;
};

static int sort_smallest; /* for qsort, which takes no context */

/* Better first, NaN last, ties by lower id: written anew from lik.h. */
static int compare_entries(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (isnan(a->value) != isnan(b->value))
        return isnan(a->value) ? 1 : -1;
    if (a->value < b->value || a->value > b->value)
        return (a->value < b->value) == (sort_smallest != 0) ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static int same_value(float a, float b)
{
    return isnan(a) ? isnan(b) : !memcmp(&a, &b, sizeof a);
}

/* The k best of `sorted`, then the filler. */
static void check_best(const char *how, int64_t query, const struct entry *sorted, int64_t n, int64_t k,
                       const float *values, const int64_t *ids)
{
    for (int64_t a = 0; a < k; a++) {
        struct entry want = a < n ? sorted[a] : (struct entry){NAN, -1};
        check(ids[a] == want.id && same_value(values[a], want.value),
              "%s: entry %lld of query %lld is (%.9g, %lld), expected (%.9g, %lld)", how, (long long)a,
              (long long)query, (double)values[a], (long long)ids[a], (double)want.value, (long long)want.id);
    }
}

static int64_t columns_of(const struct problem *p)
{
    return p->op.pairing == LIK_ALL ? p->op.d.count : p->op.per_query;
}

/* Each query's scores of the last run with their ids, sorted: [q.count, columns]. */
static struct entry *sort_scores(const struct problem *p, int64_t id_base, int smallest)
{
    int64_t columns = columns_of(p);
    struct entry *entries = malloc((size_t)(p->scores + 1) * sizeof *entries);
    for (int64_t n = 0; n < p->scores; n++)
        entries[n] = (struct entry){problem_score(p, n), id_base + n % columns};
    sort_smallest = smallest;
    for (int64_t i = 0; columns && i < p->op.q.count; i++)
        qsort(entries + i * columns, (size_t)columns, sizeof *entries, compare_entries);
    return entries;
}

static void run(const char *how, const struct problem *p, const struct device *device, struct lik_topk *op,
                const struct entry *sorted, const struct lik_exec *exec)
{
    int64_t columns = columns_of(p), queries = p->op.q.count;
    struct buffer values =
        buffer_make((size_t)(queries * op->k) * sizeof(float), p->spec.placement, sizeof(float));
    struct buffer ids =
        buffer_make((size_t)(queries * op->k) * sizeof(int64_t), p->spec.placement, sizeof(int64_t));
    memset(values.data, 0xcb, values.bytes);
    memset(ids.data, 0xcb, ids.bytes);
    op->values = (float *)(void *)values.data;
    op->ids = (int64_t *)(void *)ids.data;
    if (check_ok(run_topk(device->ctx, op, exec), "lik_topk_run"))
        for (int64_t i = 0; i < queries; i++)
            check_best(how, i, sorted + i * columns, columns, op->k, op->values + i * op->k,
                       op->ids + i * op->k);
    buffer_check(&values, "values");
    buffer_check(&ids, "ids");
    buffer_free(&values);
    buffer_free(&ids);
}

/* The documents cut in two or three; each shard's k best; their merge. */
static void check_shards(const struct problem *p, const struct device *device, const struct lik_topk *op,
                         const struct entry *sorted, struct rng *rng)
{
    int64_t parts = 2 + rng_below(rng, 2), queries = p->op.q.count, columns = p->op.d.count,
            k_in = op->k + rng_below(rng, 3);
    size_t entries = (size_t)(parts * queries * k_in), from = 0;
    float *values_in = malloc((entries + 1) * sizeof *values_in),
          *values = malloc((size_t)(queries * op->k + 1) * sizeof *values);
    int64_t *ids_in = malloc((entries + 1) * sizeof *ids_in),
            *ids = malloc((size_t)(queries * op->k + 1) * sizeof *ids);
    for (int64_t part = 0, first = 0; part < parts; part++) {
        int64_t next = part + 1 == parts ? columns : first + rng_below(rng, columns - first + 1);
        struct lik_topk shard = *op;
        check_ok(lik_tokens_slice(&op->score.d, first, next - first, &shard.score.d), "lik_tokens_slice");
        shard.k = k_in;
        shard.id_base = op->id_base + first;
        shard.values = values_in + from;
        shard.ids = ids_in + from;
        check_ok(run_topk(device->ctx, &shard, NULL), "lik_topk_run");
        from += (size_t)(queries * k_in);
        first = next;
    }
    if (check_ok(lik_merge_topk(parts, queries, k_in, values_in, ids_in, op->k, op->smallest, values, ids),
                 "lik_merge_topk"))
        for (int64_t i = 0; i < queries; i++)
            check_best("merged shards", i, sorted + i * columns, columns, op->k, values + i * op->k,
                       ids + i * op->k);
    free(values_in);
    free(ids_in);
    free(values);
    free(ids);
}

static void check_variant(const struct lik_topk *op, const struct device *device)
{
    struct lik_plan plan = {.struct_size = sizeof plan};
    if (!check_ok(lik_topk_plan(device->ctx, op, NULL, &plan), "lik_topk_plan"))
        return;
    size_t length = strlen(plan.variant), tail = strlen(device->level);
    check(!strncmp(plan.variant, "topk_", 5) && length > tail &&
              (totals.gpu || !strcmp(plan.variant + length - tail, device->level)),
          "the variant is \"%s\"", plan.variant);
}

static void reversed(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    (void)pool;
    for (int64_t i = n - 1; i >= 0; i--)
        task(arg, i);
}

static void check_case(int64_t number, const struct spec *spec)
{
    char text[700];
    struct rng rng = {.state = spec->seed + 3};
    struct problem *p = problem_make(spec);
    spec_describe(spec, text, sizeof text);
    int64_t ks[] = {1, 2, 5, columns_of(p) + 1, columns_of(p) + 3, 100};
    struct lik_topk op = {.struct_size = sizeof op, .score = p->op};
    op.k = RNG_PICK(&rng, ks);
    op.smallest = rng_below(&rng, 3) == 0;
    op.id_base = rng_below(&rng, 2) ? 0 : rng_below(&rng, INT64_C(1) << 40);
    if (rng_below(&rng, 2)) {
        op.score.scores = NULL;
        op.score.argmax = NULL;
    }
    for (int64_t i = 0; i < device_count; i++) {
        if (!devices[i].ctx)
            continue;
        check_describe("topk, case %lld on %s: k %lld, %s", (long long)number, devices[i].name,
                       (long long)op.k, text);
        check_ok(problem_run(p, devices[i].ctx, NULL), "lik_score_run");
        struct entry *sorted = sort_scores(p, op.id_base, op.smallest);
        problem_poison(p);
        run("alone", p, &devices[i], &op, sorted, NULL);
        const unsigned char *scores = p->out_scores.data;
        for (size_t at = 0; at < p->out_scores.bytes; at++)
            if (!check(scores[at] == 0xcb, "the scores of the problem were written"))
                break;
        struct lik_exec exec = {
            .struct_size = sizeof exec, .threads = 1 + (int32_t)rng_below(&rng, 8), .parallel_for = reversed};
        run("in reverse order", p, &devices[i], &op, sorted, &exec);
        struct lik_pool *pool;
        if (number % 16 == 0 && check_ok(lik_pool_create(exec.threads, &pool), "lik_pool_create")) {
            exec.parallel_for = lik_pool_parallel_for;
            exec.pool = pool;
            run("with a pool", p, &devices[i], &op, sorted, &exec);
            lik_pool_destroy(pool);
        }
        if (p->op.pairing == LIK_ALL && !p->op.d.group_size)
            check_shards(p, &devices[i], &op, sorted, &rng);
        check_variant(&op, &devices[i]);
        free(sorted);
    }
    problem_free(p);
}

/* Random entries, many ties, NaN, fillers between: against a sort. */
static void check_merge(int64_t number, struct rng *rng)
{
    int64_t parts = rng_below(rng, 5), queries = rng_below(rng, 4), k_in = rng_below(rng, 7),
            k = 1 + rng_below(rng, 12);
    int64_t n = parts * queries * k_in, next_id = 0;
    float *values_in = malloc((size_t)(n + 1) * sizeof *values_in),
          *values = malloc((size_t)(queries * k + 1) * sizeof *values);
    int64_t *ids_in = malloc((size_t)(n + 1) * sizeof *ids_in),
            *ids = malloc((size_t)(queries * k + 1) * sizeof *ids);
    struct entry *entries = malloc((size_t)(n + 1) * sizeof *entries);
    int32_t smallest = (int32_t)rng_below(rng, 2);
    for (int64_t a = 0; a < n; a++) {
        static const float some[] = {1, 1, 2, -3, 0, NAN, INFINITY, -INFINITY};
        values_in[a] = RNG_PICK(rng, some);
        next_id += 1 + rng_below(rng, 3);
        ids_in[a] = rng_below(rng, 5) ? (INT64_C(1) << 33) - next_id * (rng_below(rng, 2) ? 1 : 7) : -1;
    }
    check_describe("topk, merge case %lld: %lld x %lld x %lld to %lld", (long long)number, (long long)parts,
                   (long long)queries, (long long)k_in, (long long)k);
    if (check_ok(lik_merge_topk(parts, queries, k_in, values_in, ids_in, k, smallest, values, ids),
                 "lik_merge_topk"))
        for (int64_t q = 0; q < queries; q++) {
            int64_t m = 0;
            for (int64_t part = 0; part < parts; part++)
                for (int64_t a = 0; a < k_in; a++) {
                    int64_t at = (part * queries + q) * k_in + a;
                    if (ids_in[at] >= 0)
                        entries[m++] = (struct entry){values_in[at], ids_in[at]};
                }
            sort_smallest = smallest;
            qsort(entries, (size_t)m, sizeof *entries, compare_entries);
            check_best("merge", q, entries, m, k, values + q * k, ids + q * k);
        }
    free(values_in);
    free(values);
    free(ids_in);
    free(ids);
    free(entries);
}

/* The last of several slots does all the work: its heaps are full, and all that is merged comes
 * from them. */
static void check_last_slot(void)
{
    enum { QUERIES = 3, DOCUMENTS = 600, TOKENS = 16, DIM = 96, K = 7 };
    struct rng rng = {.state = 77};
    float *q = malloc(QUERIES * TOKENS * DIM * sizeof *q), *d = malloc(DOCUMENTS * TOKENS * DIM * sizeof *d);
    float values[2][QUERIES * K];
    int64_t ids[2][QUERIES * K];
    for (int k = 0; k < QUERIES * TOKENS * DIM; k++)
        q[k] = (float)rng_normal(&rng);
    for (int k = 0; k < DOCUMENTS * TOKENS * DIM; k++)
        d[k] = (float)rng_normal(&rng);
    struct lik_topk op = {.struct_size = sizeof op, .k = K, .score = {.struct_size = sizeof op.score}};
    op.score.q = lik_tokens_padded(q, LIK_F32, QUERIES, TOKENS, DIM);
    op.score.d = lik_tokens_padded(d, LIK_F32, DOCUMENTS, TOKENS, DIM);
    totals.cases++;
    for (int64_t i = 0; i < device_count; i++) {
        check_describe("topk: all in the last slot, on %s", devices[i].name);
        for (int way = 0; way < 2 && devices[i].ctx; way++) {
            struct lik_exec exec = {
                .struct_size = sizeof exec, .threads = way ? 4 : 1, .parallel_for = reversed};
            op.values = values[way];
            op.ids = ids[way];
            check_ok(run_topk(devices[i].ctx, &op, &exec), "lik_topk_run");
        }
        check(!devices[i].ctx ||
                  (!memcmp(values[0], values[1], sizeof values[0]) && !memcmp(ids[0], ids[1], sizeof ids[0])),
              "the results differ");
    }
    free(q);
    free(d);
}

void check_topk(void)
{
    check_last_slot();
    struct rng rng = {.state = 70};
    for (int64_t number = 0; number < 1000; number++) {
        struct spec spec = spec_random(&rng, 10000);
        static const int64_t counts[] = {0, 1, 2, 9, 33, 70};
        if (spec.pairing != LIK_CANDIDATES)
            spec.pairing = LIK_ALL;
        int64_t more = RNG_PICK(&rng, counts);
        if (number % 4 == 0) {
            spec.d.len = spec.d.len > 9 ? 9 : spec.d.len;
            spec.d.count = spec.pairing == LIK_ALL ? more : spec.q.count * more;
            spec.per_query = more;
        }
        if (spec.pairing == LIK_CANDIDATES)
            spec.d.count = spec.q.count * spec.per_query;
        if (check_wanted(number, 41))
            check_case(number, &spec);
    }
    for (int64_t number = 5000; number < 6000; number++)
        if (check_wanted(number, 41))
            check_merge(number, &rng);
}
