/* What Linux has for itself; see system.h. */
#ifdef __linux__
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "io/system.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int lik_physical_cores(void)
{
    cpu_set_t allowed, seen;
    int cores = 0;
    CPU_ZERO(&seen);
    if (sched_getaffinity(0, sizeof allowed, &allowed)) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        return online > 1 ? (int)online : 1;
    }
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        char path[96], text[256] = "";
        if (!CPU_ISSET(cpu, &allowed) || CPU_ISSET(cpu, &seen))
            continue;
        cores++;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (!fgets(text, sizeof text, file))
            text[0] = 0;
        fclose(file);
        for (char *at = text; *at >= '0' && *at <= '9';) { /* "0,4" or "0-1" */
            long from = strtol(at, &at, 10), to = *at == '-' ? strtol(at + 1, &at, 10) : from;
            for (; from <= to && from < CPU_SETSIZE; from++)
                CPU_SET((size_t)from, &seen);
            at += *at == ',';
        }
    }
    return cores ? cores : 1;
}

int lik_program_path(char path[LIK_PATH_MAX])
{
    ssize_t size = readlink("/proc/self/exe", path, LIK_PATH_MAX - 1);
    path[size > 0 ? size : 0] = 0;
    return size > 0 ? 0 : -1;
}
#endif
