/* Ids and texts of a collection, and finding a sequence by its name. */
#include "io/collection.h"

#include "base/size.h"
#include "io/recognize.h"
#include "io/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lik_collection_adopt_ids(struct lik_collection *c)
{
    if (!c->texts.has_ids || c->has_ids)
        return;
    c->ids = c->texts.ids;
    c->has_ids = 1;
    c->texts.ids = (struct lik_names){0};
    c->texts.has_ids = 0;
}

static int add_id(struct lik_collection *c, const char *path, const char *name, int64_t size,
                  struct lik_io_error *error)
{
    const char *fault = lik_name_fault(name, size);
    if (fault)
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s: id %lld %s", path, (long long)c->ids.count, fault);
    return lik_names_add(&c->ids, name, size) ? lik_io_no_memory(error, path, "the ids", c->ids.text.size)
                                              : 0;
}

/* Fills c->ids from an open file of ids. */
static int ids_of_map(struct lik_collection *c, struct lik_map *map, const char *path,
                      struct lik_io_error *error)
{
    struct lik_array array;
    int64_t *numbers;
    char text[24];
    int status;
    if (lik_npy_recognize(map)) {
        status = lik_npy_read(map, path, &array, error);
        if (!status)
            status = lik_array_integers(&array, path, &numbers, error);
        if (status)
            return status;
        for (int64_t i = 0; i < array.elements && !status; i++)
            status = add_id(c, path, text, snprintf(text, sizeof text, "%lld", (long long)numbers[i]), error);
        free(numbers);
        return status;
    }
    const char *recognized = lik_recognize(map);
    if (recognized && !strcmp(recognized, "JSON lines")) {
        struct lik_lines lines;
        status = lik_lines_read(&lines, map, path, NULL, error);
        if (!status && !lines.has_ids)
            status = lik_io_fail(error, LIK_IO_INCOMPATIBLE,
                                 "%s: its entries have no member \"id\" or \"_id\"", path);
        for (int64_t i = 0; i < lines.ids.count && !status; i++)
            status = add_id(c, path, lik_names_get(&lines.ids, i),
                            (int64_t)strlen(lik_names_get(&lines.ids, i)), error);
        lik_lines_free(&lines);
        return status;
    }
    int64_t mark = lik_text_begin(map, path, error);
    if (mark < 0)
        return (int)mark;
    const char *at = (const char *)map->data + mark, *end = (const char *)map->data + map->size;
    status = 0;
    for (const char *stop; at < end && !status; at = stop + (stop < end)) {
        stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        status = add_id(c, path, at, stop - at - (stop > at && stop[-1] == '\r'), error);
    }
    return status;
}

int lik_collection_read_ids(struct lik_collection *c, const char *path, struct lik_io_error *error)
{
    struct lik_map map;
    int64_t pair[2];
    int status = lik_map_open(path, &map, error);
    if (status)
        return status;
    lik_names_free(&c->ids);
    status = ids_of_map(c, &map, path, error);
    lik_map_close(&map);
    if (status)
        return status;
    if (c->ids.count != c->tokens.count)
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE, "%s has %lld ids, %s has %lld sequences", path,
                           (long long)c->ids.count, c->path, (long long)c->tokens.count);
    status = lik_names_index(&c->ids, pair);
    if (status < 0)
        return lik_io_no_memory(error, path, "the ids", c->ids.count * 16);
    if (status > 0)
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s: ids %lld and %lld are both '%.200s'", path,
                           (long long)pair[0], (long long)pair[1], lik_names_get(&c->ids, pair[0]));
    c->has_ids = 1;
    return 0;
}

/* Attaches texts by id if the collection has ids, else by position. */
int lik_collection_read_texts(struct lik_collection *c, const char *path, struct lik_io_error *error)
{
    struct lik_map map;
    int64_t found = 0;
    int status = lik_map_open(path, &map, error);
    if (status)
        return status;
    lik_lines_free(&c->texts);
    status = lik_lines_read(&c->texts, &map, path, NULL, error);
    if (status)
        return status;
    if (!c->has_ids) {
        if (c->texts.count != c->tokens.count)
            return lik_io_fail(error, LIK_IO_INCOMPATIBLE, "%s has %lld entries, %s has %lld sequences", path,
                               (long long)c->texts.count, c->path, (long long)c->tokens.count);
        lik_collection_adopt_ids(c);
        return 0;
    }
    if (!c->texts.has_ids)
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE,
                           "%s: its entries have no member \"id\" or \"_id\", the sequences of %s have ids",
                           path, c->path);
    c->text_line = malloc((size_t)lik_max_i64(c->tokens.count, 1) * sizeof *c->text_line);
    if (!c->text_line)
        return lik_io_no_memory(error, path, "the line numbers", c->tokens.count * 8);
    for (int64_t i = 0; i < c->tokens.count; i++) {
        const char *id = lik_names_get(&c->ids, i);
        c->text_line[i] = lik_names_find(&c->texts.ids, id, (int64_t)strlen(id));
        found += c->text_line[i] >= 0;
    }
    if (!found && c->tokens.count)
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE, "%s has none of the ids of %s, such as '%.200s'", path,
                           c->path, lik_names_get(&c->ids, 0));
    return 0;
}

const char *lik_collection_id(const struct lik_collection *c, int64_t i, char number[24])
{
    if (c->has_ids)
        return lik_names_get(&c->ids, i);
    snprintf(number, 24, "%lld", (long long)i);
    return number;
}

int64_t lik_collection_find(const struct lik_collection *c, const char *id)
{
    int64_t i = c->has_ids ? lik_names_find(&c->ids, id, (int64_t)strlen(id)) : -1;
    const char *number = *id == '#' ? id + 1 : id;
    if (i >= 0 || (c->has_ids && number == id))
        return i;
    return lik_text_whole(number, (int64_t)strlen(number), &i) || i >= c->tokens.count ? -1 : i;
}

int64_t lik_collection_text_line(const struct lik_collection *c, int64_t i)
{
    return c->text_line ? c->text_line[i] : i < c->texts.count ? i : -1;
}
