/* Outputs that appear complete or not at all, alone or together.
 *
 * A file is written under a temporary name in the folder of the file it is to be,
 * `.lik-NAME-N`, and renamed when it is whole; a link is followed and stays, and what is
 * replaced hands down its mode and, where that is permitted, its owner. The writer holds a lock
 * on the temporary file: one without a lock is what a run left that was killed, and the next
 * run that writes NAME removes it. A path that exists and is no regular file (a device, a pipe)
 * is written directly.
 *
 * Files that belong together are replaced so that whoever finds the first of them finds all
 * others to be its own: it steps aside before anything else changes and comes last. A run that
 * is killed in between leaves no file of the first one's name, and what was there before under
 * `.lik-NAME-N.old`. */
#ifndef LIK_IO_OUTPUT_H
#define LIK_IO_OUTPUT_H

#include "io/file.h"

struct lik_output {
    char *path;            /* links followed; NULL: nothing is open */
    const char *temporary; /* NULL when written directly */
    int fd, slot, number;  /* number: N of the temporary name */
    /* while several are replaced: the old file has stepped aside, the new one is in its
     * place */
    int aside, placed;
};

/* `path` NULL is standard output. */
LIK_CHECKED int lik_output_open(struct lik_output *out, const char *path, struct lik_io_error *error);
/* Do both lead to one file? */
int lik_output_same(const struct lik_output *a, const struct lik_output *b);
LIK_CHECKED int lik_output_write(struct lik_output *out, const void *data, int64_t size,
                                 struct lik_io_error *error);
/* Flushes, closes and puts all of them in place, together. On failure all files are as they
 * were and the temporary ones gone. */
LIK_CHECKED int lik_outputs_commit(struct lik_output *const *outs, int count, struct lik_io_error *error);
/* Removes the temporary files of all outputs that are open. Async-signal-safe. */
void lik_output_abandon_all(void);

#endif
