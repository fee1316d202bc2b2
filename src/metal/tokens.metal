/* Operands on the device: which token stands where, its elements as f32 in any storage, and
 * the kernel that takes the factors of scale and normalization. */
#include <metal_stdlib>
using namespace metal;

#ifndef LIK_EMULATED
/* Compiled for no more threads than there are, so that every GPU has registers for them. */
#define LIK_KERNEL                     [[max_total_threads_per_threadgroup(LIK_METAL_THREADS)]] kernel void
#define LIK_BUFFER(pointer, name, n)   pointer name [[buffer(n)]]
#define LIK_THREADGROUP(type, name, n) threadgroup type name[n]
#define LIK_WHERE                                                                              \
    uint group [[threadgroup_position_in_grid]], uint simd [[simdgroup_index_in_threadgroup]], \
        uint lane [[thread_index_in_simdgroup]]
#endif

typedef device const uchar *bytes_at;

/* Where the arrays of an operand begin. */
struct operand {
    bytes_at data, offsets, mask;
    device const float *factors;
    bytes_at codes, centroids, buckets;
};

/* A sequence: how many tokens it has, and the row of the first in a contiguous array, which of
 * packed ones is its offset. */
struct sequence {
    long first;
    int length;
    bool valid; /* its number and its offsets are in range */
};

/* A token: where its data begin, and its code. */
struct place {
    long data, code;
};

static bool is_nan(float x)
{
    return (as_type<uint>(x) & 0x7fffffffu) > 0x7f800000u;
}

static float nan_value()
{
    return as_type<float>(0x7fc00000u);
}

static long lesser(long a, long b)
{
    return a < b ? a : b;
}

/* ---- where ---- */

static long offset_at(constant lik_metal_tokens &x, bytes_at offsets, long i)
{
    return x.offset_bytes == 4 ? long(((device const int *)offsets)[i]) : ((device const long *)offsets)[i];
}

static sequence sequence_at(constant lik_metal_tokens &x, bytes_at offsets, long i)
{
    sequence s;
    s.first = 0;
    s.length = 0;
    s.valid = i >= 0 && i < x.count;
    if (!s.valid)
        return s;
    if (x.offset_bytes == 0) {
        s.first = i * x.len_max;
        s.length = int(x.len_max);
        return s;
    }
    long begin = offset_at(x, offsets, i), end = offset_at(x, offsets, i + 1);
    s.valid = begin >= 0 && begin <= end && end <= x.total && end - begin <= x.len_max;
    if (s.valid) {
        s.first = begin;
        s.length = int(end - begin);
    }
    return s;
}

/* The sequence that a row of a contiguous array belongs to; -1: none. */
static long sequence_of_row(constant lik_metal_tokens &x, bytes_at offsets, long row)
{
    if (x.offset_bytes == 0)
        return row / x.len_max;
    long low = 0, high = x.count;
    while (low < high) { /* low: how many sequences begin at or before row */
        long middle = low + (high - low) / 2;
        if (offset_at(x, offsets, middle) <= row)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && row < offset_at(x, offsets, low) ? low - 1 : -1;
}

/* The entry of token t of sequence i in an array with these strides. */
static long entry_at(constant lik_metal_tokens &x, constant lik_metal_strides &strides, long first, long i,
                     long t)
{
    if (x.offset_bytes != 0)
        return (first + t) * strides.token;
    if (x.group_size > 0)
        return i / x.group_size * strides.group + i % x.group_size * strides.sequence + t * strides.token;
    return i * strides.sequence + t * strides.token;
}

static bool is_kept(constant lik_metal_tokens &x, bytes_at mask, long first, long i, long t)
{
    return x.has_mask == 0 || mask[entry_at(x, x.mask, first, i, t)] != 0;
}

static place place_at(constant lik_metal_tokens &x, bytes_at codes, long first, long i, long t)
{
    place p;
    p.data = entry_at(x, x.data, first, i, t);
    p.code = 0;
    if (x.code_bytes == 0)
        return p;
    long at = entry_at(x, x.codes, first, i, t);
    if (x.code_bytes == 2)
        p.code = ((device const ushort *)codes)[at];
    else
        p.code = x.code_bytes == 4 ? long(((device const int *)codes)[at]) : ((device const long *)codes)[at];
    if (p.code < 0 || p.code >= x.code_count)
        p.code = -1;
    return p;
}

/* ---- elements ---- */

static float from_bf16(ushort bits)
{
    return as_type<float>(uint(bits) << 16);
}

static float from_e4m3(uchar bits)
{
    uint sign = uint(bits & 0x80u) << 24, exponent = uint(bits >> 3) & 15u, mantissa = bits & 7u;
    if ((bits & 0x7fu) == 0x7fu)
        return nan_value();
    if (exponent == 0)
        return as_type<float>(as_type<uint>(float(mantissa) * 0.001953125f) | sign);
    return as_type<float>(sign | (exponent + 120u) << 23 | mantissa << 20);
}

static float from_e5m2(uchar bits)
{
    return float(as_type<half>(ushort(ushort(bits) << 8)));
}

static float round_bf16(float x)
{
    uint bits = as_type<uint>(x);
    if (is_nan(x))
        return x;
    return as_type<float>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

/* Rounded to a dtype, F32, F16 or BF16. */
static float rounded(float x, long dtype)
{
    return dtype == LIK_KIND_F16 ? float(half(x)) : dtype == LIK_KIND_BF16 ? round_bf16(x) : x;
}

/* Element `at` of an array of dense tokens. */
static float element_at(long kind, bytes_at data, long at)
{
    switch (kind) {
    case LIK_KIND_F32: return ((device const float *)data)[at];
    case LIK_KIND_F16: return float(((device const half *)data)[at]);
    case LIK_KIND_BF16: return from_bf16(((device const ushort *)data)[at]);
    case LIK_KIND_E4M3: return from_e4m3(data[at]);
    case LIK_KIND_E5M2: return from_e5m2(data[at]);
    default: return float(as_type<char>(data[at]));
    }
}

/* Element k of a compressed token. */
static float decoded_at(constant lik_metal_tokens &x, operand from, place p, long k)
{
    if (p.code < 0) /* out of range */
        return nan_value();
    float element =
        rounded(element_at(x.centroids_dtype, from.centroids, p.code * x.centroid_stride + k), x.dtype);
    if (x.bits == 0)
        return element;
    int bits = int(x.bits), per_byte = 8 / bits, f = int(k % per_byte);
    bool reversed = x.bit_order != 0; /* ColBERT's */
    uint number = uint(from.data[p.data + k / per_byte]) >> (reversed ? 8 - bits - f * bits : f * bits);
    number &= (1u << bits) - 1u;
    if (reversed)
        number = reverse_bits(number) >> (32 - bits);
    return rounded(element + rounded(element_at(x.buckets_dtype, from.buckets, number), x.dtype), x.dtype);
}

static float token_element(constant lik_metal_tokens &x, operand from, place p, long k)
{
    return x.kind == LIK_KIND_RESIDUAL ? decoded_at(x, from, p, k)
                                       : element_at(x.kind, from.data, p.data + k * x.dim_stride);
}

/* Elements k ... k + 3 of a token of this kind, k a multiple of 4; 0 past the last. */
template <int KIND>
void load_four(constant lik_metal_tokens &x, operand from, place p, long k, thread float *out)
{
    if (KIND != LIK_KIND_RESIDUAL && x.quads != 0 && k + 4 <= x.dim) {
        long at = (p.data + k) / 4;
        if (KIND == LIK_KIND_F32) {
            float4 v = ((device const float4 *)from.data)[at];
            out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
        } else if (KIND == LIK_KIND_F16) {
            half4 v = ((device const half4 *)from.data)[at];
            out[0] = float(v.x), out[1] = float(v.y), out[2] = float(v.z), out[3] = float(v.w);
        } else if (KIND == LIK_KIND_BF16) {
            ushort4 v = ((device const ushort4 *)from.data)[at];
            out[0] = from_bf16(v.x), out[1] = from_bf16(v.y), out[2] = from_bf16(v.z);
            out[3] = from_bf16(v.w);
        } else {
            uint v = ((device const uint *)from.data)[at];
            for (uint e = 0; e < 4; e++) {
                uchar byte = uchar(v >> (8 * e));
                out[e] = KIND == LIK_KIND_E4M3   ? from_e4m3(byte)
                         : KIND == LIK_KIND_E5M2 ? from_e5m2(byte)
                                                 : float(as_type<char>(byte));
            }
        }
        return;
    }
    for (int e = 0; e < 4; e++) {
        if (k + e >= x.dim)
            out[e] = 0;
        else if (KIND == LIK_KIND_RESIDUAL)
            out[e] = decoded_at(x, from, p, k + e);
        else
            out[e] = element_at(KIND, from.data, p.data + (k + e) * x.dim_stride);
    }
}

static void load_four_of_any(constant lik_metal_tokens &x, operand from, place p, long k, thread float *out)
{
    switch (x.kind) {
    case LIK_KIND_F32: load_four<LIK_KIND_F32>(x, from, p, k, out); break;
    case LIK_KIND_F16: load_four<LIK_KIND_F16>(x, from, p, k, out); break;
    case LIK_KIND_BF16: load_four<LIK_KIND_BF16>(x, from, p, k, out); break;
    case LIK_KIND_E4M3: load_four<LIK_KIND_E4M3>(x, from, p, k, out); break;
    case LIK_KIND_E5M2: load_four<LIK_KIND_E5M2>(x, from, p, k, out); break;
    default: load_four<LIK_KIND_I8>(x, from, p, k, out); break;
    }
}

/* ---- scale and normalization ---- */

static float scale_at(constant lik_metal_tokens &x, bytes_at scale, long first, long i, long t)
{
    if (x.scale_bytes == 0)
        return 1;
    long at = entry_at(x, x.scale, first, i, t);
    return x.scale_bytes == 2 ? float(((device const half *)scale)[at]) : ((device const float *)scale)[at];
}

/* The norm of a token's stored elements, the same in all lanes of the simdgroup that asks. The
 * squares are summed as they are; where that leaves the range of f32, again with the elements
 * scaled by a power of two. */
static float norm_of(constant lik_metal_tokens &x, operand from, place p, uint lane)
{
    float squares = 0, largest = 0;
    for (long k = lane; k < x.dim; k += LIK_METAL_SIMD) {
        float element = token_element(x, from, p, k);
        squares += element * element;
        largest = max(largest, fabs(element));
    }
    squares = simd_sum(squares);
    largest = simd_max(largest);
    uint exponent = as_type<uint>(largest) >> 23;
    if (is_nan(squares) || largest == 0 || exponent == 255 || (squares > 1e-30f && squares < 1e38f))
        return sqrt(squares);
    uint up = exponent > 253 ? 1 : exponent < 1 ? 253 : 254 - exponent; /* of the factor */
    float factor = as_type<float>(up << 23), inverse = as_type<float>((254 - up) << 23);
    squares = 0;
    for (long k = lane; k < x.dim; k += LIK_METAL_SIMD) {
        float element = token_element(x, from, p, k) * factor;
        squares += element * element;
    }
    return sqrt(simd_sum(squares)) * inverse;
}

/* What a token's stored elements are multiplied by. `clamped`: its norm is below 1e-12. */
static float factor_of(constant lik_metal_tokens &x, operand from, bytes_at scale, place p, long first,
                       long i, long t, uint lane, thread bool &clamped)
{
    float factor = scale_at(x, scale, first, i, t);
    clamped = false;
    if (x.normalize == 0)
        return factor;
    float norm = norm_of(x, from, p, lane) * fabs(factor);
    clamped = norm < 1e-12f;
    return factor / (clamped ? 1e-12f : norm);
}

/* out[row]: the factor of the token of each row of the operand's contiguous array; rows of no
 * token, and of dropped ones, are left alone. A row a simdgroup. */
LIK_KERNEL lik_factors(LIK_WHERE, LIK_BUFFER(constant lik_metal_factors &, args, LIK_AT_ARGS),
                       LIK_BUFFER(device const uchar *, data, LIK_AT_D_DATA),
                       LIK_BUFFER(device const uchar *, offsets, LIK_AT_D_OFFSETS),
                       LIK_BUFFER(device const uchar *, mask, LIK_AT_D_MASK),
                       LIK_BUFFER(device const uchar *, codes, LIK_AT_D_CODES),
                       LIK_BUFFER(device const uchar *, centroids, LIK_AT_D_CENTROIDS),
                       LIK_BUFFER(device const uchar *, buckets, LIK_AT_D_BUCKETS),
                       LIK_BUFFER(device const uchar *, scale, LIK_AT_SCALE),
                       LIK_BUFFER(device float *, out, LIK_AT_OUT))
{
    operand from = {data, offsets, mask, nullptr, codes, centroids, buckets};
    for (long row = long(group) * LIK_METAL_SIMDS + simd; row < args.rows;
         row += args.threadgroups * LIK_METAL_SIMDS) {
        long i = sequence_of_row(args.x, offsets, row);
        sequence s = sequence_at(args.x, offsets, i);
        long t = row - s.first;
        if (!s.valid || t >= s.length || !is_kept(args.x, mask, s.first, i, t))
            continue;
        bool clamped;
        place p = place_at(args.x, codes, s.first, i, t);
        float factor = factor_of(args.x, from, scale, p, s.first, i, t, lane, clamped);
        if (lane == 0)
            out[row] = factor;
    }
}
