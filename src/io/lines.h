/* Names of documents and queries, and JSON-lines files that carry them with texts, tokens and
 * vectors. */
#ifndef LIK_IO_LINES_H
#define LIK_IO_LINES_H

#include "io/file.h"
#include "io/json.h"

/* A list of distinct names with a hash index. */
struct lik_names {
    struct lik_bytes text;  /* the names, each NUL-terminated */
    struct lik_bytes start; /* int64_t: where name i begins in `text` */
    int64_t count;
    int64_t *slots; /* name + 1, 0 = empty; slot_count is a power of two */
    int64_t slot_count;
};

/* A name is valid UTF-8 of 1 to 1000 bytes without control characters and without a byte order
 * mark at its beginning. Returns what is wrong with it, or NULL. */
const char *lik_name_fault(const char *name, int64_t size);
/* -1: out of memory */
LIK_CHECKED int lik_names_add(struct lik_names *names, const char *name, int64_t size);
/* Builds the index. 1: two names are equal, their positions in pair[2]; -1: out of memory. */
LIK_CHECKED int lik_names_index(struct lik_names *names, int64_t pair[2]);
const char *lik_names_get(const struct lik_names *names, int64_t i);
int64_t lik_names_find(const struct lik_names *names, const char *name, int64_t size); /* -1: not there */
void lik_names_free(struct lik_names *names);

/* A file of one JSON object a line: {"id": .., "text": "..", "tokens": ["..", ..], ..}; "_id"
 * is the id of a line that has no "id". Every line is checked when the file is opened; texts
 * and tokens are read again when asked for, so that they take no memory. */
struct lik_lines {
    struct lik_map map;
    char *path;
    struct lik_bytes start; /* int64_t [2 * count]: first byte of each line and the byte behind it */
    int64_t count;
    int has_ids; /* all lines have an id, or none */
    struct lik_names ids;
};

/* Offered each member of each line that is not id, text or tokens: returns 1 if it has read the
 * value, 0 to skip it, a negative status on error (with *error filled, or left empty if
 * json->error says it). */
struct lik_line_reader {
    int (*member)(void *arg, int64_t line, const char *key, struct lik_json *json,
                  struct lik_io_error *error);
    int (*end)(void *arg, int64_t line, struct lik_io_error *error); /* after the line's last member */
    void *arg;
};

/* Takes over `map`, also on failure; `reader` may be NULL. */
LIK_CHECKED int lik_lines_read(struct lik_lines *lines, struct lik_map *map, const char *path,
                               const struct lik_line_reader *reader, struct lik_io_error *error);
void lik_lines_free(struct lik_lines *lines);

struct lik_line {
    struct lik_bytes text;   /* size 0 if there is none */
    struct lik_bytes tokens; /* each NUL-terminated, one after another */
    int64_t token_count;
};

/* Reads text and tokens of line i into `line`, whose buffers are used again. Fails if memory
 * runs out, or the file was changed since it was opened. */
LIK_CHECKED int lik_lines_get(const struct lik_lines *lines, int64_t i, struct lik_line *line,
                              struct lik_io_error *error);
void lik_line_free(struct lik_line *line);

#endif
