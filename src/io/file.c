/* Mapped inputs and atomic outputs; see file.h. */
#include "io/file.h"

#include "base/size.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int lik_io_fail(struct lik_io_error *error, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return status;
}

int lik_io_no_memory(struct lik_io_error *error, const char *path, const char *what, int64_t bytes)
{
    return lik_io_fail(error, LIK_IO_EXHAUSTED, "%s: out of memory: %s need %lld bytes", path, what, (long long)bytes);
}

static int fail_errno(struct lik_io_error *error, const char *path, const char *verb)
{
    int status =
        errno == ENOSPC || errno == ENOMEM || errno == EDQUOT || errno == EFBIG ? LIK_IO_EXHAUSTED : LIK_IO_UNREADABLE;
    return lik_io_fail(error, status, "%s: cannot %s: %s", path, verb, strerror(errno));
}

int lik_bytes_reserve(struct lik_bytes *bytes, int64_t more)
{
    int64_t need, capacity = bytes->capacity > 64 ? bytes->capacity : 64;
    if (lik_add_i64(bytes->size, more, &need) || lik_add_i64(need, 1, &need))
        return -1;
    if (need <= bytes->capacity)
        return 0;
    while (capacity < need)
        if (lik_add_i64(capacity, capacity / 2, &capacity))
            return -1;
    char *data = realloc(bytes->data, (size_t)capacity);
    if (!data)
        return -1;
    bytes->data = data;
    bytes->capacity = capacity;
    return 0;
}

int lik_bytes_append(struct lik_bytes *bytes, const void *data, int64_t size)
{
    if (lik_bytes_reserve(bytes, size))
        return -1;
    if (size > 0)
        memcpy(bytes->data + bytes->size, data, (size_t)size);
    bytes->size += size;
    bytes->data[bytes->size] = 0;
    return 0;
}

void lik_bytes_free(struct lik_bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct lik_bytes){0};
}

static int read_all(int fd, const char *path, struct lik_map *map, struct lik_io_error *error)
{
    struct lik_bytes bytes = {0};
    for (;;) {
        if (lik_bytes_reserve(&bytes, 1 << 16)) {
            int64_t size = bytes.size;
            lik_bytes_free(&bytes);
            return lik_io_no_memory(error, path, "its contents", size);
        }
        ssize_t got = read(fd, bytes.data + bytes.size, (size_t)(bytes.capacity - bytes.size - 1));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int status = fail_errno(error, path, "read");
            lik_bytes_free(&bytes);
            return status;
        }
        if (got == 0)
            break;
        bytes.size += got;
    }
    *map = (struct lik_map){.data = (uint8_t *)bytes.data, .size = bytes.size};
    return 0;
}

int lik_map_open(const char *path, struct lik_map *map, struct lik_io_error *error)
{
    *map = (struct lik_map){0};
    if (!strcmp(path, "-"))
        return read_all(STDIN_FILENO, "standard input", map, error);
    int fd = open(path, O_RDONLY | O_CLOEXEC), status = 0;
    if (fd < 0)
        return fail_errno(error, path, "open");
    struct stat info;
    if (fstat(fd, &info)) {
        status = fail_errno(error, path, "stat");
    } else if (S_ISDIR(info.st_mode)) {
        status = lik_io_fail(error, LIK_IO_UNREADABLE, "%s is a directory, not a file", path);
    } else if (!S_ISREG(info.st_mode) || info.st_size == 0) {
        status = read_all(fd, path, map, error); /* also files under /proc, whose size reads 0 */
    } else {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = fail_errno(error, path, "map");
        else
            *map = (struct lik_map){.data = data, .size = (int64_t)info.st_size, .mapped = 1};
    }
    close(fd);
    return status;
}

void lik_map_close(struct lik_map *map)
{
    if (map->mapped)
        munmap((void *)(uintptr_t)map->data, (size_t)map->size);
    else
        free((void *)(uintptr_t)map->data);
    *map = (struct lik_map){0};
}

int lik_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

/* Temporary names of the open outputs, for the signal handler: a slot is filled before the file exists on disk only by
 * its template, and emptied after the rename. */
#define OUTPUTS_MAX 8
static char *volatile open_outputs[OUTPUTS_MAX];

void lik_output_abandon_all(void)
{
    for (int i = 0; i < OUTPUTS_MAX; i++)
        if (open_outputs[i])
            unlink(open_outputs[i]);
}

static void block_signals(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
}

static void restore_signals(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* Creates the temporary file and registers it; no signal may come between the two. */
static int create_temporary(struct lik_output *out)
{
    sigset_t before;
    int slot = 0;
    while (slot < OUTPUTS_MAX && open_outputs[slot])
        slot++;
    if (slot == OUTPUTS_MAX) {
        errno = EMFILE;
        return -1;
    }
    block_signals(&before);
    out->fd = mkstemp(out->temporary);
    int saved = errno;
    if (out->fd >= 0) {
        open_outputs[slot] = out->temporary;
        out->slot = slot;
        fcntl(out->fd, F_SETFD, FD_CLOEXEC);
    }
    restore_signals(&before);
    errno = saved;
    if (out->fd < 0)
        return -1;
    mode_t mask = umask(0);
    umask(mask);
    return fchmod(out->fd, 0666 & ~mask);
}

int lik_output_open(struct lik_output *out, const char *path, struct lik_io_error *error)
{
    struct stat info;
    *out = (struct lik_output){.fd = -1, .slot = -1};
    int there = stat(path, &info) == 0;
    /* A link is followed: the file it names is replaced, the link stays. */
    out->path = there && S_ISREG(info.st_mode) ? realpath(path, NULL) : strdup(path);
    if (!out->path)
        return fail_errno(error, path, "resolve");
    if (there && !S_ISREG(info.st_mode)) {
        out->fd = open(path, O_WRONLY | O_CLOEXEC);
        if (out->fd >= 0)
            return 0;
    } else {
        size_t length = strlen(out->path) + sizeof ".XXXXXX";
        out->temporary = malloc(length);
        if (out->temporary) {
            snprintf(out->temporary, length, "%s.XXXXXX", out->path);
            if (!create_temporary(out))
                return 0;
        }
    }
    int status = fail_errno(error, path, "write");
    lik_output_abandon(out);
    return status;
}

int lik_output_write(struct lik_output *out, const void *data, int64_t size, struct lik_io_error *error)
{
    const char *at = data;
    while (size > 0) {
        ssize_t done = write(out->fd, at, (size_t)lik_min_i64(size, 1 << 30));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return fail_errno(error, out->path, "write");
        at += done;
        size -= done;
    }
    return 0;
}

static void forget(struct lik_output *out)
{
    if (out->slot >= 0)
        open_outputs[out->slot] = NULL;
    free(out->path);
    free(out->temporary);
    *out = (struct lik_output){.fd = -1, .slot = -1};
}

int lik_output_commit(struct lik_output *out, struct lik_io_error *error)
{
    sigset_t before;
    int status = 0, fd = out->fd;
    if (out->temporary && fsync(fd) && errno != EINVAL)
        status = fail_errno(error, out->path, "write");
    out->fd = -1;
    if (close(fd) && !status)
        status = fail_errno(error, out->path, "close");
    block_signals(&before);
    if (!status && out->temporary && rename(out->temporary, out->path))
        status = fail_errno(error, out->path, "rename to");
    if (status && out->temporary)
        unlink(out->temporary);
    forget(out);
    restore_signals(&before);
    return status;
}

void lik_output_abandon(struct lik_output *out)
{
    sigset_t before;
    if (!out->path)
        return;
    block_signals(&before);
    if (out->fd >= 0)
        close(out->fd);
    if (out->temporary && out->slot >= 0)
        unlink(out->temporary);
    forget(out);
    restore_signals(&before);
}
