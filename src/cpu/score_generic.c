/* The row kernels in plain C, for processors without a level of their own. One row at a time
 * against all lanes of the panel, in loops of fixed length that compilers turn into the
 * baseline's vectors. */
#include "cpu/generic.h"

#include "base/dtype.h"

#include <math.h>
#include <string.h>

/* Those of AVX2, where 4 lanes are half a vector: what is measured there holds for narrower
 * ones. */
enum { UNIT_LANES = 4, VECTOR_LANES = 8, PANEL_LANES = 32, TILE_ROWS = 8 };

/* Folds one row's products into its segment. */
static void fold(const struct lik_rows *job, int64_t lanes, const float *product, int64_t row,
                 int64_t segment)
{
    float *maxima = job->maxima + segment * job->stride;
    int32_t *winners = job->winners ? job->winners + segment * job->stride : NULL;
    float factor = job->row_scale ? job->row_scale[row] : 1.0f;
    for (int64_t l = 0; l < lanes; l++) {
        float x = job->row_scale ? product[l] * factor : product[l];
        if (isnan(maxima[l]) || x <= maxima[l])
            continue;
        maxima[l] = x;
        if (winners)
            winners[l] = job->index[row];
    }
}

static inline __attribute__((always_inline)) void run_float(const struct lik_rows *job, const int shape,
                                                            int32_t dtype)
{
    const int lanes = UNIT_LANES * shape;
    const int64_t stride = lik_panel_stride(&lik_kernels_generic.geometry, shape, 1);
    int64_t segment = 0;
    for (int64_t at = 0; at < job->count; at++) {
        const char *data = (const char *)job->rows[at] + job->skip;
        const float *row = (const float *)(const void *)data;
        if (dtype != LIK_F32) {
            /* kept where a second panel will look for it */
            float *widened = job->widened + at % job->widened_rows * job->widened_stride;
            for (int64_t k = 0; k < job->dim; k++)
                widened[k] = lik_load_f32(data, dtype, k);
            row = widened;
        }
        float acc[PANEL_LANES] = {0};
        if (job->partial && !job->first)
            memcpy(acc, job->partial + at * lanes, (size_t)lanes * sizeof *acc);
        const float *query = job->packed;
        for (int64_t k = 0; k < job->dim; k++, query += stride)
            for (int l = 0; l < lanes; l++)
                acc[l] += row[k] * query[l];
        if (job->partial && !job->last) {
            memcpy(job->partial + at * lanes, acc, (size_t)lanes * sizeof *acc);
            continue;
        }
        while (at >= job->ends[segment])
            segment++;
        fold(job, lanes, acc, at, segment);
    }
}

/* Integer products; group elements of a lane lie together, the query in i16 (group 2) or i8
 * (group 4). */
static inline __attribute__((always_inline)) void run_integer(const struct lik_rows *job, const int shape,
                                                              const int group)
{
    const int lanes = UNIT_LANES * shape;
    int64_t segment = 0;
    for (int64_t at = 0; at < job->count; at++) {
        const int8_t *row = job->rows[at];
        int32_t acc[PANEL_LANES] = {0};
        for (int64_t k = 0; k < job->dim; k++) {
            int64_t from = k / group * lanes * group + k % group;
            for (int l = 0; l < lanes; l++)
                acc[l] += row[k] * (group == 2 ? ((const int16_t *)job->packed)[from + l * group]
                                               : ((const int8_t *)job->packed)[from + l * group]);
        }
        float product[PANEL_LANES];
        for (int l = 0; l < lanes; l++)
            product[l] = (float)acc[l];
        while (at >= job->ends[segment])
            segment++;
        fold(job, lanes, product, at, segment);
    }
}

void lik_generic_look_up(const struct lik_rows *job)
{
    int64_t segment = 0;
    for (int64_t at = 0; at < job->count; at++) {
        while (at >= job->ends[segment])
            segment++;
        fold(job, job->dim, job->rows[at], at, segment);
    }
}

#define SHAPE_KERNELS(shape)                             \
    static void f32_##shape(const struct lik_rows *job)  \
    {                                                    \
        run_float(job, shape, LIK_F32);                  \
    }                                                    \
    static void f16_##shape(const struct lik_rows *job)  \
    {                                                    \
        run_float(job, shape, LIK_F16);                  \
    }                                                    \
    static void bf16_##shape(const struct lik_rows *job) \
    {                                                    \
        run_float(job, shape, LIK_BF16);                 \
    }
#define EVEN_SHAPE_KERNELS(shape)                       \
    static void q16_##shape(const struct lik_rows *job) \
    {                                                   \
        run_integer(job, shape, 2);                     \
    }                                                   \
    static void q7_##shape(const struct lik_rows *job)  \
    {                                                   \
        run_integer(job, shape, 4);                     \
    }

SHAPE_KERNELS(1)
SHAPE_KERNELS(2)
SHAPE_KERNELS(3)
SHAPE_KERNELS(4)
SHAPE_KERNELS(5)
SHAPE_KERNELS(6)
SHAPE_KERNELS(8)
EVEN_SHAPE_KERNELS(2)
EVEN_SHAPE_KERNELS(4)
EVEN_SHAPE_KERNELS(6)
EVEN_SHAPE_KERNELS(8)

static void pack(float *packed, int64_t stride, const float *const *rows, const float *factors, int64_t dim)
{
    for (int64_t k = 0; k < dim; k++)
        for (int l = 0; l < VECTOR_LANES; l++)
            packed[k * stride + l] = rows[l][k] * factors[l];
}

void lik_generic_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                        const uint8_t *bytes, int64_t dim)
{
    const int bits = decoder->bits, ones = (1 << bits) - 1;
    for (int64_t k = 0; k < dim; k++)
        dst[k] = lik_round_f32(lik_load_f32(centroid, decoder->centroids_dtype, k), decoder->round_to);
    for (int64_t k = 0; bits && k < dim; k++) {
        int at = (int)(k % (8 / bits)) * bits, shift = decoder->top_first ? 8 - bits - at : at;
        float weight = decoder->weights[bytes[k / (8 / bits)] >> shift & ones];
        dst[k] = lik_round_f32(dst[k] + weight, decoder->round_to);
    }
}

void lik_generic_decode_i8(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens)
{
    const int bits = decoder->bits, ones = (1 << bits) - 1;
    for (int64_t t = 0; t < tokens->count; t++) {
        const struct lik_cpu_rounded *centroid = tokens->centroids[t];
        int8_t *row = tokens->rows + t * tokens->dim;
        int32_t squares = 0;
        for (int64_t k = 0; k < tokens->dim; k++) {
            int weight = 0;
            if (bits) {
                int at = (int)(k % (8 / bits)) * bits, shift = decoder->top_first ? 8 - bits - at : at;
                weight = centroid->weights[tokens->bytes[t][k / (8 / bits)] >> shift & ones];
            }
            row[k] = (int8_t)(centroid->elements[k] + weight);
            squares += row[k] * row[k];
        }
        tokens->squares[t] = squares;
        tokens->units[t] = centroid->unit;
    }
}

float lik_generic_quantize(int8_t *dst, const float *src, int64_t n, float room)
{
    float most = 0, broken = room - room, limit = room > 0 ? 126 : 127; /* both may be rounded up */
    for (int64_t k = 0; k < n; k++) {
        most = fmaxf(most, fabsf(src[k]));
        broken += src[k] - src[k]; /* NaN, of infinities too */
    }
    most += room;
    if (!(most >= 0x1p-100f) || broken != 0) {
        for (int64_t k = 0; k < n; k++)
            dst[k] = 0;
        return broken != 0 ? NAN : 0;
    }
    float steps = limit / most;
    for (int64_t k = 0; k < n; k++)
        dst[k] = (int8_t)lrintf(src[k] * steps);
    return most / limit;
}

static void widen(float *dst, const void *src, int32_t dtype, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        dst[k] = lik_load_f32(src, dtype, k);
}

void lik_generic_narrow(void *dst, const float *src, int32_t dtype, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        lik_store_f32(dst, dtype, k, src[k]);
}

static float dot(const float *x, const float *y, int64_t n)
{
    float acc[8] = {0};
    int64_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (int l = 0; l < 8; l++)
            acc[l] += x[k + l] * y[k + l];
    for (; k < n; k++)
        acc[k & 7] += x[k] * y[k];
    return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
}

static float sum_squares(const float *x, int64_t n)
{
    return dot(x, x, n);
}

static float sum_squares_of(float scale, const float *x, int64_t n)
{
    float acc[8] = {0};
    for (int64_t k = 0; k < n; k++)
        acc[k & 7] += scale * x[k] * (scale * x[k]);
    return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
}

float lik_generic_sum(const float *x, const float *w, int64_t n)
{
    float total = 0;
    for (int64_t i = 0; i < n; i++)
        total += w ? x[i] * w[i] : x[i];
    return total;
}

static void add_scaled(float *acc, const float *x, float factor, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        acc[k] += x[k] * factor;
}

#define SHAPES(name)      {NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, NULL, name##_8}
#define EVEN_SHAPES(name) {NULL, NULL, name##_2, NULL, name##_4, NULL, name##_6, NULL, name##_8}

const struct lik_cpu_kernels lik_kernels_generic = {
    .level = "generic",
    .geometry = {.unit_lanes = UNIT_LANES,
                 .vector_lanes = VECTOR_LANES,
                 .panel_lanes = PANEL_LANES,
                 .tile_rows = TILE_ROWS,
                 .stream_unit_rows = 24, /* of tiles of 8, 6, 4 and 3 rows */
                 .stream_rows = LIK_STREAM_ROWS,
                 .stream_bytes = 48 << 10,
                 .slice_elements = 224,
                 .slice_unit_elements = 16,
                 .integer_words = 1},
    .f32 = SHAPES(f32),
    .f16 = SHAPES(f16),
    .bf16 = SHAPES(bf16),
    .i8_q16 = EVEN_SHAPES(q16),
    .i8_q7 = EVEN_SHAPES(q7),
    .look_up = lik_generic_look_up,
    .pack = pack,
    .decode = lik_generic_decode,
    .decode_i8 = lik_generic_decode_i8,
    .widen = widen,
    .quantize = lik_generic_quantize,
    .narrow = lik_generic_narrow,
    .sum_squares = sum_squares,
    .sum_squares_of = sum_squares_of,
    .dot = dot,
    .sum = lik_generic_sum,
    .add_scaled = add_scaled,
};
