/* Mapped inputs, growing bytes and the words of errors; see file.h. */
#include "io/file.h"

#include "base/size.h"
#include "io/system.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    int status = lik_system_status();
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
        int64_t got = lik_file_read(fd, bytes.data + bytes.size, bytes.capacity - bytes.size - 1);
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

int lik_map_open(const char *path, struct lik_map *map, struct lik_io_error *error)
{
    *map = (struct lik_map){0};
    if (!strcmp(path, "-"))
        return read_all(LIK_STDIN, "standard input", map, error);
    int fd = lik_file_open_read(path), status = 0;
    if (fd < 0)
        return lik_io_fail_errno(error, path, "open");
    struct lik_file_info info;
    if (lik_file_info_of(fd, &info)) {
        status = lik_io_fail_errno(error, path, "stat");
    } else if (info.kind == LIK_FILE_FOLDER) {
        status = lik_io_fail(error, LIK_IO_UNREADABLE, "%s is a directory, not a file", path);
    } else if (info.kind != LIK_FILE_REGULAR || info.size == 0) {
        status = read_all(fd, path, map, error); /* also files under /proc, whose size reads 0 */
    } else {
        void *data = lik_file_map(fd, info.size);
        if (!data)
            status = lik_io_fail_errno(error, path, "map");
        else
            *map = (struct lik_map){.data = data, .size = info.size, .mapped = 1};
    }
    lik_file_close(fd);
    return status;
}

void lik_map_close(struct lik_map *map)
{
    if (map->mapped)
        lik_file_unmap((void *)(uintptr_t)map->data, map->size);
    else if (!map->borrowed)
        free((void *)(uintptr_t)map->data);
    *map = (struct lik_map){0};
}

int lik_file_exists(const char *path, struct lik_io_error *error)
{
    struct lik_file_info info;
    if (!lik_file_info(path, &info))
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
