/* The C API given every kind of bad argument: the status, a message that names the argument and
 * both values, outputs and plan untouched. Each bad problem goes through plan and run of every
 * verb on every device. */
#include "check.h"

#include <limits.h>

#define Q_COUNT 2
#define D_COUNT 4
#define Q_LEN   3
#define D_LEN   5
#define DIM     8

/* Inputs and outputs of one well-formed call; a case spoils one thing in it. */
struct call {
    struct lik_score score; /* copied into topk and grad when they are called */
    struct lik_topk topk;
    struct lik_grad grad;
    struct lik_exec exec;
    struct lik_plan plan;
};

enum verbs { SCORE = 1, TOPK = 2, GRAD = 4, PLANS_ONLY = 8, RUNS_ONLY = 16 };
#define ANY_VERB (SCORE | TOPK | GRAD)

static struct {
    float q[Q_COUNT * Q_LEN * DIM], d[D_COUNT * D_LEN * DIM], weights[Q_COUNT * Q_LEN],
        grad_scores[Q_COUNT * D_COUNT];
    int64_t offsets[D_COUNT + 1], list_q[3], list_d[3];
    int32_t offsets_i32[D_COUNT + 1];
    int32_t argmax_in[Q_COUNT * D_COUNT * Q_LEN];
    _Alignas(64) unsigned char workspace[1 << 20];
} in;

static struct {
    float scores[Q_COUNT * D_COUNT], values[Q_COUNT * 3], grad_q[Q_COUNT * Q_LEN * DIM],
        grad_d[D_COUNT * D_LEN * DIM], grad_weights[Q_COUNT * Q_LEN];
    int64_t ids[Q_COUNT * 3];
    int32_t argmax[Q_COUNT * D_COUNT * Q_LEN];
} out;

static struct call good_call(void)
{
    struct call c;
    memset(&c, 0, sizeof c);
    struct rng rng = {.state = 1};
    for (int64_t k = 0; k < COUNT(in.q); k++)
        in.q[k] = (float)rng_normal(&rng);
    for (int64_t k = 0; k < COUNT(in.d); k++)
        in.d[k] = (float)rng_normal(&rng);
    for (int64_t k = 0; k < COUNT(in.weights); k++)
        in.weights[k] = 1;
    for (int64_t k = 0; k < COUNT(in.grad_scores); k++)
        in.grad_scores[k] = 1;
    for (int64_t k = 0; k <= D_COUNT; k++)
        in.offsets[k] = k * D_LEN;
    for (int64_t k = 0; k < 3; k++)
        in.list_q[k] = in.list_d[k] = k % 2;
    memset(in.argmax_in, 0, sizeof in.argmax_in);
    memset(&out, 0xcb, sizeof out);

    c.score.struct_size = sizeof c.score;
    c.score.q = lik_tokens_padded(in.q, LIK_F32, Q_COUNT, Q_LEN, DIM);
    c.score.d = lik_tokens_padded(in.d, LIK_F32, D_COUNT, D_LEN, DIM);
    c.score.q.weights = in.weights;
    c.score.scores = out.scores;
    c.score.argmax = out.argmax;
    c.score.argmax_dtype = LIK_I32;
    c.topk.struct_size = sizeof c.topk;
    c.topk.k = 3;
    c.topk.values = out.values;
    c.topk.ids = out.ids;
    c.grad.struct_size = sizeof c.grad;
    c.grad.grad_scores = in.grad_scores;
    c.grad.grad_q = out.grad_q;
    c.grad.grad_d = out.grad_d;
    c.grad.grad_weights = out.grad_weights;
    c.exec.struct_size = sizeof c.exec;
    c.exec.workspace = in.workspace;
    c.exec.workspace_bytes = sizeof in.workspace;
    c.plan.struct_size = sizeof c.plan;
    return c;
}

static void make_packed(struct call *c)
{
    c->score.d = lik_tokens_packed(in.d, LIK_F32, D_COUNT, D_LEN, D_COUNT * D_LEN, DIM, in.offsets, LIK_I64);
}

static void make_packed_i32(struct call *c)
{
    make_packed(c);
    for (int32_t k = 0; k <= D_COUNT; k++)
        in.offsets_i32[k] = k * D_LEN;
    c->score.d.offsets = in.offsets_i32;
    c->score.d.offsets_dtype = LIK_I32;
}

static void make_list(struct call *c)
{
    c->score.pairing = LIK_LIST;
    c->score.list_q = in.list_q;
    c->score.list_d = in.list_d;
    c->score.list_count = 3;
}

static void make_candidates(struct call *c)
{
    c->score.pairing = LIK_CANDIDATES;
    c->score.per_query = D_COUNT / Q_COUNT;
}

static int untouched(const struct call *before, const struct call *after)
{
    static unsigned char poison[sizeof out];
    memset(poison, 0xcb, sizeof poison);
    return !memcmp(&out, poison, sizeof out) && !memcmp(&before->plan, &after->plan, sizeof after->plan);
}

/* Calls one entry with the (spoilt) call. */
static int enter(const struct lik_context *ctx, int verb, int plan_only, struct call *c)
{
    c->topk.score = c->score;
    c->grad.score = c->score;
    if (verb == GRAD && c->grad.score.argmax == out.argmax)
        c->grad.score.argmax = in.argmax_in; /* an input there */
    switch (verb) {
    case SCORE:
        return plan_only ? lik_score_plan(ctx, &c->score, &c->exec, &c->plan)
                         : lik_score_run(ctx, &c->score, &c->exec);
    case TOPK:
        return plan_only ? lik_topk_plan(ctx, &c->topk, &c->exec, &c->plan)
                         : lik_topk_run(ctx, &c->topk, &c->exec);
    default:
        return plan_only ? lik_grad_plan(ctx, &c->grad, &c->exec, &c->plan)
                         : lik_grad_run(ctx, &c->grad, &c->exec);
    }
}

/* The call must be refused with `status` by plan and run of the verbs named, with these three
 * pieces in the message. */
static void refused(const char *what, struct call call, int verbs, int status, const char *a, const char *b,
                    const char *c)
{
    totals.cases++;
    for (int64_t i = 0; i < device_count; i++)
        for (int way = 0; way < 6 && devices[i].ctx; way++) {
            int verb = 1 << way / 2, plan_only = way % 2;
            if (!(verbs & verb) || (plan_only ? verbs & RUNS_ONLY : verbs & PLANS_ONLY))
                continue;
            struct call copy = call;
            check_describe("arguments: %s, %s of %s on %s", what, plan_only ? "plan" : "run",
                           verb == SCORE  ? "score"
                           : verb == TOPK ? "topk"
                                          : "grad",
                           devices[i].name);
            int got = enter(devices[i].ctx, verb, plan_only, &copy);
            const char *message = lik_last_error();
            check(got == status, "the status is %s, expected %s (%s)", lik_status_name(got),
                  lik_status_name(status), message);
            check(strstr(message, a) && strstr(message, b) && strstr(message, c),
                  "the message \"%s\" lacks \"%s\", \"%s\" or \"%s\"", message, a, b, c);
            check(untouched(&call, &copy), "something was written");
            memset(&out, 0xcb, sizeof out);
        }
}

/* Builds a good call, spoils it by `change` (statements on c), expects the refusal. */
#define REFUSED(change, verbs, status, a, b, c_)      \
    do {                                              \
        struct call c = good_call();                  \
        change;                                       \
        refused(#change, c, verbs, status, a, b, c_); \
    } while (0)
#define INVALID(change, a, b, c_) REFUSED(change, ANY_VERB, LIK_EINVAL, a, b, c_)

/* Tokens that all lie in one place: sizes may be anything. */
static void no_strides(struct lik_tokens *x)
{
    x->strides = x->weights_strides = (struct lik_strides){0, 0, 0};
}

static void check_operands(void)
{
    INVALID(c.score.q.struct_size = 8, "q.struct_size", "8", "must be");
    INVALID(c.score.d.struct_size = 0, "d.struct_size", "0", "must be");
    INVALID(c.score.q.storage = 3, "q.storage", "3", "LIK_DENSE");
    INVALID(c.score.q.dtype = 0, "q.dtype", "0", "f32");
    INVALID(c.score.d.dtype = LIK_I16, "d.dtype", "i16", "f32");
    INVALID(c.score.d.dtype = LIK_I64, "d.dtype", "i64", "bf16");
    INVALID(c.score.d.dtype = 99, "d.dtype", "99", "i8");
    INVALID(c.score.q.count = -1, "q.count", "-1", "negative");
    INVALID(c.score.d.count = INT64_MIN, "d.count", "-9223372036854775808", "negative");
    INVALID(c.score.q.len_max = -2, "q.len_max", "-2", "negative");
    INVALID(c.score.d.len_max = INT64_C(1) << 31, "d.len_max", "2147483648", "2147483647");
    INVALID(c.score.q.dim = 0, "q.dim", "0", "1 to");
    INVALID(c.score.d.dim = -8, "d.dim", "-8", "1 to");
    INVALID(c.score.d.dim = 1 << 20, "d.dim", "1048576", "65536");
    INVALID(c.score.d.dim = 7, "d.dim", "7", "8");
    INVALID(c.score.q.dim = 9, "q.dim", "9", "8");
    INVALID(c.score.q.data = NULL, "q.data", "NULL", "6 tokens");
    INVALID(c.score.d.data = NULL, "d.data", "NULL", "20 tokens");
    INVALID(c.score.q.data = (const char *)in.q + 2, "q.data", "aligned", "4 bytes");
    INVALID((c.score.d.data = (const char *)in.d + 1, c.score.d.dtype = LIK_BF16), "d.data", "aligned",
            "2 bytes");
    INVALID(c.score.d.scale = (const float *)(const void *)((const char *)in.d + 1), "d.scale", "aligned",
            "4 bytes");
    INVALID(c.score.q.weights = (const float *)(const void *)((const char *)in.q + 3), "q.weights", "aligned",
            "4 bytes");
    INVALID(c.score.d.weights = in.weights, "d.weights", "set", "q");
    INVALID(c.score.d.count = INT64_MAX, "d.count", "9223372036854775807", "5");
    INVALID(c.score.d.strides.sequence = INT64_MAX, "d.strides", "9223372036854775807", "4 entries");
    INVALID(c.score.d.strides.token = INT64_MIN, "d.strides", "-9223372036854775808", "5 entries");
    INVALID(c.score.q.dim_stride = INT64_MAX / 4, "q.strides", "8 entries", "2^63");
    INVALID(c.score.q.strides.sequence = INT64_MAX / 2, "q.strides", "2 entries", "2^63");
    INVALID((c.score.d.mask = (const uint8_t *)in.d, c.score.d.mask_strides.token = INT64_MAX),
            "d.mask_strides", "5 entries", "2^63");
    INVALID((c.score.d.scale = in.d, c.score.d.scale_strides.token = INT64_MIN), "d.scale_strides",
            "5 entries", "2^63");
    INVALID(c.score.q.weights_strides.sequence = INT64_MAX, "q.weights_strides", "2 entries", "2^63");
    INVALID(c.score.d.strides.sequence = -(INT64_MAX / 8), "d.strides", "-1152921504606846975", "4 entries");
    INVALID((c.score.d.strides.sequence = INT64_MAX / 20, c.score.d.strides.token = INT64_MAX / 20),
            "d.strides", "461168601842738790", "5 entries"); /* each fits, their sum does not */
    INVALID((c.score.d.strides.sequence = -(INT64_MAX / 20), c.score.d.strides.token = INT64_MAX / 20),
            "d.strides", "461168601842738790", "5 entries"); /* nor does one less the other count */
    INVALID((c.score.d.dtype = LIK_I8, c.score.d.strides.sequence = INT64_MIN), "d.strides",
            "-9223372036854775808", "4 entries");
    INVALID((c.score.d.mask = (const uint8_t *)in.d, c.score.d.mask_strides.sequence = INT64_MIN),
            "d.mask_strides", "-9223372036854775808", "4 entries");
    INVALID((no_strides(&c.score.d), c.score.d.count = INT64_C(1) << 59, c.score.d.len_max = 1), "d has",
            "576460752303423488 tokens of dim 8", "2^63");
    INVALID((no_strides(&c.score.d), c.score.d.count = INT64_C(1) << 61, c.score.d.len_max = 4),
            "d.count is 2305843009213693952", "d.len_max 4", "2^63");
    INVALID((no_strides(&c.score.q), no_strides(&c.score.d), c.score.q.count = 1 << 29,
             c.score.d.count = 1 << 30, c.score.q.len_max = 8, c.score.d.len_max = 1),
            "536870912 x 1073741824 scores", "8 query tokens", "2^63");
    INVALID((c.score.q.count = c.score.q.len_max = 1, c.score.q.data = NULL), "q.data", "NULL", "1 tokens");
    INVALID(c.score.q.struct_size = sizeof c.score.q + 8, "q.struct_size", "must be", "");
    INVALID(c.score.d.dim = 65537, "d.dim", "65537", "65536");
    INVALID(c.score.d.group_size = -3, "d.group_size", "-3", "negative");
    INVALID(c.score.d.group_size = 3, "d.count", "4", "3");
}

static void check_packed(void)
{
    INVALID((make_packed(&c), c.score.d.offsets_dtype = 0), "d.offsets_dtype", "0", "LIK_I64");
    INVALID((make_packed(&c), c.score.d.offsets_dtype = LIK_F32), "d.offsets_dtype", "1", "LIK_I32");
    INVALID((make_packed(&c), c.score.d.offsets = NULL), "d.offsets", "NULL", "d.offsets_dtype is 9");
    INVALID((make_packed(&c), c.score.d.total = -1), "d.total", "-1", "negative");
    INVALID((make_packed(&c), c.score.d.total = 19), "d.offsets[4]", "20", "19");
    INVALID((make_packed(&c), c.score.d.total = 0), "d.offsets[4]", "20", "d.total is 0");
    INVALID((make_packed(&c), c.score.d.data = NULL), "d.data", "NULL", "20 tokens");
    INVALID((make_packed(&c), in.offsets[0] = -1), "d.offsets[0]", "-1", "negative");
    INVALID((make_packed(&c), in.offsets[2] = 4), "d.offsets[2]", "4", "5");
    INVALID((make_packed_i32(&c), in.offsets_i32[0] = -1), "d.offsets[0]", "is -1", "negative");
    INVALID((make_packed_i32(&c), in.offsets_i32[3] = -7), "d.offsets[3]", "is -7", "10");
    INVALID((make_packed(&c), c.score.d.total = 19), "d.offsets[4]", "20", "d.total is 19");
    INVALID((make_packed(&c), c.score.d.len_max = 5, in.offsets[4] = 21, c.score.d.total = 21),
            "d.len_max is 5", "sequence 3", "6 tokens");
    INVALID((make_packed(&c), c.score.d.count = INT64_MAX / 4), "d.count is 2305843009213693951",
            "d.len_max 5", "2^63");
    INVALID((make_packed(&c), c.score.d.len_max = 0, c.score.d.count = INT64_MAX / 4),
            "d.count is 2305843009213693951", "d.len_max 0", "2^63");
    INVALID((make_packed(&c), no_strides(&c.score.d), c.score.d.total = 1,
             memset(in.offsets, 0, sizeof in.offsets), c.score.d.strides.token = INT64_MAX / 2),
            "d.strides", "1 entries", "2^63");
    INVALID((make_packed(&c), in.offsets[4] = INT64_MIN), "d.offsets[4]", "-9223372036854775808", "15");
    INVALID((make_packed(&c), in.offsets[4] = INT64_MAX), "d.", "9223372036854775", "4");
    INVALID((make_packed(&c), c.score.d.len_max = 4), "d.len_max", "4", "5 tokens");
    INVALID((make_packed(&c), c.score.d.offsets = (const char *)in.offsets + 4), "d.offsets", "aligned",
            "8 bytes");
    INVALID((make_packed(&c), c.score.d.group_size = 2), "d.group_size", "2", "offsets");
    INVALID((make_packed(&c), c.score.d.total = INT64_MAX), "d", "9223372036854775807", "8");
    INVALID((make_packed(&c), c.score.d.strides.token = INT64_MAX / 8), "d.strides", "20 entries", "2^63");
}

static void check_pairings(void)
{
    INVALID(c.score.pairing = 4, "pairing", "", "");
    INVALID(c.score.pairing = -1, "pairing", "", "");
    REFUSED(c.score.pairing = 4, SCORE | GRAD, LIK_EINVAL, "pairing", "4", "LIK_LIST");
    REFUSED(c.score.pairing = LIK_PAIRS, SCORE | GRAD, LIK_EINVAL, "d.count is 4", "q.count is 2", "");
    REFUSED((c.score.pairing = LIK_PAIRS, c.score.d.count = 1), SCORE | GRAD, LIK_EINVAL, "d.count is 1",
            "q.count is 2", "");
    REFUSED(c.score.pairing = LIK_PAIRS, TOPK, LIK_EINVAL, "pairing", "LIK_PAIRS", "LIK_CANDIDATES");
    REFUSED(c.score.pairing = 77, TOPK, LIK_EINVAL, "pairing", "unknown", "LIK_CANDIDATES");
    REFUSED(make_list(&c), TOPK, LIK_EINVAL, "pairing", "LIK_LIST", "LIK_ALL");
    INVALID((make_candidates(&c), c.score.per_query = 3), "d.count is 4", "2", "3");
    INVALID((make_candidates(&c), c.score.per_query = 1), "d.count is 4", "2", "1");
    INVALID((make_candidates(&c), c.score.per_query = -1), "per_query", "-1", "negative");
    INVALID((make_candidates(&c), c.score.per_query = INT64_MAX), "d.count is 4", "9223372036854775807",
            "per_query");
    REFUSED((make_list(&c), c.score.list_count = -5), SCORE | GRAD, LIK_EINVAL, "list_count", "-5",
            "negative");
    REFUSED((make_list(&c), c.score.list_q = NULL), SCORE | GRAD, LIK_EINVAL, "list_q", "NULL", "3");
    REFUSED((make_list(&c), c.score.list_d = NULL), SCORE | GRAD, LIK_EINVAL, "list_d", "NULL", "3");
    REFUSED((make_list(&c), c.score.list_count = 1, c.score.list_q = NULL), SCORE | GRAD, LIK_EINVAL,
            "list_q", "NULL", "1");
    REFUSED((make_list(&c), in.list_d[2] = D_COUNT), SCORE | GRAD, LIK_EINVAL, "list_d[2]", "4", "0 to 3");
    REFUSED((make_list(&c), in.list_q[1] = 2), SCORE | GRAD, LIK_EINVAL, "list_q[1]", "2", "0 to 1");
    REFUSED((make_list(&c), in.list_d[2] = -1), SCORE | GRAD, LIK_EINVAL, "list_d[2]", "-1", "0 to 3");
    REFUSED((make_list(&c), in.list_d[0] = INT64_MAX), SCORE | GRAD, LIK_EINVAL, "list_d[0]",
            "9223372036854775807", "0 to 3");
    REFUSED((make_list(&c), c.score.list_q = (const int64_t *)(const void *)((const char *)in.list_q + 4)),
            SCORE | GRAD, LIK_EINVAL, "list_q", "aligned", "8 bytes");
    INVALID(c.score.precision = 3, "precision", "3", "LIK_MEDIUM");
    INVALID(c.score.precision = -1, "precision", "-1", "LIK_HIGHEST");
}

/* Of one token and of two: fewer than len_max, which is what an argmax has room for. */
static void make_packed_queries(struct call *c)
{
    c->score.q = lik_tokens_packed(in.q, LIK_F32, Q_COUNT, Q_LEN, 3, DIM, in.offsets, LIK_I64);
    c->score.q.weights = in.weights;
    for (int64_t k = 0; k <= Q_COUNT; k++)
        in.offsets[k] = k * (k + 1) / 2;
}

static void check_results(void)
{
    REFUSED(c.score.scores = NULL, SCORE | RUNS_ONLY, LIK_EINVAL, "scores", "NULL", "2 x 4");
    REFUSED(c.score.scores = (float *)(void *)((char *)out.scores + 2), SCORE, LIK_EINVAL, "scores",
            "aligned", "4 bytes");
    REFUSED(c.score.scores_stride = 3, SCORE, LIK_EINVAL, "scores_stride", "3", "4");
    REFUSED(c.score.scores_stride = -4, SCORE, LIK_EINVAL, "scores_stride", "-4", "4");
    REFUSED(c.score.scores_stride = INT64_MAX, SCORE, LIK_EINVAL, "scores", "2^63", "2");
    REFUSED(c.score.scores_stride = INT64_MAX / 4, SCORE, LIK_EINVAL, "scores_stride", "2305843009213693951",
            "2^63");
    REFUSED(c.grad.grad_scores_stride = INT64_MAX, GRAD, LIK_EINVAL, "grad_scores_stride",
            "9223372036854775807", "2^63");
    REFUSED(c.grad.grad_scores_stride = INT64_MAX / 4, GRAD, LIK_EINVAL, "grad_scores_stride", "2 rows",
            "2^63");
    REFUSED(c.score.argmax_dtype = 0, SCORE | GRAD, LIK_EINVAL, "argmax_dtype", "0", "LIK_I16");
    REFUSED(c.score.argmax_dtype = LIK_I64, SCORE | GRAD, LIK_EINVAL, "argmax_dtype", "9", "LIK_I32");
    REFUSED((c.score.argmax_dtype = LIK_I16, c.score.d.len_max = 32768, c.score.d.strides.token = 0),
            SCORE | GRAD, LIK_EINVAL, "LIK_I16", "32768", "32767");
    REFUSED(c.score.argmax = (char *)in.argmax_in + 2, SCORE | GRAD, LIK_EINVAL, "argmax", "aligned",
            "4 bytes");
    REFUSED(c.score.reserved_i32 = 1, ANY_VERB, LIK_EUNSUPPORTED, "reserved", "zero", "");
    REFUSED(c.score.reserved[1] = &in, ANY_VERB, LIK_EUNSUPPORTED, "reserved", "zero", "");

    REFUSED(c.topk.k = 0, TOPK, LIK_EINVAL, "k is 0", "at least 1", "");
    REFUSED(c.topk.k = -7, TOPK, LIK_EINVAL, "k is -7", "at least 1", "");
    REFUSED(c.topk.k = INT64_C(1) << 58, TOPK, LIK_EINVAL, "k", "288230376151711744", "2");
    REFUSED(c.topk.k = INT64_MAX, TOPK, LIK_EINVAL, "k", "9223372036854775807", "2");
    REFUSED(c.topk.id_base = -1, TOPK, LIK_EINVAL, "id_base", "-1", "4 documents");
    REFUSED(c.topk.id_base = INT64_MAX - 2, TOPK, LIK_EINVAL, "id_base", "9223372036854775805",
            "4 documents");
    REFUSED(c.topk.values = NULL, TOPK | RUNS_ONLY, LIK_EINVAL, "values", "NULL", "2 x 3");
    REFUSED(c.topk.ids = NULL, TOPK | RUNS_ONLY, LIK_EINVAL, "ids", "NULL", "2 x 3");
    REFUSED(c.topk.values = (float *)(void *)((char *)out.values + 1), TOPK, LIK_EINVAL, "values", "aligned",
            "4 bytes");
    REFUSED(c.topk.ids = (int64_t *)(void *)((char *)out.ids + 4), TOPK, LIK_EINVAL, "ids", "aligned",
            "8 bytes");

    REFUSED(c.grad.grad_scores = NULL, GRAD | RUNS_ONLY, LIK_EINVAL, "grad_scores", "NULL", "2 x 4");
    REFUSED(c.grad.grad_scores = (const float *)(const void *)((const char *)in.grad_scores + 1), GRAD,
            LIK_EINVAL, "grad_scores", "aligned", "4 bytes");
    REFUSED(c.grad.grad_scores_stride = 2, GRAD, LIK_EINVAL, "grad_scores_stride", "2", "4");
    REFUSED(c.score.argmax = NULL, GRAD | RUNS_ONLY, LIK_EINVAL, "argmax", "NULL", "");
    REFUSED(c.grad.grad_q = (char *)out.grad_q + 2, GRAD, LIK_EINVAL, "grad_q", "aligned", "4 bytes");
    REFUSED(c.grad.grad_d = (char *)out.grad_d + 1, GRAD, LIK_EINVAL, "grad_d", "aligned", "4 bytes");
    REFUSED(c.grad.grad_weights = (float *)(void *)((char *)out.grad_weights + 1), GRAD, LIK_EINVAL,
            "grad_weights", "aligned", "4 bytes");
    REFUSED(c.score.q.dtype = LIK_I8, GRAD, LIK_EINVAL, "grad_q", "q.dtype is i8", "f32");
    REFUSED(c.score.d.dtype = LIK_E4M3, GRAD, LIK_EINVAL, "grad_d", "d.dtype is e4m3", "f32");
    REFUSED(c.score.q.weights = NULL, GRAD, LIK_EINVAL, "grad_weights", "q.weights", "NULL");
    REFUSED(in.argmax_in[5] = D_LEN, GRAD | RUNS_ONLY, LIK_EINVAL, "argmax", "5", "");
    REFUSED(in.argmax_in[Q_COUNT * D_COUNT * Q_LEN - 1] = D_LEN, GRAD | RUNS_ONLY, LIK_EINVAL, "score [1, 3]",
            "query token 2 is 5", "5 tokens");
    REFUSED((make_packed_queries(&c), in.argmax_in[4 * Q_LEN] = D_LEN), GRAD | RUNS_ONLY, LIK_EINVAL,
            "score [1, 0]", "query token 0 is 5", "5 tokens");
    REFUSED(in.argmax_in[7] = -2, GRAD | RUNS_ONLY, LIK_EINVAL, "argmax", "-2", "");
}

static void check_running(void)
{
    INVALID(c.exec.struct_size = 3, "exec.struct_size", "3", "at least");
    INVALID(c.exec.threads = -1, "exec.threads", "-1", "0 to");
    INVALID(c.exec.threads = INT_MAX, "exec.threads", "2147483647", "0 to");
    INVALID((c.exec.threads = 4097, c.exec.parallel_for = lik_pool_parallel_for), "exec.threads", "4097",
            "0 to 4096");
    INVALID(c.exec.threads = 2, "exec.threads", "2", "exec.parallel_for is NULL");
    REFUSED(c.score.struct_size = 0, SCORE, LIK_EINVAL, "score.struct_size", "0", "at least");
    REFUSED(c.score.struct_size = 1 << 20, SCORE, LIK_EINVAL, "score.struct_size", "1048576", "");
    REFUSED(c.topk.struct_size = 16, TOPK, LIK_EINVAL, "topk.struct_size", "16", "at least");
    REFUSED(c.score.struct_size = 16, TOPK, LIK_EINVAL, "topk.score.struct_size", "16", "must be");
    REFUSED(c.grad.struct_size = sizeof c.grad - 1, GRAD, LIK_EINVAL, "grad.struct_size", "at least", "");
    REFUSED(c.score.struct_size = 16, GRAD, LIK_EINVAL, "grad.score.struct_size", "16", "must be");
    REFUSED(c.plan.struct_size = 0, ANY_VERB | PLANS_ONLY, LIK_EINVAL, "plan.struct_size", "0", "at least");

    /* A workspace too small, none, misaligned: only where one is needed. */
    for (int64_t i = 0; i < device_count; i++)
        for (int verb = SCORE; verb <= GRAD && devices[i].ctx; verb *= 2) {
            struct call c = good_call(), spoilt;
            check_describe("arguments: workspaces of verb %d on %s", verb, devices[i].name);
            check_ok(enter(devices[i].ctx, verb, 1, &c), "plan");
            size_t needed = c.plan.workspace_bytes;
            if (!check(needed <= sizeof in.workspace, "the plan of a tiny problem wants %zu bytes", needed) ||
                needed == 0)
                continue;
            char bytes[32], less[32];
            snprintf(bytes, sizeof bytes, "%zu", needed);
            snprintf(less, sizeof less, "%zu", needed - 1);
            const char *message = lik_last_error();
            memset(&out, 0xcb, sizeof out);
            for (int way = 0; way < 3; way++) {
                spoilt = c;
                spoilt.exec.workspace_bytes = way == 0 ? needed - 1 : needed;
                spoilt.exec.workspace = way == 1 ? NULL : in.workspace + (way == 2 ? 32 : 0);
                int status = enter(devices[i].ctx, verb, 0, &spoilt);
                check(status == (way == 2 ? LIK_EINVAL : LIK_EWORKSPACE), "way %d gives %s", way,
                      lik_status_name(status));
                message = lik_last_error();
                check(strstr(message, "exec.workspace") &&
                          (way == 2 ? strstr(message, "64") : strstr(message, bytes)) &&
                          (way != 0 || strstr(message, less)),
                      "the message is \"%s\"", message);
                check(untouched(&c, &spoilt), "something was written");
            }
            spoilt = c;
            spoilt.exec.workspace_bytes = needed;
            check_ok(enter(devices[i].ctx, verb, 0, &spoilt), "run with exactly the planned bytes");
            check(!strcmp(lik_last_error(), ""), "after a success the message is \"%s\"", lik_last_error());
        }
}

/* Who lends workspace, and what it was asked for. */
struct lent {
    void *memory;
    size_t bytes;
    int calls;
};

static void *lend(void *lender, size_t bytes)
{
    struct lent *lent = lender;
    lent->calls++;
    lent->bytes = bytes;
    return lent->memory;
}

/* exec.get_workspace: asked once, for the plan's bytes, and only where the caller's are too
 * few. */
static void check_lenders(void)
{
    for (int64_t i = 0; i < device_count; i++)
        for (int verb = SCORE; verb <= GRAD && devices[i].ctx; verb *= 2) {
            struct call plan = good_call(), c;
            check_describe("arguments: workspace on demand, verb %d on %s", verb, devices[i].name);
            check_ok(enter(devices[i].ctx, verb, 1, &plan), "plan");
            size_t needed = plan.plan.workspace_bytes;
            for (int way = 0; way < 5; way++) {
                struct lent lent = {.memory = way == 3 ? NULL : in.workspace + (way == 4 ? 32 : 0)};
                c = good_call();
                c.exec.workspace = way == 1 ? in.workspace : NULL;
                c.exec.workspace_bytes = way == 1 ? needed : 0;
                c.exec.get_workspace = lend;
                c.exec.lender = &lent;
                if (way == 2 && needed > 0) { /* too few */
                    c.exec.workspace = in.workspace;
                    c.exec.workspace_bytes = needed - 1;
                }
                memset(&out, 0xcb, sizeof out);
                int wanted = way == 1 || needed == 0 ? 0 : 1, status = enter(devices[i].ctx, verb, 0, &c);
                check(lent.calls == wanted && lent.bytes == (wanted ? needed : 0),
                      "way %d: asked %d times, for %zu bytes of %zu", way, lent.calls, lent.bytes, needed);
                int expected = way < 3 || needed == 0 ? LIK_OK : way == 3 ? LIK_ENOMEM : LIK_EINVAL;
                check(status == expected, "way %d gives %s", way, lik_status_name(status));
                if (way == 3 && needed > 0)
                    check(strstr(lik_last_error(), "exec.get_workspace") != NULL, "the message is \"%s\"",
                          lik_last_error());
            }
            c = good_call(); /* a caller of the first version: what is behind its struct is not read */
            c.exec.struct_size = offsetof(struct lik_exec, get_workspace);
            c.exec.get_workspace = (void *(*)(void *, size_t))(uintptr_t)1;
            c.exec.workspace_bytes = 0;
            int status = enter(devices[i].ctx, verb, 0, &c);
            check(status == (needed ? LIK_EWORKSPACE : LIK_OK), "a short exec gives %s",
                  lik_status_name(status));
        }
}

/* Legal problems at the ends of what sizes and strides can be: nothing of them may overflow, no
 * pointer be made to where no token is. The sanitizers see it; here the calls must succeed, or
 * be refused by name. */
static void extreme(const char *what, struct call call, int verbs, int may_refuse)
{
    totals.cases++;
    for (int64_t i = 0; i < device_count; i++)
        for (int verb = SCORE; verb <= GRAD && devices[i].ctx; verb *= 2) {
            struct call c = call;
            if (!(verbs & verb))
                continue;
            check_describe("arguments: %s, verb %d on %s", what, verb, devices[i].name);
            int status = enter(devices[i].ctx, verb, 1, &c);
            const int narrow = sizeof(size_t) < 8; /* workspaces end earlier */
            if (status == LIK_EINVAL && narrow && strstr(lik_last_error(), "the workspace passes 2^31"))
                continue;
            if (may_refuse && status == LIK_EINVAL)
                check(strstr(lik_last_error(), "2^63") != NULL, "refused by \"%s\"", lik_last_error());
            else if (!check_ok(status, "plan"))
                continue;
            if (status || (verbs & PLANS_ONLY) || totals.gpu)
                continue;
            memset(&out, 0xcb, sizeof out);
            c.exec.workspace_bytes = c.plan.workspace_bytes;
            check_ok(enter(devices[i].ctx, verb, 0, &c), "run");
            int scored = verb == SCORE && c.score.q.count == Q_COUNT && c.score.d.count == D_COUNT;
            for (int n = 0; n < Q_COUNT * D_COUNT && scored && !(c.score.q.len_max && c.score.d.len_max); n++)
                check(out.scores[n] == 0, "scores[%d] is %g", n, (double)out.scores[n]);
        }
}
#define EXTREME(change, verbs, may_refuse)      \
    do {                                        \
        struct call c = good_call();            \
        change;                                 \
        extreme(#change, c, verbs, may_refuse); \
    } while (0)

static void no_tokens(struct lik_tokens *x, int64_t count)
{
    x->count = count;
    x->len_max = 0;
    x->data = NULL;
    x->strides = x->weights_strides = (struct lik_strides){0, 0, 0};
}

/* Strides that no entry is reached by, but that arithmetic might be done with. */
static void wild_strides(struct lik_tokens *x, int64_t stride)
{
    x->mask = (const uint8_t *)in.weights;
    x->scale = in.weights;
    x->strides = x->mask_strides = x->scale_strides = (struct lik_strides){stride, stride, stride};
}

static void wild_packed(struct call *c, int64_t stride)
{
    make_packed(c);
    wild_strides(&c->score.d, stride);
    c->score.d.strides.sequence = c->score.d.strides.group = INT64_MAX;
    c->score.d.mask_strides.sequence = c->score.d.scale_strides.sequence = INT64_MIN;
    for (int64_t k = 0; k <= D_COUNT; k++) /* one token, then documents that begin behind it */
        in.offsets[k] = k > 0;
    c->score.d.total = 1;
    memset(in.argmax_in, 0xff, sizeof in.argmax_in);
}

static void check_extremes(void)
{
    EXTREME((c.score.q.count = 0, no_tokens(&c.score.d, INT64_MAX)), SCORE | TOPK, 0);
    EXTREME((c.score.q.count = 0, no_tokens(&c.score.d, INT64_MAX)), GRAD | PLANS_ONLY, 0);
    EXTREME((no_tokens(&c.score.q, INT64_MAX), c.score.d.count = 0), SCORE, 0);
    EXTREME((no_tokens(&c.score.q, INT64_MAX), c.score.d.count = 0), GRAD | PLANS_ONLY, 0);
    EXTREME((no_tokens(&c.score.q, INT64_MAX / 64), no_tokens(&c.score.d, 1)), SCORE | GRAD | PLANS_ONLY, 0);
    EXTREME((no_tokens(&c.score.q, INT64_MAX / 64), no_tokens(&c.score.d, 1)), TOPK | PLANS_ONLY, 1);
    EXTREME((no_tokens(&c.score.q, 1), no_tokens(&c.score.d, INT64_MAX / 64)), ANY_VERB | PLANS_ONLY, 1);
    EXTREME((make_list(&c), no_tokens(&c.score.q, INT64_MAX), no_tokens(&c.score.d, INT64_MAX),
             c.score.list_count = 0),
            SCORE, 0);
    EXTREME((make_list(&c), no_tokens(&c.score.q, INT64_MAX), no_tokens(&c.score.d, INT64_MAX),
             c.score.list_count = 0),
            GRAD | PLANS_ONLY, 1);
    EXTREME((make_candidates(&c), no_tokens(&c.score.q, INT64_MAX), no_tokens(&c.score.d, 0),
             c.score.per_query = 0),
            SCORE, 0);
    for (int sign = -1; sign <= 1; sign += 2) {
        EXTREME((no_tokens(&c.score.d, D_COUNT), wild_strides(&c.score.d, sign * (INT64_MAX / 16)),
                 memset(in.argmax_in, 0xff, sizeof in.argmax_in)),
                ANY_VERB, 0);
        EXTREME((no_tokens(&c.score.q, Q_COUNT), wild_strides(&c.score.q, sign * (INT64_MAX / 16)),
                 c.score.q.weights_strides = c.score.q.strides),
                ANY_VERB, 0);
        EXTREME((no_tokens(&c.score.d, 1), wild_strides(&c.score.d, sign < 0 ? INT64_MIN : INT64_MAX),
                 memset(in.argmax_in, 0xff, sizeof in.argmax_in)),
                ANY_VERB, 0);
        EXTREME((no_tokens(&c.score.d, 0), wild_strides(&c.score.d, sign < 0 ? INT64_MIN : INT64_MAX)),
                ANY_VERB, 0);
        EXTREME(wild_packed(&c, sign * (INT64_MAX / 8)), ANY_VERB, 0);
        EXTREME(wild_packed(&c, sign < 0 ? INT64_MIN : INT64_MAX), ANY_VERB, 1);
    }
    EXTREME((no_strides(&c.score.q), no_strides(&c.score.d), c.score.argmax = NULL, c.score.q.count = 1 << 29,
             c.score.q.len_max = 0, c.score.d.count = 1 << 20, c.score.d.len_max = 1, c.topk.k = 1 << 25,
             /* its heaps */
             c.exec.threads = 4096, c.exec.parallel_for = lik_pool_parallel_for),
            TOPK | PLANS_ONLY, 1);
    EXTREME((no_strides(&c.score.q), no_strides(&c.score.d), c.score.q.count = 1 << 29, c.score.q.len_max = 8,
             c.score.d.count = 1 << 28, c.score.d.len_max = 1, c.exec.threads = 4096,
             c.exec.parallel_for = lik_pool_parallel_for),
            GRAD | PLANS_ONLY, 1);
    EXTREME(c.score.d.dim = c.score.q.dim = 65536, ANY_VERB | PLANS_ONLY, 0);
    EXTREME((no_strides(&c.score.d), c.score.argmax = NULL, c.score.d.len_max = INT32_MAX),
            ANY_VERB | PLANS_ONLY, 0);
    EXTREME((no_strides(&c.score.d), c.score.argmax_dtype = LIK_I16, c.score.d.len_max = INT16_MAX),
            SCORE | GRAD | PLANS_ONLY, 0);
    EXTREME((c.exec.threads = 4096, c.exec.parallel_for = lik_pool_parallel_for), ANY_VERB | PLANS_ONLY, 0);
    EXTREME((c.score.d.count = 0, c.score.d.data = NULL, c.score.scores = NULL, c.score.argmax = NULL), SCORE,
            0);
    EXTREME((no_tokens(&c.score.q, Q_COUNT), c.score.argmax = NULL), ANY_VERB, 0);
    EXTREME(c.score.d.strides.group = INT64_MAX, ANY_VERB, 0); /* without groups */
    EXTREME((c.score.d.group_size = 2, c.score.d.strides.group = 2 * D_LEN * DIM), ANY_VERB, 0);
    EXTREME((no_strides(&c.score.d), c.score.d.group_size = 2, c.score.d.strides.sequence = INT64_MAX / 8),
            ANY_VERB | PLANS_ONLY, 0); /* far, but once a group */
    EXTREME((c.score.q.count = 1, c.score.d.count = 1, c.score.scores_stride = INT64_MIN,
             c.grad.grad_scores_stride = INT64_MIN),
            SCORE | GRAD, 0);
    EXTREME((c.score.d.dim_stride = INT64_MAX, c.score.d.dim = c.score.q.dim = 1), ANY_VERB, 0);
}

/* NULL for each pointer of each entry; newer structs; what the plan ignores. */
static void check_pointers(void)
{
    struct lik_context *ctx = devices[0].ctx;
    struct call c = good_call();
    c.topk.score = c.grad.score = c.score;
    c.grad.score.argmax = in.argmax_in;
    check_describe("arguments: NULL pointers");
    if (!ctx)
        return;
    struct {
        int status;
        const char *name;
        char message[200];
    } calls[32];
    int n = 0;
    size_t bytes;
    void *memory;
#define NULL_CASE(call_, name_)                                                      \
    do {                                                                             \
        calls[n].status = call_;                                                     \
        calls[n].name = name_;                                                       \
        snprintf(calls[n].message, sizeof calls[n].message, "%s", lik_last_error()); \
        n++;                                                                         \
    } while (0)
    NULL_CASE(lik_score_plan(NULL, &c.score, NULL, &c.plan), "ctx");
    NULL_CASE(lik_score_run(NULL, &c.score, NULL), "ctx");
    NULL_CASE(lik_topk_plan(NULL, &c.topk, NULL, &c.plan), "ctx");
    NULL_CASE(lik_topk_run(NULL, &c.topk, NULL), "ctx");
    NULL_CASE(lik_grad_plan(NULL, &c.grad, NULL, &c.plan), "ctx");
    NULL_CASE(lik_grad_run(NULL, &c.grad, NULL), "ctx");
    NULL_CASE(lik_score_plan(ctx, NULL, NULL, &c.plan), "score");
    NULL_CASE(lik_score_run(ctx, NULL, NULL), "score");
    NULL_CASE(lik_topk_plan(ctx, NULL, NULL, &c.plan), "topk");
    NULL_CASE(lik_topk_run(ctx, NULL, NULL), "topk");
    NULL_CASE(lik_grad_plan(ctx, NULL, NULL, &c.plan), "grad");
    NULL_CASE(lik_grad_run(ctx, NULL, NULL), "grad");
    NULL_CASE(lik_score_plan(ctx, &c.score, NULL, NULL), "plan");
    NULL_CASE(lik_topk_plan(ctx, &c.topk, NULL, NULL), "plan");
    NULL_CASE(lik_grad_plan(ctx, &c.grad, NULL, NULL), "plan");
    NULL_CASE(lik_context_create("ref", NULL), "out");
#ifndef __wasi__
    NULL_CASE(lik_pool_create(1, NULL), "out");
#endif
    NULL_CASE(lik_memory_alloc(NULL, 64, &memory), "ctx");
    NULL_CASE(lik_memory_alloc(ctx, 64, NULL), "out");
    NULL_CASE(lik_memory_copy(NULL, &out, &in, 1), "ctx");
    NULL_CASE(lik_memory_copy(ctx, NULL, &in, 1), "to");
    NULL_CASE(lik_memory_copy(ctx, &out, NULL, 1), "from");
    NULL_CASE(lik_memory_info(NULL, &bytes, &bytes), "ctx");
    NULL_CASE(lik_memory_info(ctx, NULL, &bytes), "free_bytes");
    NULL_CASE(lik_memory_info(ctx, &bytes, NULL), "total_bytes");
    NULL_CASE(lik_stream_create(NULL, &memory), "ctx");
    NULL_CASE(lik_stream_create(ctx, NULL), "out");
    NULL_CASE(lik_stream_synchronize(NULL, NULL), "ctx");
    for (int i = 0; i < n; i++)
        check(calls[i].status == LIK_EINVAL && strstr(calls[i].message, calls[i].name) &&
                  strstr(calls[i].message, "NULL"),
              "NULL as %s (call %d) gives %s: %s", calls[i].name, i, lik_status_name(calls[i].status),
              calls[i].message);

    struct lik_context *none = (struct lik_context *)(void *)&c;
    check(lik_context_create(NULL, &none) == LIK_EINVAL && !none && strstr(lik_last_error(), "device"),
          "device NULL: %s", lik_last_error());
    lik_context_destroy(NULL);
    lik_pool_destroy(NULL);
    check(!strcmp(lik_context_name(NULL), "") && !strcmp(lik_context_hardware(NULL), ""),
          "the name of no context");
    check(lik_pool_threads(NULL) == 1, "the threads of no pool");
}

/* Memory and streams of contexts in host memory. */
static void check_memory(void)
{
    static const size_t too_many[] = {SIZE_MAX, (size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX - 62};
    char number[32], most[48];
    snprintf(most, sizeof most, "at most %zu", (size_t)PTRDIFF_MAX - 63);
    for (int64_t i = 0; i < device_count; i++) {
        const struct lik_context *ctx = devices[i].ctx;
        size_t free_bytes = 1, total_bytes = 1;
        void *memory = &in, *stream = &in;
        if (!ctx)
            continue;
        check_describe("arguments: memory of %s", devices[i].name);
        for (int64_t j = 0; j < COUNT(too_many); j++) {
            memory = &in;
            snprintf(number, sizeof number, "%zu", too_many[j]);
            check(lik_memory_alloc(ctx, too_many[j], &memory) == LIK_EINVAL && !memory &&
                      strstr(lik_last_error(), number) && strstr(lik_last_error(), most),
                  "%s bytes: %s", number, lik_last_error());
        }
        memory = &in;
        check(lik_memory_copy(ctx, NULL, in.q, 77) == LIK_EINVAL && strstr(lik_last_error(), "to is NULL") &&
                  strstr(lik_last_error(), "77"),
              "a copy to NULL: %s", lik_last_error());

        check_ok(lik_memory_alloc(ctx, 0, &memory), "lik_memory_alloc of nothing");
        check(!memory, "0 bytes are not NULL");
        check_ok(lik_memory_copy(ctx, NULL, NULL, 0), "lik_memory_copy of nothing");
        if (check_ok(lik_memory_alloc(ctx, sizeof in.q, &memory), "lik_memory_alloc")) {
            float back[COUNT(in.q)];
            check((uintptr_t)memory % 64 == 0, "memory at %p", memory);
            check_ok(lik_memory_copy(ctx, memory, in.q, sizeof in.q), "lik_memory_copy to it");
            check_ok(lik_memory_copy(ctx, back, memory, sizeof back), "lik_memory_copy from it");
            check(!memcmp(back, in.q, sizeof back), "what was copied differs");
        }
        check_ok(lik_memory_info(ctx, &free_bytes, &total_bytes), "lik_memory_info");
        check(!free_bytes && !total_bytes, "host memory has %zu bytes of %zu", free_bytes, total_bytes);
        check_ok(lik_stream_create(ctx, &stream), "lik_stream_create");
        check(!stream, "a host stream is %p", stream);
        check_ok(lik_stream_synchronize(ctx, stream), "lik_stream_synchronize");
        lik_stream_destroy(ctx, stream);
        lik_memory_free(ctx, memory);
        lik_memory_free(ctx, NULL);
    }
    lik_memory_free(NULL, NULL);
    lik_stream_destroy(NULL, NULL);
}

/* A caller with a newer header: the same if what it added is zero, refused if it is set. */
static void check_newer_structs(void)
{
    struct {
        struct call c;
        char room[64];
    } newer;
    struct {
        struct lik_score score;
        char added[64];
    } score;
    for (int64_t i = 0; i < device_count; i++) {
        if (!devices[i].ctx)
            continue;
        newer.c = good_call();
        memset(&score, 0, sizeof score);
        score.score = newer.c.score;
        score.score.struct_size = sizeof score;
        check_describe("arguments: a newer score struct on %s", devices[i].name);
        check_ok(lik_score_run(devices[i].ctx, &score.score, &newer.c.exec), "lik_score_run");
        score.added[63] = 1;
        memset(&out, 0xcb, sizeof out);
        check(lik_score_run(devices[i].ctx, &score.score, &newer.c.exec) == LIK_EUNSUPPORTED,
              "a field added and set: %s", lik_last_error());
        check(strstr(lik_last_error(), "score.struct_size") != NULL, "the message is \"%s\"",
              lik_last_error());
        check(untouched(&newer.c, &newer.c), "something was written");
        score.added[63] = 0;
        for (int64_t at = 0; at < COUNT(score.added); at++) {
            score.added[at] = 1;
            check(lik_score_plan(devices[i].ctx, &score.score, NULL, &newer.c.plan) == LIK_EUNSUPPORTED,
                  "byte %lld of what was added is set: %s", (long long)at, lik_last_error());
            score.added[at] = 0;
        }
        static union { /* the most that a later version may have added, and one byte more */
            struct lik_score score;
            char room[sizeof(struct lik_score) + 4097];
        } most;
        most.score = newer.c.score;
        most.score.struct_size = sizeof most.room - 1;
        check_ok(lik_score_plan(devices[i].ctx, &most.score, NULL, &newer.c.plan), "4096 bytes more");
        most.score.struct_size++;
        check(lik_score_plan(devices[i].ctx, &most.score, NULL, &newer.c.plan) == LIK_EINVAL,
              "4097 bytes more");
    }
}

void check_arguments(void)
{
    struct call c = good_call();
    for (int64_t i = 0; i < device_count; i++) /* what all cases start from is good */
        for (int verb = SCORE; verb <= GRAD && devices[i].ctx; verb *= 2) {
            check_describe("arguments: a good call of verb %d on %s", verb, devices[i].name);
            check_ok(enter(devices[i].ctx, verb, 1, &c), "plan");
            check_ok(enter(devices[i].ctx, verb, 0, &c), "run");
        }
    check_operands();
    check_codes();
    check_packed();
    check_pairings();
    check_results();
    check_running();
    check_lenders();
    check_extremes();
    check_pointers();
    check_memory();
    check_newer_structs();
    check_entries();
}
