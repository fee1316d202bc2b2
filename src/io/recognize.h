/* What kind of file a collection, or a file that goes with one, is. */
#ifndef LIK_IO_RECOGNIZE_H
#define LIK_IO_RECOGNIZE_H

#include "io/file.h"

/* By its first bytes: "npy", "safetensors", "JSON lines", or NULL. */
const char *lik_recognize(const struct lik_map *map);
/* For a file that is none of them: a status and a message that says what it seems to be. */
LIK_CHECKED int lik_recognize_fail(const struct lik_map *map, const char *path, struct lik_io_error *error);

#endif
