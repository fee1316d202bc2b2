/* What macOS has for itself; see system.h. */
#ifdef __APPLE__
#include "io/system.h"

#include <mach-o/dyld.h>
#include <sys/sysctl.h>

int lik_physical_cores(void)
{
    int cores = 0;
    size_t size = sizeof cores;
    return sysctlbyname("hw.physicalcpu", &cores, &size, NULL, 0) || cores < 1 ? 1 : cores;
}

int lik_program_path(char path[LIK_PATH_MAX])
{
    uint32_t size = LIK_PATH_MAX;
    return _NSGetExecutablePath(path, &size) ? -1 : 0;
}
#endif
