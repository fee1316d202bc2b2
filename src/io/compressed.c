/* Compressed tokens in a .safetensors file; see compressed.h.
 *
 * What a kernel would index with is copied before it is checked, since a mapped file can change
 * under us: the codes. What is only a number may be mapped. */
#include "io/compressed.h"

#include "base/size.h"
#include "io/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT  "lik-compressed"
#define VERSION 1

/* What each step of a read needs. */
struct reading {
    struct lik_compressed *x;
    const struct lik_safetensors *file;
    const char *path;
    struct lik_io_error *error;
};

#define FAIL(r, status, ...) lik_io_fail((r)->error, status, __VA_ARGS__)

int lik_compressed_recognize(const struct lik_safetensors *file)
{
    struct lik_bytes value = {0};
    const struct lik_array *codes = lik_safetensors_find(file, "codes");
    int says = lik_safetensors_metadata(file, "format", &value) > 0 && !strcmp(value.data, FORMAT);
    lik_bytes_free(&value);
    /* a sequence that is called so has two dimensions */
    return says || (codes && codes->rank == 1 && lik_safetensors_find(file, "centroids"));
}

/* ---- metadata ---- */

static int read_value(const struct reading *r, const char *key, struct lik_bytes *value)
{
    int found = lik_safetensors_metadata(r->file, key, value);
    if (found < 0)
        return lik_io_no_memory(r->error, r->path, "the metadata", r->file->metadata.size);
    if (!found)
        return FAIL(r, LIK_IO_UNREADABLE,
                    "%s holds compressed tokens and no metadata '%s'\n    docs/formats.md lists what they "
                    "need.",
                    r->path, key);
    return 0;
}

/* A value that is one of two words: *out is 1 if it is the second. */
static int read_word(const struct reading *r, const char *key, const char *first, const char *second,
                     int *out, struct lik_bytes *value)
{
    int status = read_value(r, key, value);
    if (status)
        return status;
    *out = !strcmp(value->data, second);
    if (*out || !strcmp(value->data, first))
        return 0;
    return FAIL(r, LIK_IO_INCOMPATIBLE, "%s: the metadata '%s' are '%.100s', must be %s or %s", r->path, key,
                value->data, first, second);
}

static int read_whole(const struct reading *r, const char *key, int64_t *out, struct lik_bytes *value)
{
    int status = read_value(r, key, value);
    if (!status && lik_text_whole(value->data, value->size, out))
        status = FAIL(r, LIK_IO_UNREADABLE, "%s: the metadata '%s' are '%.100s', must be a whole number",
                      r->path, key, value->data);
    return status;
}

static int read_metadata(const struct reading *r)
{
    struct lik_bytes value = {0};
    struct lik_compressed *x = r->x;
    int64_t version = 0, bits = 0;
    int order = 0, status = read_value(r, "format", &value);
    if (!status && strcmp(value.data, FORMAT))
        status = FAIL(r, LIK_IO_INCOMPATIBLE, "%s: the metadata 'format' are '%.100s', must be %s", r->path,
                      value.data, FORMAT);
    if (!status)
        status = read_whole(r, "version", &version, &value);
    if (!status && version != VERSION)
        status = FAIL(r, LIK_IO_INCOMPATIBLE, "%s holds compressed tokens of version %lld, %d can be read",
                      r->path, (long long)version, VERSION);
    if (!status)
        status = read_whole(r, "nbits", &bits, &value);
    if (!status && bits != 1 && bits != 2 && bits != 4 && bits != 8)
        status = FAIL(r, LIK_IO_INCOMPATIBLE, "%s: the metadata 'nbits' are %lld, must be 1, 2, 4 or 8",
                      r->path, (long long)bits);
    if (!status)
        status = read_word(r, "bit_order", "low-first", "colbert", &order, &value);
    if (!status)
        status = read_whole(r, "dim", &x->dim, &value);
    if (!status)
        status = read_word(r, "normalize", "false", "true", &x->normalize, &value);
    x->codec = (struct lik_codec){.struct_size = sizeof x->codec, .bits = (int32_t)bits};
    x->codec.bit_order = order ? LIK_BITS_COLBERT : LIK_BITS_LOW_FIRST;
    lik_bytes_free(&value);
    return status;
}

/* ---- tensors ---- */

#define ANY (-1)

/* A tensor of this rank, these extents (ANY: whatever it has) and one of `count` types. */
static int find_tensor(const struct reading *r, const char *name, const int *types, int count, int rank,
                       int64_t rows, int64_t columns, const struct lik_array **out)
{
    const struct lik_array *array = lik_safetensors_find(r->file, name);
    int fits = 0, at = 0;
    char text[160], types_text[100], wanted[160];
    if (!array)
        return FAIL(r, LIK_IO_UNREADABLE, "%s holds compressed tokens and no tensor '%s'", r->path, name);
    *out = array;
    for (int i = 0; i < count; i++) {
        fits |= array->type == types[i];
        at += snprintf(types_text + at, sizeof types_text - (size_t)at, "%s%s", i ? " or " : "",
                       lik_array_type_name(types[i]));
    }
    if (fits && array->rank == rank && (rows == ANY || array->shape[0] == rows) &&
        (rank < 2 || columns == ANY || array->shape[1] == columns))
        return 0;
    struct lik_array shape = {.rank = rank, .shape = {rows, columns}};
    if (rows == ANY || (rank > 1 && columns == ANY))
        snprintf(wanted, sizeof wanted, "%d dimension%s", rank, rank > 1 ? "s" : "");
    else
        lik_array_shape_text(&shape, wanted);
    return FAIL(r, LIK_IO_INCOMPATIBLE, "%s: '%s' is %s %s, must be %s %s", r->path, name,
                lik_array_shape_text(array, text), lik_array_type_name(array->type), wanted, types_text);
}

static int check_finite(const struct reading *r, const struct lik_array *array)
{
    for (int64_t i = 0; i < array->elements; i++) {
        double value = lik_array_number(array, i);
        if (!isfinite(value))
            return FAIL(r, LIK_IO_UNREADABLE, "%s: '%s' holds %g at position %lld", r->path, array->name,
                        value, (long long)i);
    }
    return 0;
}

/* The elements as they are, in memory that is aligned and ours. */
static int copy(const struct reading *r, const struct lik_array *array, void **out)
{
    *out = malloc((size_t)lik_max_i64(array->bytes, 1));
    if (!*out)
        return lik_io_no_memory(r->error, r->path, array->name, array->bytes);
    memcpy(*out, array->data, (size_t)array->bytes);
    return 0;
}

static int read_floats(const struct reading *r, const char *name, int64_t count, float **out)
{
    static const int types[] = {LIK_ARRAY_F32, LIK_ARRAY_F16, LIK_ARRAY_BF16};
    const struct lik_array *array;
    int status = find_tensor(r, name, types, 3, 1, count, ANY, &array);
    if (!status)
        status = check_finite(r, array);
    if (status)
        return status;
    *out = malloc((size_t)lik_max_i64(count, 1) * sizeof **out);
    if (!*out)
        return lik_io_no_memory(r->error, r->path, name, count * 4);
    for (int64_t i = 0; i < count; i++)
        (*out)[i] = (float)lik_array_number(array, i);
    return 0;
}

static int read_codec(const struct reading *r)
{
    static const int types[] = {LIK_ARRAY_F32, LIK_ARRAY_F16, LIK_ARRAY_BF16};
    struct lik_compressed *x = r->x;
    const struct lik_array *centroids;
    const int buckets = 1 << x->codec.bits;
    int status = find_tensor(r, "centroids", types, 3, 2, ANY, ANY, &centroids);
    if (status)
        return status;
    if (centroids->shape[1] != x->dim || x->dim < 1)
        return FAIL(r, LIK_IO_UNREADABLE,
                    "%s: 'centroids' have %lld dimensions, the metadata 'dim' are %lld, of at least 1",
                    r->path, (long long)centroids->shape[1], (long long)x->dim);
    if (centroids->shape[0] > INT32_MAX)
        return FAIL(r, LIK_IO_INCOMPATIBLE, "%s has %lld centroids, at most %d can be used", r->path,
                    (long long)centroids->shape[0], INT32_MAX);
    status = check_finite(r, centroids);
    x->codec.centroids = centroids->data;
    x->codec.centroids_dtype = lik_array_type_dtype(centroids->type);
    x->codec.centroid_count = centroids->shape[0];
    if (!status && (uintptr_t)centroids->data % (uintptr_t)lik_array_type_bytes(centroids->type)) {
        status = copy(r, centroids, &x->centroids);
        x->codec.centroids = x->centroids;
    }
    if (!status)
        status = read_floats(r, "bucket_weights", buckets, &x->weights);
    if (!status)
        status = read_floats(r, "bucket_cutoffs", buckets - 1, &x->cutoffs);
    x->codec.weights = x->weights;
    x->codec.weights_dtype = LIK_F32;
    for (int i = 1; i < buckets - 1 && !status; i++)
        if (x->cutoffs[i] < x->cutoffs[i - 1])
            status = FAIL(r, LIK_IO_UNREADABLE, "%s: 'bucket_cutoffs' decrease from %g to %g at position %d",
                          r->path, (double)x->cutoffs[i - 1], (double)x->cutoffs[i], i);
    return status;
}

static int read_codes(const struct reading *r)
{
    static const int types[] = {LIK_ARRAY_U16, LIK_ARRAY_I32, LIK_ARRAY_I64};
    struct lik_compressed *x = r->x;
    const struct lik_array *found;
    int status = find_tensor(r, "codes", types, 3, 1, ANY, ANY, &found);
    if (!status)
        status = copy(r, found, &x->codes);
    if (status)
        return status;
    struct lik_array codes = *found;
    codes.data = x->codes;
    x->rows = codes.elements;
    x->codes_dtype = codes.type == LIK_ARRAY_U16 ? LIK_I16 : codes.type == LIK_ARRAY_I32 ? LIK_I32 : LIK_I64;
    for (int64_t i = 0, code; i < codes.elements; i++)
        if (lik_array_integer(&codes, i, &code) || code < 0 || code >= x->codec.centroid_count)
            return FAIL(r, LIK_IO_UNREADABLE,
                        "%s: 'codes' hold %lld at position %lld, there are %lld centroids", r->path,
                        (long long)code, (long long)i, (long long)x->codec.centroid_count);
    return 0;
}

static int read_inv_norms(const struct reading *r)
{
    static const int types[] = {LIK_ARRAY_F16, LIK_ARRAY_F32};
    struct lik_compressed *x = r->x;
    const struct lik_array *found;
    if (!lik_safetensors_find(r->file, "inv_norms"))
        return 0;
    if (!x->normalize)
        return FAIL(r, LIK_IO_UNREADABLE,
                    "%s has 'inv_norms', and its metadata 'normalize' are false: they belong to tokens that "
                    "count as unit vectors",
                    r->path);
    int status = find_tensor(r, "inv_norms", types, 2, 1, x->rows, ANY, &found);
    if (!status)
        status = check_finite(r, found);
    if (status)
        return status;
    x->inv_norms_dtype = found->type == LIK_ARRAY_F16 ? LIK_F16 : LIK_F32;
    return copy(r, found, &x->inv_norms);
}

int lik_compressed_read(struct lik_compressed *x, const struct lik_safetensors *file, const char *path,
                        struct lik_io_error *error)
{
    static const int types[] = {LIK_ARRAY_U8};
    const struct reading r = {.x = x, .file = file, .path = path, .error = error};
    const struct lik_array *residuals;
    *x = (struct lik_compressed){0};
    int status = read_metadata(&r);
    if (!status)
        status = read_codec(&r);
    if (!status)
        status = read_codes(&r);
    if (status)
        return status;
    x->residual_bytes = lik_divide_up(x->dim, 8 / x->codec.bits);
    status = find_tensor(&r, "residuals", types, 1, 2, x->rows, x->residual_bytes, &residuals);
    if (status)
        return status;
    x->residuals = residuals->data;
    return read_inv_norms(&r);
}

void lik_compressed_free(struct lik_compressed *x)
{
    free(x->codes);
    free(x->inv_norms);
    free(x->cutoffs);
    free(x->weights);
    free(x->centroids);
    *x = (struct lik_compressed){0};
}

/* ---- writing ---- */

int32_t lik_compressed_codes_dtype(int64_t centroids)
{
    return centroids <= UINT16_MAX + 1 ? LIK_I16 : LIK_I32;
}

int64_t lik_compressed_token_bytes(const struct lik_compressed_shape *shape)
{
    return lik_divide_up(shape->dim, 8 / shape->bits) +
           (int64_t)lik_dtype_bytes(lik_compressed_codes_dtype(shape->centroids)) +
           (shape->has_inv_norms ? 2 : 0);
}

struct writing {
    struct lik_bytes *header;
    int64_t at; /* bytes of data so far */
    int failed;
};

static void put(struct writing *w, const char *text)
{
    w->failed |= lik_bytes_append(w->header, text, (int64_t)strlen(text));
}

/* A tensor of `rows` times `columns` (0: it has one dimension) elements. */
static void put_tensor(struct writing *w, const char *name, const char *type, int64_t element_bytes,
                       int64_t rows, int64_t columns)
{
    char text[256], second[24] = "";
    int64_t bytes, begin = w->at;
    if (columns)
        snprintf(second, sizeof second, ",%lld", (long long)columns);
    w->failed |= lik_mul_i64(rows, columns ? columns : 1, &bytes) ||
                 lik_mul_i64(bytes, element_bytes, &bytes) || lik_add_i64(begin, bytes, &w->at);
    snprintf(text, sizeof text, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld%s],\"data_offsets\":[%lld,%lld]}",
             name, type, (long long)rows, second, (long long)begin, (long long)w->at);
    put(w, text);
}

int lik_compressed_header(const struct lik_compressed_shape *shape, struct lik_bytes *header,
                          int64_t *data_bytes)
{
    struct writing w = {.header = header};
    const int64_t buckets = (int64_t)1 << shape->bits;
    char metadata[256];
    snprintf(metadata, sizeof metadata,
             "{\"__metadata__\":{\"format\":\"%s\",\"version\":\"%d\",\"nbits\":\"%d\",\"bit_order\":"
             "\"colbert\",\"dim\":\"%lld\",\"normalize\":\"%s\"}",
             FORMAT, VERSION, shape->bits, (long long)shape->dim, shape->normalize ? "true" : "false");
    header->size = 0;
    w.failed |= lik_bytes_append(header, "\0\0\0\0\0\0\0", 8); /* its length, below */
    put(&w, metadata);
    put_tensor(&w, "lengths", "I64", 8, shape->sequences, 0);
    put_tensor(&w, "centroids", "F16", 2, shape->centroids, shape->dim);
    put_tensor(&w, "bucket_weights", "F32", 4, buckets, 0);
    put_tensor(&w, "bucket_cutoffs", "F32", 4, buckets - 1, 0);
    put_tensor(&w, "residuals", "U8", 1, shape->rows, lik_divide_up(shape->dim, 8 / shape->bits));
    if (lik_compressed_codes_dtype(shape->centroids) == LIK_I16)
        put_tensor(&w, "codes", "U16", 2, shape->rows, 0);
    else
        put_tensor(&w, "codes", "I32", 4, shape->rows, 0);
    if (shape->has_inv_norms)
        put_tensor(&w, "inv_norms", "F16", 2, shape->rows, 0);
    if (shape->has_mask)
        put_tensor(&w, "mask", "BOOL", 1, shape->rows, 0);
    if (shape->documents_bytes)
        put_tensor(&w, "documents", "U8", 1, shape->documents_bytes, 0);
    put(&w, "}");
    while (!w.failed && header->size % 64) /* the data begin where a vector register may */
        put(&w, " ");
    if (w.failed)
        return -1;
    for (int i = 0; i < 8; i++)
        header->data[i] = (char)((header->size - 8) >> 8 * i & 255);
    *data_bytes = w.at;
    return 0;
}
