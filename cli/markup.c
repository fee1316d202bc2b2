/* Text in the markup of pages and pictures; see heatmap_draw.h. */
#include "heatmap_draw.h"

#include <string.h>

void markup_text(struct sink *out, const char *text, int64_t size)
{
    for (const char *at = text, *end = text + size; at < end;) {
        uint32_t code;
        int length = lik_utf8_decode(at, end, &code);
        if (!length || (code < 0x20 && code != '\n') || (code >= 0x7f && code < 0xa0) || code == 0xfffe ||
            code == 0xffff)
            sink_put(out, " ", 1);
        else if (code == '<')
            sink_put(out, "&lt;", 4);
        else if (code == '>')
            sink_put(out, "&gt;", 4);
        else if (code == '&')
            sink_put(out, "&amp;", 5);
        else if (code == '"')
            sink_put(out, "&quot;", 6);
        else
            sink_put(out, at, length);
        at += length ? length : 1;
    }
}

void markup_name(struct sink *out, const char *text, int64_t size)
{
    for (const char *at = text, *end = text + size; at < end;) {
        char shown[12];
        int columns, length = text_character(at, end, shown, &columns);
        markup_text(out, shown, (int64_t)strlen(shown));
        at += length;
    }
}

void markup_label(struct sink *out, const struct spans *spans, int64_t t)
{
    char room[24];
    const char *label = spans_label(spans, t, room);
    int64_t size = (int64_t)strlen(label), fit = text_prefix(label, size, MARKUP_LABEL);
    markup_name(out, label, fit);
    if (fit < size)
        sink_put(out, "\u2026", 3);
}
