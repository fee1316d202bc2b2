/* How operations would run on a GPU, against plans.txt: problems and the plans that were
 * measured to be good, in words. Planning is plain C, so this runs on every machine. A line
 * that begins with a dtype is a problem, the line below it its plan; LIK_CHECK_WRITE=1 writes
 * the file anew. */
#include "check.h"

#include "cuda/plan/plan.h"

#include <stdarg.h>

static char refusal[256];

/* What the planning that is compiled with the suite has for lik_fail. */
int check_plan_fail(int status, const char *format, ...);
int check_plan_fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(refusal, sizeof refusal, format, args);
    va_end(args);
    return status;
}

/* What limits a launch on the GPUs that plans are kept for. */
static struct gpu_limits limits_of(int arch)
{
    if (arch == 90)
        return (struct gpu_limits){90, 132, 232448, 233472 / 2 - 2048, 1};
    if (arch == 80)
        return (struct gpu_limits){80, 108, 166912, 167936 / 2 - 2048, 0};
    return (struct gpu_limits){75, 40, 65536, 65536 / 2 - 2048, 0};
}

struct planned {
    struct lik_topk topk; /* its score is the problem */
    struct lik_codec codec;
    int arch, want_topk, want_grad, want_encode, want_train;
    int table; /* all query tokens of an element lie together */
};

static int dtype_named(const char *name)
{
    for (int dtype = LIK_F32; dtype <= LIK_I8; dtype++)
        if (!strcmp(name, lik_dtype_name(dtype)))
            return dtype;
    return 0;
}

/* One word of a problem. Addresses are of no memory: planning looks at their alignment
 * alone. */
static int read_word(const char *word, struct planned *p)
{
    static char *const nowhere = (char *)(uintptr_t)4096;
    struct lik_score *s = &p->topk.score;
    long long a, b;
    int dtype = dtype_named(word);
    if (dtype)
        s->q.dtype = s->d.dtype = dtype;
    else if (word[0] == 'q' && word[1] == ':' && (dtype = dtype_named(word + 2)))
        s->q.dtype = dtype;
    else if (sscanf(word, "q=%lldx%lld", &a, &b) == 2)
        s->q.count = a, s->q.len_max = b;
    else if (sscanf(word, "d=%lldx%lld", &a, &b) == 2)
        s->d.count = a, s->d.len_max = b;
    else if (sscanf(word, "dim=%lld", &a) == 1)
        s->q.dim = s->d.dim = a;
    else if (sscanf(word, "packed=%lld", &a) == 1)
        s->d.total = a, s->d.offsets = nowhere, s->d.offsets_dtype = LIK_I64;
    else if (sscanf(word, "candidates=%lld", &a) == 1)
        s->pairing = LIK_CANDIDATES, s->per_query = s->d.group_size = a;
    else if (sscanf(word, "list=%lld", &a) == 1)
        s->pairing = LIK_LIST, s->list_count = a;
    else if (sscanf(word, "padding=%lld", &a) == 1)
        s->d.strides.token = a;                           /* added to the row below */
    else if (sscanf(word, "bits=%lldx%lld", &a, &b) == 2) /* and centroids */
        p->codec = (struct lik_codec){.bits = (int)a, .centroid_count = b}, s->d.storage = LIK_RESIDUAL;
    else if (sscanf(word, "arch=%lld", &a) == 1)
        p->arch = (int)a;
    else if (sscanf(word, "topk=%lld", &a) == 1)
        p->topk.k = a, p->want_topk = 1;
    else if (!strcmp(word, "grad"))
        p->want_grad = 1, s->argmax_dtype = LIK_I16, s->argmax = nowhere;
    else if (!strcmp(word, "encode")) /* q, by the centroids d */
        p->want_encode = 1;
    else if (!strcmp(word, "train"))
        p->want_train = 1;
    else if (!strcmp(word, "argmax"))
        s->argmax_dtype = LIK_I16, s->argmax = nowhere;
    else if (!strcmp(word, "pairs"))
        s->pairing = LIK_PAIRS;
    else if (!strcmp(word, "normalized"))
        s->q.normalize = s->d.normalize = 1;
    else if (!strcmp(word, "scaled"))
        s->q.scale = lik_dtype_bytes(s->q.dtype) == 1 ? (const float *)nowhere : NULL,
        s->d.scale = (const float *)nowhere, s->d.scale_strides.token = 1;
    else if (!strcmp(word, "one-hot"))
        s->d.storage = LIK_ONE_HOT;
    else if (!strcmp(word, "table"))
        p->table = 1;
    else if (!strcmp(word, "mask"))
        s->d.mask = (const uint8_t *)nowhere;
    else if (!strcmp(word, "q-mask"))
        s->q.mask = (const uint8_t *)nowhere;
    else if (!strcmp(word, "high"))
        s->precision = LIK_HIGH;
    else if (!strcmp(word, "medium"))
        s->precision = LIK_MEDIUM;
    else
        return 0;
    return 1;
}

static void finish_tokens(struct lik_tokens *x)
{
    x->data = (const void *)(uintptr_t)4096;
    x->dim_stride = 1;
    x->strides.token += x->storage == LIK_RESIDUAL ? (x->dim * x->codec->bits + 7) / 8 : x->dim;
    x->strides.sequence = x->strides.token * x->len_max;
    x->strides.group = x->strides.sequence * x->group_size;
    if (x->storage != LIK_DENSE)
        x->codes_strides = (struct lik_strides){x->len_max * x->group_size, x->len_max, 1};
}

static int read_problem(const char *line, struct planned *p)
{
    char words[2048];
    *p = (struct planned){.arch = 90};
    if (!check(strlen(line) < sizeof words, "the problem is too long"))
        return 0;
    memcpy(words, line, strlen(line) + 1);
    for (char *word = strtok(words, " \n"); word; word = strtok(NULL, " \n"))
        if (!read_word(word, p))
            return check(0, "\"%s\" is no word of a problem", word);
    struct lik_tokens *d = &p->topk.score.d;
    if (d->storage == LIK_RESIDUAL)
        d->codec = &p->codec;
    p->codec.centroids_dtype = d->dtype;
    p->codec.centroids = (const void *)(uintptr_t)4096;
    finish_tokens(&p->topk.score.q);
    finish_tokens(d);
    if (p->table) {
        p->topk.score.q.strides.token = 1;
        p->topk.score.q.dim_stride = p->topk.score.q.len_max;
    }
    return 1;
}

static void print_plan(const struct planned *p, char *text, size_t size)
{
    struct gpu_limits gpu = limits_of(p->arch);
    struct lik_layout layout = {0};
    char name[64], words[1536];
    int status;
    if (p->want_topk) {
        struct topk_plan plan;
        status = lik_cuda_plan_topk(&gpu, &p->topk, &layout, &plan);
        lik_cuda_name_topk(&plan, &p->topk, name, sizeof name);
        lik_cuda_print_topk(&plan, words, sizeof words);
    } else if (p->want_grad) {
        struct lik_grad op = {.score = p->topk.score, .grad_d = (void *)(uintptr_t)4096};
        struct grad_plan plan;
        status = lik_cuda_plan_grad(&gpu, &op, &layout, &plan);
        lik_cuda_name_grad(&plan, &op, name, sizeof name);
        lik_cuda_print_grad(&plan, words, sizeof words);
    } else if (p->want_encode) {
        const struct lik_score *s = &p->topk.score;
        struct lik_codec codec = {.centroid_count = s->d.len_max, .centroids_dtype = s->d.dtype, .bits = 4};
        struct lik_encode op = {.x = s->q, .codec = &codec, .precision = s->precision};
        struct encode_plan plan;
        status = lik_cuda_plan_encode(&gpu, &op, &layout, &plan);
        lik_cuda_name_encode(&plan, name, sizeof name);
        lik_cuda_print_assign(&plan.assign, words, sizeof words);
    } else if (p->want_train) {
        const struct lik_score *s = &p->topk.score;
        struct lik_train op = {
            .x = s->q, .centroid_count = s->d.len_max, .bits = 4, .precision = s->precision};
        struct train_plan plan;
        op.points_per_centroid = 256;
        status = lik_cuda_plan_train(&gpu, &op, &layout, &plan);
        lik_cuda_name_train(&plan, name, sizeof name);
        lik_cuda_print_train(&plan, words, sizeof words);
    } else {
        struct score_plan plan;
        status = lik_cuda_plan_score(&gpu, &p->topk.score, &layout, &plan);
        lik_cuda_name_score(&plan, &p->topk.score, name, sizeof name);
        lik_cuda_print_score(&plan, words, sizeof words);
    }
    if (status)
        snprintf(text, size, "    %s", refusal);
    else
        snprintf(text, size, "    %s: %s", name, words);
}

void check_plans(void)
{
    static char lines[1000][2048];
    const char *write = getenv("LIK_CHECK_WRITE");
    FILE *file = fopen(LIK_CHECK_PLANS, "r");
    int count = 0, problems = 0;
    if (!check(file != NULL, "cannot read %s", LIK_CHECK_PLANS))
        return;
    while (count < COUNT(lines) && fgets(lines[count], sizeof lines[0], file))
        lines[count][strcspn(lines[count], "\n")] = '\0', count++;
    fclose(file);
    file = write && *write == '1' ? fopen(LIK_CHECK_PLANS, "w") : NULL;
    for (int i = 0; i < count; i++) {
        struct planned p;
        char plan[2048];
        const char *line = lines[i];
        int problem = line[0] && line[0] != '#' && line[0] != ' ';
        if (file && line[0] != ' ')
            fprintf(file, "%s\n", line);
        if (!problem || !read_problem(line, &p))
            continue;
        problems++;
        totals.cases++;
        check_describe("the plan of %s", line);
        print_plan(&p, plan, sizeof plan);
        if (file)
            fprintf(file, "%s\n", plan);
        else
            check(i + 1 < count && !strcmp(lines[i + 1], plan), "it is\n%s\n    and was\n%s", plan,
                  i + 1 < count ? lines[i + 1] : "");
    }
    if (file)
        fclose(file);
    check_describe("plans");
    check(problems >= 40, "%d problems were found in %s", problems, LIK_CHECK_PLANS);
}
