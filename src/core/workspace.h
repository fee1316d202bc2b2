/* Workspace: how much a plan asks for, and what a run takes. The front door's side of
 * lik_workspace_plan and lik_workspace_take (core/backend.h).
 *
 * In a build with LIK_GUARD_WORKSPACE gaps between the workspace's regions (base/layout.h) are
 * painted when it is taken and looked at when the run is over. */
#ifndef LIK_CORE_WORKSPACE_H
#define LIK_CORE_WORKSPACE_H

#include "core/backend.h"

#ifdef LIK_GUARD_WORKSPACE
/* Before a run: no gaps yet. *outer are those of a run that this thread is in, whose
 * parallel_for may do other work while it waits. */
void lik_guards_begin(struct lik_layout *outer);
/* After a run, which it waits for: LIK_EDEVICE and a message that says where, if a gap was
 * written to. The gaps of `outer` count again. */
LIK_STATUS lik_guards_check(const struct lik_context *ctx, const struct lik_exec *exec,
                            const struct lik_layout *outer);
#else
static inline void lik_guards_begin(struct lik_layout *outer)
{
    (void)outer;
}

static inline LIK_STATUS lik_guards_check(const struct lik_context *ctx, const struct lik_exec *exec,
                                          const struct lik_layout *outer)
{
    (void)ctx, (void)exec, (void)outer;
    return LIK_OK;
}
#endif

#endif
