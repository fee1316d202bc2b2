/* lik eval: measures of a run against judgments. */
#include "trec.h"

#include <math.h>
#include <string.h>

static void print_table(struct sink *out, const struct evaluation *e, const struct measure *measures,
                        int count)
{
    for (int m = 0; m < count; m++)
        if (isnan(e->error[m]))
            sink_printf(out, "%-12s %.4f\n", measures[m].name, e->mean[m]);
        else
            sink_printf(out, "%-12s %.4f  (standard error %.4f)\n", measures[m].name, e->mean[m],
                        e->error[m]);
    sink_printf(out, "%lld queries", (long long)e->queries);
    if (e->missing)
        sink_printf(out, ", %lld judged ones are not in the run", (long long)e->missing);
    if (e->unjudged)
        sink_printf(out, ", %lld of the run are not judged", (long long)e->unjudged);
    sink_put(out, "\n", 1);
}

/* The form of trec_eval: measure, query or "all", value. */
static void print_lines(struct sink *out, const struct evaluation *e, const struct measure *measures,
                        int count, int each)
{
    for (int64_t q = 0; each && q < e->queries; q++)
        for (int m = 0; m < count; m++) {
            sink_printf(out, "%s\t", measures[m].name);
            sink_text(out, e->of[q]->query, e->of[q]->query_size);
            sink_printf(out, "\t%.6f\n", e->values[q * count + m]);
        }
    for (int m = 0; m < count; m++)
        sink_printf(out, "%s\tall\t%.6f\n", measures[m].name, e->mean[m]);
}

static void print_json(struct sink *out, const struct evaluation *e, const struct measure *measures,
                       int count, int each)
{
    sink_printf(out, "{\"queries\": %lld, \"missing\": %lld, \"unjudged\": %lld, \"measures\": {",
                (long long)e->queries, (long long)e->missing, (long long)e->unjudged);
    for (int m = 0; m < count; m++) {
        sink_printf(out, "%s\"%s\": {\"mean\": ", m ? ", " : "", measures[m].name);
        sink_number(out, e->mean[m]);
        sink_printf(out, ", \"standard_error\": ");
        sink_number(out, e->error[m]);
        sink_put(out, "}", 1);
    }
    sink_put(out, "}", 1);
    for (int64_t q = 0; each && q < e->queries; q++) {
        sink_printf(out, q ? ", " : ", \"per_query\": {");
        sink_quote(out, e->of[q]->query, e->of[q]->query_size);
        for (int m = 0; m < count; m++)
            sink_printf(out, "%s\"%s\": %.9g", m ? ", " : ": {", measures[m].name, e->values[q * count + m]);
        sink_printf(out, q + 1 < e->queries ? "}" : "}}");
    }
    sink_printf(out, "}\n");
}

int command_eval(struct options *options)
{
    struct measure measures[MEASURES_MAX];
    struct trec run, judgments;
    struct evaluation evaluation;
    struct sink out;
    int count =
        measures_parse(options->measures ? options->measures : "ndcg@10,mrr@10,recall@100,map", measures);
    trec_read(&run, options->arguments[0], TREC_RUN);
    trec_read(&judgments, options->arguments[1], TREC_JUDGMENTS);
    evaluate(&run, &judgments, measures, count, options->complete, &evaluation);
    if (!evaluation.queries)
        die(EXIT_INCOMPATIBLE,
            "no query of %s (%lld) is judged in %s (%lld)\n    Their ids must be the same.", run.path,
            (long long)evaluation.unjudged, judgments.path, (long long)evaluation.missing);
    if (evaluation.missing && !options->complete)
        warn("%lld judged queries are not in %s and do not count; --complete counts them as 0",
             (long long)evaluation.missing, run.path);
    sink_open(&out, NULL);
    if (options->json)
        print_json(&out, &evaluation, measures, count, options->per_query);
    else if ((terminal.out_tty || options->table) && !options->per_query)
        print_table(&out, &evaluation, measures, count);
    else
        print_lines(&out, &evaluation, measures, count, options->per_query);
    sink_close(&out);
    evaluation_free(&evaluation);
    trec_free(&run);
    trec_free(&judgments);
    return EXIT_OK;
}
