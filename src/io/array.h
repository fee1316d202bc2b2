/* Arrays in files: NumPy's .npy (read and written), .npz and .safetensors (read). The data stay
 * where the file is mapped. */
#ifndef LIK_IO_ARRAY_H
#define LIK_IO_ARRAY_H

#include "io/output.h"

#define LIK_ARRAY_RANK_MAX 8

enum lik_array_type {
    LIK_ARRAY_F64 = 1,
    LIK_ARRAY_F32,
    LIK_ARRAY_F16,
    LIK_ARRAY_BF16,
    LIK_ARRAY_E4M3,
    LIK_ARRAY_E5M2,
    LIK_ARRAY_I64,
    LIK_ARRAY_I32,
    LIK_ARRAY_I16,
    LIK_ARRAY_I8,
    LIK_ARRAY_U64,
    LIK_ARRAY_U32,
    LIK_ARRAY_U16,
    LIK_ARRAY_U8,
    LIK_ARRAY_BOOL,
};

/* A row-major little-endian array. `data` may be misaligned for its type. */
struct lik_array {
    char *name; /* in safetensors; else NULL */
    int type, rank;
    int64_t shape[LIK_ARRAY_RANK_MAX];
    int64_t elements, bytes;
    const uint8_t *data;
};

const char *lik_array_type_name(int type); /* "float32", "bfloat16", ... */
int64_t lik_array_type_bytes(int type);
int32_t lik_array_type_dtype(int type); /* the enum lik_dtype of tokens stored so; 0 if there is none */
/* "3 x 40 x 128"; `text` holds at least 160 bytes. */
const char *lik_array_shape_text(const struct lik_array *array, char *text);
/* Element i of a floating or integer array; of an integer array only, exactly, -1 and no result
 * if it exceeds 2^63 - 1. */
double lik_array_number(const struct lik_array *array, int64_t i);
LIK_CHECKED int lik_array_integer(const struct lik_array *array, int64_t i, int64_t *out);

/* All elements of a one-dimensional integer array, none negative, in memory to be freed (also
 * for 0 elements). */
LIK_CHECKED int lik_array_integers(const struct lik_array *array, const char *path, int64_t **out,
                                   struct lik_io_error *error);

/* Fills elements and bytes from type and shape, every product checked. `path` is for the
 * message. */
LIK_CHECKED int lik_array_measure(struct lik_array *array, const char *path, struct lik_io_error *error);

int lik_npy_recognize(const struct lik_map *map);
/* Versions 1 to 3, row-major, little-endian, plain numbers; the data must fill the rest of the
 * file exactly. */
LIK_CHECKED int lik_npy_read(const struct lik_map *map, const char *path, struct lik_array *array,
                             struct lik_io_error *error);
/* Writes the header of a version 1.0 file; rank * shape elements of `type` must follow. */
LIK_CHECKED int lik_npy_write_header(struct lik_output *out, int type, int rank, const int64_t *shape,
                                     struct lik_io_error *error);

struct lik_safetensors {
    struct lik_array *arrays; /* in the order of their data */
    int64_t count;
    struct lik_bytes metadata; /* the JSON object of that name; size 0 if there is none */
};

/* NumPy's .npz: the members that are .npy, stored, not compressed. `file` as below; it has no
 * metadata, and its arrays do not tile it. */
int lik_npz_recognize(const struct lik_map *map);
LIK_CHECKED int lik_npz_read(const struct lik_map *map, const char *path, struct lik_safetensors *file,
                             struct lik_io_error *error);

/* Are the checksums of its arrays right? Reading does not look: it would take in the whole file
 * before the first token is wanted. */
LIK_CHECKED int lik_npz_verify(const struct lik_map *map, const char *path, struct lik_io_error *error);

int lik_safetensors_recognize(const struct lik_map *map);
/* The ranges must tile the data section: no gap, no overlap, nothing behind. After a failure
 * the file holds nothing. */
LIK_CHECKED int lik_safetensors_read(const struct lik_map *map, const char *path,
                                     struct lik_safetensors *file, struct lik_io_error *error);
void lik_safetensors_free(struct lik_safetensors *file);
const struct lik_array *lik_safetensors_find(const struct lik_safetensors *file, const char *name);
/* The text that the metadata have under `key`: 1 with *value; 0: there is none; -1: out of
 * memory. */
LIK_CHECKED int lik_safetensors_metadata(const struct lik_safetensors *file, const char *key,
                                         struct lik_bytes *value);

#endif
