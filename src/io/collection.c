/* Opening a collection: recognize the file, find vectors and lengths, check that they fit, make
 * the view. */
#include "io/collection.h"

#include "base/size.h"
#include "io/recognize.h"
#include "io/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EMPTY_MAX \
    (1 << 24) /* sequences that take no room in the file: a forged count must not make endless work */

/* What a read of one collection needs at every step. */
struct opening {
    struct lik_collection *c;
    const struct lik_collection_options *options;
    struct lik_io_error *error;
    const char *noun;         /* "query" or "document" */
    struct lik_array vectors; /* rank 2 or 3 */
    int64_t *lengths;         /* [count], checked against no total yet; NULL = none were given */
    int64_t lengths_count;
    char *lengths_path; /* where they came from, for messages */
};

#define FAIL(o, status, ...) lik_io_fail((o)->error, status, __VA_ARGS__)

/* ---- lengths ---- */

/* Lengths as text: a JSON array, or whole numbers between white space. */
static int lengths_of_text(struct opening *o, const struct lik_map *map, const char *path)
{
    struct lik_bytes list = {0};
    int bracket, more = 0, status = 0;
    int64_t mark = lik_text_begin(map, path, o->error);
    if (mark < 0)
        return (int)mark;
    struct lik_json json = lik_json_open((const char *)map->data + mark, map->size - mark);
    if (lik_bytes_reserve(&list, 8))
        return lik_io_no_memory(o->error, path, "the lengths", 8);
    bracket = map->size > mark && lik_json_peek(&json) == '[' && !lik_json_enter(&json, '[');
    for (;;) {
        int64_t value;
        if (bracket)
            more = lik_json_next(&json, '[');
        else
            more = lik_json_finish(&json) ? (json.error = NULL, 1) : 0;
        if (more <= 0 || lik_json_size(&json, &value))
            break;
        if (lik_bytes_append(&list, &value, sizeof value)) {
            status = lik_io_no_memory(o->error, path, "the lengths", list.size);
            break;
        }
    }
    if (!status && (json.error || lik_json_finish(&json)))
        status = FAIL(o, lik_json_status(&json),
                      "%s, byte %lld: %s\n    A file of lengths is an integer .npy, a JSON array, or whole "
                      "numbers between white space.",
                      path, (long long)(json.at - json.begin + mark), json.error);
    if (status) {
        lik_bytes_free(&list);
        return status;
    }
    o->lengths = (void *)list.data;
    o->lengths_count = list.size / 8;
    return 0;
}

static int lengths_of_file(struct opening *o, const char *path)
{
    struct lik_map map;
    struct lik_array array;
    int status = lik_map_open(path, &map, o->error);
    if (status)
        return status;
    if (lik_npy_recognize(&map) || lik_path_ends(path, ".npy")) {
        status = lik_npy_read(&map, path, &array, o->error);
        if (!status)
            status = lik_array_integers(&array, path, &o->lengths, o->error);
        o->lengths_count = array.elements;
    } else {
        status = lengths_of_text(o, &map, path);
    }
    lik_map_close(&map);
    if (status)
        return status;
    o->lengths_path = strdup(path);
    return o->lengths_path ? 0 : lik_io_no_memory(o->error, path, "its name", (int64_t)strlen(path));
}

int lik_collection_beside(const char *path, int which, char **name, struct lik_io_error *error)
{
    const char *suffix = which ? "_len.npy" : ".doclens.npy";
    *name = NULL;
    if (!lik_path_ends(path, ".npy"))
        return 0;
    size_t stem = strlen(path) - 4, size = stem + strlen(suffix) + 1;
    *name = malloc(size);
    if (!*name)
        return lik_io_no_memory(error, path, "a file name", (int64_t)size);
    snprintf(*name, size, "%.*s%s", (int)stem, path, suffix);
    return 0;
}

/* Lengths beside x.npy, in x.doclens.npy or x_len.npy. */
static int lengths_beside(struct opening *o)
{
    const char *path = o->c->path;
    char *found = NULL;
    int status = 0;
    for (int i = 0; i < 2 && !status; i++) {
        char *name;
        status = lik_collection_beside(path, i, &name, o->error);
        if (!name)
            break;
        int there = lik_file_exists(name, o->error);
        if (there < 0)
            status = there;
        else if (there && found)
            status = FAIL(o, LIK_IO_UNREADABLE,
                          "both %s and %s exist\n    Say which one holds the lengths: --%slens FILE", found,
                          name, o->options->queries ? "query-" : "");
        if (there > 0 && !found)
            found = name;
        else
            free(name);
    }
    if (found && !status)
        status = lengths_of_file(o, found);
    free(found);
    return status;
}

/* ---- the view ---- */

/* Checks that the lengths fit and makes offsets (rank 2) or, if some sequence is shorter than
 * the rest, a mask (rank 3). */
static int apply_lengths(struct opening *o)
{
    struct lik_collection *c = o->c;
    const char *from = o->lengths_path ? o->lengths_path : c->path;
    int64_t n = o->lengths_count, sum = 0, longest = 0;
    if (o->vectors.rank == 3) {
        int64_t room = o->vectors.shape[1];
        if (n != o->vectors.shape[0])
            return FAIL(o, LIK_IO_UNREADABLE, "%s has %lld lengths, %s has %lld sequences", from,
                        (long long)n, c->path, (long long)o->vectors.shape[0]);
        for (int64_t i = 0; i < n; i++)
            if (o->lengths[i] > room)
                return FAIL(o, LIK_IO_UNREADABLE, "%s: %s %lld has length %lld, %s has room for %lld tokens",
                            from, o->noun, (long long)i, (long long)o->lengths[i], c->path, (long long)room);
        int status = lik_collection_own_mask(c, o->error);
        for (int64_t i = 0; i < n && !status; i++)
            memset(c->mask + i * room + o->lengths[i], 0, (size_t)(room - o->lengths[i]));
        return status;
    }
    c->offsets = malloc((size_t)(n + 1) * sizeof *c->offsets);
    if (!c->offsets)
        return lik_io_no_memory(o->error, c->path, "the offsets", (n + 1) * 8);
    c->offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        if (lik_add_i64(sum, o->lengths[i], &sum))
            return FAIL(o, LIK_IO_UNREADABLE, "%s: the lengths up to %s %lld exceed 2^63", from, o->noun,
                        (long long)i);
        c->offsets[i + 1] = sum;
        longest = lik_max_i64(longest, o->lengths[i]);
    }
    if (sum != o->vectors.shape[0])
        return FAIL(o, LIK_IO_UNREADABLE,
                    "%s: the lengths of %lld sequences add up to %lld, %s has %lld token rows", from,
                    (long long)n, (long long)sum, c->path, (long long)o->vectors.shape[0]);
    c->tokens = lik_tokens_packed(c->tokens.data, c->tokens.dtype, n, longest, sum, c->tokens.dim, c->offsets,
                                  LIK_I64);
    return 0;
}

/* Data aligned to its element: as it lies in the file if it can be, else a copy; float64
 * becomes f32. */
static int take_data(struct opening *o, int32_t *dtype)
{
    struct lik_collection *c = o->c;
    const struct lik_array *v = &o->vectors;
    *dtype = lik_array_type_dtype(v->type);
    int64_t element = lik_array_type_bytes(v->type);
    c->tokens.data = v->data;
    if (v->type == LIK_ARRAY_F64) {
        float *copy = malloc((size_t)lik_max_i64(v->elements, 1) * sizeof *copy);
        if (!copy)
            return lik_io_no_memory(o->error, c->path, "float64 vectors converted to f32", v->elements * 4);
        for (int64_t i = 0; i < v->elements; i++)
            copy[i] = (float)lik_array_number(v, i);
        c->data = copy;
        c->tokens.data = copy;
        c->converted = 1;
        *dtype = LIK_F32;
    } else if (*dtype == 0) {
        return FAIL(o, LIK_IO_INCOMPATIBLE,
                    "%s%s%s: token vectors cannot be %s\n    They are float32, float16, bfloat16, int8 or "
                    "float8 (float64 is converted).",
                    c->path, v->name ? ", " : "", v->name ? v->name : "", lik_array_type_name(v->type));
    } else if ((uintptr_t)v->data % (uintptr_t)element) {
        c->data = malloc((size_t)lik_max_i64(v->bytes, 1));
        if (!c->data)
            return lik_io_no_memory(o->error, c->path, "vectors that are misaligned in the file", v->bytes);
        memcpy(c->data, v->data, (size_t)v->bytes);
        c->tokens.data = c->data;
    }
    return 0;
}

static int make_view(struct opening *o)
{
    struct lik_collection *c = o->c;
    const struct lik_array *v = &o->vectors;
    char text[160];
    int32_t dtype;
    if (v->rank != 2 && v->rank != 3)
        return FAIL(o, LIK_IO_INCOMPATIBLE,
                    "%s%s%s has shape %s\n    [n, tokens, dim], or [all tokens, dim] with lengths, can "
                    "be read.",
                    c->path, v->name ? ", " : "", v->name ? v->name : "", lik_array_shape_text(v, text));
    int64_t dim = v->shape[v->rank - 1];
    if (dim < 1)
        return FAIL(o, LIK_IO_INCOMPATIBLE, "%s: its vectors have 0 dimensions (shape %s)", c->path,
                    lik_array_shape_text(v, text));
    int status = take_data(o, &dtype);
    if (status)
        return status;
    const void *data = c->tokens.data;
    if (v->rank == 3) {
        c->rows = v->elements / dim;
        if (v->shape[1] == 0 && v->shape[0] > EMPTY_MAX)
            return FAIL(o, LIK_IO_UNREADABLE,
                        "%s: shape %s announces %lld sequences without a token, at most %d are allowed",
                        c->path, lik_array_shape_text(v, text), (long long)v->shape[0], EMPTY_MAX);
        c->tokens = lik_tokens_padded(data, dtype, v->shape[0], v->shape[1], dim);
    } else {
        c->rows = v->shape[0];
        c->tokens = lik_tokens_packed(data, dtype, 0, 0, c->rows, dim, NULL, LIK_I64);
        if (!o->lengths)
            return FAIL(
                o, LIK_IO_INCOMPATIBLE,
                "%s has shape %s and no lengths that say where a %s ends\n    Give them: --%slens FILE%s; "
                "or save one sequence as [1, tokens, dim].",
                c->path, lik_array_shape_text(v, text), o->noun, o->options->queries ? "query-" : "",
                v->name ? ", or a tensor 'lengths'" : ", or x.doclens.npy beside x.npy");
    }
    return o->lengths ? apply_lengths(o) : 0;
}

int64_t lik_collection_length(const struct lik_collection *c, int64_t i)
{
    return c->offsets ? c->offsets[i + 1] - c->offsets[i] : c->tokens.len_max;
}

int64_t lik_collection_row(const struct lik_collection *c, int64_t i, int64_t t)
{
    return (c->offsets ? c->offsets[i] : i * c->tokens.len_max) + t;
}

int lik_collection_keeps(const struct lik_collection *c, int64_t i, int64_t t)
{
    return !c->mask || c->mask[lik_collection_row(c, i, t)];
}

int lik_collection_own_mask(struct lik_collection *c, struct lik_io_error *error)
{
    if (c->mask)
        return 0;
    c->mask = malloc((size_t)lik_max_i64(c->rows, 1));
    if (!c->mask)
        return lik_io_no_memory(error, c->path, "a mask of the tokens", c->rows);
    memset(c->mask, 1, (size_t)c->rows);
    c->tokens.mask = c->mask;
    c->tokens.mask_strides = (struct lik_strides){.sequence = c->tokens.len_max, .token = 1};
    return 0;
}

/* ---- .safetensors ---- */

/* A per-token (or, if `single`, one-element) array of numbers as f32. */
static int floats_of(struct opening *o, const struct lik_array *array, int single, float **out,
                     int *is_single)
{
    struct lik_collection *c = o->c;
    char text[160], rows[160];
    *is_single = single && array->elements == 1 && array->rank < 2;
    int fits = *is_single || (array->rank == 1 && array->shape[0] == c->rows) ||
               (array->rank == 2 && o->vectors.rank == 3 && array->shape[0] == o->vectors.shape[0] &&
                array->shape[1] == o->vectors.shape[1]);
    if (!fits || array->type > LIK_ARRAY_BF16)
        return FAIL(o, LIK_IO_INCOMPATIBLE,
                    "%s: '%s' is %s %s, one floating-point number for each of the %s token vectors is needed",
                    c->path, array->name, lik_array_shape_text(array, text), lik_array_type_name(array->type),
                    lik_array_shape_text(&(struct lik_array){.rank = 1, .shape = {c->rows}}, rows));
    *out = malloc((size_t)lik_max_i64(array->elements, 1) * sizeof **out);
    if (!*out)
        return lik_io_no_memory(o->error, c->path, array->name, array->elements * 4);
    for (int64_t i = 0; i < array->elements; i++) {
        (*out)[i] = (float)lik_array_number(array, i);
        if (!isfinite((*out)[i]))
            return FAIL(o, LIK_IO_UNREADABLE, "%s: '%s' holds %g at position %lld", c->path, array->name,
                        (double)(*out)[i], (long long)i);
    }
    return 0;
}

static int take_mask(struct opening *o, const struct lik_array *array)
{
    struct lik_collection *c = o->c;
    char text[160];
    if (lik_array_type_bytes(array->type) != 1 || array->type == LIK_ARRAY_E4M3 ||
        array->type == LIK_ARRAY_E5M2 || array->elements != c->rows)
        return FAIL(
            o, LIK_IO_INCOMPATIBLE,
            "%s: 'mask' is %s %s, one bool or 8-bit integer for each of the %lld token vectors is needed",
            c->path, lik_array_shape_text(array, text), lik_array_type_name(array->type), (long long)c->rows);
    int status = lik_collection_own_mask(c, o->error);
    for (int64_t i = 0; i < c->rows && !status; i++)
        c->mask[i] = c->mask[i] && array->data[i];
    return status;
}

/* The tensors that go with the vectors. */
static int take_companions(struct opening *o)
{
    struct lik_collection *c = o->c;
    const struct lik_array *scales = lik_safetensors_find(&c->tensors, "scales"),
                           *scale = lik_safetensors_find(&c->tensors, "scale"),
                           *mask = lik_safetensors_find(&c->tensors, "mask"),
                           *weights = lik_safetensors_find(&c->tensors, "weights");
    int status = 0, single = 0;
    struct lik_strides rows = {.sequence = c->tokens.len_max, .token = 1};
    if (scales && scale)
        return FAIL(o, LIK_IO_INCOMPATIBLE, "%s has both 'scales' and 'scale'", c->path);
    if (scales || scale) {
        status = floats_of(o, scales ? scales : scale, 1, &c->scale, &single);
        c->tokens.scale = c->scale;
        c->tokens.scale_strides = single ? (struct lik_strides){0} : rows;
    }
    if (!status && mask)
        status = take_mask(o, mask);
    if (!status && weights && o->options->weights) {
        status = floats_of(o, weights, 0, &c->weights, &single);
        c->tokens.weights = c->weights;
        c->tokens.weights_strides = rows;
    }
    return status;
}

/* Lengths from a tensor, as they are or as the differences of offsets. */
static int lengths_of_tensors(struct opening *o)
{
    static const char *names[] = {"lengths", "doclens", "offsets"};
    const struct lik_array *found = NULL;
    for (int i = 0; i < 3; i++) {
        const struct lik_array *array = lik_safetensors_find(&o->c->tensors, names[i]);
        if (array && found)
            return FAIL(o, LIK_IO_INCOMPATIBLE, "%s has both '%s' and '%s'", o->c->path, found->name,
                        array->name);
        if (array)
            found = array;
    }
    if (!found)
        return 0;
    int status = lik_array_integers(found, o->c->path, &o->lengths, o->error);
    o->lengths_count = found->elements;
    if (status || strcmp(found->name, "offsets"))
        return status;
    if (!o->lengths_count || o->lengths[0])
        return FAIL(o, LIK_IO_UNREADABLE,
                    "%s: 'offsets' must begin with 0 and have one entry more than there are sequences",
                    o->c->path);
    o->lengths_count--;
    for (int64_t i = 0; i < o->lengths_count; i++) {
        if (o->lengths[i + 1] < o->lengths[i])
            return FAIL(o, LIK_IO_UNREADABLE, "%s: 'offsets' decrease from %lld to %lld at entry %lld",
                        o->c->path, (long long)o->lengths[i], (long long)o->lengths[i + 1], (long long)i + 1);
    }
    for (int64_t i = 0; i < o->lengths_count; i++)
        o->lengths[i] = o->lengths[i + 1] - o->lengths[i];
    return 0;
}

/* One tensor a sequence, its key being the id. They tile the file, so together they are one
 * packed array. */
static int take_sequences(struct opening *o)
{
    struct lik_collection *c = o->c;
    const struct lik_array *all = c->tensors.arrays;
    int64_t n = c->tensors.count, pair[2];
    o->lengths = calloc((size_t)n, sizeof *o->lengths);
    if (!o->lengths)
        return lik_io_no_memory(o->error, c->path, "the lengths", n * 8);
    o->lengths_count = n;
    o->vectors = all[0];
    o->vectors.name = NULL;
    o->vectors.shape[0] = o->vectors.elements = o->vectors.bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        char text[160];
        if (all[i].rank != 2)
            return FAIL(
                o, LIK_IO_INCOMPATIBLE,
                "%s: tensor '%.100s' is %s %s, not [tokens, dim]\n    One [tokens, dim] tensor a sequence is "
                "expected, or 'embeddings' with 'lengths'; --%skey NAME names another.",
                c->path, all[i].name, lik_array_shape_text(&all[i], text), lik_array_type_name(all[i].type),
                o->options->queries ? "query-" : "");
    }
    for (int64_t i = 0; i < n; i++) {
        char text[160], first[160];
        const char *fault = lik_name_fault(all[i].name, (int64_t)strlen(all[i].name));
        if (all[i].type != all[0].type || all[i].shape[1] != all[0].shape[1])
            return FAIL(
                o, LIK_IO_INCOMPATIBLE,
                "%s: tensor '%.100s' is %s %s, tensor '%.100s' is %s %s\n    One [tokens, dim] tensor "
                "a sequence is expected, or 'embeddings' with 'lengths'; --%skey NAME names another.",
                c->path, all[i].name, lik_array_shape_text(&all[i], text), lik_array_type_name(all[i].type),
                all[0].name, lik_array_shape_text(&all[0], first), lik_array_type_name(all[0].type),
                o->options->queries ? "query-" : "");
        if (fault)
            return FAIL(o, LIK_IO_UNREADABLE, "%s: the name of tensor %lld %s", c->path, (long long)i, fault);
        if (lik_names_add(&c->ids, all[i].name, (int64_t)strlen(all[i].name)))
            return lik_io_no_memory(o->error, c->path, "the ids", c->ids.text.size);
        o->lengths[i] = all[i].shape[0];
        /* the ranges tile the file: no sum exceeds its size, or dim is 0 */
        o->vectors.shape[0] += all[i].shape[0];
        o->vectors.elements += all[i].elements;
        o->vectors.bytes += all[i].bytes;
        if (all[i].shape[1] == 0)
            break;
    }
    if (o->vectors.shape[1] == 0)
        return make_view(o);
    c->has_ids = 1;
    return lik_names_index(&c->ids, pair) ? lik_io_no_memory(o->error, c->path, "the ids", n * 16)
                                          : make_view(o);
}

/* The names and texts that a file has with its tokens. */
static int take_documents(struct opening *o, const struct lik_array *documents)
{
    struct lik_collection *c = o->c;
    struct lik_map map = {.data = documents->data, .size = documents->bytes, .borrowed = 1};
    char text[160];
    if (documents->rank != 1 || documents->type != LIK_ARRAY_U8)
        return FAIL(o, LIK_IO_INCOMPATIBLE, "%s: 'documents' is %s %s, must be uint8 of one dimension",
                    c->path, lik_array_shape_text(documents, text), lik_array_type_name(documents->type));
    size_t size = strlen(c->path) + sizeof ", 'documents'";
    char *name = malloc(size);
    if (!name)
        return lik_io_no_memory(o->error, c->path, "a name for its texts", (int64_t)size);
    snprintf(name, size, "%s, 'documents'", c->path);
    int status = lik_lines_read(&c->texts, &map, name, NULL, o->error);
    free(name);
    if (!status && c->texts.count != c->tokens.count)
        status = FAIL(o, LIK_IO_UNREADABLE, "%s: 'documents' has %lld entries, there are %lld sequences",
                      c->path, (long long)c->texts.count, (long long)c->tokens.count);
    lik_collection_adopt_ids(c);
    return status;
}

static int read_compressed(struct opening *o)
{
    struct lik_collection *c = o->c;
    const struct lik_array *mask = lik_safetensors_find(&c->tensors, "mask"),
                           *documents = lik_safetensors_find(&c->tensors, "documents");
    if (o->options->queries)
        return FAIL(o, LIK_IO_INCOMPATIBLE,
                    "%s holds compressed tokens: documents may be compressed, queries may not", c->path);
    struct lik_compressed *x = c->compressed = calloc(1, sizeof *x);
    if (!x)
        return lik_io_no_memory(o->error, c->path, "what its tokens share", (int64_t)sizeof *x);
    int status = lik_compressed_read(x, &c->tensors, c->path, o->error);
    if (!status && !o->lengths)
        status = lengths_of_tensors(o);
    if (!status && !o->lengths)
        status = FAIL(o, LIK_IO_UNREADABLE, "%s holds compressed tokens and no tensor 'lengths'", c->path);
    if (status)
        return status;
    c->rows = x->rows;
    o->vectors = (struct lik_array){.rank = 2, .shape = {x->rows, x->dim}};
    c->tokens = lik_tokens_packed(x->residuals, LIK_F32, 0, 0, x->rows, x->dim, NULL, LIK_I64);
    status = apply_lengths(o);
    if (status)
        return status;
    c->tokens = lik_tokens_compressed(c->tokens, &x->codec, x->codes, x->codes_dtype);
    c->tokens.normalize = x->normalize && !x->inv_norms;
    c->tokens.scale = x->inv_norms;
    c->tokens.scale_dtype = x->inv_norms ? x->inv_norms_dtype : 0;
    if (mask)
        status = take_mask(o, mask);
    return status || !documents ? status : take_documents(o, documents);
}

static int read_safetensors(struct opening *o)
{
    static const char *names[] = {"embeddings", "vectors", "tokens"};
    struct lik_collection *c = o->c;
    const struct lik_array *found = NULL;
    int npz = !strcmp(c->format, "npz");
    int status = (npz ? lik_npz_read : lik_safetensors_read)(&c->map, c->path, &c->tensors, o->error);
    if (status)
        return status;
    if (!c->tensors.count)
        return FAIL(o, LIK_IO_INCOMPATIBLE, "%s holds no tensor", c->path);
    if (!o->options->key && lik_compressed_recognize(&c->tensors))
        return read_compressed(o);
    if (o->options->key) {
        found = lik_safetensors_find(&c->tensors, o->options->key);
        if (!found)
            return FAIL(
                o, LIK_IO_INCOMPATIBLE,
                "%s has no tensor '%.200s'; its first is '%.200s'\n    `lik info %s` lists all of them.",
                c->path, o->options->key, c->tensors.arrays[0].name, c->path);
    }
    for (int i = 0; i < 3 && !found; i++)
        found = lik_safetensors_find(&c->tensors, names[i]);
    if (!found && npz && c->tensors.count == 1)
        found = c->tensors.arrays;
    if (!found && npz)
        return FAIL(o, LIK_IO_INCOMPATIBLE,
                    "%s has no array 'embeddings', 'vectors' or 'tokens'; its first is '%.200s'\n    "
                    "--%skey NAME says which one holds the vectors.",
                    c->path, c->tensors.arrays[0].name, o->options->queries ? "query-" : "");
    if (!found && o->lengths)
        return FAIL(o, LIK_IO_INCOMPATIBLE,
                    "%s has one tensor a sequence; their lengths cannot be given with --%slens", c->path,
                    o->options->queries ? "query-" : "");
    if (!found)
        return take_sequences(o);
    o->vectors = *found;
    if (!o->lengths)
        status = lengths_of_tensors(o);
    if (!status)
        status = make_view(o);
    if (!status)
        status = take_companions(o);
    const struct lik_array *documents = lik_safetensors_find(&c->tensors, "documents");
    return status || !documents || documents == found ? status : take_documents(o, documents);
}

/* ---- JSON lines ---- */

struct gathering {
    struct opening *o;
    struct lik_bytes vectors, lengths, weights; /* float, int64_t, float */
    int64_t dim, line_rows, line_weights;       /* line_*: -1 until the member is read */
    int weighted;                               /* -1 until the first line ends */
};

static int number_as_f32(struct lik_json *json, struct lik_bytes *out)
{
    double value;
    if (lik_json_number(json, &value))
        return -1;
    if (fabs(value) > 3.4028235677973366e38) {
        json->error = "the number does not fit float32";
        return -1;
    }
    float narrow = (float)value;
    if (!lik_bytes_append(out, &narrow, sizeof narrow))
        return 0;
    return lik_json_exhaust(json);
}

static int read_vectors(struct gathering *g, int64_t line, struct lik_json *json, struct lik_io_error *error)
{
    int row, more;
    g->line_rows = 0;
    if (lik_json_enter(json, '['))
        return LIK_IO_UNREADABLE;
    while ((row = lik_json_next(json, '[')) > 0) {
        int64_t before = g->vectors.size;
        if (lik_json_enter(json, '['))
            return LIK_IO_UNREADABLE;
        while ((more = lik_json_next(json, '[')) > 0)
            if (number_as_f32(json, &g->vectors))
                return LIK_IO_UNREADABLE;
        if (more)
            return LIK_IO_UNREADABLE;
        int64_t dim = (g->vectors.size - before) / 4;
        if (g->dim < 0)
            g->dim = dim;
        if (dim != g->dim || dim == 0)
            return lik_io_fail(
                error, LIK_IO_INCOMPATIBLE, "%s, entry %lld: token %lld has %lld numbers, %s %lld",
                g->o->c->path, (long long)line + 1, (long long)g->line_rows, (long long)dim,
                dim == g->dim ? "at least 1 is needed, not" : "the first token of the file has",
                (long long)g->dim);
        g->line_rows++;
    }
    return row ? LIK_IO_UNREADABLE : 1;
}

static int read_member(void *arg, int64_t line, const char *key, struct lik_json *json,
                       struct lik_io_error *error)
{
    struct gathering *g = arg;
    int more;
    if (!strcmp(key, "embedding")) {
        if (g->line_rows >= 0) {
            json->error = "the member \"embedding\" is there twice";
            return LIK_IO_UNREADABLE;
        }
        return read_vectors(g, line, json, error);
    }
    if (strcmp(key, "weights") || !g->o->options->weights)
        return 0;
    if (g->line_weights >= 0) {
        json->error = "the member \"weights\" is there twice";
        return LIK_IO_UNREADABLE;
    }
    g->line_weights = 0;
    if (lik_json_enter(json, '['))
        return LIK_IO_UNREADABLE;
    while ((more = lik_json_next(json, '[')) > 0) {
        if (number_as_f32(json, &g->weights))
            return LIK_IO_UNREADABLE;
        g->line_weights++;
    }
    return more ? LIK_IO_UNREADABLE : 1;
}

static int end_line(void *arg, int64_t line, struct lik_io_error *error)
{
    struct gathering *g = arg;
    const char *path = g->o->c->path;
    if (g->line_rows < 0)
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE, "%s, entry %lld has no member \"embedding\"", path,
                           (long long)line + 1);
    if (g->weighted < 0)
        g->weighted = g->line_weights >= 0;
    if (g->weighted ? g->line_weights != g->line_rows : g->line_weights >= 0)
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE, "%s, entry %lld has %lld weights and %lld tokens%s",
                           path, (long long)line + 1, (long long)lik_max_i64(g->line_weights, 0),
                           (long long)g->line_rows,
                           g->weighted ? "" : "; the entries before have no weights");
    if (lik_bytes_append(&g->lengths, &g->line_rows, sizeof g->line_rows))
        return lik_io_no_memory(error, path, "the lengths", g->lengths.size);
    g->line_rows = g->line_weights = -1;
    return 0;
}

static int read_json_lines(struct opening *o)
{
    struct lik_collection *c = o->c;
    struct gathering g = {.o = o, .dim = -1, .line_rows = -1, .line_weights = -1, .weighted = -1};
    struct lik_line_reader reader = {.member = read_member, .end = end_line, .arg = &g};
    int status = lik_lines_read(&c->texts, &c->map, c->path, &reader, o->error);
    int64_t rows = g.dim > 0 ? g.vectors.size / 4 / g.dim : 0;
    if (!status && g.dim < 0)
        status = FAIL(o, LIK_IO_INCOMPATIBLE,
                      "%s: none of its %lld entries has a token, so the dimension is unknown", c->path,
                      (long long)c->texts.count);
    if (!status && o->lengths)
        status =
            FAIL(o, LIK_IO_INCOMPATIBLE, "%s: the lengths are in its lines; --%slens does not go with it",
                 c->path, o->options->queries ? "query-" : "");
    if (status) {
        lik_bytes_free(&g.lengths);
        lik_bytes_free(&g.vectors);
        lik_bytes_free(&g.weights);
        return status;
    }
    o->vectors = (struct lik_array){.type = LIK_ARRAY_F32,
                                    .rank = 2,
                                    .shape = {rows, g.dim},
                                    .elements = rows * g.dim,
                                    .bytes = rows * g.dim * 4,
                                    .data = (const uint8_t *)g.vectors.data};
    c->data = g.vectors.data;
    o->lengths = (void *)g.lengths.data;
    o->lengths_count = c->texts.count;
    status = make_view(o);
    lik_collection_adopt_ids(c);
    c->weights = (void *)g.weights.data;
    if (g.weighted > 0 && c->weights) {
        c->tokens.weights = c->weights;
        c->tokens.weights_strides.token = 1;
    }
    return status;
}

/* ---- the whole ---- */

static int open_vectors(struct opening *o)
{
    struct lik_collection *c = o->c;
    int status = lik_map_open(o->options->path, &c->map, o->error);
    if (status)
        return status;
    c->format = lik_recognize(&c->map);
    if (!c->format)
        return lik_recognize_fail(&c->map, c->path, o->error);
    if (o->options->lens)
        status = lengths_of_file(o, o->options->lens);
    if (status)
        return status;
    if (!strcmp(c->format, "safetensors") || !strcmp(c->format, "npz"))
        return read_safetensors(o);
    if (o->options->key)
        return FAIL(o, LIK_IO_INCOMPATIBLE,
                    "%s is %s and has no tensor '%.200s'; --%skey is for .safetensors and .npz", c->path,
                    c->format, o->options->key, o->options->queries ? "query-" : "");
    if (strcmp(c->format, "npy"))
        return read_json_lines(o);
    status = lik_npy_read(&c->map, c->path, &o->vectors, o->error);
    if (!status && !o->lengths)
        status = lengths_beside(o);
    return status ? status : make_view(o);
}

int lik_collection_open(struct lik_collection *c, const struct lik_collection_options *options,
                        struct lik_io_error *error)
{
    struct opening o = {
        .c = c, .options = options, .error = error, .noun = options->queries ? "query" : "document"};
    *c = (struct lik_collection){.path =
                                     strdup(strcmp(options->path, "-") ? options->path : "standard input")};
    if (!c->path)
        return lik_io_no_memory(error, options->path, "its name", (int64_t)strlen(options->path));
    int status = open_vectors(&o);
    free(o.lengths);
    free(o.lengths_path);
    if (!status && options->ids)
        status = lik_collection_read_ids(c, options->ids, error);
    if (!status && options->text)
        status = lik_collection_read_texts(c, options->text, error);
    return status;
}

void lik_collection_free(struct lik_collection *c)
{
    lik_safetensors_free(&c->tensors);
    lik_map_close(&c->map);
    lik_names_free(&c->ids);
    lik_lines_free(&c->texts);
    if (c->compressed)
        lik_compressed_free(c->compressed);
    free(c->compressed);
    free(c->path);
    free(c->text_line);
    free(c->offsets);
    free(c->mask);
    free(c->scale);
    free(c->weights);
    free(c->data);
    *c = (struct lik_collection){0};
}
