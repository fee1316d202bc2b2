/* The gaps between a workspace's regions in a build with LIK_GUARD_WORKSPACE, see
 * base/layout.h; elsewhere nothing. */
#ifndef LIK_CORE_GUARDS_H
#define LIK_CORE_GUARDS_H

#include "core/backend.h"

#ifdef LIK_GUARD_WORKSPACE
/* Before a run: paints the gaps of the layout that was planned last. Waits for what still runs
 * in the stream. */
LIK_STATUS lik_guards_paint(const struct lik_context *ctx, const struct lik_exec *exec);

/* After a run, which it waits for: LIK_EDEVICE and a message that says where, if a gap was
 * written to. */
LIK_STATUS lik_guards_check(const struct lik_context *ctx, const struct lik_exec *exec);
#else
static inline LIK_STATUS lik_guards_paint(const struct lik_context *ctx, const struct lik_exec *exec)
{
    (void)ctx, (void)exec;
    return LIK_OK;
}

static inline LIK_STATUS lik_guards_check(const struct lik_context *ctx, const struct lik_exec *exec)
{
    (void)ctx, (void)exec;
    return LIK_OK;
}
#endif

#endif
