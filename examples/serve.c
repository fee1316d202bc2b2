/* A server's core: documents in memory, queries from many threads, and how long they wait.
 * Three ways in turn: a query a thread, threads inside a query, all in one batch.
 *
 *     cc -O2 serve.c $(pkg-config --cflags --libs lik) -lpthread
 *     ./a.out [DOCUMENTS [CLIENTS [QUERIES_A_CLIENT]]] */
#include <lik/lik.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { DIM = 128, QUERY_TOKENS = 32, DOCUMENT_TOKENS = 100, K = 10 };

struct server {
    struct lik_context *ctx;
    struct lik_tokens documents;
    struct lik_pool *pool; /* NULL: a query runs on its client's thread alone */
    float *queries;        /* [clients * each, QUERY_TOKENS, DIM] */
    double *waited;        /* seconds, one a query */
    int each;
};

struct client {
    struct server *server;
    int number, status;
    void *workspace; /* of this thread: grows to what the first query takes, and is used again */
    size_t bytes;
    char message[256];
};

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *grow(void *lender, size_t bytes)
{
    struct client *client = lender;
    free(client->workspace);
    client->bytes = (bytes + 63) / 64 * 64;
    client->workspace = aligned_alloc(64, client->bytes);
    if (!client->workspace)
        client->bytes = 0;
    return client->workspace;
}

/* The best K documents of `count` queries. */
static int search(struct client *client, const float *queries, int64_t count, float *values, int64_t *ids)
{
    struct server *server = client->server;
    struct lik_topk op = LIK_TOPK_INIT;
    struct lik_exec exec = LIK_EXEC_INIT;
    op.score.q = lik_tokens_padded(queries, LIK_F32, count, QUERY_TOKENS, DIM);
    op.score.d = server->documents;
    op.k = K;
    op.values = values;
    op.ids = ids;
    exec.workspace = client->workspace;
    exec.workspace_bytes = client->bytes;
    exec.get_workspace = grow;
    exec.lender = client;
    if (server->pool) {
        exec.threads = lik_pool_threads(server->pool);
        exec.parallel_for = lik_pool_parallel_for;
        exec.pool = server->pool;
    }
    int status = lik_topk_run(server->ctx, &op, &exec);
    if (status)
        snprintf(client->message, sizeof client->message, "%s", lik_last_error());
    return status;
}

static void *serve(void *argument)
{
    struct client *client = argument;
    struct server *server = client->server;
    float values[K];
    int64_t ids[K];
    for (int i = 0; i < server->each && !client->status; i++) {
        int64_t n = (int64_t)client->number * server->each + i;
        double start = now();
        client->status = search(client, server->queries + n * QUERY_TOKENS * DIM, 1, values, ids);
        server->waited[n] = now() - start;
    }
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *how, double *waited, int n, double seconds)
{
    qsort(waited, (size_t)n, sizeof *waited, ascending);
    printf("%-24s %8.1f queries/s, waited ms: median %.2f, 95%% %.2f, 99%% %.2f, most %.2f\n", how,
           n / seconds, waited[n / 2] * 1e3, waited[(int)(n * 0.95)] * 1e3, waited[(int)(n * 0.99)] * 1e3,
           waited[n - 1] * 1e3);
}

/* All clients at once; returns the first status that is not LIK_OK. */
static int run_clients(struct server *server, int clients, const char *how)
{
    pthread_t *threads = calloc((size_t)clients, sizeof *threads);
    struct client *all = calloc((size_t)clients, sizeof *all);
    int status = threads && all ? LIK_OK : LIK_ENOMEM, started = 0;
    double start = now();
    for (; started < clients && !status; started++) {
        all[started] = (struct client){.server = server, .number = started};
        if (pthread_create(&threads[started], NULL, serve, &all[started]))
            status = LIK_ENOMEM;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        status = status ? status : all[i].status;
        if (all[i].status)
            printf("%s\n", all[i].message);
        free(all[i].workspace);
    }
    if (!status)
        report(how, server->waited, clients * server->each, now() - start);
    free(threads);
    free(all);
    return status;
}

static int run_batch(struct server *server, int n)
{
    struct client client = {.server = server};
    float *values = malloc((size_t)n * K * sizeof *values);
    int64_t *ids = malloc((size_t)n * K * sizeof *ids);
    double start = now();
    int status = values && ids ? search(&client, server->queries, n, values, ids) : LIK_ENOMEM;
    double seconds = now() - start;
    for (int i = 0; i < n; i++)
        server->waited[i] = seconds;
    if (!status)
        report("one batch", server->waited, n, seconds);
    else
        printf("%s\n", client.message);
    free(client.workspace);
    free(values);
    free(ids);
    return status;
}

static float *random_floats(int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; x && i < n; i++)
        x[i] = (float)rand() / (float)RAND_MAX - 0.5F;
    return x;
}

static int number(int argc, char **argv, int i, int otherwise)
{
    int value = i < argc ? atoi(argv[i]) : otherwise;
    return value > 0 ? value : otherwise;
}

int main(int argc, char **argv)
{
    int documents = number(argc, argv, 1, 2000), clients = number(argc, argv, 2, 4);
    struct server server = {.each = number(argc, argv, 3, 50)};
    int n = clients * server.each, status = lik_context_create("cpu", &server.ctx);
    float *tokens = random_floats((int64_t)documents * DOCUMENT_TOKENS * DIM);
    int64_t *offsets = malloc(((size_t)documents + 1) * sizeof *offsets);
    server.queries = random_floats((int64_t)n * QUERY_TOKENS * DIM);
    server.waited = calloc((size_t)n, sizeof *server.waited);
    if (!tokens || !offsets || !server.queries || !server.waited)
        status = LIK_ENOMEM;
    if (!status) {
        for (int i = 0; i <= documents; i++)
            offsets[i] = (int64_t)i * DOCUMENT_TOKENS;
        server.documents = lik_tokens_packed(tokens, LIK_F32, documents, 0, offsets[documents], DIM, offsets,
                                             LIK_I64); /* 0: the longest is found */
        printf("%d documents of %d tokens, %d clients, %s\n", documents, DOCUMENT_TOKENS, clients,
               lik_context_name(server.ctx));
        status = run_clients(&server, clients, "a query a thread");
    }
    if (!status)
        status = lik_pool_create(clients, &server.pool);
    if (!status)
        status = run_clients(&server, clients, "threads inside a query");
    if (!status)
        status = run_batch(&server, n);
    if (status)
        printf("%s\n", lik_status_name(status));
    lik_pool_destroy(server.pool);
    lik_context_destroy(server.ctx);
    free(tokens);
    free(offsets);
    free(server.queries);
    free(server.waited);
    return status != 0;
}
