/* The C API given bad documents of codes, LIK_ONE_HOT: the status, a message that names the
 * argument and both values, nothing written; by plan and run of each verb on every device. */
#include "check.h"

enum { QUERIES = 2, Q_LEN = 3, DOCUMENTS = 4, D_LEN = 5, DIM = 8 };

static float table[QUERIES * Q_LEN * DIM], scores[QUERIES * DOCUMENTS];
static int32_t codes[DOCUMENTS * D_LEN];

static struct lik_score good_problem(void)
{
    struct lik_score op = {.struct_size = sizeof op, .scores = scores};
    op.q = lik_tokens_padded(table, LIK_F32, QUERIES, Q_LEN, DIM);
    op.d = lik_tokens_padded(NULL, LIK_F32, DOCUMENTS, D_LEN, DIM);
    op.d.storage = LIK_ONE_HOT;
    op.d.codes = codes;
    op.d.codes_dtype = LIK_I32;
    for (int32_t t = 0; t < DOCUMENTS * D_LEN; t++)
        codes[t] = t % DIM;
    for (int32_t n = 0; n < QUERIES * DOCUMENTS; n++)
        scores[n] = -7;
    return op;
}

/* Way 0 to 5: score, top-k and gradients, the plan and the run of each. */
static int enter(const struct lik_context *ctx, int way, const struct lik_score *op)
{
    struct lik_plan plan = {.struct_size = sizeof plan};
    float values[QUERIES];
    int64_t ids[QUERIES];
    struct lik_topk topk = {.struct_size = sizeof topk, .score = *op, .k = 1, .values = values, .ids = ids};
    struct lik_grad grad = {.struct_size = sizeof grad, .score = *op, .grad_scores = scores};
    switch (way) {
    case 0: return lik_score_plan(ctx, op, NULL, &plan);
    case 1: return lik_score_run(ctx, op, NULL);
    case 2: return lik_topk_plan(ctx, &topk, NULL, &plan);
    case 3: return lik_topk_run(ctx, &topk, NULL);
    case 4: return lik_grad_plan(ctx, &grad, NULL, &plan);
    default: return lik_grad_run(ctx, &grad, NULL);
    }
}

/* Ways from `first` on must refuse the problem, with these pieces in the message. */
static void refused(const char *what, const struct lik_score *op, int first, int status, const char *a,
                    const char *b, const char *c)
{
    totals.cases++;
    for (int64_t i = 0; i < device_count; i++)
        for (int way = first; way < 6 && devices[i].ctx; way++) {
            check_describe("arguments: %s, way %d on %s", what, way, devices[i].name);
            int got = enter(devices[i].ctx, way, op);
            const char *message = lik_last_error();
            check(got == status, "the status is %s, expected %s (%s)", lik_status_name(got),
                  lik_status_name(status), message);
            check(strstr(message, a) && strstr(message, b) && strstr(message, c),
                  "the message \"%s\" lacks \"%s\", \"%s\" or \"%s\"", message, a, b, c);
            for (int n = 0; n < QUERIES * DOCUMENTS; n++)
                check(scores[n] == -7, "scores[%d] was written", n);
        }
}

/* Builds a good problem, spoils it by `change` (statements on op), expects the refusal. */
#define REFUSED(change, first, status, a, b, c)        \
    do {                                               \
        struct lik_score op = good_problem();          \
        change;                                        \
        refused(#change, &op, first, status, a, b, c); \
    } while (0)
#define INVALID(change, a, b, c) REFUSED(change, 0, LIK_EINVAL, a, b, c)

/* A GPU does not wait to look at codes: those that are out of range are not read through, and
 * their products are NaN. */
static void check_invalid_codes(const struct lik_context *ctx)
{
    enum { TOKENS = DOCUMENTS * D_LEN };
    static const int64_t invalid[] = {DIM, -1, INT64_MAX, INT64_MIN, INT64_C(1) << 32};
    int32_t argmax[QUERIES * DOCUMENTS * Q_LEN];
    for (int n = 0; n < QUERIES * Q_LEN * DIM; n++)
        table[n] = (float)((n * 7 + 3) % 11);
    for (int64_t way = 0; way < COUNT(invalid); way++) {
        struct lik_score op = good_problem();
        int64_t wide[TOKENS];
        for (int t = 0; t < TOKENS; t++)
            wide[t] = codes[t];
        wide[7] = invalid[way]; /* token 2 of document 1 */
        op.d.codes = wide;
        op.d.codes_dtype = LIK_I64;
        op.argmax = argmax;
        op.argmax_dtype = LIK_I32;
        totals.cases++;
        check_describe("codes: %lld on a GPU", (long long)invalid[way]);
        check_ok(run_score(ctx, &op, NULL), "lik_score_run");
        for (int n = 0; n < QUERIES * DOCUMENTS; n++) {
            float want = 0;
            for (int s = 0; s < Q_LEN; s++) {
                const float *row = table + (n / DOCUMENTS * Q_LEN + s) * DIM;
                float most = -1;
                for (int t = 0; t < D_LEN; t++)
                    most = fmaxf(most, row[codes[n % DOCUMENTS * D_LEN + t]]);
                want += most;
                if (n % DOCUMENTS == 1)
                    check(argmax[n * Q_LEN + s] == 2, "argmax[%d, %d] is %d", n, s, argmax[n * Q_LEN + s]);
            }
            check(n % DOCUMENTS == 1 ? isnan(scores[n]) : scores[n] == want,
                  "scores[%d] is %g, without it %g", n, (double)scores[n], (double)want);
        }
    }
}

void check_codes(void)
{
    REFUSED((void)0, 4, LIK_EUNSUPPORTED, "d.storage", "LIK_ONE_HOT", "gradients");
    INVALID(op.d.dtype = LIK_BF16, "d.dtype", "bf16", "f32");
    INVALID(op.d.data = table, "d.data", "set", "LIK_ONE_HOT");
    INVALID(op.d.scale = table, "d.scale", "set", "LIK_ONE_HOT");
    INVALID(op.d.normalize = 3, "d.normalize", "3", "0");
    INVALID(op.d.scale_dtype = LIK_F16, "d.scale_dtype", "f16", "f32");
    INVALID(op.d.codes_dtype = LIK_F32, "d.codes_dtype", "f32", "i64");
    INVALID(op.d.codes_dtype = 0, "d.codes_dtype", "0", "i64");
    INVALID(op.d.codes = NULL, "d.codes", "NULL", "20 tokens");
    INVALID(op.d.codes = (const char *)codes + 2, "d.codes", "aligned", "4 bytes");
    INVALID(op.d.codes_strides.token = INT64_MAX, "d.codes_strides", "5 entries", "2^63");
    INVALID(op.d.dim = 0, "d.dim", "0", "2147483647");
    INVALID(op.d.dim = INT64_C(1) << 31, "d.dim", "2147483648", "2147483647");
    INVALID(op.d.dim = 1 << 20, "d.dim", "1048576", "8");
    INVALID(op.q.dtype = LIK_F16, "q.dtype", "f16", "LIK_ONE_HOT");
    INVALID(op.q.scale = table, "q.scale", "set", "LIK_ONE_HOT");
    INVALID(op.q.normalize = 1, "q.normalize", "set", "LIK_ONE_HOT");
    REFUSED((op.q = op.d, op.q.count = QUERIES), 0, LIK_EUNSUPPORTED, "q.storage", "LIK_ONE_HOT",
            "LIK_DENSE");
    for (int64_t i = 0; i < device_count && totals.gpu; i++)
        if (devices[i].ctx)
            check_invalid_codes(devices[i].ctx);
    if (totals.gpu) /* what lies on a device is looked at with LIK_CHECK alone */
        return;
    INVALID(codes[7] = DIM, "d.codes", "sequence 1, token 2 is 8", "0 to 7");
    INVALID(codes[19] = -1, "d.codes", "sequence 3, token 4 is -1", "0 to 7");
    INVALID((codes[4] = INT32_MIN, op.d.codes = codes + 4, op.d.codes_strides.token = -1), "d.codes",
            "sequence 0, token 0 is -2147483648", "0 to 7");
}
