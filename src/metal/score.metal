/* Scores, and the argmax where it is wanted.
 *
 * A threadgroup takes a tile of query rows, those of one query or of several short ones, and
 * runs past documents, LIK_METAL_COLUMNS tokens of one document at a time. A simdgroup
 * multiplies 8 of the rows with all columns, by 8x8 matrices, and stores the products; each
 * lane keeps the maximum of each row over the columns that fall to it, and at the document's
 * end the lanes put theirs together. Maxima, and which of equals is the first, do not depend on
 * an order; the sum over a query's tokens is taken by one thread, in their order.
 *
 * Dropped tokens, what is past a sequence's end and past the last element are zeros in the
 * tiles; what stands in the products for the former is never looked at. */

#define PRODUCT_STRIDE (LIK_METAL_COLUMNS + LIK_METAL_PAD)
#define ROW_STRIDE     (LIK_METAL_DIM + LIK_METAL_PAD)
#define COLUMN_STRIDE  (LIK_METAL_SLICE + LIK_METAL_PAD)
#define ROWS_EACH      (LIK_METAL_ROWS / LIK_METAL_SIMDS) /* rows of a simdgroup, and of a matrix */

/* What all threads of a threadgroup know. */
struct scorer {
    operand q, d;
    device const float *weights;
    device const long *list_q, *list_d;
    uint simd, lane, thread_index;
    /* threadgroup memory: products, [rows][PRODUCT_STRIDE], and what is known of each row and
     * column */
    threadgroup float *products;
    threadgroup long *row_data, *column_data, *column_code;
    threadgroup float *row_factor, *row_weight, *row_maximum, *column_factor;
    threadgroup int *row_kept, *row_winner, *column_kept;
};

/* The products of a tile that a lane has seen: of each row of its simdgroup the largest, and
 * its document token; -1: none. */
struct maxima {
    float value[ROWS_EACH];
    int winner[ROWS_EACH];
};

/* Is product a of token t before product b of token u, -1 if there is none? The first NaN comes
 * before all, then the largest, of equals the first. */
static bool is_before(float a, int t, float b, int u)
{
    if (t < 0 || u < 0)
        return t >= 0;
    bool nan_a = is_nan(a), nan_b = is_nan(b);
    if (nan_a != nan_b)
        return nan_a;
    if (!nan_a && a != b)
        return a > b;
    return t < u;
}

/* The sequence of an operand that a row (and column) of the scores is about. */
static long query_of(constant lik_metal_score &args, thread const scorer &s, long row)
{
    return args.pairing == LIK_PAIRING_LIST ? s.list_q[row] : row;
}

static long document_of(constant lik_metal_score &args, thread const scorer &s, long row, long column)
{
    switch (args.pairing) {
    case LIK_PAIRING_ALL: return column;
    case LIK_PAIRING_CANDIDATES: return row * args.per_query + column;
    case LIK_PAIRING_PAIRS: return row;
    default: return s.list_d[row];
    }
}

/* Rows of the tile: tokens `first` ... of one query, or all tokens of `queries` of them,
 * len_max rows each. */
static void find_rows(constant lik_metal_score &args, thread const scorer &s, long row, int queries,
                      long first)
{
    uint r = s.thread_index;
    if (r >= LIK_METAL_ROWS)
        return;
    long member = queries > 1 ? r / args.q.len_max : 0, t = queries > 1 ? r % args.q.len_max : first + r;
    bool kept = false;
    if (member < queries) {
        long i = query_of(args, s, row + member);
        sequence q = sequence_at(args.q, s.q.offsets, i);
        kept = q.valid && t < q.length && is_kept(args.q, s.q.mask, q.first, i, t);
        if (kept) {
            s.row_data[r] = entry_at(args.q, args.q.data, q.first, i, t);
            s.row_factor[r] = args.q.has_factors != 0 ? s.q.factors[q.first + t] : 1;
            s.row_weight[r] =
                args.q.has_weights != 0 ? s.weights[entry_at(args.q, args.q.weights, q.first, i, t)] : 1;
        }
    }
    s.row_kept[r] = kept;
}

/* Columns of the tile: tokens `first` ... of document j. */
static void find_columns(constant lik_metal_score &args, thread const scorer &s, sequence d, long j,
                         int first)
{
    uint c = s.thread_index;
    if (c >= LIK_METAL_COLUMNS)
        return;
    long t = long(first) + c;
    bool kept = t < d.length && is_kept(args.d, s.d.mask, d.first, j, t);
    if (kept) {
        place p = place_at(args.d, s.d.codes, d.first, j, t);
        s.column_data[c] = p.data;
        s.column_code[c] = p.code;
        s.column_factor[c] = args.d.has_factors != 0 ? s.d.factors[d.first + t] : 1;
    }
    s.column_kept[c] = kept;
}

/* Elements from ... from + LIK_METAL_DIM - 1 of the rows. Those multiplied as f32 take their
 * factor here, others their product. */
template <typename T>
void load_rows(constant lik_metal_score &args, thread const scorer &s, long from, threadgroup T *tile)
{
    const uint fours = LIK_METAL_DIM / 4;
    for (uint n = s.thread_index; n < LIK_METAL_ROWS * fours; n += LIK_METAL_THREADS) {
        uint r = n / fours, k = n % fours * 4;
        float four[4] = {0, 0, 0, 0};
        if (s.row_kept[r] != 0 && from + k < args.q.dim) {
            place p = {s.row_data[r], 0};
            load_four_of_any(args.q, s.q, p, from + k, four);
            for (uint e = 0; e < 4 && sizeof(T) == 4; e++)
                four[e] *= s.row_factor[r];
        }
        for (uint e = 0; e < 4; e++)
            tile[r * ROW_STRIDE + k + e] = T(four[e]);
    }
}

/* Finds the rows of a tile, and loads them if their elements fit. */
template <typename T>
void take_rows(constant lik_metal_score &args, thread const scorer &s, long row, int queries, long first,
               threadgroup T *tile)
{
    threadgroup_barrier(mem_flags::mem_threadgroup);
    find_rows(args, s, row, queries, first);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (args.q.dim <= LIK_METAL_DIM && args.d.kind != LIK_KIND_ONE_HOT)
        load_rows<T>(args, s, 0, tile);
}

/* Elements from ... from + LIK_METAL_SLICE - 1 of the columns. */
template <typename T, int KIND>
void load_columns(constant lik_metal_score &args, thread const scorer &s, long from, threadgroup T *tile)
{
    const uint fours = LIK_METAL_SLICE / 4;
    for (uint n = s.thread_index; n < LIK_METAL_COLUMNS * fours; n += LIK_METAL_THREADS) {
        uint c = n / fours, k = n % fours * 4;
        float four[4] = {0, 0, 0, 0};
        if (s.column_kept[c] != 0 && from + k < args.d.dim) {
            place p = {s.column_data[c], s.column_code[c]};
            load_four<KIND>(args.d, s.d, p, from + k, four);
        }
        for (uint e = 0; e < 4; e++)
            tile[c * COLUMN_STRIDE + k + e] = T(four[e]);
    }
}

/* The products of a simdgroup's rows, if it has any, and the columns, of all elements, into
 * s.products. Where there are more than LIK_METAL_DIM elements, those of the rows are loaded
 * here. */
template <typename T, int KIND>
void multiply(constant lik_metal_score &args, thread const scorer &s, bool has_rows, threadgroup T *rows,
              threadgroup T *columns)
{
    simdgroup_matrix<float, 8, 8> sums[LIK_METAL_COLUMNS / 8];
    for (uint c = 0; c < LIK_METAL_COLUMNS / 8; c++)
        sums[c] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (long from = 0; from < args.d.dim; from += LIK_METAL_SLICE) {
        uint k = uint(from % LIK_METAL_DIM);
        if (k == 0 && args.q.dim > LIK_METAL_DIM)
            load_rows<T>(args, s, from, rows);
        load_columns<T, KIND>(args, s, from, columns);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (has_rows) {
#pragma unroll
            for (uint e = 0; e < LIK_METAL_SLICE; e += 8) {
                simdgroup_matrix<T, 8, 8> row, column;
                simdgroup_load(row, rows + s.simd * ROWS_EACH * ROW_STRIDE + k + e, ROW_STRIDE);
#pragma unroll
                for (uint c = 0; c < LIK_METAL_COLUMNS / 8; c++) {
                    simdgroup_load(column, columns + c * 8 * COLUMN_STRIDE + e, COLUMN_STRIDE, ulong2(0, 0),
                                   true);
                    simdgroup_multiply_accumulate(sums[c], row, column, sums[c]);
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    for (uint c = 0; c < LIK_METAL_COLUMNS / 8 && has_rows; c++)
        simdgroup_store(sums[c], s.products + s.simd * ROWS_EACH * PRODUCT_STRIDE + c * 8, PRODUCT_STRIDE);
    simdgroup_barrier(mem_flags::mem_threadgroup);
}

/* Takes the products of a lane's column, document token t, into its maxima. */
static void take_products(thread const scorer &s, bool factors_of_rows, int t, thread maxima &best)
{
    if (s.column_kept[s.lane] == 0)
        return;
    float factor = s.column_factor[s.lane];
    for (uint r = 0; r < ROWS_EACH; r++) {
        uint row = s.simd * ROWS_EACH + r;
        float product = s.products[row * PRODUCT_STRIDE + s.lane] * factor;
        if (factors_of_rows && s.row_kept[row] != 0)
            product *= s.row_factor[row];
        if (is_before(product, t, best.value[r], best.winner[r])) {
            best.value[r] = product;
            best.winner[r] = t;
        }
    }
}

/* The same of documents whose tokens are numbers of elements, all tokens of a lane at once:
 * products are looked up. */
static void look_up(constant lik_metal_score &args, thread const scorer &s, sequence d, long j,
                    thread maxima &best)
{
    for (int t = int(s.lane); t < d.length; t += LIK_METAL_SIMD) {
        if (!is_kept(args.d, s.d.mask, d.first, j, t))
            continue;
        long code = place_at(args.d, s.d.codes, d.first, j, t).code;
        for (uint r = 0; r < ROWS_EACH; r++) {
            uint row = s.simd * ROWS_EACH + r;
            if (s.row_kept[row] == 0)
                continue;
            long at = s.row_data[row] + code * args.q.dim_stride;
            float product = code < 0 ? nan_value() : element_at(LIK_KIND_F32, s.q.data, at);
            if (is_before(product, t, best.value[r], best.winner[r])) {
                best.value[r] = product;
                best.winner[r] = t;
            }
        }
    }
}

/* Puts the lanes' maxima together, into row_maximum and row_winner. Four lanes take a row.
 * `winners` is room for as many numbers as there are products. */
static void combine(thread const scorer &s, threadgroup int *winners, thread const maxima &best)
{
    for (uint r = 0; r < ROWS_EACH; r++) {
        uint at = (s.simd * ROWS_EACH + r) * PRODUCT_STRIDE + s.lane;
        s.products[at] = best.value[r];
        winners[at] = best.winner[r];
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    uint each = LIK_METAL_SIMD / ROWS_EACH, row = s.simd * ROWS_EACH + s.lane / each;
    float value = 0;
    int winner = -1;
    for (uint c = s.lane % each; c < LIK_METAL_COLUMNS; c += each) {
        float other = s.products[row * PRODUCT_STRIDE + c];
        int token = winners[row * PRODUCT_STRIDE + c];
        if (is_before(other, token, value, winner)) {
            value = other;
            winner = token;
        }
    }
    for (ushort distance = 1; distance < each; distance *= 2) {
        float other = simd_shuffle_xor(value, distance);
        int token = simd_shuffle_xor(winner, distance);
        if (is_before(other, token, value, winner)) {
            value = other;
            winner = token;
        }
    }
    if (s.lane % each == 0) {
        s.row_maximum[row] = value;
        s.row_winner[row] = s.row_kept[row] != 0 ? winner : -1;
    }
}

static void put_argmax(constant lik_metal_score &args, device uchar *argmax, long at, int t)
{
    if (args.argmax_bytes == 2)
        ((device short *)argmax)[at] = short(t);
    else
        ((device int *)argmax)[at] = t;
}

/* Adds the maxima of the rows in the tile to the sum of the query that is this thread's, and
 * writes them to the argmax. */
static float end_rows(constant lik_metal_score &args, thread const scorer &s, device uchar *argmax, long row,
                      long column, int queries, long first, float sum)
{
    long len = args.q.len_max, n = s.thread_index;
    if (n < queries) {
        int begin = queries > 1 ? int(n * len) : 0;
        int end = queries > 1 ? begin + int(len) : int(lesser(len - first, LIK_METAL_ROWS));
        for (int r = begin; r < end; r++)
            if (s.row_winner[r] >= 0)
                sum += s.row_weight[r] * s.row_maximum[r];
    }
    if (args.argmax_bytes != 0 && n < LIK_METAL_ROWS) {
        long member = queries > 1 ? n / len : 0, t = queries > 1 ? n % len : first + n;
        if (member < queries && t < len)
            put_argmax(args, argmax, ((row + member) * args.columns + column) * len + t, s.row_winner[n]);
    }
    return sum;
}

/* The scores of `queries` queries, the rows from `row` on, with one document. */
template <typename T, int KIND>
void score_document(constant lik_metal_score &args, thread const scorer &s, device float *scores,
                    device uchar *argmax, long row, long column, int queries, bool resident,
                    threadgroup T *rows, threadgroup int *columns)
{
    long j = document_of(args, s, row, column), len = args.q.len_max;
    sequence d = sequence_at(args.d, s.d.offsets, j);
    float sum = 0;
    if (queries == 1 && args.argmax_bytes == 0)
        len = sequence_at(args.q, s.q.offsets, query_of(args, s, row)).length;
    for (long first = 0; first < len; first += LIK_METAL_ROWS) {
        maxima best;
        for (uint r = 0; r < ROWS_EACH; r++) {
            best.value[r] = 0;
            best.winner[r] = -1;
        }
        bool has_rows = s.simd * ROWS_EACH < (queries > 1 ? queries * len : len - first);
        if (!resident)
            take_rows<T>(args, s, row, queries, first, rows);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (KIND == LIK_KIND_ONE_HOT)
            look_up(args, s, d, j, best);
        for (int t = 0; t < d.length && KIND != LIK_KIND_ONE_HOT; t += LIK_METAL_COLUMNS) {
            find_columns(args, s, d, j, t);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            multiply<T, KIND>(args, s, has_rows, rows, (threadgroup T *)columns);
            if (has_rows)
                take_products(s, sizeof(T) != 4, t + int(s.lane), best);
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        combine(s, columns, best);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        sum = end_rows(args, s, argmax, row, column, queries, first, sum);
    }
    long n = s.thread_index;
    if (n >= queries)
        return;
    bool valid = d.valid && sequence_at(args.q, s.q.offsets, query_of(args, s, row + n)).valid;
    scores[(row + n - args.row_first) * args.scores_stride + column - args.column_first] =
        valid ? sum : nan_value();
}

template <typename T, int KIND>
void score_items(constant lik_metal_score &args, thread const scorer &s, device float *scores,
                 device uchar *argmax, uint group, threadgroup T *rows, threadgroup int *columns)
{
    bool resident = args.q.len_max <= LIK_METAL_ROWS; /* the rows are the same for all documents */
    for (long item = group; item < args.items; item += args.threadgroups) {
        long tile = item / args.runs, run = item % args.runs;
        long row = args.row_first + tile * args.queries_per_tile;
        int queries = int(lesser(args.queries_per_tile, args.row_first + args.rows - row));
        if (resident)
            take_rows<T>(args, s, row, queries, 0, rows);
        long end = lesser((run + 1) * args.columns_per_run, args.columns);
        for (long c = run * args.columns_per_run; c < end; c++)
            score_document<T, KIND>(args, s, scores, argmax, row, args.column_first + c, queries, resident,
                                    rows, columns);
    }
}

/* A kernel for documents of a kind, whose tiles hold elements of type T; the second, as
 * aligned as what else it holds. */
#define SCORE_KERNEL(name, T, kind)                                                       \
    LIK_KERNEL name(LIK_WHERE, LIK_BUFFER(constant lik_metal_score &, args, LIK_AT_ARGS), \
                    LIK_BUFFER(device const uchar *, q_data, LIK_AT_Q_DATA),              \
                    LIK_BUFFER(device const uchar *, q_offsets, LIK_AT_Q_OFFSETS),        \
                    LIK_BUFFER(device const uchar *, q_mask, LIK_AT_Q_MASK),              \
                    LIK_BUFFER(device const float *, q_factors, LIK_AT_Q_FACTORS),        \
                    LIK_BUFFER(device const float *, weights, LIK_AT_Q_WEIGHTS),          \
                    LIK_BUFFER(device const uchar *, d_data, LIK_AT_D_DATA),              \
                    LIK_BUFFER(device const uchar *, d_offsets, LIK_AT_D_OFFSETS),        \
                    LIK_BUFFER(device const uchar *, d_mask, LIK_AT_D_MASK),              \
                    LIK_BUFFER(device const float *, d_factors, LIK_AT_D_FACTORS),        \
                    LIK_BUFFER(device const uchar *, d_codes, LIK_AT_D_CODES),            \
                    LIK_BUFFER(device const uchar *, centroids, LIK_AT_D_CENTROIDS),      \
                    LIK_BUFFER(device const uchar *, buckets, LIK_AT_D_BUCKETS),          \
                    LIK_BUFFER(device const long *, list_q, LIK_AT_LIST_Q),               \
                    LIK_BUFFER(device const long *, list_d, LIK_AT_LIST_D),               \
                    LIK_BUFFER(device float *, scores, LIK_AT_SCORES),                    \
                    LIK_BUFFER(device uchar *, argmax, LIK_AT_ARGMAX))                    \
    {                                                                                     \
        LIK_THREADGROUP(T, rows, LIK_METAL_ROWS * ROW_STRIDE);                            \
        LIK_THREADGROUP(int, columns, LIK_METAL_COLUMNS *COLUMN_STRIDE);                  \
        LIK_THREADGROUP(float, products, LIK_METAL_ROWS *PRODUCT_STRIDE);                 \
        LIK_THREADGROUP(long, row_data, LIK_METAL_ROWS);                                  \
        LIK_THREADGROUP(float, row_factor, LIK_METAL_ROWS);                               \
        LIK_THREADGROUP(float, row_weight, LIK_METAL_ROWS);                               \
        LIK_THREADGROUP(float, row_maximum, LIK_METAL_ROWS);                              \
        LIK_THREADGROUP(int, row_kept, LIK_METAL_ROWS);                                   \
        LIK_THREADGROUP(int, row_winner, LIK_METAL_ROWS);                                 \
        LIK_THREADGROUP(long, column_data, LIK_METAL_COLUMNS);                            \
        LIK_THREADGROUP(long, column_code, LIK_METAL_COLUMNS);                            \
        LIK_THREADGROUP(float, column_factor, LIK_METAL_COLUMNS);                         \
        LIK_THREADGROUP(int, column_kept, LIK_METAL_COLUMNS);                             \
        scorer s = {{q_data, q_offsets, q_mask, q_factors, nullptr, nullptr, nullptr},    \
                    {d_data, d_offsets, d_mask, d_factors, d_codes, centroids, buckets},  \
                    weights,                                                              \
                    list_q,                                                               \
                    list_d,                                                               \
                    simd,                                                                 \
                    lane,                                                                 \
                    simd * LIK_METAL_SIMD + lane,                                         \
                    products,                                                             \
                    row_data,                                                             \
                    column_data,                                                          \
                    column_code,                                                          \
                    row_factor,                                                           \
                    row_weight,                                                           \
                    row_maximum,                                                          \
                    column_factor,                                                        \
                    row_kept,                                                             \
                    row_winner,                                                           \
                    column_kept};                                                         \
        score_items<T, kind>(args, s, scores, argmax, group, rows, columns);              \
    }

SCORE_KERNEL(lik_score_half, half, LIK_KIND_F16)
SCORE_KERNEL(lik_score_f32, float, LIK_KIND_F32)
SCORE_KERNEL(lik_score_f16, float, LIK_KIND_F16)
SCORE_KERNEL(lik_score_bf16, float, LIK_KIND_BF16)
SCORE_KERNEL(lik_score_e4m3, float, LIK_KIND_E4M3)
SCORE_KERNEL(lik_score_e5m2, float, LIK_KIND_E5M2)
SCORE_KERNEL(lik_score_i8, float, LIK_KIND_I8)
SCORE_KERNEL(lik_score_residual, float, LIK_KIND_RESIDUAL)
SCORE_KERNEL(lik_score_one_hot, half, LIK_KIND_ONE_HOT)
