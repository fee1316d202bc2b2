/* NumPy's .npy: magic, version, length of the header, a Python dictionary, the numbers.
 *
 * Writers differ in the dictionary: spaces or none, `(3,4,)` or `(3, 4)`, '|u1' or '<u1',
 * padding of the prologue to 16, 64 or 192 bytes, a final newline or none. All of that is read;
 * anything that would need Python or a transposition is refused by name. */
#include "base/size.h"
#include "io/array.h"
#include "io/text.h"

#include <stdio.h>
#include <string.h>

static const char magic[6] = {(char)0x93, 'N', 'U', 'M', 'P', 'Y'};

struct dictionary {
    const char *at, *end;
    char descr[16];
    int structured, fortran, rank;
    int64_t shape[LIK_ARRAY_RANK_MAX];
};

int lik_npy_recognize(const struct lik_map *map)
{
    return map->size >= 6 && !memcmp(map->data, magic, 6);
}

static char peek(struct dictionary *d)
{
    while (d->at < d->end && (*d->at == ' ' || *d->at == '\n' || *d->at == '\t' || *d->at == '\r'))
        d->at++;
    return d->at < d->end ? *d->at : 0;
}

static int take(struct dictionary *d, char c)
{
    if (peek(d) != c)
        return -1;
    d->at++;
    return 0;
}

static int take_string(struct dictionary *d, char *out, size_t room)
{
    char quote = peek(d);
    size_t n = 0;
    if (quote != '\'' && quote != '"')
        return -1;
    for (d->at++; d->at < d->end && *d->at != quote; d->at++)
        if (*d->at && n + 1 < room)
            out[n++] = *d->at;
        else
            return -1;
    out[n] = 0;
    return take(d, quote);
}

static int take_word(struct dictionary *d, const char *word)
{
    size_t length = strlen(word);
    if (!peek(d) || (size_t)(d->end - d->at) < length || memcmp(d->at, word, length))
        return -1;
    d->at += length;
    return 0;
}

static int take_shape(struct dictionary *d)
{
    if (take(d, '('))
        return -1;
    while (peek(d) != ')') {
        int64_t value = 0;
        const char *start = d->at;
        for (; d->at < d->end && *d->at >= '0' && *d->at <= '9'; d->at++)
            if (lik_mul_i64(value, 10, &value) || lik_add_i64(value, *d->at - '0', &value))
                return -1;
        if (d->at == start || d->rank == LIK_ARRAY_RANK_MAX)
            return -1;
        d->shape[d->rank++] = value;
        if (d->at < d->end && *d->at == 'L') /* Python 2's long */
            d->at++;
        if (peek(d) != ')' && take(d, ','))
            return -1;
    }
    return take(d, ')');
}

/* The type of the elements: a string, or a list of fields, which is only recognized. */
static int take_descr(struct dictionary *d)
{
    if (peek(d) == '[') {
        d->structured = 1;
        d->at = d->end;
        return 0;
    }
    return take_string(d, d->descr, sizeof d->descr);
}

static int take_dictionary(struct dictionary *d)
{
    int seen = 0;
    char key[16];
    if (take(d, '{'))
        return -1;
    while (peek(d) != '}') {
        int which;
        if (take_string(d, key, sizeof key) || take(d, ':'))
            return -1;
        if (!strcmp(key, "descr")) {
            which = 1;
            if (take_descr(d))
                return -1;
            if (d->structured)
                return 0;
        } else if (!strcmp(key, "fortran_order")) {
            which = 2;
            d->fortran = take_word(d, "True") == 0;
            if (!d->fortran && take_word(d, "False"))
                return -1;
        } else if (!strcmp(key, "shape")) {
            which = 4;
            if (take_shape(d))
                return -1;
        } else {
            return -1;
        }
        if (seen & which)
            return -1;
        seen |= which;
        if (peek(d) != '}' && take(d, ','))
            return -1;
    }
    if (take(d, '}') || seen != 7)
        return -1;
    peek(d);
    return d->at == d->end ? 0 : -1;
}

static int descr_type(const char *descr)
{
    static const struct {
        char text[3];
        int type;
    } known[] = {{"f8", LIK_ARRAY_F64}, {"f4", LIK_ARRAY_F32}, {"f2", LIK_ARRAY_F16}, {"i8", LIK_ARRAY_I64},
                 {"i4", LIK_ARRAY_I32}, {"i2", LIK_ARRAY_I16}, {"i1", LIK_ARRAY_I8},  {"u8", LIK_ARRAY_U64},
                 {"u4", LIK_ARRAY_U32}, {"u2", LIK_ARRAY_U16}, {"u1", LIK_ARRAY_U8},  {"b1", LIK_ARRAY_BOOL}};
    if (descr[0] != '<' && descr[0] != '|')
        return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(descr + 1, known[i].text) && (descr[0] == '<' || descr[2] == '1'))
            return known[i].type;
    return 0;
}

static int refuse(const struct dictionary *d, const char *path, struct lik_io_error *error)
{
    const char *what = "has elements of the unknown type", *hint = "float32, float16 and int8 can be read.";
    if (d->structured || strchr(d->descr, 'O')) {
        what = d->structured ? "holds records, not plain numbers"
                             : "holds Python objects (a pickle), which are never loaded";
        return lik_io_fail(
            error, LIK_IO_INCOMPATIBLE,
            "%s %s\n    Save one 3-D array, or a 2-D array of all tokens and their lengths beside it.", path,
            what);
    }
    if (d->descr[0] == '>')
        what = "is big-endian", hint = "Save it with .astype(x.dtype.newbyteorder('<')).";
    else if (strchr(d->descr, 'V') || !strcmp(d->descr, "<f1"))
        what = "has elements without a type",
        hint = "bfloat16 and float8 are kept in .safetensors files, not in .npy.";
    else if (strchr(d->descr, 'U') || strchr(d->descr, 'S'))
        what = "holds text";
    else if (strchr(d->descr, 'c'))
        what = "holds complex numbers";
    return lik_io_fail(error, LIK_IO_INCOMPATIBLE, "%s %s ('%s')\n    %s", path, what, d->descr, hint);
}

int lik_npy_read(const struct lik_map *map, const char *path, struct lik_array *array,
                 struct lik_io_error *error)
{
    *array = (struct lik_array){0};
    int status = lik_npy_recognize(map) ? 0 : lik_text_refuse(map, path, error);
    if (status)
        return status;
    if (!lik_npy_recognize(map))
        return lik_io_fail(error, LIK_IO_UNREADABLE,
                           "%s is not a .npy file: it does not begin with \\x93NUMPY", path);
    if (map->size < 10)
        return lik_io_fail(error, LIK_IO_UNREADABLE,
                           "%s has %lld bytes, a .npy header has at least 10: it was cut short", path,
                           (long long)map->size);
    int version = map->data[6];
    if (version < 1 || version > 3 || map->data[7] != 0)
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE,
                           "%s is a .npy file of version %d.%d; 1.0 to 3.0 can be read", path, version,
                           map->data[7]);
    int64_t start = version == 1 ? 10 : 12, length = map->data[8] | map->data[9] << 8;
    if (version > 1 && map->size >= 12)
        length |= (int64_t)map->data[10] << 16 | (int64_t)map->data[11] << 24;
    if (map->size < start || length > map->size - start)
        return lik_io_fail(error, LIK_IO_UNREADABLE,
                           "%s: the header ends at byte %lld, the file has %lld: it was cut short", path,
                           (long long)(start + length), (long long)map->size);
    struct dictionary d = {.at = (const char *)map->data + start,
                           .end = (const char *)map->data + start + length};
    if (take_dictionary(&d))
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s: the .npy header cannot be understood at byte %lld",
                           path, (long long)(d.at - (const char *)map->data));
    array->type = d.structured ? 0 : descr_type(d.descr);
    if (!array->type)
        return refuse(&d, path, error);
    array->rank = d.rank;
    memcpy(array->shape, d.shape, sizeof d.shape);
    status = lik_array_measure(array, path, error);
    if (status)
        return status;
    if (d.fortran && d.rank > 1)
        return lik_io_fail(
            error, LIK_IO_INCOMPATIBLE,
            "%s is in Fortran (column-major) order\n    Save numpy.ascontiguousarray(x) instead.", path);
    array->data = map->data + start + length;
    int64_t held = map->size - start - length;
    if (array->bytes != held) {
        char text[160];
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s: %s %s are %lld bytes, the file holds %lld: it %s",
                           path, lik_array_shape_text(array, text), lik_array_type_name(array->type),
                           (long long)array->bytes, (long long)held,
                           held < array->bytes ? "was cut short" : "has something behind the array");
    }
    return 0;
}

int lik_npy_write_header(struct lik_output *out, int type, int rank, const int64_t *shape,
                         struct lik_io_error *error)
{
    static const char *descrs[] = {[LIK_ARRAY_F32] = "<f4", [LIK_ARRAY_I64] = "<i8"};
    char text[512] = "\x93NUMPY\x01";
    int at = 10;
    at += snprintf(text + at, sizeof text - (size_t)at, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                   descrs[type]);
    for (int i = 0; i < rank; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%lld%s", (long long)shape[i],
                       rank == 1      ? ","
                       : i + 1 < rank ? ", "
                                      : "");
    at += snprintf(text + at, sizeof text - (size_t)at, "), }");
    int64_t total = lik_round_up(at + 1, 64);
    memset(text + at, ' ', (size_t)(total - at));
    text[total - 1] = '\n';
    text[7] = 0;
    text[8] = (char)((total - 10) & 255);
    text[9] = (char)((total - 10) >> 8);
    return lik_output_write(out, text, total, error);
}
