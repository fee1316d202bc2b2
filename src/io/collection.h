/* A collection of token sequences, the queries or the documents, from any of the files that
 * hold one:
 *
 *   .npy          [n, L, dim], or [T, dim] with lengths from x.doclens.npy, x_len.npy or a
 *                 named file
 *   .safetensors  embeddings | vectors | tokens with lengths | doclens | offsets, or one
 *                 [L, dim] tensor a sequence;
 *                 optional mask, scales | scale, weights;
 *                 or compressed tokens with their names and texts (compressed.h)
 *   JSON lines    {"id", "embedding": [[..], ..], "text", "tokens", "weights"}
 *
 * The result is a view that lik.h takes: the data stay mapped unless they are float64
 * (converted to f32), misaligned in the file (copied) or text. Small arrays (lengths, offsets,
 * scales, masks) are always copies that were checked, since a mapped file can change under
 * us. */
#ifndef LIK_IO_COLLECTION_H
#define LIK_IO_COLLECTION_H

#include "io/compressed.h"
#include "io/lines.h"

#include "lik/lik.h"

struct lik_collection_options {
    const char *path; /* "-" = standard input: .npy or JSON lines */
    /* lengths: .npy, a JSON array, or numbers between white space; NULL = look beside path */
    const char *lens;
    const char *ids; /* names: one a line, JSON lines with "id", or an integer .npy; NULL = none */
    /* JSON lines with "text" and "tokens", by id, or by position if the collection has no
     * ids */
    const char *text;
    const char *key; /* .safetensors: the tensor that holds the vectors */
    int queries;     /* for the words of messages: queries, or documents */
    int weights;     /* non-zero: weights of the tokens are read, which queries may have */
};

struct lik_collection {
    char *path;
    const char *format; /* "npy", "safetensors", "JSON lines" */
    struct lik_tokens tokens;
    int64_t rows;  /* token rows in the data, kept or not */
    int converted; /* non-zero: the file holds float64 */
    int has_ids;
    struct lik_names ids;
    struct lik_lines texts; /* count 0 = none */
    int64_t *text_line;     /* line of `texts` of each sequence, -1 = none; NULL = sequence i has line i */
    struct lik_map map;
    struct lik_safetensors tensors;
    struct lik_compressed *compressed; /* NULL: the tokens are dense */
    int64_t *offsets;                  /* what `tokens` points to, when owned */
    uint8_t *mask;
    float *scale, *weights;
    void *data;
};

/* Free also after a failure. */
LIK_CHECKED int lik_collection_open(struct lik_collection *c, const struct lik_collection_options *options,
                                    struct lik_io_error *error);
void lik_collection_free(struct lik_collection *c);

/* The steps of open that concern names; each replaces what was there. Texts are attached by id,
 * or by position if the collection has no ids. */
LIK_CHECKED int lik_collection_read_ids(struct lik_collection *c, const char *path,
                                        struct lik_io_error *error);
LIK_CHECKED int lik_collection_read_texts(struct lik_collection *c, const char *path,
                                          struct lik_io_error *error);
/* The ids in `texts`, which stands in the order of the sequences, become the collection's if it
 * has none. */
void lik_collection_adopt_ids(struct lik_collection *c);

/* Name of sequence i: its id, or its number written into `number`. */
const char *lik_collection_id(const struct lik_collection *c, int64_t i, char number[24]);
/* The sequence called so: the one with this id; without ids number 17 for "17"; and unless it
 * is an id, number 17 for "#17". Numbers are written in one way, without leading zeros. -1:
 * there is none. */
int64_t lik_collection_find(const struct lik_collection *c, const char *id);
/* Line of the texts of sequence i, or -1. */
int64_t lik_collection_text_line(const struct lik_collection *c, int64_t i);
/* Rows of sequence i before any mask, and whether its row t is kept. */
int64_t lik_collection_length(const struct lik_collection *c, int64_t i);
int lik_collection_keeps(const struct lik_collection *c, int64_t i, int64_t t);
/* Makes sure that there is a mask of the collection's own; every row is kept as before. */
LIK_CHECKED int lik_collection_own_mask(struct lik_collection *c, struct lik_io_error *error);
/* Position of row t of sequence i in mask, scale, weights and data rows. */
int64_t lik_collection_row(const struct lik_collection *c, int64_t i, int64_t t);

/* The name of a file of lengths that is looked for beside `path`: x.doclens.npy (which = 0) or
 * x_len.npy (1) of x.npy, in memory to be freed. NULL for the path of another kind. */
int lik_collection_beside(const char *path, int which, char **name, struct lik_io_error *error);

#endif
