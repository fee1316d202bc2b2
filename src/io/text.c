/* Kinds of files by their first bytes, numbers, characters; see text.h. */
#include "io/text.h"

#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char mark[] = {(char)0xef, (char)0xbb, (char)0xbf};

int lik_text_has_mark(const char *text, int64_t size)
{
    return size >= 3 && !memcmp(text, mark, 3);
}

/* The first bytes of files that may be met by mistake. Each holds a byte that no text has, but
 * for bzip2, whose ten are not met by chance, and Parquet, see below. The ones of UTF-32 come
 * before those of UTF-16. */
static const struct {
    const char *bytes;
    int size;
    const char *text;
} kinds[] = {
#define UNPACK "\n    Unpack it first."
#define SAVE   "\n    Save the vectors as .npy or .safetensors."
#define RECODE "\n    Save it as UTF-8."
    {"\x1f\x8b\x08", 3, "compressed with gzip" UNPACK},
    {"\x1f\x9d", 2, "compressed with compress" UNPACK},
    {"\x28\xb5\x2f\xfd", 4, "compressed with zstd" UNPACK},
    {"\3757zXZ\0", 6, "compressed with xz" UNPACK},
    {"\x04\x22\x4d\x18", 4, "compressed with lz4" UNPACK},
    {"LZIP\1", 5, "compressed with lzip" UNPACK},
    {"7z\xbc\xaf\x27\x1c", 6, "a 7z archive" UNPACK},
    {"PK\3\4", 4,
     "a zip file (.pt or the like, or an .npz whose first member is no .npy)\n    Save the arrays as .npy or "
     ".safetensors, unpack anything "
     "else."},
    {"PK\5\6", 4, "an empty zip file"},
    {"PAR1", 4, "a Parquet file" SAVE},
    {"ARROW1\0", 7, "an Arrow file" SAVE},
    {"\x89HDF", 4, "an HDF5 file" SAVE},
    {"\x80\2", 2, "a Python pickle, which is never loaded" SAVE},
    {"\x80\3", 2, "a Python pickle, which is never loaded" SAVE},
    {"\x80\4", 2, "a Python pickle, which is never loaded" SAVE},
    {"\x80\5", 2, "a Python pickle, which is never loaded" SAVE},
    {"\xff\xfe\0\0", 4, "UTF-32 text" RECODE},
    {"\0\0\xfe\xff", 4, "UTF-32 text" RECODE},
    {"\xff\xfe", 2, "UTF-16 text" RECODE},
    {"\xfe\xff", 2, "UTF-16 text" RECODE},
};

static int is_bzip2(const struct lik_map *map)
{
    return map->size >= 10 && !memcmp(map->data, "BZh", 3) && map->data[3] >= '1' && map->data[3] <= '9' &&
           (!memcmp(map->data + 4, "1AY&SY", 6) || !memcmp(map->data + 4, "\x17\x72\x45\x38\x50\x90", 6));
}

int lik_text_refuse(const struct lik_map *map, const char *path, struct lik_io_error *error)
{
    if (is_bzip2(map))
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE, "%s is compressed with bzip2" UNPACK, path);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int n = kinds[i].size;
        if (map->size < n || memcmp(map->data, kinds[i].bytes, (size_t)n))
            continue;
        if (kinds[i].bytes[0] == 'P' && kinds[i].bytes[1] == 'A' &&
            (map->size == n || map->data[n] > 0x1f || memchr("\t\n\r", map->data[n], 3)))
            continue; /* a name that begins so */
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE, "%s is %s", path, kinds[i].text);
    }
    return 0;
}

int64_t lik_text_begin(const struct lik_map *map, const char *path, struct lik_io_error *error)
{
    int status = lik_text_refuse(map, path, error);
    return status ? status : lik_text_has_mark((const char *)map->data, map->size) ? 3 : 0;
}

/* ---- numbers ---- */

static const char *digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

int lik_text_integer(const char *text, int64_t size, int64_t *out)
{
    const char *at = text, *end = text + size;
    int64_t value = 0;
    int negative = size > 0 && *at == '-';
    at += negative || (size > 0 && *at == '+');
    if (at == end || digits(at, end) != end)
        return 1;
    for (; at < end; at++)
        if (lik_mul_i64(value, 10, &value) || lik_add_i64(value, negative ? '0' - *at : *at - '0', &value))
            return 1;
    *out = value;
    return 0;
}

int lik_text_whole(const char *text, int64_t size, int64_t *out)
{
    if (size < 1 || *text < '0' || *text > '9' || (*text == '0' && size > 1))
        return 1;
    return lik_text_integer(text, size, out);
}

int lik_text_double(const char *text, int64_t size, double *out)
{
    char small[64], *copy = size < (int64_t)sizeof small ? small : malloc((size_t)size + 1);
    if (!copy)
        return -1;
    memcpy(copy, text, (size_t)size);
    copy[size] = 0;
    *out = strtod(copy, NULL);
    if (copy != small)
        free(copy);
    return 0;
}

int lik_text_number(const char *text, int64_t size, double *out)
{
    const char *at = text, *end = text + size, *start;
    int negative = size > 0 && *at == '-';
    at += negative || (size > 0 && *at == '+');
    if ((end - at == 3 && !strncasecmp(at, "inf", 3)) || (end - at == 8 && !strncasecmp(at, "infinity", 8))) {
        *out = negative ? -(double)INFINITY : (double)INFINITY;
        return 0;
    }
    start = at;
    at = digits(at, end);
    int64_t count = at - start;
    if (at < end && *at == '.') {
        start = ++at;
        at = digits(at, end);
        count += at - start;
    }
    if (!count)
        return 1;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        at += at < end && (*at == '+' || *at == '-');
        start = at;
        at = digits(at, end);
        if (at == start)
            return 1;
    }
    return at == end ? lik_text_double(text, size, out) : 1;
}

/* ---- characters ---- */

int lik_text_shows(uint32_t code)
{
    /* Unicode's control characters, its line separators, and what it calls ignorable, without
     * the selectors of a variant, which follow a character that can be seen. */
    static const uint32_t hidden[][2] = {
        {0, 0x1f},          {0x7f, 0x9f},       {0xad, 0xad},       {0x34f, 0x34f},    {0x61c, 0x61c},
        {0x115f, 0x1160},   {0x17b4, 0x17b5},   {0x180b, 0x180f},   {0x200b, 0x200f},  {0x2028, 0x202e},
        {0x2060, 0x206f},   {0x3164, 0x3164},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},  {0xfff0, 0xfffb},
        {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe00ff}, {0xe01f0, 0xe0fff}};
    if (code >= 0x20 && code < 0x7f)
        return 1;
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        if (code >= hidden[i][0] && code <= hidden[i][1])
            return 0;
    return 1;
}
