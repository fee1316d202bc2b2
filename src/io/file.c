/* Mapped inputs, growing bytes and the words of errors; see file.h. */
#include "io/file.h"

#include "base/size.h"

#include <errno.h>
#include <fcntl.h>
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
    return lik_io_fail(error, LIK_IO_EXHAUSTED, "%s: out of memory: %s need %lld bytes", path, what,
                       (long long)bytes);
}

int lik_io_fail_errno(struct lik_io_error *error, const char *path, const char *verb)
{
    int status = errno == EPIPE ? LIK_IO_GONE
                 : errno == ENOSPC || errno == ENOMEM || errno == EDQUOT || errno == EFBIG
                     ? LIK_IO_EXHAUSTED
                     : LIK_IO_UNREADABLE;
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
            int status = lik_io_fail_errno(error, path, "read");
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

int lik_file_open(const char *path, int flags, unsigned mode)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

int lik_map_open(const char *path, struct lik_map *map, struct lik_io_error *error)
{
    *map = (struct lik_map){0};
    if (!strcmp(path, "-"))
        return read_all(STDIN_FILENO, "standard input", map, error);
    int fd = lik_file_open(path, O_RDONLY, 0), status = 0;
    if (fd < 0)
        return lik_io_fail_errno(error, path, "open");
    struct stat info;
    if (fstat(fd, &info)) {
        status = lik_io_fail_errno(error, path, "stat");
    } else if (S_ISDIR(info.st_mode)) {
        status = lik_io_fail(error, LIK_IO_UNREADABLE, "%s is a directory, not a file", path);
    } else if (!S_ISREG(info.st_mode) || info.st_size == 0) {
        status = read_all(fd, path, map, error); /* also files under /proc, whose size reads 0 */
    } else {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = lik_io_fail_errno(error, path, "map");
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
    else if (!map->borrowed)
        free((void *)(uintptr_t)map->data);
    *map = (struct lik_map){0};
}

int lik_file_exists(const char *path, struct lik_io_error *error)
{
    struct stat info;
    if (!stat(path, &info))
        return 1;
    return errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG || errno == EACCES
               ? 0
               : lik_io_fail_errno(error, path, "look for");
}

int lik_path_ends(const char *path, const char *suffix)
{
    size_t n = path ? strlen(path) : 0, m = strlen(suffix);
    return n >= m && !strcmp(path + n - m, suffix);
}
