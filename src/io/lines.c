/* Names with a hash index, and JSON-lines files; see lines.h. */
#include "io/lines.h"

#include "io/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lik_name_fault(const char *name, int64_t size)
{
    if (size < 1)
        return "is empty";
    if (size > 1000)
        return "has more than 1000 bytes";
    if (lik_text_has_mark(name, size))
        return "begins with a byte order mark";
    for (const char *at = name, *end = name + size; at < end;) {
        uint32_t code;
        int length = lik_utf8_decode(at, end, &code);
        if (!length)
            return "is not UTF-8";
        if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            return "holds a control character";
        at += length;
    }
    return NULL;
}

int lik_names_add(struct lik_names *names, const char *name, int64_t size)
{
    int64_t start = names->text.size;
    if (lik_bytes_append(&names->text, name, size) || lik_bytes_append(&names->text, "", 1) ||
        lik_bytes_append(&names->start, &start, sizeof start))
        return -1;
    names->count++;
    return 0;
}

const char *lik_names_get(const struct lik_names *names, int64_t i)
{
    return names->text.data + ((const int64_t *)(const void *)names->start.data)[i];
}

/* FNV-1a, 64 bits, with a final mix so that its low bits can be used alone. Wrapping is meant,
 * hence the builtin. */
static uint64_t hash(const char *name, int64_t size)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < size; i++)
        (void)__builtin_mul_overflow(h ^ (unsigned char)name[i], (uint64_t)0x100000001b3, &h);
    return h ^ h >> 29;
}

/* The slot that holds the name, or the empty one where it would go. */
static int64_t probe(const struct lik_names *names, const char *name, int64_t size)
{
    uint64_t mask = (uint64_t)names->slot_count - 1, at = hash(name, size) & mask;
    for (;; at = (at + 1) & mask) {
        int64_t i = names->slots[at] - 1;
        if (i < 0)
            return (int64_t)at;
        const char *other = lik_names_get(names, i);
        if (!strncmp(other, name, (size_t)size) && !other[size])
            return (int64_t)at;
    }
}

int lik_names_index(struct lik_names *names, int64_t pair[2])
{
    names->slot_count = 16;
    while (names->slot_count < names->count * 2)
        names->slot_count *= 2;
    names->slots = calloc((size_t)names->slot_count, sizeof *names->slots);
    if (!names->slots)
        return -1;
    for (int64_t i = 0; i < names->count; i++) {
        const char *name = lik_names_get(names, i);
        int64_t at = probe(names, name, (int64_t)strlen(name));
        if (names->slots[at]) {
            pair[0] = names->slots[at] - 1;
            pair[1] = i;
            return 1;
        }
        names->slots[at] = i + 1;
    }
    return 0;
}

int64_t lik_names_find(const struct lik_names *names, const char *name, int64_t size)
{
    return names->slots ? names->slots[probe(names, name, size)] - 1 : -1;
}

void lik_names_free(struct lik_names *names)
{
    lik_bytes_free(&names->text);
    lik_bytes_free(&names->start);
    free(names->slots);
    *names = (struct lik_names){0};
}

/* A string, or a whole number of any length as it is written, as the id of a line. */
static int read_id(struct lik_json *json, struct lik_bytes *out)
{
    double value;
    if (lik_json_peek(json) == '"')
        return lik_json_string(json, out);
    const char *start = json->at;
    if (lik_json_number(json, &value))
        return -1;
    for (const char *at = start + (*start == '-'); at < json->at; at++)
        if (*at < '0' || *at > '9') {
            json->at = start;
            json->error = "an id is a string or a whole number";
            return -1;
        }
    out->size = 0;
    return lik_bytes_append(out, start, json->at - start) ? lik_json_exhaust(json) : 0;
}

static int read_tokens(struct lik_json *json, struct lik_bytes *scratch, struct lik_line *line)
{
    int more;
    if (lik_json_enter(json, '['))
        return -1;
    while ((more = lik_json_next(json, '[')) > 0) {
        if (lik_json_string(json, scratch))
            return -1;
        if (line && lik_bytes_append(&line->tokens, scratch->data, scratch->size + 1))
            return lik_json_exhaust(json);
        if (line)
            line->token_count++;
    }
    return more;
}

struct scan {
    struct lik_lines *lines;
    const struct lik_line_reader *reader;
    struct lik_bytes key, value, id, other; /* other: the member "_id" */
};

static int add_id(struct scan *scan, const struct lik_bytes *id, struct lik_io_error *error)
{
    struct lik_lines *lines = scan->lines;
    const char *fault = lik_name_fault(id->data, id->size);
    if (fault)
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s, line %lld: the id %s", lines->path,
                           (long long)lines->count + 1, fault);
    if (lik_names_add(&lines->ids, id->data, id->size))
        return lik_io_no_memory(error, lines->path, "the ids", lines->ids.text.size);
    return 0;
}

/* One line's object. Returns 0, or a negative status with *error filled or left to
 * json->error. */
static int read_line(struct scan *scan, struct lik_json *json, struct lik_io_error *error)
{
    struct lik_lines *lines = scan->lines;
    int more, has_id = 0, has_other = 0;
    if (lik_json_enter(json, '{'))
        return LIK_IO_UNREADABLE;
    while ((more = lik_json_next(json, '{')) > 0) {
        if (lik_json_key(json, &scan->key))
            return LIK_IO_UNREADABLE;
        const char *key = scan->key.data;
        int status = 0;
        if (!strcmp(key, "id")) {
            if (has_id++) {
                json->error = "the member \"id\" is there twice";
                return LIK_IO_UNREADABLE;
            }
            status = read_id(json, &scan->id);
        } else if (!strcmp(key, "_id")) {
            if (has_other) {
                json->error = "the member \"_id\" is there twice";
                return LIK_IO_UNREADABLE;
            }
            int c = lik_json_peek(json); /* databases have objects here, which are no names */
            has_other = c == '"' || c == '-' || (c >= '0' && c <= '9');
            status = has_other ? read_id(json, &scan->other) : lik_json_skip(json);
        } else if (!strcmp(key, "text")) {
            status = lik_json_string(json, &scan->value);
        } else if (!strcmp(key, "tokens")) {
            status = read_tokens(json, &scan->value, NULL);
        } else {
            status =
                scan->reader ? scan->reader->member(scan->reader->arg, lines->count, key, json, error) : 0;
            if (status == 0)
                status = lik_json_skip(json);
        }
        if (status < 0)
            return status == -1 ? LIK_IO_UNREADABLE : status;
    }
    if (more || lik_json_finish(json))
        return LIK_IO_UNREADABLE;
    if (has_id || has_other) {
        int status = add_id(scan, has_id ? &scan->id : &scan->other, error);
        if (status)
            return status;
        has_id = 1;
    }
    if (lines->count == 0)
        lines->has_ids = has_id;
    if (lines->has_ids != has_id)
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s, line %lld has %s id, the lines before have %s",
                           lines->path, (long long)lines->count + 1, has_id ? "an" : "no",
                           has_id ? "none" : "one");
    return scan->reader ? scan->reader->end(scan->reader->arg, lines->count, error) : 0;
}

static int scan_lines(struct scan *scan, struct lik_io_error *error)
{
    struct lik_lines *lines = scan->lines;
    const char *begin = (const char *)lines->map.data, *end = begin + lines->map.size;
    int64_t number = 0, mark = lik_text_begin(&lines->map, lines->path, error);
    if (mark < 0)
        return (int)mark;
    for (const char *at = begin + mark, *stop; at < end; at = stop + (stop < end)) {
        stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop)
            stop = end;
        number++;
        const char *c = at;
        while (c < stop && (*c == ' ' || *c == '\t' || *c == '\r'))
            c++;
        if (c == stop)
            continue;
        if (lik_text_has_mark(c, stop - c))
            return lik_io_fail(error, LIK_IO_UNREADABLE,
                               "%s, line %lld begins with a byte order mark, which only a file may",
                               lines->path, (long long)number);
        struct lik_json json = lik_json_open(at, stop - at);
        int64_t range[2] = {at - begin, stop - begin};
        error->text[0] = 0;
        int status = read_line(scan, &json, error);
        if (status && !error->text[0])
            status = lik_io_fail(error, lik_json_status(&json), "%s, line %lld, column %lld: %s", lines->path,
                                 (long long)number, (long long)(json.at - json.begin) + 1,
                                 json.error ? json.error : "not understood");
        if (status)
            return status;
        if (lik_bytes_append(&lines->start, range, sizeof range))
            return lik_io_no_memory(error, lines->path, "the line numbers", lines->start.size);
        lines->count++;
    }
    return 0;
}

int lik_lines_read(struct lik_lines *lines, struct lik_map *map, const char *path,
                   const struct lik_line_reader *reader, struct lik_io_error *error)
{
    *lines = (struct lik_lines){.map = *map, .path = strdup(path)};
    *map = (struct lik_map){0};
    if (!lines->path)
        return lik_io_no_memory(error, path, "its name", (int64_t)strlen(path));
    struct scan scan = {.lines = lines, .reader = reader};
    int64_t pair[2];
    int status = scan_lines(&scan, error);
    lik_bytes_free(&scan.key);
    lik_bytes_free(&scan.value);
    lik_bytes_free(&scan.id);
    lik_bytes_free(&scan.other);
    if (status || !lines->has_ids)
        return status;
    status = lik_names_index(&lines->ids, pair);
    if (status < 0)
        return lik_io_no_memory(error, path, "the ids", lines->ids.count * 16);
    if (status > 0)
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s: entries %lld and %lld both have the id '%.200s'",
                           path, (long long)pair[0] + 1, (long long)pair[1] + 1,
                           lik_names_get(&lines->ids, pair[0]));
    return 0;
}

void lik_lines_free(struct lik_lines *lines)
{
    lik_map_close(&lines->map);
    lik_bytes_free(&lines->start);
    lik_names_free(&lines->ids);
    free(lines->path);
    *lines = (struct lik_lines){0};
}

int lik_lines_get(const struct lik_lines *lines, int64_t i, struct lik_line *line, struct lik_io_error *error)
{
    const int64_t *range = (const int64_t *)(const void *)lines->start.data + 2 * i;
    struct lik_json json = lik_json_open((const char *)lines->map.data + range[0], range[1] - range[0]);
    struct lik_bytes scratch = {0};
    int more = -1;
    line->text.size = line->tokens.size = line->token_count = 0;
    if (lik_bytes_append(&line->text, "", 0) || lik_bytes_append(&line->tokens, "", 0)) {
        lik_json_exhaust(&json);
        goto out;
    }
    if (lik_json_enter(&json, '{'))
        goto out;
    while ((more = lik_json_next(&json, '{')) > 0) {
        int status = lik_json_key(&json, &scratch);
        if (!status && !strcmp(scratch.data, "text")) {
            status = lik_json_string(&json, &line->text);
        } else if (!status && !strcmp(scratch.data, "tokens")) {
            line->tokens.size = line->token_count = 0;
            status = read_tokens(&json, &scratch, line);
        } else if (!status) {
            status = lik_json_skip(&json);
        }
        if (status) {
            more = -1;
            break;
        }
    }
out:
    lik_bytes_free(&scratch);
    if (!more)
        return 0;
    return lik_json_status(&json) == LIK_IO_EXHAUSTED
               ? lik_io_no_memory(error, lines->path, "a line's text and tokens", range[1] - range[0])
               : lik_io_fail(error, LIK_IO_UNREADABLE, "%s was changed while it was being read", lines->path);
}

void lik_line_free(struct lik_line *line)
{
    lik_bytes_free(&line->text);
    lik_bytes_free(&line->tokens);
    line->token_count = 0;
}
