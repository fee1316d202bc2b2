/* Bitwise equality: a score depends on its query and its document alone.
 *
 * Each random problem is run once as it is; then with other numbers of threads, with tasks in
 * another order, with and without argmax; then single pairs and whole shuffled batches are laid
 * out anew (padded or packed, with more padding, with dropped tokens kept as masked or left
 * out) and every score must have the same bits, every winner be the same. */
#include "check.h"

#include "shared/operand.h"

#include "system.h"

#define POOLS 8
static struct lik_pool *pools[POOLS + 1]; /* by number of threads */

enum relayout { PADDED, PADDED_MORE, PACKED_32, PACKED_64, RELAYOUTS };

/* Some sequences of an operand in memory of their own. `compress` leaves dropped tokens out. */
struct copy {
    struct lik_tokens x;
    struct buffer arrays[LIK_OPERAND_ARRAYS], offsets;
    int64_t *origin; /* [rows]: token number in the original sequence */
};

static int64_t place_of(const struct lik_tokens *x, struct lik_strides strides, int64_t i, int64_t t)
{
    if (x->offsets) {
        int64_t first =
            x->offsets_dtype == LIK_I32 ? ((const int32_t *)x->offsets)[i] : ((const int64_t *)x->offsets)[i];
        return (first + t) * strides.token;
    }
    if (x->group_size)
        return i / x->group_size * strides.group + i % x->group_size * strides.sequence + t * strides.token;
    return i * strides.sequence + t * strides.token;
}

static int is_kept(const struct lik_tokens *x, int64_t i, int64_t t)
{
    return !x->mask || x->mask[place_of(x, x->mask_strides, i, t)];
}

static int64_t copied_length(const struct lik_tokens *x, int64_t i, int compress)
{
    int64_t length = 0;
    for (int64_t t = 0; t < problem_length(x, i); t++)
        length += !compress || is_kept(x, i, t);
    return length;
}

/* Copies token t of sequence i to row `row`: its entry of every array. */
static void copy_token(struct copy *c, const struct lik_tokens *x, int64_t i, int64_t t, int64_t row)
{
    int kept = is_kept(x, i, t);
    c->arrays[LIK_MASK].data[row] = (unsigned char)kept;
    c->origin[row] = t;
    for (int n = 0; n < LIK_OPERAND_ARRAYS && kept; n++) {
        struct lik_operand_array a = lik_array_of(x, n);
        if (!a.at || n == LIK_MASK)
            continue;
        const unsigned char *from =
            (const unsigned char *)a.at + place_of(x, a.strides, i, t) * a.element_bytes;
        unsigned char *to = c->arrays[n].data + row * a.inner * a.element_bytes;
        for (int64_t k = 0; k < a.inner; k++)
            memcpy(to + k * a.element_bytes, from + k * a.inner_stride * a.element_bytes,
                   (size_t)a.element_bytes);
    }
}

static struct copy copy_make(const struct lik_tokens *x, const int64_t *which, int64_t n,
                             enum relayout layout, int compress)
{
    struct copy c = {.x = {0}};
    int packed = layout >= PACKED_32;
    int64_t longest = 0, total = 0;
    for (int64_t a = 0; a < n; a++) {
        int64_t length = copied_length(x, which[a], compress);
        longest = length > longest ? length : longest;
        total += length;
    }
    int64_t len_max = longest + (layout == PADDED_MORE ? 13 : 0), rows = packed ? total : n * len_max;
    enum placement placement = layout % 2 ? AT_BEGIN : AT_END;
    for (int b = 0; b < LIK_OPERAND_ARRAYS; b++) {
        struct lik_operand_array array = lik_array_of(x, b);
        size_t element = array.element_bytes ? (size_t)array.element_bytes : 1;
        size_t bytes = array.at || b == LIK_MASK ? (size_t)(rows * array.inner) * element : 0;
        c.arrays[b] = buffer_make(bytes, placement, element);
        memset(c.arrays[b].data, b == LIK_MASK ? 0 : x->dtype == LIK_I8 ? 0x7f : 0xff, c.arrays[b].bytes);
    }
    c.offsets = buffer_make((size_t)(n + 1) * sizeof(int64_t), placement, sizeof(int64_t));
    c.origin = calloc((size_t)rows + 1, sizeof *c.origin);
    int64_t row = 0;
    for (int64_t a = 0; a < n; a++) {
        row = packed ? row : a * len_max;
        if (layout == PACKED_32)
            ((int32_t *)(void *)c.offsets.data)[a] = (int32_t)row;
        else
            ((int64_t *)(void *)c.offsets.data)[a] = row;
        for (int64_t t = 0; t < problem_length(x, which[a]); t++)
            if (!compress || is_kept(x, which[a], t))
                copy_token(&c, x, which[a], t, row++);
    }
    if (layout == PACKED_32)
        ((int32_t *)(void *)c.offsets.data)[n] = (int32_t)row;
    else
        ((int64_t *)(void *)c.offsets.data)[n] = row;
    c.x = packed ? lik_tokens_packed(c.arrays[LIK_DATA].data, x->dtype, n, len_max, total, x->dim,
                                     c.offsets.data, layout == PACKED_32 ? LIK_I32 : LIK_I64)
                 : lik_tokens_padded(c.arrays[LIK_DATA].data, x->dtype, n, len_max, x->dim);
    if (x->storage == LIK_RESIDUAL)
        c.x = lik_tokens_compressed(c.x, x->codec, c.arrays[LIK_CODES].data, x->codes_dtype);
    if (x->storage == LIK_ONE_HOT) {
        c.x.storage = LIK_ONE_HOT;
        c.x.data = NULL;
        c.x.codes_dtype = x->codes_dtype;
    }
    c.x.normalize = x->normalize;
    c.x.scale_dtype = x->scale_dtype;
    for (int b = LIK_MASK; b < LIK_OPERAND_ARRAYS; b++)
        if (b == LIK_MASK ? !packed || !compress : lik_array_of(x, b).at != NULL)
            lik_operand_move(&c.x, b, c.arrays[b].data);
    return c;
}

static void copy_free(struct copy *c)
{
    for (int b = 0; b < LIK_OPERAND_ARRAYS; b++)
        buffer_free(&c->arrays[b]);
    buffer_free(&c->offsets);
    free(c->origin);
}

/* Original token number of token t of sequence a of the copy. */
static int64_t copy_origin(const struct copy *c, int64_t a, int64_t t)
{
    return c->origin[place_of(&c->x, (struct lik_strides){.sequence = c->x.len_max, .token = 1}, a, t)];
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? 0x7fc00000 : bits; /* which NaN it is may vary */
}

static void check_bits(const char *how, int64_t n, float got, float want)
{
    check(bits_of(got) == bits_of(want), "%s: scores[%lld] is %a, was %a", how, (long long)n, (double)got,
          (double)want);
}

/* What a device gave for the problem as it is. */
struct baseline {
    const struct device *device;
    int hopper;      /* by the Hopper loop, which adds up products of several planes in an order of its own */
    int integers;    /* compressed tokens are met as integers */
    float *scores;   /* [scores] */
    int64_t *argmax; /* [scores, q.len] */
};

/* Has the variant that takes it this in its name? */
static int is_of(const struct device *device, const struct lik_score *op, const char *part)
{
    struct lik_plan plan = {.struct_size = sizeof plan};
    return check_ok(lik_score_plan(device->ctx, op, NULL, &plan), "lik_score_plan") &&
           strstr(plan.variant, part);
}

/* Does the Hopper loop take it? That goes by dtypes, dim and the documents' strides and
 * alignment. */
static int by_hopper(const struct device *device, const struct lik_score *op)
{
    return is_of(device, op, "_sm90_");
}

/* Are compressed tokens met as integers? On CUDA that goes by dim, strides and alignment, and
 * by the pairing: all documents meet the same queries. */
static int by_integers(const struct device *device, const struct lik_score *op)
{
    return is_of(device, op, "_scan_i8_");
}

/* Documents of 8 bits that may be widened before they are multiplied, or not: docs/numerics.md
 * says beside which queries and scales that gives other bits. */
static int hopper_widens(const struct device *device, const struct lik_score *op)
{
    const struct lik_strides *s = &op->d.scale_strides;
    const int tensor = op->d.scale && !s->group && !s->sequence && !s->token;
    return !strcmp(device->level, "cuda") && lik_dtype_bytes(op->d.dtype) == 1 &&
           (op->q.dtype == LIK_F16 || tensor);
}

static void check_against(const char *how, struct problem *p, const struct baseline *base,
                          const struct lik_exec *exec)
{
    if (!check_ok(problem_run(p, base->device->ctx, exec), how))
        return;
    for (int64_t n = 0; n < p->scores; n++) {
        check_bits(how, n, problem_score(p, n), base->scores[n]);
        for (int64_t s = 0; p->op.argmax && s < p->q.len; s++)
            check(problem_argmax(p, n, s) == base->argmax[n * p->q.len + s],
                  "%s: argmax[%lld, %lld] is %lld, was %lld", how, (long long)n, (long long)s,
                  (long long)problem_argmax(p, n, s), (long long)base->argmax[n * p->q.len + s]);
    }
}

/* A parallel_for of the caller's: last task first; remembers how many tasks there were. */
static void backwards(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    int64_t *most = pool;
    *most = n > *most ? n : *most;
    for (int64_t i = n - 1; i >= 0; i--)
        task(arg, i);
}

/* A parallel_for that starts a thread for each task. */
struct spawned {
    void (*task)(void *arg, int64_t i);
    void *arg;
    int64_t i;
};

static void spawned_main(void *opaque)
{
    struct spawned *s = opaque;
    s->task(s->arg, s->i);
}

static void thread_each(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    enum { AT_ONCE = 16 };
    struct spawned each[AT_ONCE];
    (void)pool;
    for (int64_t from = 0; from < n; from += AT_ONCE) {
        int64_t count = n - from < AT_ONCE ? n - from : AT_ONCE;
        for (int64_t a = 0; a < count; a++)
            each[a] = (struct spawned){task, arg, from + a};
        threads_run(count, spawned_main, each, sizeof *each);
    }
}

static int64_t check_threads(struct problem *p, const struct baseline *base)
{
    int64_t most = 0;
    for (int threads = 1; threads <= POOLS; threads++) {
        struct lik_exec exec = {.struct_size = sizeof exec, .threads = threads};
        exec.parallel_for = lik_pool_parallel_for;
        exec.pool = pools[threads];
        check_against("with a pool", p, base, &exec);
        exec.parallel_for = backwards;
        exec.pool = &most;
        check_against("with the tasks in reverse order", p, base, &exec);
    }
    struct lik_exec exec = {.struct_size = sizeof exec, .threads = 16, .parallel_for = thread_each};
    check_against("with a thread for each task", p, base, &exec);
    return most;
}

/* The same problem without argmax and with the other argmax dtype. */
static void check_argmax_forms(struct problem *p, const struct baseline *base)
{
    struct lik_score op = p->op;
    p->op.argmax = NULL;
    check_against("without argmax", p, base, NULL);
    struct buffer other = buffer_make((size_t)(p->scores * p->q.len) * 4, AT_END, 4);
    p->op.argmax = other.data;
    p->op.argmax_dtype = op.argmax_dtype == LIK_I32 ? LIK_I16 : LIK_I32;
    check_against("with the argmax in another dtype", p, base, NULL);
    buffer_free(&other);
    p->op = op;
}

/* The scores numbered by `which`, n of them, as a list over copies of their queries and
 * documents. */
static void check_copies(const char *how, struct problem *p, const struct baseline *base,
                         const int64_t *which, int64_t n, struct rng *rng)
{
    int64_t *ids = malloc((size_t)(4 * n + 4) * sizeof *ids), *list_q = ids + n, *list_d = list_q + n,
            *docs = list_d + n;
    enum relayout layout_q = (enum relayout)rng_below(rng, RELAYOUTS),
                  layout_d = (enum relayout)rng_below(rng, RELAYOUTS);
    int compress_q = (int)rng_below(rng, 2), compress_d = (int)rng_below(rng, 2);
    for (int64_t a = 0; a < n; a++) {
        problem_pair(p, which[a], &ids[a], &docs[a]);
        list_q[a] = list_d[a] = a;
    }
    struct copy q = copy_make(&p->op.q, ids, n, layout_q, compress_q),
                d = copy_make(&p->op.d, docs, n, layout_d, compress_d);
    struct lik_score op = {
        .struct_size = sizeof op, .pairing = n == 1 ? LIK_ALL : LIK_LIST, .precision = p->op.precision};
    struct buffer scores = buffer_make((size_t)n * sizeof(float), AT_END, sizeof(float));
    struct buffer argmax = buffer_make((size_t)(n * q.x.len_max) * sizeof(int32_t), AT_END, sizeof(int32_t));
    op.q = q.x;
    op.d = d.x;
    op.list_q = list_q;
    op.list_d = list_d;
    op.list_count = n;
    op.scores = (float *)(void *)scores.data;
    op.argmax = argmax.data;
    op.argmax_dtype = LIK_I32;
    const int32_t *winners = (const int32_t *)(const void *)argmax.data;
    int same =
        by_hopper(base->device, &op) == base->hopper || op.d.dtype != LIK_F32 || op.precision == LIK_MEDIUM;
    if (hopper_widens(base->device, &op) || hopper_widens(base->device, &p->op) ||
        by_integers(base->device, &op) != base->integers)
        same = 0;
    if (check_ok(run_score(base->device->ctx, &op, NULL), how))
        for (int64_t a = 0; a < n; a++) {
            if (same)
                check(bits_of(op.scores[a]) == bits_of(base->scores[which[a]]),
                      "%s (layouts %d%s and %d%s): scores[%lld] is %a, was %a", how, layout_q,
                      compress_q ? " compressed" : "", layout_d, compress_d ? " compressed" : "",
                      (long long)which[a], (double)op.scores[a], (double)base->scores[which[a]]);
            else
                check_close(how, which[a], (double)op.scores[a], p->expected[which[a]],
                            p->tolerance[which[a]]);
            for (int64_t s = 0; s < problem_length(&q.x, a); s++) {
                if (q.x.mask && !q.x.mask[place_of(&q.x, q.x.mask_strides, a, s)])
                    continue;
                int64_t won = winners[a * q.x.len_max + s],
                        was = base->argmax[which[a] * p->q.len + copy_origin(&q, a, s)];
                check(same ? (won < 0 ? -1 : copy_origin(&d, a, won)) == was : (won < 0) == (was < 0),
                      "%s: the winner %lld was %lld", how, (long long)won, (long long)was);
            }
        }
    copy_free(&q);
    copy_free(&d);
    buffer_free(&scores);
    buffer_free(&argmax);
    free(ids);
}

static struct baseline baseline_make(struct problem *p, const struct device *device)
{
    struct baseline base = {.device = device, .hopper = by_hopper(device, &p->op)};
    base.integers = by_integers(device, &p->op);
    base.scores = malloc((size_t)(p->scores + 1) * sizeof(float));
    base.argmax = malloc((size_t)(p->scores * p->q.len + 1) * sizeof(int64_t));
    check_ok(problem_run(p, device->ctx, NULL), "lik_score_run");
    for (int64_t n = 0; n < p->scores; n++) {
        base.scores[n] = problem_score(p, n);
        for (int64_t s = 0; s < p->q.len; s++)
            base.argmax[n * p->q.len + s] = problem_argmax(p, n, s);
    }
    return base;
}

static void check_case(int64_t number, const struct spec *spec, const struct device *device, int threads)
{
    char text[700];
    struct rng rng = {.state = spec->seed + 1};
    struct problem *p = problem_make(spec);
    spec_describe(spec, text, sizeof text);
    check_describe("invariance, case %lld on %s: %s", (long long)number, device->name, text);
    struct baseline base = baseline_make(p, device);
    check_argmax_forms(p, &base);
    if (threads)
        check_threads(p, &base);
    int64_t *which = malloc((size_t)(3 * p->scores + 1) * sizeof *which);
    for (int64_t n = 0; n < p->scores; n += 1 + p->scores / 4)
        check_copies("alone", p, &base, &n, 1, &rng);
    for (int64_t n = 0; n < 2 * p->scores; n++)
        which[n] = rng_below(&rng, p->scores);
    if (p->scores > 0)
        check_copies("in another batch", p, &base, which, 2 * p->scores, &rng);
    free(which);
    free(base.scores);
    free(base.argmax);
    problem_free(p);
}

/* Large enough that every backend splits it; and a hundred times over. */
static void check_large(const struct device *device)
{
    static const int32_t dtypes[] = {LIK_F32, LIK_F16, LIK_BF16, LIK_E4M3, LIK_I8, LIK_I8};
    int alone = !strcmp(device->name, "ref") || !strcmp(device->name, "metal"); /* slow, on one thread */
    for (int64_t c = 0; c < COUNT(dtypes); c++) {
        struct spec spec = spec_plain(c % 2 ? 20 : 33, alone ? 20 : 150, 96, (uint64_t)c + 1);
        spec.q.count = c % 2 ? 1 : 3;
        spec.d.count = alone ? 3 : 101;
        spec.d.dtype = dtypes[c];
        spec.q.dtype = c == 5 ? LIK_I8 : c == 3 ? LIK_BF16 : LIK_F32;
        spec.d.layout = c % 2 ? PACKED_I32 : CONTIGUOUS;
        spec.d.mask = c % 3 ? UNMASKED : RANDOM;
        if (!check_wanted(1000 + c, 3))
            continue;
        struct problem *p = problem_make(&spec);
        check_describe("invariance, large case %lld on %s", (long long)(1000 + c), device->name);
        struct baseline base = baseline_make(p, device);
        int64_t most = check_threads(p, &base);
        check(alone || totals.gpu || most > 1, "a problem of %lld pairs was not split", (long long)p->scores);
        struct lik_exec exec = {
            .struct_size = sizeof exec, .threads = 4, .parallel_for = lik_pool_parallel_for};
        exec.pool = pools[4];
        for (int repeat = 0; repeat < (c ? 10 : 100); repeat++)
            check_against("repeated", p, &base, &exec);
        free(base.scores);
        free(base.argmax);
        problem_free(p);
    }
}

/* Levels above AVX2 and NEON, and WebAssembly's above the baseline, add up the same products in
 * the same order, so that their bits are those of the lowest; all but bf16 documents by bf16
 * queries, which some multiply in pairs. */
#if defined(__wasm__)
#define LOWEST "generic"
#elif defined(__aarch64__)
#define LOWEST "neon"
#else
#define LOWEST "avx2"
#endif

static void check_level_agrees(const struct device *lowest, int64_t number, const struct spec *spec)
{
    char text[700];
    struct problem *p = problem_make(spec);
    spec_describe(spec, text, sizeof text);
    struct baseline base = baseline_make(p, lowest);
    for (base.device = lowest + 1; !strncmp(base.device->name, "cpu:", 4); base.device++) {
        check_describe("invariance, case %lld on %s: %s", (long long)number, base.device->name, text);
        if (base.device->ctx)
            check_against("on a level above it", p, &base, NULL);
    }
    free(base.scores);
    free(base.argmax);
    problem_free(p);
}

static void check_levels_agree(const struct device *lowest)
{
    static const int64_t compressed_dims[] = {128, 96, 63, 200, 33, 127, 128};
    struct rng rng = {.state = 41};
    for (int64_t number = 2000; number < 2500; number++) {
        struct spec spec = spec_random(&rng, 20000);
        spec.argmax_dtype = spec.argmax_dtype ? spec.argmax_dtype : LIK_I32;
        if (check_wanted(number, 29) && !(spec.q.dtype == LIK_BF16 && spec.d.dtype == LIK_BF16))
            check_level_agrees(lowest, number, &spec);
    }
    /* compressed tokens as integers: levels take several at once, and streams end among them */
    for (int64_t number = 2500; number < 2540; number++) {
        int64_t dim = compressed_dims[number % COUNT(compressed_dims)];
        struct spec spec = spec_plain(20, 71, dim, (uint64_t)number);
        spec.q.count = 2;
        spec.d.count = 9;
        spec.d.normalize = number % 4 > 0;
        compressed_random(&spec.d, spec.seed);
        spec.precision = LIK_MEDIUM;
        spec.argmax_dtype = LIK_I32;
        if (check_wanted(number, 3))
            check_level_agrees(lowest, number, &spec);
    }
}

void check_invariance(void)
{
    check_describe("invariance: pools");
    for (int threads = 1; threads <= POOLS; threads++)
        if (!check_ok(lik_pool_create(threads, &pools[threads]), "lik_pool_create"))
            return;
    for (int64_t i = 0; i < device_count; i++) {
        struct rng rng = {.state = 40};
        if (!devices[i].ctx)
            continue;
        for (int64_t number = 0; number < 500; number++) {
            struct spec spec = spec_random(&rng, 20000);
            spec.argmax_dtype = spec.argmax_dtype ? spec.argmax_dtype : LIK_I32;
            if (check_wanted(number, 29))
                check_case(number, &spec, &devices[i], number % 8 == 0);
        }
        for (int64_t number = 0; number < (totals.gpu ? 60 : 3); number++) {
            struct spec spec = spec_many(number);
            spec.argmax_dtype = spec.argmax_dtype ? spec.argmax_dtype : LIK_I32;
            /* what other kernels than the Hopper loop give other bits: see docs/numerics.md */
            spec.q.dtype = spec.q.dtype == LIK_F16 ? LIK_BF16 : spec.q.dtype;
            spec.d.scale = spec.d.scale == PER_TENSOR ? PER_TOKEN : spec.d.scale;
            if (check_wanted(70000 + number, 5))
                check_case(70000 + number, &spec, &devices[i], 0);
        }
        check_large(&devices[i]);
        if (!strcmp(devices[i].level, LOWEST))
            check_levels_agree(&devices[i]);
    }
    for (int threads = 1; threads <= POOLS; threads++)
        lik_pool_destroy(pools[threads]);
}
