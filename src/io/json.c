/* The pull reader of json.h, and the writer's one function. */
#include "io/json.h"

#include "io/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64

static int fail(struct lik_json *json, const char *error)
{
    if (!json->error)
        json->error = error;
    return -1;
}

static const char no_memory[] = "out of memory";

int lik_json_exhaust(struct lik_json *json)
{
    return fail(json, no_memory);
}

int lik_json_status(const struct lik_json *json)
{
    return json->error == no_memory ? LIK_IO_EXHAUSTED : LIK_IO_UNREADABLE;
}

struct lik_json lik_json_open(const char *data, int64_t size)
{
    return (struct lik_json){.begin = data, .at = data, .end = data + size};
}

static void skip_space(struct lik_json *json)
{
    while (json->at < json->end &&
           (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r'))
        json->at++;
}

int lik_json_peek(struct lik_json *json)
{
    if (json->error)
        return 0;
    skip_space(json);
    if (json->at == json->end)
        return fail(json, "it ends in the middle"), 0;
    if (!*json->at)
        return fail(json, "a NUL byte stands here"), 0;
    return (unsigned char)*json->at;
}

int lik_json_enter(struct lik_json *json, char bracket)
{
    if (lik_json_peek(json) != bracket)
        return fail(json, bracket == '{' ? "an object { } is expected" : "an array [ ] is expected");
    if (++json->depth > DEPTH_MAX)
        return fail(json, "it is nested deeper than 64 levels");
    json->at++;
    json->first = 1;
    return 0;
}

int lik_json_next(struct lik_json *json, char bracket)
{
    char close = bracket == '{' ? '}' : ']';
    int c = lik_json_peek(json);
    if (!c)
        return -1;
    if (c == close) {
        json->at++;
        json->depth--;
        json->first = 0;
        return 0;
    }
    if (!json->first) {
        if (c != ',')
            return fail(json, bracket == '{' ? "',' or '}' is expected" : "',' or ']' is expected");
        json->at++;
        if (lik_json_peek(json) == close)
            return fail(json, "nothing follows the ','");
    }
    json->first = 0;
    return json->error ? -1 : 1;
}

int lik_utf8_decode(const char *at, const char *end, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)at;
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    int length = s[0] < 0x80                   ? 1
                 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                 : (s[0] & 0xf0) == 0xe0       ? 3
                 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                               : 0;
    if (!length || end - at < length)
        return 0;
    uint32_t value = length == 1 ? s[0] : s[0] & (0xffu >> (length + 1));
    for (int i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (s[i] & 0x3fu);
    }
    if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        return 0;
    *code = value;
    return length;
}

static int utf8_encode(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

static int hex4(struct lik_json *json, uint32_t *out)
{
    if (json->end - json->at < 4)
        return fail(json, "a \\u escape is cut short");
    *out = 0;
    for (int i = 0; i < 4; i++, json->at++) {
        char c = *json->at;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return fail(json, "a \\u escape needs four hexadecimal digits");
        *out = *out << 4 | (uint32_t)digit;
    }
    return 0;
}

/* After the backslash: one escape, appended to `out` if that is not NULL. */
static int escape(struct lik_json *json, struct lik_bytes *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char text[4];
    int length = 1;
    if (json->at == json->end)
        return fail(json, "it ends in the middle of a string");
    char c = *json->at++;
    if (c == 'u') {
        uint32_t code, low;
        if (hex4(json, &code))
            return -1;
        if (code >= 0xd800 && code < 0xdc00) {
            if (json->end - json->at < 2 || json->at[0] != '\\' || json->at[1] != 'u')
                return fail(json, "half of a surrogate pair");
            json->at += 2;
            if (hex4(json, &low))
                return -1;
            if (low < 0xdc00 || low > 0xdfff)
                return fail(json, "half of a surrogate pair");
            code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
        } else if (code >= 0xdc00 && code < 0xe000) {
            return fail(json, "half of a surrogate pair");
        }
        if (!code)
            return fail(json, "a string holds NUL");
        length = utf8_encode(code, text);
    } else {
        const char *known = memchr(from, c, sizeof from - 1);
        if (!known)
            return fail(json, "unknown escape in a string");
        text[0] = to[known - from];
    }
    return out && lik_bytes_append(out, text, length) ? lik_json_exhaust(json) : 0;
}

static int read_string(struct lik_json *json, struct lik_bytes *out)
{
    if (lik_json_peek(json) != '"')
        return fail(json, "a string is expected");
    json->at++;
    if (out) {
        out->size = 0;
        if (lik_bytes_append(out, "", 0))
            return lik_json_exhaust(json);
    }
    for (;;) {
        const char *start = json->at;
        while (json->at < json->end && *json->at != '"' && *json->at != '\\') {
            uint32_t code;
            int length = (unsigned char)*json->at < 0x20 ? 0 : lik_utf8_decode(json->at, json->end, &code);
            if (!length)
                return fail(json, (unsigned char)*json->at < 0x20
                                      ? "a control character stands unescaped in a string"
                                      : "a string is not UTF-8");
            json->at += length;
        }
        if (json->at == json->end)
            return fail(json, "it ends in the middle of a string");
        if (out && lik_bytes_append(out, start, json->at - start))
            return lik_json_exhaust(json);
        if (*json->at++ == '"')
            return 0;
        if (escape(json, out))
            return -1;
    }
}

int lik_json_string(struct lik_json *json, struct lik_bytes *out)
{
    return read_string(json, out);
}

static int colon(struct lik_json *json)
{
    if (lik_json_peek(json) != ':')
        return fail(json, "':' is expected after a member's name");
    json->at++;
    return 0;
}

int lik_json_key(struct lik_json *json, struct lik_bytes *out)
{
    return read_string(json, out) || colon(json) ? -1 : 0;
}

static int is_digit(const struct lik_json *json)
{
    return json->at < json->end && *json->at >= '0' && *json->at <= '9';
}

/* Moves past one number; its value is exact in *mantissa * 10^*exponent if the return value is
 * 1, and left to strtod if it is 0 (more than 19 digits). */
static int scan_number(struct lik_json *json, uint64_t *mantissa, int64_t *exponent)
{
    int digits = 0, exact = 1, negative = 0;
    int64_t e = 0, shift = 0;
    *mantissa = 0;
    if (json->at < json->end && *json->at == '-')
        json->at++;
    if (!is_digit(json))
        return fail(json, "a number is expected");
    if (*json->at == '0' && json->at + 1 < json->end && json->at[1] >= '0' && json->at[1] <= '9')
        return fail(json, "a number has a leading zero");
    for (int fraction = 0;;) {
        for (; is_digit(json); json->at++, shift -= fraction) {
            if (digits < 19)
                *mantissa = *mantissa * 10 + (uint64_t)(*json->at - '0');
            else
                exact = 0;
            digits += digits > 0 || *json->at != '0';
        }
        if (fraction || json->at == json->end || *json->at != '.')
            break;
        json->at++;
        fraction = 1;
        if (!is_digit(json))
            return fail(json, "a digit is expected after the decimal point");
    }
    if (json->at < json->end && (*json->at == 'e' || *json->at == 'E')) {
        json->at++;
        if (json->at < json->end && (*json->at == '+' || *json->at == '-'))
            negative = *json->at++ == '-';
        if (!is_digit(json))
            return fail(json, "a digit is expected in the exponent");
        for (; is_digit(json); json->at++)
            e = e < 100000 ? e * 10 + (*json->at - '0') : e;
    }
    *exponent = shift + (negative ? -e : e);
    return exact;
}

int lik_json_number(struct lik_json *json, double *out)
{
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    uint64_t mantissa;
    int64_t exponent;
    if (!lik_json_peek(json))
        return -1;
    const char *start = json->at;
    int exact = scan_number(json, &mantissa, &exponent);
    if (exact < 0)
        return -1;
    if (exact && mantissa < (1ull << 53) && exponent >= -22 && exponent <= 22) {
        double value = exponent < 0 ? (double)mantissa / tens[-exponent] : (double)mantissa * tens[exponent];
        *out = *start == '-' ? -value : value;
        return 0;
    }
    return lik_text_double(start, json->at - start, out) ? lik_json_exhaust(json) : 0;
}

int lik_json_size(struct lik_json *json, int64_t *out)
{
    uint64_t mantissa;
    int64_t exponent;
    if (!lik_json_peek(json))
        return -1;
    const char *start = json->at;
    int exact = scan_number(json, &mantissa, &exponent);
    if (exact < 0)
        return -1;
    for (const char *at = start; at < json->at; at++)
        if (*at < '0' || *at > '9')
            exact = 0;
    if (!exact || mantissa > INT64_MAX)
        return fail(json, "a whole number from 0 to 2^63 - 1 is expected");
    *out = (int64_t)mantissa;
    return 0;
}

static int skip_word(struct lik_json *json, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(json->end - json->at) < length || memcmp(json->at, word, length))
        return fail(json, "a value is expected");
    json->at += length;
    return 0;
}

int lik_json_skip(struct lik_json *json)
{
    uint64_t mantissa;
    int64_t exponent;
    int c = lik_json_peek(json), more;
    switch (c) {
    case 0: return -1;
    case '"': return read_string(json, NULL);
    case 't': return skip_word(json, "true");
    case 'f': return skip_word(json, "false");
    case 'n': return skip_word(json, "null");
    case '{':
    case '[':
        if (lik_json_enter(json, (char)c))
            return -1;
        while ((more = lik_json_next(json, (char)c)) > 0) {
            if (c == '{' && (read_string(json, NULL) || colon(json)))
                return -1;
            if (lik_json_skip(json))
                return -1;
        }
        return more;
    default: return scan_number(json, &mantissa, &exponent) < 0 ? -1 : 0;
    }
}

int lik_json_finish(struct lik_json *json)
{
    if (json->error)
        return -1;
    skip_space(json);
    return json->at == json->end ? 0 : fail(json, "something follows the end of the value");
}

int lik_json_quote(struct lik_bytes *out, const char *text, int64_t size, int shown)
{
    const char *at = text, *end = text + size;
    char small[16];
    if (lik_bytes_append(out, "\"", 1))
        return -1;
    while (at < end) {
        uint32_t code;
        int length = lik_utf8_decode(at, end, &code), status;
        if (!length)
            status = lik_bytes_append(out, "\xef\xbf\xbd", 3);
        else if (*at == '"' || *at == '\\')
            status = lik_bytes_append(out, (char[]){'\\', *at}, 2);
        else if (code < 0x20 || code == 0x7f || (shown && !lik_text_shows(code))) {
            if (code < 0x10000)
                snprintf(small, sizeof small, "\\u%04x", code);
            else
                snprintf(small, sizeof small, "\\u%04x\\u%04x", 0xd7c0 + (code >> 10),
                         0xdc00 + (code & 0x3ff));
            status = lik_bytes_append(out, small, (int64_t)strlen(small));
        } else
            status = lik_bytes_append(out, at, length);
        if (status)
            return -1;
        at += length ? length : 1;
    }
    return lik_bytes_append(out, "\"", 1);
}
