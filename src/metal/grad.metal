/* Gradients from the argmax, without atomics: a simdgroup owns a row of the output and gathers
 * what it receives, in the order of the scores, written once.
 *
 *     grad_q[i, s] = sum over scores n of query i of g[n] w[i, s] d[n][argmax[n, s]]
 *     grad_d[j, t] = sum over (n, s) of document j, argmax[n, s] = t, of g[n] w[i, s] q[i, s]
 *
 * 32 entries of the argmax are looked at once, one a lane; a vote tells which of them name the
 * token, and those are added one by one, lanes taking elements. The entries of a document are
 * read again for each of its tokens: that is one load for 32 entries, where a meeting costs as
 * many as there are elements. Of a list the entries of a sequence are found in sorted keys. */

#define SPAN_EACH 8 /* elements a lane sums at once */
#define SPAN      (SPAN_EACH * LIK_METAL_SIMD)

struct gatherer {
    operand q, d;
    device const float *weights;
    device const long *list_q, *list_d;
    bytes_at argmax;
    device const float *grad_scores;
    device const ulong *keys; /* of a list, sorted: sequence << 32 | entry */
    uint lane;
};

/* The scores that a sequence takes part in: number n is row first_row + n * row_step, column
 * first_column + n * column_step, or entry n of the keys from first_key on. */
struct incidence {
    long count, row, row_step, column, column_step, first_key;
};

/* A token and what is gathered of it: elements from ... from + SPAN - 1. */
struct gathered {
    long i, t; /* sequence and token */
    long from;
    float sum[SPAN_EACH];
};

static incidence scores_of(constant lik_metal_grad &args, thread const gatherer &g, long i)
{
    incidence in = {1, i, 0, 0, 0, 0};
    if (args.pairing == LIK_PAIRING_LIST) {
        long low = 0, high = args.list_count, from = 0;
        for (int side = 0; side < 2; side++) { /* the first key of the sequence, and of the next */
            ulong key = ulong(i + side) << 32;
            for (high = args.list_count; low < high;) {
                long middle = low + (high - low) / 2;
                if (g.keys[middle] < key)
                    low = middle + 1;
                else
                    high = middle;
            }
            from = side == 0 ? low : from;
        }
        in.first_key = from;
        in.count = low - from;
    } else if (args.pairing == LIK_PAIRING_ALL && args.of_queries == 0) {
        in.count = args.score_rows;
        in.row = 0;
        in.row_step = 1;
        in.column = i;
    } else if (args.pairing == LIK_PAIRING_CANDIDATES && args.of_queries == 0) {
        in.row = i / args.per_query;
        in.column = i % args.per_query;
    } else if (args.pairing != LIK_PAIRING_PAIRS) {
        in.count = args.score_columns;
        in.column_step = 1;
    }
    return in;
}

static long row_of(constant lik_metal_grad &args, thread const gatherer &g, incidence in, long n)
{
    return args.pairing == LIK_PAIRING_LIST ? long(g.keys[in.first_key + n] & 0xfffffffful)
                                            : in.row + n * in.row_step;
}

static long query_of_row(constant lik_metal_grad &args, thread const gatherer &g, long row)
{
    return args.pairing == LIK_PAIRING_LIST ? g.list_q[row] : row;
}

static long document_of_score(constant lik_metal_grad &args, thread const gatherer &g, long row, long column)
{
    switch (args.pairing) {
    case LIK_PAIRING_ALL: return column;
    case LIK_PAIRING_CANDIDATES: return row * args.per_query + column;
    case LIK_PAIRING_PAIRS: return row;
    default: return g.list_d[row];
    }
}

static int winner_at(constant lik_metal_grad &args, thread const gatherer &g, long row, long column, long s)
{
    long at = (row * args.score_columns + column) * args.q.len_max + s;
    return args.argmax_bytes == 2 ? int(((device const short *)g.argmax)[at])
                                  : ((device const int *)g.argmax)[at];
}

static float weight_at(constant lik_metal_grad &args, thread const gatherer &g, long first, long i, long s)
{
    return args.q.has_weights != 0 ? g.weights[entry_at(args.q, args.q.weights, first, i, s)] : 1;
}

/* Which lanes' entries name the token; the same in all lanes. */
static uint votes_for(bool named)
{
    return uint((simd_vote::vote_t)simd_ballot(named));
}

/* Adds weight * factor times the elements of a token of `x` to the sums. */
static void add_token(constant lik_metal_tokens &x, operand from, sequence seq, long i, long t, float weight,
                      uint lane, thread gathered &own)
{
    place p = place_at(x, from.codes, seq.first, i, t);
    float factor = x.has_factors != 0 ? from.factors[seq.first + t] : 1;
    for (uint e = 0; e < SPAN_EACH; e++) {
        long k = own.from + e * LIK_METAL_SIMD + lane;
        if (k < x.dim)
            own.sum[e] += weight * (factor * token_element(x, from, p, k));
    }
}

/* A query token's share of one score: the document token that it met. */
static void meet_document(constant lik_metal_grad &args, thread const gatherer &g, long row, long column,
                          float weight, thread gathered &own)
{
    long j = document_of_score(args, g, row, column);
    sequence d = sequence_at(args.d, g.d.offsets, j);
    long t = winner_at(args, g, row, column, own.t);
    if (!d.valid || t >= d.length)
        return;
    float grad_score = g.grad_scores[row * args.grad_scores_stride + column];
    add_token(args.d, g.d, d, j, t, grad_score * weight, g.lane, own);
}

static void gather_documents(constant lik_metal_grad &args, thread const gatherer &g, incidence in,
                             sequence q, thread gathered &own)
{
    float weight = weight_at(args, g, q.first, own.i, own.t);
    for (long n = 0; n < in.count; n += LIK_METAL_SIMD) {
        long mine = n + g.lane;
        bool named = mine < in.count && winner_at(args, g, row_of(args, g, in, mine),
                                                  in.column + mine * in.column_step, own.t) >= 0;
        for (uint votes = votes_for(named); votes != 0; votes &= votes - 1) {
            long met = n + ctz(votes);
            meet_document(args, g, row_of(args, g, in, met), in.column + met * in.column_step, weight, own);
        }
    }
}

static void gather_queries(constant lik_metal_grad &args, thread const gatherer &g, incidence in,
                           thread gathered &own)
{
    for (long n = 0; n < in.count; n++) {
        long row = row_of(args, g, in, n), column = in.column + n * in.column_step;
        long i = query_of_row(args, g, row);
        sequence q = sequence_at(args.q, g.q.offsets, i);
        float grad_score = g.grad_scores[row * args.grad_scores_stride + column];
        for (long s = 0; s < q.length; s += LIK_METAL_SIMD) {
            long mine = s + g.lane;
            bool named = mine < q.length && winner_at(args, g, row, column, mine) == own.t;
            for (uint votes = votes_for(named); votes != 0; votes &= votes - 1) {
                long met = s + ctz(votes);
                if (is_kept(args.q, g.q.mask, q.first, i, met))
                    add_token(args.q, g.q, q, i, met, grad_score * weight_at(args, g, q.first, i, met),
                              g.lane, own);
            }
        }
    }
}

static void gather(constant lik_metal_grad &args, thread const gatherer &g, incidence in, sequence own_in,
                   long from, thread gathered &own)
{
    own.from = from;
    for (uint e = 0; e < SPAN_EACH; e++)
        own.sum[e] = 0;
    if (args.of_queries != 0)
        gather_documents(args, g, in, own_in, own);
    else
        gather_queries(args, g, in, own);
}

static void put_gradient(constant lik_metal_grad &args, device uchar *out, long at, float value)
{
    if (args.accumulate != 0)
        value += element_at(args.out_dtype, out, at);
    if (args.out_dtype == LIK_KIND_F32)
        ((device float *)out)[at] = value;
    else if (args.out_dtype == LIK_KIND_F16)
        ((device half *)out)[at] = half(value);
    else
        ((device ushort *)out)[at] = ushort(as_type<uint>(round_bf16(value)) >> 16);
}

/* The gradient of one kept token: the sum G times the factor by which a stored element counts,
 * and where the token is normalized without what lies along it. */
static void grad_token(constant lik_metal_grad &args, constant lik_metal_tokens &x, thread const gatherer &g,
                       operand from, bytes_at scale, sequence s, long row, long i, long t, device uchar *out)
{
    bool clamped;
    place p = place_at(x, from.codes, s.first, i, t);
    float factor = factor_of(x, from, scale, p, s.first, i, t, g.lane, clamped), along = 0;
    incidence in = scores_of(args, g, i);
    gathered own;
    own.i = i;
    own.t = t;
    if (x.normalize != 0 && !clamped) {
        for (long k0 = 0; k0 < x.dim; k0 += SPAN) {
            gather(args, g, in, s, k0, own);
            for (uint e = 0; e < SPAN_EACH; e++) {
                long k = k0 + e * LIK_METAL_SIMD + g.lane;
                if (k < x.dim)
                    along += own.sum[e] * (factor * token_element(x, from, p, k));
            }
        }
        along = simd_sum(along);
    }
    for (long k0 = 0; k0 < x.dim; k0 += SPAN) {
        if (!(x.normalize != 0 && !clamped && x.dim <= SPAN)) /* it is there already */
            gather(args, g, in, s, k0, own);
        for (uint e = 0; e < SPAN_EACH; e++) {
            long k = k0 + e * LIK_METAL_SIMD + g.lane;
            if (k >= x.dim)
                continue;
            float value = own.sum[e];
            if (x.normalize != 0)
                value -= along * (factor * token_element(x, from, p, k));
            put_gradient(args, out, row * x.dim + k, clamped ? 0.0f : value * factor);
        }
    }
}

/* The sequence and token of a row of the gradient; false if there is none, or it is dropped. */
static bool token_of_row(constant lik_metal_tokens &x, operand from, long row, thread sequence &s,
                         thread long &i, thread long &t)
{
    i = sequence_of_row(x, from.offsets, row);
    s = sequence_at(x, from.offsets, i);
    t = row - s.first;
    return s.valid && t < s.length && is_kept(x, from.mask, s.first, i, t);
}

static void grad_rows(constant lik_metal_grad &args, constant lik_metal_tokens &x, thread const gatherer &g,
                      operand from, bytes_at scale, long first, device uchar *out)
{
    for (long row = first; row < args.rows; row += args.threadgroups * LIK_METAL_SIMDS) {
        sequence s;
        long i, t;
        if (token_of_row(x, from, row, s, i, t))
            grad_token(args, x, g, from, scale, s, row, i, t, out);
        else if (args.accumulate == 0)
            for (long k = g.lane; k < x.dim; k += LIK_METAL_SIMD)
                put_gradient(args, out, row * x.dim + k, 0);
    }
}

/* g times the product of a query token and the document token that it met, in one score. */
static float product_of(constant lik_metal_grad &args, thread const gatherer &g, sequence q, long i, long s,
                        long row, long column)
{
    long j = document_of_score(args, g, row, column), t = winner_at(args, g, row, column, s);
    sequence d = sequence_at(args.d, g.d.offsets, j);
    if (!d.valid || t < 0 || t >= d.length)
        return 0;
    place a = place_at(args.q, g.q.codes, q.first, i, s), b = place_at(args.d, g.d.codes, d.first, j, t);
    float q_factor = args.q.has_factors != 0 ? g.q.factors[q.first + s] : 1;
    float d_factor = args.d.has_factors != 0 ? g.d.factors[d.first + t] : 1, sum = 0;
    for (long k = g.lane; k < args.q.dim; k += LIK_METAL_SIMD)
        sum += q_factor * token_element(args.q, g.q, a, k) * token_element(args.d, g.d, b, k);
    return g.grad_scores[row * args.grad_scores_stride + column] * (simd_sum(sum) * d_factor);
}

#define GRAD_BUFFERS                                                       \
    LIK_WHERE, LIK_BUFFER(constant lik_metal_grad &, args, LIK_AT_ARGS),   \
        LIK_BUFFER(device const uchar *, q_data, LIK_AT_Q_DATA),           \
        LIK_BUFFER(device const uchar *, q_offsets, LIK_AT_Q_OFFSETS),     \
        LIK_BUFFER(device const uchar *, q_mask, LIK_AT_Q_MASK),           \
        LIK_BUFFER(device const float *, q_factors, LIK_AT_Q_FACTORS),     \
        LIK_BUFFER(device const float *, weights, LIK_AT_Q_WEIGHTS),       \
        LIK_BUFFER(device const uchar *, d_data, LIK_AT_D_DATA),           \
        LIK_BUFFER(device const uchar *, d_offsets, LIK_AT_D_OFFSETS),     \
        LIK_BUFFER(device const uchar *, d_mask, LIK_AT_D_MASK),           \
        LIK_BUFFER(device const float *, d_factors, LIK_AT_D_FACTORS),     \
        LIK_BUFFER(device const uchar *, d_codes, LIK_AT_D_CODES),         \
        LIK_BUFFER(device const uchar *, centroids, LIK_AT_D_CENTROIDS),   \
        LIK_BUFFER(device const uchar *, buckets, LIK_AT_D_BUCKETS),       \
        LIK_BUFFER(device const long *, list_q, LIK_AT_LIST_Q),            \
        LIK_BUFFER(device const long *, list_d, LIK_AT_LIST_D),            \
        LIK_BUFFER(device const uchar *, argmax, LIK_AT_ARGMAX),           \
        LIK_BUFFER(device const float *, grad_scores, LIK_AT_GRAD_SCORES), \
        LIK_BUFFER(device uchar *, out, LIK_AT_OUT), LIK_BUFFER(device const ulong *, keys, LIK_AT_KEYS)

#define GATHERER                                                          \
    {{q_data, q_offsets, q_mask, q_factors, nullptr, nullptr, nullptr},   \
     {d_data, d_offsets, d_mask, d_factors, d_codes, centroids, buckets}, \
     weights,                                                             \
     list_q,                                                              \
     list_d,                                                              \
     argmax,                                                              \
     grad_scores,                                                         \
     keys,                                                                \
     lane}

/* The gradient of one operand. */
LIK_KERNEL lik_grad(GRAD_BUFFERS, LIK_BUFFER(device const uchar *, scale, LIK_AT_SCALE))
{
    gatherer g = GATHERER;
    long first = long(group) * LIK_METAL_SIMDS + simd;
    if (args.of_queries != 0)
        grad_rows(args, args.q, g, g.q, scale, first, out);
    else
        grad_rows(args, args.d, g, g.d, scale, first, out);
}

/* The gradient of the query tokens' weights: the sum of g times the maxima that each had. */
LIK_KERNEL lik_grad_weights(GRAD_BUFFERS)
{
    gatherer g = GATHERER;
    for (long row = long(group) * LIK_METAL_SIMDS + simd; row < args.rows;
         row += args.threadgroups * LIK_METAL_SIMDS) {
        sequence q;
        long i, s;
        float sum = 0;
        bool kept = token_of_row(args.q, g.q, row, q, i, s);
        if (kept) {
            incidence in = scores_of(args, g, i);
            for (long n = 0; n < in.count; n++)
                sum += product_of(args, g, q, i, s, row_of(args, g, in, n), in.column + n * in.column_step);
        }
        if (lane == 0 && (kept || args.accumulate == 0))
            put_gradient(args, out, row, sum);
    }
}
