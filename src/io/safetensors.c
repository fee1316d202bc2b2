/* .safetensors: 8 bytes of header length, a JSON object of {dtype, shape, data_offsets}, then
 * the tensors.
 *
 * Everything is checked before any tensor is handed out: known types, every product, and that
 * the ranges tile the data section exactly. Tensors are kept in the order of their data, so
 * that a run of equal-typed ones is one array. */
#include "base/size.h"
#include "io/array.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 100000000 /* bytes, as the format's own implementation has it */

static int64_t header_length(const struct lik_map *map)
{
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | map->data[i];
    return length > INT64_MAX ? INT64_MAX : (int64_t)length;
}

int lik_safetensors_recognize(const struct lik_map *map)
{
    return map->size > 8 && map->data[8] == '{' && header_length(map) <= HEADER_MAX;
}

static int type_of(const char *name)
{
    static const struct {
        const char *name;
        int type;
    } known[] = {{"F64", LIK_ARRAY_F64},   {"F32", LIK_ARRAY_F32},      {"F16", LIK_ARRAY_F16},
                 {"BF16", LIK_ARRAY_BF16}, {"F8_E4M3", LIK_ARRAY_E4M3}, {"F8_E5M2", LIK_ARRAY_E5M2},
                 {"I64", LIK_ARRAY_I64},   {"I32", LIK_ARRAY_I32},      {"I16", LIK_ARRAY_I16},
                 {"I8", LIK_ARRAY_I8},     {"U64", LIK_ARRAY_U64},      {"U32", LIK_ARRAY_U32},
                 {"U16", LIK_ARRAY_U16},   {"U8", LIK_ARRAY_U8},        {"BOOL", LIK_ARRAY_BOOL}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name))
            return known[i].type;
    return 0;
}

struct entry {
    struct lik_array array;
    int64_t begin, end;
};

/* Reads the members of one tensor's object. */
static int read_entry(struct lik_json *json, struct lik_bytes *text, struct entry *entry, const char *path,
                      const char *name, struct lik_io_error *error)
{
    int more, seen = 0;
    if (lik_json_enter(json, '{'))
        return LIK_IO_UNREADABLE;
    while ((more = lik_json_next(json, '{')) > 0) {
        int which = 0, element;
        if (lik_json_key(json, text))
            return LIK_IO_UNREADABLE;
        if (!strcmp(text->data, "dtype")) {
            which = 1;
            if (lik_json_string(json, text))
                return LIK_IO_UNREADABLE;
            entry->array.type = type_of(text->data);
            if (!entry->array.type)
                return lik_io_fail(error, LIK_IO_INCOMPATIBLE,
                                   "%s: tensor '%.200s' has the unknown dtype '%.40s'", path, name,
                                   text->data);
        } else if (!strcmp(text->data, "shape")) {
            which = 2;
            if (lik_json_enter(json, '['))
                return LIK_IO_UNREADABLE;
            while ((element = lik_json_next(json, '[')) > 0) {
                if (entry->array.rank == LIK_ARRAY_RANK_MAX)
                    return lik_io_fail(error, LIK_IO_INCOMPATIBLE,
                                       "%s: tensor '%.200s' has more than %d dimensions", path, name,
                                       LIK_ARRAY_RANK_MAX);
                if (lik_json_size(json, &entry->array.shape[entry->array.rank++]))
                    return LIK_IO_UNREADABLE;
            }
        } else if (!strcmp(text->data, "data_offsets")) {
            which = 4;
            if (lik_json_enter(json, '[') || lik_json_next(json, '[') < 1 ||
                lik_json_size(json, &entry->begin) || lik_json_next(json, '[') < 1 ||
                lik_json_size(json, &entry->end) || lik_json_next(json, '['))
                return LIK_IO_UNREADABLE;
        }
        if (!which || seen & which)
            return lik_io_fail(error, LIK_IO_UNREADABLE, "%s: tensor '%.200s' has %s '%.40s'", path, name,
                               which ? "twice" : "an unknown member", which ? "the same member" : text->data);
        seen |= which;
    }
    if (!more && seen != 7)
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s: tensor '%.200s' lacks %s", path, name,
                           !(seen & 1)   ? "dtype"
                           : !(seen & 2) ? "shape"
                                         : "data_offsets");
    return more ? LIK_IO_UNREADABLE : 0;
}

static int by_position(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end)
        return a->end < b->end ? -1 : 1;
    return strcmp(a->array.name, b->array.name);
}

static int by_name(const void *left, const void *right)
{
    const struct lik_array *a = *(struct lik_array *const *)left, *b = *(struct lik_array *const *)right;
    return strcmp(a->name, b->name);
}

/* Ranges against shapes and against each other; `data` is the section of `size` bytes. */
static int check_entries(struct entry *entries, int64_t count, const uint8_t *data, int64_t size,
                         const char *path, struct lik_io_error *error)
{
    int64_t at = 0;
    if (count)
        qsort(entries, (size_t)count, sizeof *entries, by_position);
    for (int64_t i = 0; i < count; i++) {
        struct lik_array *array = &entries[i].array;
        int status = lik_array_measure(array, path, error);
        if (status)
            return status;
        if (entries[i].end < entries[i].begin || entries[i].end - entries[i].begin != array->bytes) {
            char text[160];
            return lik_io_fail(
                error, LIK_IO_UNREADABLE,
                "%s: tensor '%.200s' (%s %s, %lld bytes) is given bytes %lld to %lld of the data", path,
                array->name, lik_array_shape_text(array, text), lik_array_type_name(array->type),
                (long long)array->bytes, (long long)entries[i].begin, (long long)entries[i].end);
        }
        if (entries[i].begin != at)
            return lik_io_fail(
                error, LIK_IO_UNREADABLE,
                "%s: tensor '%.200s' begins at byte %lld of the data, the one before ends at %lld", path,
                array->name, (long long)entries[i].begin, (long long)at);
        at = entries[i].end;
        if (at > size)
            return lik_io_fail(
                error, LIK_IO_UNREADABLE,
                "%s: tensor '%.200s' ends at byte %lld of the data, the file holds %lld: it was cut short",
                path, array->name, (long long)at, (long long)size);
        array->data = data + entries[i].begin;
    }
    if (at != size)
        return lik_io_fail(error, LIK_IO_UNREADABLE,
                           "%s: the tensors fill %lld bytes, the file holds %lld: something is behind them",
                           path, (long long)at, (long long)size);
    return 0;
}

static int check_names(struct lik_safetensors *file, const char *path, struct lik_io_error *error)
{
    struct lik_array **sorted = malloc((size_t)(file->count + 1) * sizeof *sorted);
    int status = 0;
    if (!sorted)
        return lik_io_no_memory(error, path, "the names", file->count * (int64_t)sizeof *sorted);
    for (int64_t i = 0; i < file->count; i++)
        sorted[i] = &file->arrays[i];
    qsort(sorted, (size_t)file->count, sizeof *sorted, by_name);
    for (int64_t i = 1; i < file->count && !status; i++)
        if (!strcmp(sorted[i - 1]->name, sorted[i]->name))
            status = lik_io_fail(error, LIK_IO_UNREADABLE, "%s: two tensors are called '%.200s'", path,
                                 sorted[i]->name);
    free(sorted);
    return status;
}

/* The members of the header's object into a growing array of entries, the metadata as they
 * are. */
static int read_header(struct lik_json *json, struct lik_bytes *text, struct lik_bytes *list,
                       struct lik_bytes *metadata, const char *path, struct lik_io_error *error)
{
    int more;
    if (lik_json_enter(json, '{'))
        return LIK_IO_UNREADABLE;
    while ((more = lik_json_next(json, '{')) > 0) {
        struct entry entry = {0};
        if (lik_json_key(json, text))
            return LIK_IO_UNREADABLE;
        if (!strcmp(text->data, "__metadata__")) {
            if (lik_json_peek(json) != '{')
                return LIK_IO_UNREADABLE;
            const char *begin = json->at;
            if (lik_json_skip(json))
                return LIK_IO_UNREADABLE;
            metadata->size = 0;
            if (lik_bytes_append(metadata, begin, json->at - begin))
                return lik_io_no_memory(error, path, "the metadata", json->at - begin);
            continue;
        }
        entry.array.name = strdup(text->data);
        if (!entry.array.name || lik_bytes_append(list, &entry, sizeof entry)) {
            free(entry.array.name);
            return lik_io_no_memory(error, path, "the header's entries", list->size);
        }
        /* The name is owned by the list from here on. */
        struct entry *kept = (void *)(list->data + list->size - (int64_t)sizeof entry);
        int status = read_entry(json, text, kept, path, kept->array.name, error);
        if (status)
            return status;
    }
    return more || lik_json_finish(json) ? LIK_IO_UNREADABLE : 0;
}

int lik_safetensors_read(const struct lik_map *map, const char *path, struct lik_safetensors *file,
                         struct lik_io_error *error)
{
    *file = (struct lik_safetensors){0};
    if (map->size < 8)
        return lik_io_fail(error, LIK_IO_UNREADABLE,
                           "%s has %lld bytes, a .safetensors file has at least 8: it was cut short", path,
                           (long long)map->size);
    int64_t length = header_length(map), held = map->size - 8;
    if (length > HEADER_MAX)
        return lik_io_fail(error, LIK_IO_UNREADABLE,
                           "%s: a header of %lld bytes is announced, at most %d are allowed", path,
                           (long long)length, HEADER_MAX);
    if (length > held)
        return lik_io_fail(error, LIK_IO_UNREADABLE,
                           "%s: a header of %lld bytes is announced, the file holds %lld: it was cut short",
                           path, (long long)length, (long long)held);
    struct lik_json json = lik_json_open((const char *)map->data + 8, length);
    struct lik_bytes text = {0}, list = {0};
    error->text[0] = 0;
    int status = read_header(&json, &text, &list, &file->metadata, path, error);
    struct entry *entries = (void *)list.data;
    int64_t count = list.size / (int64_t)sizeof *entries;
    if (status && !error->text[0] && lik_json_status(&json) == LIK_IO_EXHAUSTED)
        status = lik_io_no_memory(error, path, "the header's names", length);
    else if (status && !error->text[0])
        status =
            lik_io_fail(error, LIK_IO_UNREADABLE, "%s: the header is damaged at byte %lld: %s", path,
                        (long long)(json.at - json.begin) + 8, json.error ? json.error : "not understood");
    if (!status)
        status = check_entries(entries, count, map->data + 8 + length, held - length, path, error);
    file->arrays = calloc((size_t)count + 1, sizeof *file->arrays);
    if (file->arrays) {
        for (int64_t i = 0; i < count; i++)
            file->arrays[i] = entries[i].array;
        file->count = count;
    } else {
        for (int64_t i = 0; i < count; i++)
            free(entries[i].array.name);
        if (!status)
            status =
                lik_io_no_memory(error, path, "the header's entries", count * (int64_t)sizeof *file->arrays);
    }
    lik_bytes_free(&list);
    lik_bytes_free(&text);
    if (!status)
        status = check_names(file, path, error);
    if (status)
        lik_safetensors_free(file);
    return status;
}

void lik_safetensors_free(struct lik_safetensors *file)
{
    for (int64_t i = 0; i < file->count; i++)
        free(file->arrays[i].name);
    free(file->arrays);
    lik_bytes_free(&file->metadata);
    *file = (struct lik_safetensors){0};
}

const struct lik_array *lik_safetensors_find(const struct lik_safetensors *file, const char *name)
{
    for (int64_t i = 0; i < file->count; i++)
        if (!strcmp(file->arrays[i].name, name))
            return &file->arrays[i];
    return NULL;
}

int lik_safetensors_metadata(const struct lik_safetensors *file, const char *key, struct lik_bytes *value)
{
    struct lik_bytes name = {0};
    int found = 0;
    if (!file->metadata.size)
        return 0;
    struct lik_json json = lik_json_open(file->metadata.data, file->metadata.size);
    if (lik_json_enter(&json, '{'))
        return 0;
    while (!found && lik_json_next(&json, '{') > 0 && !lik_json_key(&json, &name))
        if (lik_json_peek(&json) == '"' && !strcmp(name.data, key))
            found = !lik_json_string(&json, value);
        else if (lik_json_skip(&json))
            break;
    lik_bytes_free(&name);
    return !found && json.error && lik_json_status(&json) == LIK_IO_EXHAUSTED ? -1 : found;
}
