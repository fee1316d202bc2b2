/* Files as bytes: whole inputs mapped or read at once, and outputs that appear complete or not at all.
 *
 * Every reader in this room gets a `struct lik_map`, whose size is known before the first byte is looked at, and
 * reports failure as a negative enum lik_io_status with one message, which names the file and both values, in `error`.
 */
#ifndef LIK_IO_FILE_H
#define LIK_IO_FILE_H

#include <stddef.h>
#include <stdint.h>

/* The negated values are the exit codes of the command. */
enum lik_io_status {
    LIK_IO_UNREADABLE = -3,   /* missing, not permitted, corrupt */
    LIK_IO_INCOMPATIBLE = -4, /* a sound file of a kind, type or shape that does not fit */
    LIK_IO_EXHAUSTED = -5,    /* memory or disk ran out */
};

struct lik_io_error {
    char text[1024]; /* what and where; a second line, if any, says the way out */
};

/* Stores the message and returns `status`. */
__attribute__((format(printf, 3, 4))) int lik_io_fail(struct lik_io_error *error, int status, const char *format, ...);

/* LIK_IO_EXHAUSTED with a message that names what did not fit. */
int lik_io_no_memory(struct lik_io_error *error, const char *path, const char *what, int64_t bytes);

/* A whole input file: mapped if it is a regular file, else (pipe, standard input) read into memory. */
struct lik_map {
    const uint8_t *data;
    int64_t size;
    int mapped;
};

/* Opens `path`, "-" being standard input. */
int lik_map_open(const char *path, struct lik_map *map, struct lik_io_error *error);
void lik_map_close(struct lik_map *map);
int lik_file_exists(const char *path);

/* A growing array of bytes, kept NUL-terminated. */
struct lik_bytes {
    char *data;
    int64_t size, capacity;
};

/* Each returns 0, or -1 when memory ran out (the contents stay). */
int lik_bytes_reserve(struct lik_bytes *bytes, int64_t more);
int lik_bytes_append(struct lik_bytes *bytes, const void *data, int64_t size);
void lik_bytes_free(struct lik_bytes *bytes);

/* An output file: written under a temporary name beside `path`, renamed to it by commit. A path that exists and is no
 * regular file (a device, a pipe) is written directly. */
struct lik_output {
    char *path, *temporary; /* temporary: NULL when written directly */
    int fd, slot;
};

int lik_output_open(struct lik_output *out, const char *path, struct lik_io_error *error);
int lik_output_write(struct lik_output *out, const void *data, int64_t size, struct lik_io_error *error);
/* Flushes, closes and renames. On failure the temporary file is removed. */
int lik_output_commit(struct lik_output *out, struct lik_io_error *error);
/* Closes and removes. May follow a failed open or a commit, then it does nothing. */
void lik_output_abandon(struct lik_output *out);
/* Removes the temporary files of all outputs that are open. Async-signal-safe. */
void lik_output_abandon_all(void);

#endif
