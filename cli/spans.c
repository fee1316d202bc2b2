/* Finding tokens in their text. Tokenizers mark continuations or beginnings of words ("##ing",
 * "\u2581the", "\u0120the") and change case; the search strips the marks, ignores ASCII case,
 * and goes forward from the token before. */
#include "spans.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AHEAD_MAX 64 /* bytes of text a token may be away from the one before */

static const char *without_mark(const char *token)
{
    static const char *marks[] = {"##", "\u2581", "\u0120"};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(marks[i]);
        if (!strncmp(token, marks[i], n) && token[n])
            return token + n;
    }
    return token;
}

const char *spans_label(const struct spans *spans, int64_t t, char *room)
{
    if (t < spans->count)
        return without_mark(spans->token[t]);
    snprintf(room, 24, "#%lld", (long long)t);
    return room;
}

/* Joins the tokens to a text of their own. */
static int join(struct spans *spans)
{
    struct lik_bytes *text = &spans->line.text;
    for (int64_t t = 0; t < spans->count; t++) {
        const char *token = without_mark(spans->token[t]);
        int inside = !strncmp(spans->token[t], "##", 2);
        if ((t && !inside && lik_bytes_append(text, " ", 1)) ||
            lik_bytes_append(text, token, (int64_t)strlen(token)))
            return -1;
        spans->to[t] = text->size;
        spans->from[t] = text->size - (int64_t)strlen(token);
    }
    return 0;
}

static void align(struct spans *spans)
{
    const char *text = spans->line.text.data;
    int64_t cursor = 0, size = spans->line.text.size;
    for (int64_t t = 0; t < spans->count; t++) {
        const char *token = without_mark(spans->token[t]);
        int64_t length = (int64_t)strlen(token), last = lik_min_i64(cursor + AHEAD_MAX, size - length);
        spans->from[t] = spans->to[t] = -1;
        for (int64_t at = cursor; length > 0 && at <= last; at++)
            if (!strncasecmp(text + at, token, (size_t)length)) {
                spans->from[t] = at;
                spans->to[t] = cursor = at + length;
                break;
            }
    }
}

int spans_get(struct spans *spans, const struct lik_collection *c, int64_t i)
{
    int64_t line = lik_collection_text_line(c, i), n = lik_collection_length(c, i);
    if (line < 0)
        return 0;
    struct lik_io_error error;
    int status = lik_lines_get(&c->texts, line, &spans->line, &error);
    if (status)
        die_io(status, &error);
    if (spans->line.token_count == n && n > 0) {
        spans->token = allocate(n, sizeof *spans->token, "tokens");
        spans->from = allocate(n, sizeof *spans->from, "tokens");
        spans->to = allocate(n, sizeof *spans->to, "tokens");
        spans->count = n;
        const char *at = spans->line.tokens.data;
        for (int64_t t = 0; t < n; t++, at += strlen(at) + 1)
            spans->token[t] = at;
        if (spans->line.text.size)
            align(spans);
        else if (join(spans))
            die(EXIT_EXHAUSTED, "out of memory: the text of %s", c->path);
    }
    return spans->count > 0 || spans->line.text.size > 0;
}

void spans_free(struct spans *spans)
{
    lik_line_free(&spans->line);
    free(spans->token);
    free(spans->from);
    free(spans->to);
    *spans = (struct spans){0};
}
