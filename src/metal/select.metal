/* Sorting keys: the k best scores of each query, and the entries of a list by sequence. Keys
 * are all different but those that are none: any order of exchanges gives one result. */

#define NO_KEY 0xfffffffffffffffful

/* The score as an ordered integer above the document's number: smaller is better, ties go to
 * the lower document, NaN comes last and what is no document after it. */
static ulong key_of(float score, ulong document, bool smallest)
{
    if (is_nan(score))
        return 0xfffffffful << 32 | document;
    uint bits = as_type<uint>(score);
    if (bits == 0x80000000u) /* -0 ties with 0 */
        bits = 0;
    uint order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return ulong(smallest ? order : ~order) << 32 | document;
}

static float score_of(ulong key, bool smallest)
{
    uint order = uint(key >> 32);
    if (order == 0xffffffffu)
        return nan_value();
    order = smallest ? order : ~order;
    return as_type<float>((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}

static ulong key_at(constant lik_metal_select &args, device const float *scores, device const ulong *keys,
                    device const ulong *more_keys, long query, long n)
{
    if (n < args.count)
        return args.from_scores != 0
                   ? key_of(scores[query * args.stride + n], ulong(args.first_id + n), args.smallest != 0)
                   : keys[query * args.stride + n];
    n -= args.count;
    return n < args.more ? more_keys[query * args.more_stride + n] : NO_KEY;
}

/* Which two keys exchange p is about, and whether the lower place gets the lower key, in the
 * step of a bitonic sort that makes ascending and descending runs of `size`. */
static long lower_of(long p, long stride)
{
    return 2 * p - (p & (stride - 1));
}

LIK_KERNEL lik_select(LIK_WHERE, LIK_BUFFER(constant lik_metal_select &, args, LIK_AT_ARGS),
                      LIK_BUFFER(device const float *, scores, LIK_AT_SCORES),
                      LIK_BUFFER(device const ulong *, keys, LIK_AT_KEYS),
                      LIK_BUFFER(device const ulong *, more_keys, LIK_AT_MORE_KEYS),
                      LIK_BUFFER(device ulong *, keys_out, LIK_AT_KEYS_OUT))
{
    LIK_THREADGROUP(ulong, sorted, LIK_METAL_RUN);
    uint first = simd * LIK_METAL_SIMD + lane;
    for (long item = group; item < args.queries * args.runs; item += args.threadgroups) {
        long query = item / args.runs, run = item % args.runs;
        for (long n = first; n < args.run; n += LIK_METAL_THREADS)
            sorted[n] = key_at(args, scores, keys, more_keys, query, run * args.run + n);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (long size = 2; size <= args.run; size *= 2)
            for (long stride = size / 2; stride > 0; stride /= 2) {
                for (long p = first; p < args.run / 2; p += LIK_METAL_THREADS) {
                    long low = lower_of(p, stride);
                    ulong a = sorted[low], b = sorted[low + stride];
                    if ((a > b) == ((low & size) == 0)) {
                        sorted[low] = b;
                        sorted[low + stride] = a;
                    }
                }
                threadgroup_barrier(mem_flags::mem_threadgroup);
            }
        for (long n = first; n < args.keep; n += LIK_METAL_THREADS)
            keys_out[item * args.keep + n] = n < args.run ? sorted[n] : NO_KEY;
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

/* For k above half a run: the keys of a level, padded to a power of two a query. */
LIK_KERNEL lik_gather_keys(LIK_WHERE, LIK_BUFFER(constant lik_metal_select &, args, LIK_AT_ARGS),
                           LIK_BUFFER(device const float *, scores, LIK_AT_SCORES),
                           LIK_BUFFER(device const ulong *, keys, LIK_AT_KEYS),
                           LIK_BUFFER(device const ulong *, more_keys, LIK_AT_MORE_KEYS),
                           LIK_BUFFER(device ulong *, keys_out, LIK_AT_KEYS_OUT))
{
    for (long n = long(group) * LIK_METAL_THREADS + simd * LIK_METAL_SIMD + lane;
         n < args.queries * args.padded; n += args.threadgroups * LIK_METAL_THREADS)
        keys_out[n] = key_at(args, scores, keys, more_keys, n / args.padded, n % args.padded);
}

LIK_KERNEL lik_sort_pass(LIK_WHERE, LIK_BUFFER(constant lik_metal_sort &, args, LIK_AT_ARGS),
                         LIK_BUFFER(device ulong *, keys, LIK_AT_KEYS_OUT))
{
    long half_padded = args.padded / 2;
    for (long p = long(group) * LIK_METAL_THREADS + simd * LIK_METAL_SIMD + lane;
         p < args.queries * half_padded; p += args.threadgroups * LIK_METAL_THREADS) {
        long low = lower_of(p % half_padded, args.stride);
        device ulong *at = keys + p / half_padded * args.padded + low;
        ulong a = at[0], b = at[args.stride];
        if ((a > b) == ((low & args.size) == 0)) {
            at[0] = b;
            at[args.stride] = a;
        }
    }
}

LIK_KERNEL lik_write_best(LIK_WHERE, LIK_BUFFER(constant lik_metal_best &, args, LIK_AT_ARGS),
                          LIK_BUFFER(device const ulong *, keys, LIK_AT_KEYS),
                          LIK_BUFFER(device float *, values, LIK_AT_VALUES),
                          LIK_BUFFER(device long *, ids, LIK_AT_IDS))
{
    for (long n = long(group) * LIK_METAL_THREADS + simd * LIK_METAL_SIMD + lane; n < args.queries * args.k;
         n += args.threadgroups * LIK_METAL_THREADS) {
        long query = n / args.k, rank = n % args.k;
        ulong key = rank < args.count ? keys[query * args.stride + rank] : NO_KEY;
        values[n] = score_of(key, args.smallest != 0);
        ids[n] = key == NO_KEY ? -1 : args.id_base + long(key & 0xfffffffful);
    }
}

/* Keys of the entries of a list, by the sequence of one operand. */
LIK_KERNEL lik_list_keys(LIK_WHERE, LIK_BUFFER(constant lik_metal_list_keys &, args, LIK_AT_ARGS),
                         LIK_BUFFER(device const long *, list_q, LIK_AT_LIST_Q),
                         LIK_BUFFER(device const long *, list_d, LIK_AT_LIST_D),
                         LIK_BUFFER(device ulong *, keys_out, LIK_AT_KEYS_OUT))
{
    for (long n = long(group) * LIK_METAL_THREADS + simd * LIK_METAL_SIMD + lane; n < args.padded;
         n += args.threadgroups * LIK_METAL_THREADS) {
        ulong key = NO_KEY;
        if (n < args.list_count) {
            long i = args.of_queries != 0 ? list_q[n] : list_d[n];
            if (i >= 0 && i < args.sequences)
                key = ulong(i) << 32 | ulong(n);
        }
        keys_out[n] = key;
    }
}
