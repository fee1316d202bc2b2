/* lik_check [--quick] [--device NAME] [--case N] [--slack BYTES] [GROUP ...]: runs the groups
 * named, or all, on every device this machine has, and closes with one line of totals. Exit
 * status 0: all held; 1: some did not; 2: it could not run. */
#include "check.h"

#include "io/system.h"

static const struct {
    const char *name;
    void (*run)(void);
} groups[] = {
    {"dtypes", check_dtypes},       {"score", check_score},
    {"special", check_special},     {"invariance", check_invariance},
    {"grad", check_grad},           {"topk", check_topk},
    {"codec", check_codec},         {"quantize", check_quantize},
    {"arguments", check_arguments}, {"views", check_views},
    {"plans", check_plans},
#ifndef __wasi__ /* which has neither threads nor files */
    {"pool", check_pool},           {"files", check_files},
#endif
};

static int usage(const char *argument)
{
    printf("unknown argument \"%s\"\nusage: lik_check [--quick] [--device NAME] [--case N] [--slack BYTES] "
           "[GROUP "
           "...]\ngroups:",
           argument);
    for (int64_t g = 0; g < COUNT(groups); g++)
        printf(" %s", groups[g].name);
    printf("\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *device = NULL;
    int chosen[COUNT(groups)] = {0}, any = 0;
    const char *quick = getenv("LIK_CHECK_QUICK");
    totals.quick = quick && *quick && strcmp(quick, "0") != 0;
    for (int a = 1; a < argc; a++) {
        int64_t found = -1;
        for (int64_t g = 0; g < COUNT(groups); g++)
            if (!strcmp(argv[a], groups[g].name))
                found = g;
        if (found >= 0)
            any = chosen[found] = 1;
        else if (!strcmp(argv[a], "--quick"))
            totals.quick = 1;
        else if (!strcmp(argv[a], "--device") && a + 1 < argc)
            device = argv[++a];
        else if (!strcmp(argv[a], "--slack") && a + 1 < argc)
            totals.slack = (size_t)(atoi(argv[++a]) & 4095);
        else if (!strcmp(argv[a], "--case") && a + 1 < argc)
            totals.only = atoll(argv[++a]);
        else
            return usage(argv[a]);
    }
    check_catch_faults();
    devices_open(device);
    for (int64_t g = 0; g < COUNT(groups); g++) {
        if (any && !chosen[g])
            continue;
        struct check_totals before = totals;
        double start = lik_seconds();
        groups[g].run();
        printf("%-10s %8lld cases %10lld checks %6lld failures %6.1f s\n", groups[g].name,
               (long long)(totals.cases - before.cases), (long long)(totals.checks - before.checks),
               (long long)(totals.failures - before.failures), lik_seconds() - start);
        fflush(stdout);
    }
    devices_close();
    if (totals.gpu) {
        printf("%lld operations ran on the GPU\n", (long long)totals.launched);
        check_describe("the GPU");
        check(totals.launched > 0, "nothing ran on it");
    }
    printf("lik_check: %lld checks, %lld failures, %lld skipped; largest error %.2f of its tolerance\n",
           (long long)totals.checks, (long long)totals.failures, (long long)totals.skipped, totals.worst);
    return totals.failures ? 1 : 0;
}
