/* Scores and argmax of every device against the expectation, over three sweeps:
 * every query length with every document length (each tail of each tile), every dim with every
 * pair of dtypes, and problems that are random in everything. */
#include "check.h"

static const int64_t q_tails[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,  13, 14,
                                  15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,  28, 29,
                                  30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 64, 100, 130};
static const int64_t dims[] = {1,  3,  7,  8,   15,  16,  17,  31,  40,  48,  56,
                               64, 72, 96, 104, 127, 128, 129, 320, 768, 4096};
static const int32_t dtypes[] = {LIK_F32, LIK_F16, LIK_BF16, LIK_E4M3, LIK_E5M2, LIK_I8};

/* Scores of integers are exact in f32 whatever the order of the sums. */
static int is_exact(const struct problem *p)
{
    const struct spec *spec = &p->spec;
    int integers = (spec->q.values == INTEGERS || spec->q.values == TIES || spec->q.values == ZEROS) &&
                   (spec->d.values == INTEGERS || spec->d.values == TIES || spec->d.values == ZEROS);
    int plain = !(spec->q.scale && spec->q.values == ZEROS) && !(spec->d.scale && spec->d.values == ZEROS) &&
                !(spec->weights && spec->q.values == ZEROS);
    return integers && plain && !spec->q.normalize && !spec->d.normalize && !problem_quantized(p) &&
           !problem_rounded(p);
}

/* Are tokens a and b of document j stored alike? Then their products tie in every
 * arithmetic. */
static int same_token(const struct problem *p, int64_t j, int64_t a, int64_t b)
{
    if (p->op.d.normalize && p->op.d.scale) /* equal factors of different scales: not so in f32 */
        return 0;
    if (problem_rounded(p)) /* of a sum that two codes and buckets make, each has its own integers */
        return 0;
    size_t dim = (size_t)p->d.dim;
    int64_t row_a = j * p->d.len + a, row_b = j * p->d.len + b;
    return p->d.factor[row_a] == p->d.factor[row_b] &&
           !memcmp(p->d.raw + row_a * p->d.dim, p->d.raw + row_b * p->d.dim, dim * sizeof(double));
}

void check_winner(const struct problem *p, int64_t n, int64_t s)
{
    int64_t i, j, got = problem_argmax(p, n, s), want = p->winner[n * p->q.len + s];
    problem_pair(p, n, &i, &j);
    if (want < 0) {
        check(got == -1, "argmax[%lld, %lld] is %lld, expected -1", (long long)n, (long long)s,
              (long long)got);
        return;
    }
    if (!check(got >= 0 && got < p->d.len && p->d.kept[j * p->d.len + got],
               "argmax[%lld, %lld] is %lld, not a kept token of the document", (long long)n, (long long)s,
               (long long)got))
        return;
    double best = p->maxima[n * p->q.len + s], product = problem_product(p, i, s, j, got);
    if (isnan(best) || is_exact(p)) {
        check(got == want, "argmax[%lld, %lld] is %lld, expected %lld (%g against %g)", (long long)n,
              (long long)s, (long long)got, (long long)want, product, best);
        return;
    }
    if (isinf(best)) {
        check(product == best, "argmax[%lld, %lld] is %lld, its product %g, the maximum %g", (long long)n,
              (long long)s, (long long)got, product, best);
        return;
    }
    double tolerance = 2 * problem_product_tolerance(p, i, s, j);
    check(product >= best - tolerance,
          "argmax[%lld, %lld] is %lld, its product %.9g, the maximum %.9g at %lld", (long long)n,
          (long long)s, (long long)got, product, best, (long long)want);
    for (int64_t t = 0; t < got; t++)
        if (p->d.kept[j * p->d.len + t] && same_token(p, j, t, got)) {
            check(0, "argmax[%lld, %lld] is %lld, token %lld is the same", (long long)n, (long long)s,
                  (long long)got, (long long)t);
            break;
        }
}

/* The name of what ran: begins with score_, has the documents' dtype, ends with the level. */
static void check_variant(const struct problem *p, const struct device *device)
{
    struct lik_plan plan = {.struct_size = sizeof plan};
    if (!check_ok(lik_score_plan(device->ctx, &p->op, NULL, &plan), "lik_score_plan"))
        return;
    size_t length = strlen(plan.variant), tail = strlen(device->level);
    int on_gpu = strstr(plan.variant, "_sm90_") || strstr(plan.variant, "_mma_") ||
                 strstr(plan.variant, "_scan_") || strstr(plan.variant, "_bytes") ||
                 strstr(plan.variant, "_f32") || !p->scores || !p->q.len;
    check(!strncmp(plan.variant, "score_", 6) && length > tail &&
              (totals.gpu ? on_gpu : !strcmp(plan.variant + length - tail, device->level)),
          "the variant is \"%s\"", plan.variant);
    char dtype[16];
    snprintf(dtype, sizeof dtype, "_%s_", lik_dtype_name(p->op.d.dtype));
    check(!strcmp(device->level, "ref") || strstr(plan.variant, dtype), "the variant \"%s\" does not name %s",
          plan.variant, dtype);
    check(plan.struct_size == sizeof plan, "the plan's struct_size became %zu", plan.struct_size);
}

static void check_outputs(const struct problem *p)
{
    int exact = is_exact(p);
    for (int64_t n = 0; n < p->scores; n++) {
        double got = (double)problem_score(p, n);
        if (problem_quantized(p) && isinf(p->expected[n])) /* an infinite query has no integer steps */
            check(!isfinite(got), "scores[%lld] is %g, expected %g", (long long)n, got, p->expected[n]);
        else
            check_close("scores", n, got, p->expected[n], exact ? 0 : p->tolerance[n]);
        int quantized_inf = problem_quantized(p) && !isfinite(p->expected[n]) && p->spec.q.values == WITH_INF;
        for (int64_t s = 0; p->op.argmax && s < p->op.q.len_max && !quantized_inf; s++)
            check_winner(p, n, s);
    }
    if (!p->spec.scores_gap)
        return;
    int64_t columns = p->op.scores_stride - p->spec.scores_gap; /* what stands between the rows is not ours */
    for (int64_t at = 0; at < (int64_t)(p->out_scores.bytes / sizeof(float)); at++) {
        uint32_t bits;
        memcpy(&bits, p->op.scores + at, sizeof bits);
        if (at % p->op.scores_stride >= columns)
            check(bits == 0xcbcbcbcb, "the gap behind a row of scores was written, at %lld", (long long)at);
    }
}

static void check_case(const char *sweep, int64_t number, const struct spec *spec)
{
    char text[700];
    struct problem *p = problem_make(spec);
    spec_describe(spec, text, sizeof text);
    for (int64_t i = 0; i < device_count; i++) {
        if (!devices[i].ctx)
            continue;
        check_describe("score, %s case %lld on %s: %s", sweep, (long long)number, devices[i].name, text);
        if (check_ok(problem_run(p, devices[i].ctx, NULL), "lik_score_run"))
            check_outputs(p);
        check_variant(p, &devices[i]);
    }
    problem_free(p);
}

/* Products that are looked up: every tail of the lanes, elements together or apart, more of
 * them than 16-bit codes number. */
static void check_look_ups(void)
{
    static const int64_t code_lengths[] = {1, 2, 3, 8, 31, 32, 33, 65, 200}, tables[] = {1, 2, 37, 300};
    static const int32_t code_dtypes[] = {LIK_I16, LIK_I32, LIK_I64};
    int64_t number = 50000;
    for (int64_t a = 0; a < COUNT(q_tails); a++)
        for (int64_t b = 0; b < COUNT(code_lengths); b++)
            for (int64_t way = 0; way < 4; way++, number++) {
                struct rng draw = {.state = (uint64_t)number};
                int wide = number % 200 == 7 && q_tails[a] < 9;
                struct spec spec =
                    spec_plain(q_tails[a], code_lengths[b], wide ? 70000 : tables[(a + b) % COUNT(tables)],
                               (uint64_t)number);
                spec.d.one_hot = 1;
                spec.d.count = wide ? 2 : 1 + 400 / (code_lengths[b] + 10);
                spec.d.codes_dtype = code_dtypes[number % 3];
                spec.d.layout = RNG_PICK(&draw, ((const enum layout[]){CONTIGUOUS, PACKED_I32, GROUPED}));
                spec.d.mask = number % 5 ? UNMASKED : RANDOM;
                spec.q.layout = way % 2 ? CONTIGUOUS : TRANSPOSED;
                spec.q.mask = number % 7 ? UNMASKED : RANDOM;
                spec.q.values = RNG_PICK(&draw, ((const enum values[]){NORMAL, TIES, INTEGERS, WITH_NAN}));
                spec.d.values = INTEGERS;
                spec.weights = number % 3 == 0;
                spec.argmax_dtype = way < 2 ? 0 : LIK_I32;
                spec.placement = number % 2 ? AT_BEGIN : AT_END;
                if (check_wanted(number, 11))
                    check_case("look-ups", number, &spec);
            }
}

/* So many look-ups that a GPU brings the table to where they are fast; as candidates it does
 * not, and the bits are the same. */
static void check_many_look_ups(int64_t number)
{
    static const int32_t code_dtypes[] = {LIK_I16, LIK_I32, LIK_I64};
    static const enum values values[] = {NORMAL, TIES, WITH_NAN};
    struct spec spec = spec_plain(number % 2 ? 33 : 20, 130, 5 + number, (uint64_t)number);
    spec.d.one_hot = 1;
    spec.d.count = 1600;
    spec.d.codes_dtype = code_dtypes[number % 3];
    spec.d.layout = number % 4 < 2 ? CONTIGUOUS : PACKED_I64;
    spec.d.mask = number % 4 == 1 || number % 4 == 2 ? RANDOM : UNMASKED;
    spec.d.values = INTEGERS;
    spec.q.mask = number % 5 == 4 ? RANDOM : UNMASKED;
    spec.q.values = values[number / 3 % 3];
    spec.weights = number % 3 == 0;
    spec.argmax_dtype = number % 2 ? LIK_I32 : number % 4 ? LIK_I16 : 0;
    check_case("many look-ups", number, &spec);
    struct problem *p = problem_make(&spec);
    float *scores = malloc((size_t)(p->scores + 1) * sizeof *scores);
    for (int64_t i = 0; i < device_count; i++) {
        if (!devices[i].ctx)
            continue;
        p->op.pairing = LIK_ALL;
        check_ok(problem_run(p, devices[i].ctx, NULL), "lik_score_run");
        memcpy(scores, p->op.scores, (size_t)p->scores * sizeof *scores);
        p->op.pairing = LIK_CANDIDATES;
        p->op.per_query = p->op.d.count;
        check_ok(problem_run(p, devices[i].ctx, NULL), "lik_score_run");
        for (int64_t n = 0; n < p->scores; n++)
            check((isnan(scores[n]) && isnan(p->op.scores[n])) || !memcmp(scores + n, p->op.scores + n, 4),
                  "scores[%lld] is %.9g, as a candidate %.9g on %s", (long long)n, (double)scores[n],
                  (double)p->op.scores[n], devices[i].name);
    }
    free(scores);
    problem_free(p);
}

/* What kernels of a GPU have code of their own for. */
static void check_shapes(void)
{
    for (int64_t number = 0; number < 2 * 300; number++)
        if (check_wanted(80000 + number, 31)) { /* integers of every width, by one band or by two */
            struct spec spec = spec_plain(number % 2 ? 24 : 70, 1 + number / 2, 40, (uint64_t)number);
            spec.q.dtype = spec.d.dtype = LIK_I8;
            spec.q.scale = spec.d.scale = number % 3 ? PER_TOKEN : UNSCALED;
            spec.q.count = spec.d.count = 2;
            spec.argmax_dtype = number % 4 < 2 ? LIK_I32 : 0;
            check_case("widths", 80000 + number, &spec);
        }
    for (int64_t number = 0; number < (totals.gpu ? 48 : 4); number++)
        if (check_wanted(90000 + number, 7)) { /* rows are copied ahead, of up to 128 tokens */
            static const int64_t counts[] = {2, 1, 5, 9}, lens[] = {100, 65, 128, 40, 129};
            struct spec spec =
                spec_plain(lens[number % 5], 1 + number * 29 % 190, number % 3 ? 128 : 72, (uint64_t)number);
            spec.q.dtype = spec.d.dtype = number % 2 ? LIK_F16 : LIK_BF16;
            spec.pairing = number % 7 < 3 ? LIK_PAIRS : LIK_CANDIDATES;
            spec.per_query = spec.pairing == LIK_PAIRS ? 1 : 1 + number % 4;
            spec.q.count = counts[number / 2 % 4];
            spec.d.count = spec.q.count * spec.per_query;
            spec.d.normalize = number % 5 == 4;
            spec.argmax_dtype = number % 4 < 2 ? LIK_I32 : 0;
            check_case("pairs", 90000 + number, &spec);
        }
}

void check_score(void)
{
    int64_t number = 0;
    for (int64_t a = 0; a < COUNT(q_tails); a++)
        for (int64_t d_len = 1; d_len <= 71; d_len++, number++) {
            struct spec spec =
                spec_plain(q_tails[a], d_len > 70 ? 300 : d_len, dims[number % 17], (uint64_t)number);
            spec.q.dtype = dtypes[number / 17 % 6];
            spec.d.dtype = dtypes[(number / 7 + number / 102) % 6];
            spec.q.values = spec.d.values = number % 3 ? NORMAL : number % 2 ? INTEGERS : TIES;
            spec.d.count = 1 + number % 3 * (d_len < 20);
            spec.precision = (int32_t)(number / 7 % 3);
            spec.placement = number % 2 ? AT_BEGIN : AT_END;
            if (check_wanted(number, 97))
                check_case("tails", number, &spec);
        }
    number = 10000;
    for (int64_t k = 0; k < COUNT(dims); k++)
        for (int64_t pair = 0; pair < 36; pair++)
            for (int64_t precision = 0; precision <= LIK_MEDIUM; precision += LIK_MEDIUM, number++) {
                struct rng rng = {.state = (uint64_t)number};
                struct spec spec =
                    spec_plain(1 + rng_below(&rng, 40), 1 + rng_below(&rng, dims[k] > 1000 ? 9 : 40), dims[k],
                               (uint64_t)number);
                spec.q.dtype = dtypes[pair / 6];
                spec.d.dtype = dtypes[pair % 6];
                spec.precision = (int32_t)precision;
                spec.q.normalize = pair % 5 == 0;
                spec.d.normalize = pair % 4 == 0;
                spec.placement = pair % 2 ? AT_BEGIN : AT_END;
                if (check_wanted(number, 41))
                    check_case("dims", number, &spec);
            }
    struct rng rng = {.state = 20000};
    for (number = 20000; number < 24000; number++) {
        struct spec spec = spec_random(&rng, number % 16 ? 40000 : 400000);
        if (check_wanted(number, 53))
            check_case("random", number, &spec);
    }
    /* streams as full as they may be, of rows and of documents: every region of a slot is used
     * up; and documents that end amid a block, in rows of whole cache lines */
    number = 40000;
    static const int64_t lengths[] = {1, 20, 230}, widths[] = {40, 64, 240}, q_lengths[] = {5, 32, 40};
    for (int64_t a = 0; a < COUNT(q_lengths); a++)
        for (int64_t b = 0; b < COUNT(lengths); b++)
            for (int64_t c = 0; c < COUNT(widths); c++)
                for (int64_t way = 0; way < 12; way++, number++) {
                    struct spec spec = spec_plain(q_lengths[a], lengths[b], widths[c], (uint64_t)number);
                    spec.d.count = 200 / lengths[b] + 1;
                    spec.d.dtype = dtypes[way % 6];
                    spec.q.dtype = dtypes[(way + a) % 6];
                    spec.d.layout = way < 6 ? CONTIGUOUS : SPREAD;
                    spec.precision = way % 4 < 2 ? LIK_HIGHEST : LIK_MEDIUM;
                    if (check_wanted(number, 7))
                        check_case("full", number, &spec);
                }
    check_look_ups();
    for (number = 0; number < 12; number++)
        if (check_wanted(60000 + number, 5))
            check_many_look_ups(number);
    for (number = 0; number < (totals.gpu ? 240 : 12); number++)
        if (check_wanted(70000 + number, 5)) {
            struct spec spec = spec_many(number);
            check_case("many", 70000 + number, &spec);
        }
    check_shapes();
    for (number = 0; number < 64 && !totals.gpu; number++) { /* on Hopper such tokens of bf16 become 0 */
        struct spec spec = spec_far(number);
        if (check_wanted(30000 + number, 5))
            check_case("far", 30000 + number, &spec);
    }
}
