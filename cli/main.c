/* lik: late-interaction scores from the command line. This file: the commands, signals, --help
 * and --version. */
#include "library.h"

#include <stdlib.h>
#include <string.h>

#define INPUTS                                                                                               \
    "QUERIES and DOCUMENTS are files of token vectors (`-` is standard input):\n"                            \
    "  x.npy          [n, tokens, dim]; or [all tokens, dim] with lengths in x.doclens.npy or x_len.npy, "   \
    "or --lens\n"                                                                                            \
    "  x.safetensors  embeddings | vectors | tokens with lengths | doclens | offsets, or one [tokens, dim] " \
    "tensor a\n"                                                                                             \
    "                 sequence; optional mask, scales | scale, and weights of query tokens\n"                \
    "                 or compressed documents, which `lik compress` writes\n"                                \
    "  x.npz          the same names, of numpy.savez\n"                                                      \
    "  x.jsonl        a line each: {\"id\": .., \"embedding\": [[..], ..], \"text\": .., \"tokens\": "       \
    "[..]}\n"

const struct command commands[] = {
    {"score", "QUERIES DOCUMENTS", "rank documents for queries, exactly, without an index",
     INPUTS "A terminal gets a table, a pipe gets `query document rank score` between tabs.\n"
            "\nexamples:\n"
            "  lik score queries.npy docs.npy                       the 10 best of each query\n"
            "  lik score q.npy d.safetensors -k 100 --trec > run    a TREC run\n"
            "  lik score q.npy d.npy --all -o scores.npy            the matrix [queries, documents]\n"
            "  lik score q.npy d.npy --text docs.jsonl              with snippets\n",
     2, 2, command_score},
    {"rerank", "QUERIES DOCUMENTS RUN", "score again what a TREC run (BM25, dense, ..) found",
     INPUTS
     "RUN has lines of `query Q0 document rank score tag`; its ids are those of the files, or numbers.\n"
     "(Earlier versions had DOCUMENTS first: that is taken too where more of the run's ids fit it.)\n"
     "\nexamples:\n"
     "  lik rerank queries.npy docs.npy bm25.run --ids ids.txt --query-ids qids.txt --trec > maxsim.run\n"
     "  lik rerank queries.jsonl docs.jsonl bm25.run -k 20 --json\n",
     3, 3, command_rerank},
    {"explain", "QUERIES DOCUMENTS", "which tokens matched: the token heat map",
     INPUTS "For each query token its best document token, and the text shaded by how well it matches.\n"
            "\nexamples:\n"
            "  lik explain q.jsonl d.jsonl -q q17                       query q17 and its best document\n"
            "  lik explain q.jsonl d.jsonl -q q17 -d doc4 --compare doc9\n"
            "  lik explain q.npy d.npy -q 0 -d 12 --text d.jsonl -o match.html\n",
     2, 2, command_explain},
    {"compress", "DOCUMENTS", "store tokens as a centroid and a few bits an element",
     "Trains centroids and buckets (ColBERTv2's residual compression), encodes every token, and writes a\n"
     ".safetensors file with the documents' names and texts, which the other commands take as DOCUMENTS.\n"
     "\nexamples:\n"
     "  lik compress docs.npy -o docs4.safetensors                 4 bits an element\n"
     "  lik compress docs.jsonl -o docs2.safetensors --nbits 2 --centroids 4096\n"
     "  lik score queries.npy docs4.safetensors -k 10\n",
     1, 1, command_compress},
    {"eval", "RUN QRELS", "nDCG, MRR, recall, MAP of a run, as trec_eval counts them",
     "RUN has lines of `query Q0 document rank score tag`, QRELS of `query 0 document grade`; `-` is "
     "standard input.\n"
     "\nexamples:\n"
     "  lik eval run qrels.txt\n"
     "  lik score q.npy d.npy --trec | lik eval - qrels.txt -m ndcg@10,recall@100\n",
     2, 2, command_eval},
    {"info", "FILE", "what a file holds: shapes, lengths, health",
     "Exit code 3 if --check finds NaN, 4 if the file is no collection of token vectors.\n"
     "\nexamples:\n"
     "  lik info docs.npy\n"
     "  lik info docs.safetensors --check --json\n",
     1, 1, command_info},
    {"bench", "[QUERIES DOCUMENTS]", "how fast this machine scores",
     "Times a table of shapes with random tokens, or the given files, and prints a table that can be "
     "pasted.\n"
     "\nexamples:\n"
     "  lik bench --quick -j 1\n"
     "  lik bench q.npy d.npy --json\n",
     0, 2, command_bench},
    {"demo", "", "a small real collection: ranked, measured, explained",
     "Ranks the packaged collection for its queries, compares with BM25 and mean pooling, and writes a heat "
     "map.\n"
     "\nexamples:\n"
     "  lik demo\n"
     "  lik demo --all -k 5 -o out/demo\n",
     0, 0, command_demo},
    {"selftest", "", "does this device compute what the reference does?",
     "Runs small problems of every kind on the device and on the reference, times the quick cases of `lik "
     "bench`,\n"
     "and prints a block that can be pasted into an issue. The result is kept for this machine, device and\n"
     "version; tensors on Apple GPUs go to the Metal kernels only where `lik selftest --device metal` has "
     "passed.\n"
     "\nexamples:\n"
     "  lik selftest\n"
     "  lik selftest --device metal\n"
     "  lik selftest --device cuda:0 --fresh\n",
     0, 0, command_selftest},
    {0},
};

/* Nothing but what a signal handler may call: unfinished files go, and the program ends. */
static void on_interrupt(void)
{
    lik_output_abandon_all();
    lik_end(EXIT_INTERRUPTED, terminal.quiet ? NULL : "\nlik: interrupted; unfinished files were removed\n");
}

/* A mapped file that became shorter than it was. */
static void on_cut_short(void)
{
    lik_output_abandon_all();
    lik_end(EXIT_UNREADABLE, "\nlik: error: an input file was cut short while it was being read\n");
}

static void print_version(const struct options *options)
{
    printf("lik %s\n", lik_version());
    if (!options->build_info)
        return;
    struct library library;
    library_open(&library, options);
    printf("%s\ndevice %s, %d physical cores\n", lik_build_info(), lik_context_name(library.context),
           lik_physical_cores());
    const char *why, *level;
    for (int32_t n = 0; (level = lik_cpu_level(n, &why)); n++)
        printf("cpu:%s: %s\n", level, why);
    library_close(&library);
}

int main(int argc, char **argv)
{
    struct options options = {0};
    lik_process_begin(&argc, &argv);
    lik_interrupts_catch(on_interrupt, on_cut_short);
    const struct command *command = options_parse(argc, argv, &options);
    if (options.version || (options.build_info && !command)) {
        print_version(&options);
        stdout_check();
        return EXIT_OK;
    }
    if (options.generate) {
        generate(options.generate);
        stdout_check();
        return EXIT_OK;
    }
    if (options.help) {
        options_help(command, stdout);
        stdout_check();
        return EXIT_OK;
    }
    if (!command) {
        options_help(NULL, stderr);
        return EXIT_USAGE;
    }
    terminal_open(&options);
    inputs_check(command, &options);
    return command->run(&options);
}
