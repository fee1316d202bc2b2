/* lik_check_metal [--quick] [--case N] [--schedule N] [--threads] [--stop] [GROUP ...]: groups
 * of the check suite on the emulator, and those of schedules.c and bounds.c. Every run of an
 * operation gets the next schedule, or the one named. Names the kernels that never ran. Exit
 * status 0: all held; 1: some did not; 3: the emulator gave up. */
#include "../check/check.h"
#include "backend.h"
#include "emulator.h"
#include "metal/plan.h"
#include "schedules.h"

#include <time.h>

static const struct {
    const char *name;
    void (*run)(void);
} groups[] = {
    {"score", check_score},   {"special", check_special}, {"invariance", check_invariance},
    {"grad", check_grad},     {"topk", check_topk},       {"schedules", check_schedules},
    {"bounds", check_bounds},
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    int chosen[COUNT(groups)] = {0}, any = 0;
    for (int a = 1; a < argc; a++) {
        int64_t found = -1;
        for (int64_t g = 0; g < COUNT(groups); g++)
            if (!strcmp(argv[a], groups[g].name))
                found = g;
        if (found >= 0)
            any = chosen[found] = 1;
        else if (!strcmp(argv[a], "--quick"))
            totals.quick = 1;
        else if (!strcmp(argv[a], "--stop"))
            totals.stop = 1;
        else if (!strcmp(argv[a], "--threads"))
            emulator_threads = 1;
        else if (!strcmp(argv[a], "--case") && a + 1 < argc)
            totals.only = atoll(argv[++a]);
        else if (!strcmp(argv[a], "--schedule") && a + 1 < argc)
            emulated_schedule = atoll(argv[++a]);
        else {
            printf("unknown argument \"%s\"\n", argv[a]);
            return 2;
        }
    }
    check_catch_faults();
    devices_open(NULL);
    for (int64_t g = 0; g < COUNT(groups); g++) {
        struct check_totals before = totals;
        double start = seconds();
        if (any && !chosen[g])
            continue;
        groups[g].run();
        printf("%-10s %8lld cases %10lld checks %6lld failures %6.1f s\n", groups[g].name,
               (long long)(totals.cases - before.cases), (long long)(totals.checks - before.checks),
               (long long)(totals.failures - before.failures), seconds() - start);
        fflush(stdout);
    }
    devices_close();
    for (int k = 0; k < LIK_METAL_KERNELS; k++)
        if (!emulator_runs[k])
            printf("never ran: %s\n", lik_metal_kernels[k].name);
    printf("lik_check_metal: %lld checks, %lld failures; %lld dispatches, %lld threadgroups; %lld races in "
           "%lld accesses; largest error %.2f of its tolerance\n",
           (long long)totals.checks, (long long)totals.failures, (long long)emulator_dispatches,
           (long long)emulator_groups, (long long)emulator_races, (long long)emulator_accesses, totals.worst);
    return totals.failures || emulator_races ? 1 : 0;
}
