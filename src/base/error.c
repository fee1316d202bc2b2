#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[512];

int lik_fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return status;
}

int lik_succeed(void)
{
    message[0] = '\0';
    return LIK_OK;
}

const char *lik_last_error(void)
{
    return message;
}
