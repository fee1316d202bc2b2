/* A strict JSON reader that pulls: the caller says what it expects next and gets it, nothing is
 * built in memory.
 *
 * RFC 8259 without extensions; strings must be UTF-8 and may not hold NUL; nesting is limited.
 * After the first error every call fails, and `error` with `at` say what and where. */
#ifndef LIK_IO_JSON_H
#define LIK_IO_JSON_H

#include "io/file.h"

struct lik_json {
    const char *begin, *at, *end;
    const char *error; /* NULL = none so far */
    int depth, first;
};

struct lik_json lik_json_open(const char *data, int64_t size);
/* The error of a caller that found no memory for what it read; -1. */
int lik_json_exhaust(struct lik_json *json);
/* After an error: the status that goes with it, LIK_IO_EXHAUSTED or LIK_IO_UNREADABLE. */
LIK_CHECKED int lik_json_status(const struct lik_json *json);

/* The first character of the next value: { [ " - a digit, t f n; 0 at the end or on error. */
int lik_json_peek(struct lik_json *json);
/* Enters the container that opens with `bracket`, '{' or '['. */
LIK_CHECKED int lik_json_enter(struct lik_json *json, char bracket);
/* 1: there is another element or member; 0: the container that opened with `bracket` has ended;
 * -1: error. */
LIK_CHECKED int lik_json_next(struct lik_json *json, char bracket);
/* Member name with its colon, or string value, decoded into `out` (replacing what was
 * there). */
LIK_CHECKED int lik_json_key(struct lik_json *json, struct lik_bytes *out);
LIK_CHECKED int lik_json_string(struct lik_json *json, struct lik_bytes *out);
LIK_CHECKED int lik_json_number(struct lik_json *json, double *out);
/* A whole number of at most 2^63 - 1, at least 0. */
LIK_CHECKED int lik_json_size(struct lik_json *json, int64_t *out);
LIK_CHECKED int lik_json_skip(struct lik_json *json);
/* Nothing but white space may be left. */
LIK_CHECKED int lik_json_finish(struct lik_json *json);

/* Appends text as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD.
 * `shown`: for a terminal, so that characters that do not show are escaped, too. Returns -1
 * without memory. */
LIK_CHECKED int lik_json_quote(struct lik_bytes *out, const char *text, int64_t size, int shown);

/* Length of the UTF-8 sequence at `at` (shortest form, no surrogates), its code point in *code;
 * 0 if it is not valid. */
int lik_utf8_decode(const char *at, const char *end, uint32_t *code);

#endif
