/* The readers need two constructors of the library and none of its backends; these stand in for them at link time. */
#include "core/backend.h"

const struct lik_backend lik_backend_cpu = {.name = "cpu"};
const struct lik_backend lik_backend_ref = {.name = "ref"};
