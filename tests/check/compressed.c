/* Tokens of generated problems that have codes. Compressed ones: codes, residual bytes and
 * tables between guard pages, and what they decode to, written anew from ColBERT's formula.
 * One-hot ones: codes alone. */
#include "check.h"

#include "base/dtype.h"

static const int bit_counts[] = {0, 1, 2, 4, 8};
static const int32_t table_dtypes[] = {LIK_F32, LIK_F16, LIK_BF16};
static const int32_t code_dtypes[] = {LIK_I16, LIK_I32, LIK_I64};

void compressed_random(struct side_spec *side, uint64_t seed)
{
    struct rng rng = {.state = seed ^ 0xc0dec};
    side->compressed = 1;
    side->bits = RNG_PICK(&rng, bit_counts);
    side->colbert = (int)rng_below(&rng, 2);
    side->dtype = RNG_PICK(&rng, table_dtypes);
    side->centroids_dtype = RNG_PICK(&rng, table_dtypes);
    side->weights_dtype = RNG_PICK(&rng, table_dtypes);
    side->codes_dtype = RNG_PICK(&rng, code_dtypes);
    side->scale_f16 = (int)rng_below(&rng, 2);
    if (side->layout == SPREAD || side->layout == TRANSPOSED || side->layout == REVERSED)
        side->layout = GAPS; /* a token's bytes lie together */
    if (side->values == DENORMALS || side->values == LARGE || side->values == WITH_INF)
        side->values = NORMAL; /* the tables' dtypes would not hold them */
}

/* What warpgroups of a GPU scan: of 128 elements, one token behind another, all of them met by
 * the same queries. */
void compressed_even(struct spec *spec)
{
    struct side_spec *q = &spec->q, *d = &spec->d;
    spec->dim = 128;
    spec->pairing = spec->pairing == LIK_LIST ? LIK_LIST : LIK_ALL;
    q->dtype = d->dtype;
    q->scale = UNSCALED;
    d->normalize = d->scale == UNSCALED && d->normalize;
    d->bits = d->bits == 8 ? 1 : d->bits;
    d->layout = d->layout == GAPS || d->layout == PACKED_GAPS ? PACKED_I32 : d->layout;
    d->codes_dtype = d->codes_dtype == LIK_I16 ? LIK_I64 : d->codes_dtype;
    d->codes_together = 1;
}

void one_hot_random(struct spec *spec)
{
    struct rng rng = {.state = spec->seed ^ 0x0e407};
    struct side_spec *q = &spec->q, *d = &spec->d;
    d->one_hot = 1;
    d->codes_dtype = RNG_PICK(&rng, code_dtypes);
    q->dtype = d->dtype = LIK_F32;
    q->scale = d->scale = UNSCALED;
    q->normalize = d->normalize = 0;
    d->values = INTEGERS;     /* 0 and 1 */
    if (rng_below(&rng, 2)) { /* what is read as rows */
        q->layout = TRANSPOSED;
        q->mask = UNMASKED;
    }
}

static struct buffer *take(struct problem *p, size_t bytes, size_t align)
{
    struct buffer *b = &p->inputs[p->input_count++];
    *b = buffer_make(bytes, p->spec.placement, align);
    memset(b->data, 0xff, b->bytes); /* NaN, codes out of range */
    return b;
}

/* Centroids, some further apart than they are wide, and bucket weights in no order. */
static void make_codec(struct problem *p, const struct side_spec *side, int64_t dim, struct rng *rng)
{
    struct lik_codec *codec = &p->codec;
    *codec = (struct lik_codec){.struct_size = sizeof *codec, .bits = side->bits};
    codec->bit_order = side->colbert ? LIK_BITS_COLBERT : LIK_BITS_LOW_FIRST;
    codec->centroid_count = 1 + rng_below(rng, 40);
    codec->centroids_dtype = side->centroids_dtype;
    codec->weights_dtype = side->weights_dtype;
    int64_t stride = dim + rng_below(rng, 2) * rng_below(rng, 9);
    codec->centroid_stride = stride > dim ? stride : 0;
    size_t size = lik_dtype_bytes(codec->centroids_dtype);
    struct buffer *b = take(p, (size_t)((codec->centroid_count - 1) * stride + dim) * size, size);
    struct lik_tokens rows = {.dtype = codec->centroids_dtype, .dim = dim, .dim_stride = 1};
    struct side_spec how = *side;
    how.dtype = codec->centroids_dtype;
    for (int64_t c = 0; c < codec->centroid_count; c++)
        problem_fill(rng, &how, &rows, b->data, c * stride);
    codec->centroids = b->data;
    if (!side->bits)
        return;
    size = lik_dtype_bytes(codec->weights_dtype);
    b = take(p, size << side->bits, size);
    int exact = side->values == INTEGERS || side->values == TIES || side->values == ZEROS;
    for (int64_t w = 0; w < 1 << side->bits; w++)
        lik_store_f32(b->data, codec->weights_dtype, w,
                      exact ? (float)(side->values == ZEROS ? 0 : rng_below(rng, 3) - 1)
                            : (float)(rng_normal(rng) / 4 / sqrt((double)dim)));
    codec->weights = b->data;
}

int64_t compressed_bytes(const struct side_spec *side, int64_t dim)
{
    return (dim * side->bits + 7) / 8;
}

void compressed_make(struct problem *p, struct lik_tokens *x, const struct side_spec *side, struct rng *rng)
{
    int64_t inner = compressed_bytes(side, x->dim);
    make_codec(p, side, x->dim, rng);
    x->storage = LIK_RESIDUAL;
    x->codec = &p->codec;
    x->codes_dtype = side->codes_dtype;
    x->codes_strides = problem_strides(rng, x);
    if (side->codes_together)
        x->codes_strides = (struct lik_strides){x->group_size * x->len_max, x->len_max, 1};
    size_t size = lik_dtype_bytes(x->codes_dtype);
    unsigned char *codes = problem_reserve(p, x, x->codes_strides, 1, 0, size, 0xff);
    unsigned char *bytes = problem_reserve(p, x, x->strides, inner, 1, 1, 0xff);
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++) {
            if (x->mask && !x->mask[problem_place(x, x->mask_strides, i, t)])
                continue;
            int64_t code = rng_below(rng, p->codec.centroid_count);
            memcpy(codes + problem_place(x, x->codes_strides, i, t) * (int64_t)size, &code, size);
            unsigned char *token = bytes + problem_place(x, x->strides, i, t);
            for (int64_t b = 0; b < inner; b++)
                token[b] = (unsigned char)rng_next(rng);
        }
    x->codes = codes;
    x->data = side->bits ? bytes : NULL;
}

void one_hot_make(struct problem *p, struct lik_tokens *x, const struct side_spec *side, struct rng *rng)
{
    x->storage = LIK_ONE_HOT;
    x->codes_dtype = side->codes_dtype;
    x->codes_strides = problem_strides(rng, x);
    x->strides = (struct lik_strides){INT64_MAX, INT64_MIN, INT64_MAX}; /* of no data */
    x->dim_stride = INT64_MIN;
    size_t size = lik_dtype_bytes(x->codes_dtype);
    int64_t codes = x->codes_dtype == LIK_I16 && x->dim > 1 << 16 ? 1 << 16 : x->dim;
    unsigned char *data = problem_reserve(p, x, x->codes_strides, 1, 0, size, 0xff);
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++) {
            int64_t code = rng_below(rng, 5) ? rng_below(rng, codes) : codes - 1;
            if (!x->mask || x->mask[problem_place(x, x->mask_strides, i, t)])
                memcpy(data + problem_place(x, x->codes_strides, i, t) * (int64_t)size, &code, size);
        }
    x->codes = data;
}

int64_t compressed_code(const struct lik_tokens *x, int64_t i, int64_t t)
{
    int64_t code = 0;
    size_t size = lik_dtype_bytes(x->codes_dtype);
    memcpy(&code, (const unsigned char *)x->codes + problem_place(x, x->codes_strides, i, t) * (int64_t)size,
           size);
    return code;
}

/* Bit `n` of a stream that is packed from the top of each byte, as numpy.packbits does. */
static int stream_bit(const unsigned char *bytes, int64_t n)
{
    return bytes[n / 8] >> (7 - n % 8) & 1;
}

/* The bucket of element k. ColBERT expands each number lowest bit first and packs the stream of
 * bits from the top; the other order is that of a byte's own digits. */
int compressed_bucket(const struct lik_codec *codec, const unsigned char *token, int64_t k)
{
    int bucket = 0;
    for (int b = 0; b < codec->bits; b++) {
        int64_t n = k * codec->bits + b;
        int bit = codec->bit_order == LIK_BITS_COLBERT ? stream_bit(token, n) : token[n / 8] >> n % 8 & 1;
        bucket |= bit << b;
    }
    return bucket;
}

static float rounded(float value, int32_t dtype)
{
    uint16_t half = dtype == LIK_F16 ? lik_f16_of_f32(value) : lik_bf16_of_f32(value);
    return dtype == LIK_F32 ? value : dtype == LIK_F16 ? lik_f16_to_f32(half) : lik_bf16_to_f32(half);
}

double compressed_rounding(const struct lik_tokens *x, int64_t i, int64_t t, const double *element)
{
    const struct lik_codec *codec = x->codec;
    int64_t stride = codec->centroid_stride ? codec->centroid_stride : x->dim;
    double token = 0, centroid = 0, weight = 0;
    for (int64_t k = 0; k < x->dim; k++) {
        int64_t at = compressed_code(x, i, t) * stride + k;
        centroid = fmax(centroid, fabs((double)lik_load_f32(codec->centroids, codec->centroids_dtype, at)));
        token = fmax(token, fabs(element[k]));
    }
    if (codec->bits == 8)
        return token / 254;
    for (int64_t n = 0; codec->bits && n < 1 << codec->bits; n++)
        weight = fmax(weight, fabs((double)lik_load_f32(codec->weights, codec->weights_dtype, n)));
    double narrow = x->dtype == LIK_F32 ? 0 : x->dtype == LIK_F16 ? 0x1p-10 : 0x1p-7;
    return (centroid + weight) * (1.0 / 126 + narrow);
}

double compressed_element(const struct lik_tokens *x, int64_t i, int64_t t, int64_t k)
{
    const struct lik_codec *codec = x->codec;
    int64_t stride = codec->centroid_stride ? codec->centroid_stride : x->dim;
    float centroid =
        lik_load_f32(codec->centroids, codec->centroids_dtype, compressed_code(x, i, t) * stride + k);
    centroid = rounded(centroid, x->dtype);
    if (!codec->bits)
        return (double)centroid;
    const unsigned char *token = (const unsigned char *)x->data + problem_place(x, x->strides, i, t);
    float weight = lik_load_f32(codec->weights, codec->weights_dtype, compressed_bucket(codec, token, k));
    return (double)rounded(centroid + rounded(weight, x->dtype), x->dtype);
}
