/* The calling thread's error message. */
#ifndef LIK_BASE_ERROR_H
#define LIK_BASE_ERROR_H

#include "lik/lik.h"

/* Stores the formatted message for lik_last_error() and returns `status`. */
__attribute__((format(printf, 2, 3))) LIK_STATUS lik_fail(int status, const char *format, ...);

/* Clears the message and returns LIK_OK. */
LIK_STATUS lik_succeed(void);

#endif
