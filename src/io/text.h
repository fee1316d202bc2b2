/* What all text inputs share: where the text begins, files that are no text, numbers, and the
 * characters that do not show. */
#ifndef LIK_IO_TEXT_H
#define LIK_IO_TEXT_H

#include "io/file.h"

/* Is this a file that no reader takes: compressed, an archive, UTF-16, a table of another
 * library? Then LIK_IO_INCOMPATIBLE with a message that says what it is, else 0. */
int lik_text_refuse(const struct lik_map *map, const char *path, struct lik_io_error *error);

/* The bytes before the text of a file: 3 if it begins with the byte order mark of UTF-8, else
 * 0; or a negative status if it is no text (see lik_text_refuse). */
int64_t lik_text_begin(const struct lik_map *map, const char *path, struct lik_io_error *error);
int lik_text_has_mark(const char *text, int64_t size);

/* Numbers are read as a whole, of any length; nothing may stand before or behind. 0: read; 1:
 * it is no such number; -1: out of memory, for lik_text_number. */
/* digits, no leading zero, at most 2^63 - 1 */
int lik_text_whole(const char *text, int64_t size, int64_t *out);
/* digits with an optional sign, 64 bits */
int lik_text_integer(const char *text, int64_t size, int64_t *out);
int lik_text_number(const char *text, int64_t size, double *out); /* decimal, or [+-]inf, [+-]infinity */
/* The double nearest to a number that is known to be a decimal one. -1: out of memory. */
int lik_text_double(const char *text, int64_t size, double *out);

/* Can this character be seen, and does it leave those around it alone? Not control characters,
 * separators of lines, marks and overrides of direction, and what has no width of its own. */
int lik_text_shows(uint32_t code);

#endif
