/* The vectors of lik selftest: small problems of every kind that a device may take, each scored
 * by it and by the reference. */
#ifndef LIK_CLI_VECTORS_H
#define LIK_CLI_VECTORS_H

#include "library.h"

struct vectors_found {
    int right, wrong, refused; /* operations; refused: the device does not do this one */
    char first_wrong[320];     /* what was wrong first, in words; "" */
    double worst_error;        /* of a score, as a share of what is allowed */
};

/* All of them, on the library's device. */
void vectors_run(struct library *library, struct vectors_found *found);

#endif
