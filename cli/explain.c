/* lik explain: the tokens behind one score. */
#include "heatmap_draw.h"

#include <stdlib.h>
#include <string.h>

static int64_t find(const struct lik_collection *c, const char *id, const char *what)
{
    char a[24], b[24];
    int64_t i = lik_collection_find(c, id);
    if (i < 0 && c->tokens.count)
        die(EXIT_INCOMPATIBLE,
            "%s has no %s '%s'; it has %lld, from '%s' to '%s'\n    '#17' is number 17, counted from 0.",
            c->path, what, id, (long long)c->tokens.count, lik_collection_id(c, 0, a),
            lik_collection_id(c, c->tokens.count - 1, b));
    return i;
}

static int64_t best_document(struct engine *engine, const struct inputs *inputs, int64_t q)
{
    float value;
    int64_t id;
    struct lik_topk op = {.struct_size = sizeof op, .k = 1, .values = &value, .ids = &id};
    op.score = (struct lik_score){.struct_size = sizeof op.score, .pairing = LIK_ALL};
    op.score.q = collection_slice(&inputs->queries, q, 1);
    op.score.d = inputs->documents.tokens;
    engine_topk(engine, &op);
    return id;
}

static void put_json(struct sink *out, const struct heatmap *maps, int count)
{
    char room[24];
    const char *text = lik_collection_id(&maps->inputs->queries, maps->query, room);
    sink_printf(out, "{\"query\": ");
    sink_quote(out, text, (int64_t)strlen(text));
    sink_printf(out, ", \"documents\": [");
    for (int m = 0; m < count; m++) {
        const struct heatmap *map = &maps[m];
        text = lik_collection_id(&map->inputs->documents, map->document, room);
        sink_printf(out, "%s{\"id\": ", m ? ", " : "");
        sink_quote(out, text, (int64_t)strlen(text));
        sink_printf(out, ", \"score\": ");
        sink_number(out, (double)map->score);
        sink_printf(out, ", \"matches\": [");
        for (int64_t i = 0; i < map->match_count; i++) {
            const struct match *match = &map->matches[i];
            sink_printf(out,
                        "%s{\"query_token\": %lld, \"document_token\": %lld, \"query_text\": ", i ? ", " : "",
                        (long long)match->query_token, (long long)match->document_token);
            text = spans_label(&map->query_spans, match->query_token, room);
            sink_quote(out, text, (int64_t)strlen(text));
            sink_printf(out, ", \"document_text\": ");
            text = spans_label(&map->document_spans, match->document_token, room);
            sink_quote(out, text, (int64_t)strlen(text));
            sink_printf(out, ", \"similarity\": ");
            sink_number(out, (double)match->similarity);
            if (heatmap_weighted(map)) {
                sink_printf(out, ", \"weight\": ");
                sink_number(out, match->weight);
            }
            sink_printf(out, ", \"adds\": ");
            sink_number(out, match->share);
            sink_put(out, "}", 1);
        }
        sink_printf(out, "]}");
    }
    sink_printf(out, "]}\n");
}

int command_explain(struct options *options)
{
    struct inputs inputs;
    struct engine engine;
    struct heatmap maps[2];
    struct sink out;
    int html = lik_path_ends(options->output, ".html"), svg = lik_path_ends(options->output, ".svg");
    int count = options->compare ? 2 : 1;
    enum cmap cmap = heatmap_cmap(options->cmap);
    struct grid grid;
    grid_parse(&grid, options->grid, options->image);
    if (grid.rows && (!html || options->compare))
        die(EXIT_USAGE, "--grid lays one page out: it goes with -o x.html, and not with --compare");
    if (options->output && !html && !svg && !options->json)
        die(EXIT_USAGE, "-o %s: the heat map is written as .html or .svg", options->output);
    if (options->json && (html || svg))
        die(EXIT_USAGE, "--json does not go with -o %s", options->output);
    engine_open(&engine, options);
    inputs_open(&inputs, options, options->arguments[0], options->arguments[1]);
    if (!inputs.queries.tokens.count || !inputs.documents.tokens.count)
        die(EXIT_INCOMPATIBLE, "%s has %lld queries and %s %lld documents: there is nothing to explain",
            inputs.queries.path, (long long)inputs.queries.tokens.count, inputs.documents.path,
            (long long)inputs.documents.tokens.count);
    engine_refuse_bad(&engine, &inputs.queries, 1, options->skip_bad);
    engine_refuse_bad(&engine, &inputs.documents, 0, options->skip_bad);
    int64_t q = options->query ? find(&inputs.queries, options->query, "query") : 0;
    int64_t d = options->document ? find(&inputs.documents, options->document, "document")
                                  : best_document(&engine, &inputs, q);
    inputs_tell_weights(&inputs);
    heatmap_open(&maps[0], &engine, &inputs, q, d);
    if (count == 2)
        heatmap_open(&maps[1], &engine, &inputs, q, find(&inputs.documents, options->compare, "document"));
    if (!maps[0].query_spans.count || !maps[0].document_spans.count)
        note("no texts of tokens are known: rows and columns are called by their numbers; give %s%s%s",
             maps[0].document_spans.count ? "" : "--text FILE",
             maps[0].document_spans.count || maps[0].query_spans.count ? "" : " and ",
             maps[0].query_spans.count ? "" : "--query-text FILE");
    sink_open(&out, options->output);
    if (html)
        heatmap_html(&out, maps, count, cmap, &grid);
    else if (svg)
        heatmap_svg(&out, maps, count, cmap);
    else if (options->json)
        put_json(&out, maps, count);
    else
        heatmap_terminal(&out, maps, count);
    sink_close(&out);
    for (int m = 0; m < count; m++)
        heatmap_close(&maps[m]);
    inputs_close(&inputs);
    engine_close(&engine);
    return EXIT_OK;
}
