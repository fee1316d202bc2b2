/* Files as bytes: whole inputs, mapped or read at once. io/output.h has the outputs.
 *
 * Every reader in this room gets a `struct lik_map`, whose size is known before the first byte
 * is looked at, and reports failure as a negative enum lik_io_status with one message, which
 * names the file and both values, in `error`. */
#ifndef LIK_IO_FILE_H
#define LIK_IO_FILE_H

#include <stddef.h>
#include <stdint.h>

/* What returns a status is to be looked at: a dropped one is a failure that nobody hears of. */
#define LIK_CHECKED __attribute__((warn_unused_result))

/* The negated values are the exit codes of the command. */
enum lik_io_status {
    LIK_IO_GONE = -1,         /* the reader of a pipe has gone, which is no failure: exit code 0 */
    LIK_IO_UNREADABLE = -3,   /* missing, not permitted, corrupt */
    LIK_IO_INCOMPATIBLE = -4, /* a sound file of a kind, type or shape that does not fit */
    LIK_IO_EXHAUSTED = -5,    /* memory or disk ran out */
};

struct lik_io_error {
    char text[1024]; /* what and where; a second line, if any, says the way out */
};

/* Stores the message and returns `status`. */
LIK_CHECKED __attribute__((format(printf, 3, 4))) int lik_io_fail(struct lik_io_error *error, int status,
                                                                  const char *format, ...);

/* LIK_IO_EXHAUSTED with a message that names what did not fit. */
LIK_CHECKED int lik_io_no_memory(struct lik_io_error *error, const char *path, const char *what,
                                 int64_t bytes);
/* The status and message of a system call that failed with errno: "PATH: cannot VERB: ..". */
LIK_CHECKED int lik_io_fail_errno(struct lik_io_error *error, const char *path, const char *verb);

/* A whole input file: mapped if it is a regular file, else (pipe, standard input) read into
 * memory. */
struct lik_map {
    const uint8_t *data;
    int64_t size;
    int mapped;
    int borrowed; /* a part of another one, which stays open longer */
};

/* Opens `path`, "-" being standard input. */
LIK_CHECKED int lik_map_open(const char *path, struct lik_map *map, struct lik_io_error *error);
void lik_map_close(struct lik_map *map);
/* 1: there is something of that name; 0: there is not; a negative status if that cannot be
 * told. */
LIK_CHECKED int lik_file_exists(const char *path, struct lik_io_error *error);
/* Does the path end so? NULL does not. */
int lik_path_ends(const char *path, const char *suffix);

/* A growing array of bytes, kept NUL-terminated. */
struct lik_bytes {
    char *data;
    int64_t size, capacity;
};

/* Each returns 0, or -1 when memory ran out (the contents stay). */
LIK_CHECKED int lik_bytes_reserve(struct lik_bytes *bytes, int64_t more);
LIK_CHECKED int lik_bytes_append(struct lik_bytes *bytes, const void *data, int64_t size);
void lik_bytes_free(struct lik_bytes *bytes);

#endif
