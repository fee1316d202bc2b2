/* NumPy's .npz: a zip archive whose members are .npy files, stored as they are. The arrays lie
 * where the file is mapped. */
#include "io/array.h"

#include "base/size.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define END_BYTES   22 /* of the record that ends an archive */
#define ENTRY_BYTES 46 /* of a member in the directory, before its name */
#define LOCAL_BYTES 30 /* of a member before its data, likewise */
#define COMMENT_MAX 65535
#define MEMBERS_MAX (1 << 20)
#define IN_64       0xffffffff /* the number stands in 64 bits elsewhere */
#define FAIL(...)   lik_io_fail(error, LIK_IO_UNREADABLE, __VA_ARGS__)
#define UNFIT(...)  lik_io_fail(error, LIK_IO_INCOMPATIBLE, __VA_ARGS__)

static uint64_t number(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes; i-- > 0;)
        value = value << 8 | at[i];
    return value;
}

static int is(const uint8_t *at, uint32_t signature)
{
    return number(at, 4) == signature;
}

int lik_npz_recognize(const struct lik_map *map)
{
    if (map->size < LOCAL_BYTES || !is(map->data, 0x04034b50))
        return 0;
    int64_t length = (int64_t)number(map->data + 26, 2);
    return length > 4 && LOCAL_BYTES + length <= map->size &&
           !memcmp(map->data + LOCAL_BYTES + length - 4, ".npy", 4);
}

/* The directory of an archive. */
struct directory {
    uint64_t at, bytes, members;
};

static int find_directory(const struct lik_map *map, const char *path, struct directory *d,
                          struct lik_io_error *error)
{
    int64_t at = map->size - END_BYTES, first = lik_max_i64(at - COMMENT_MAX, 0);
    while (at >= first && !is(map->data + at, 0x06054b50))
        at--;
    if (at < first)
        return FAIL("%s: the archive has no directory: it was cut short", path);
    const uint8_t *end = map->data + at;
    *d = (struct directory){number(end + 16, 4), number(end + 12, 4), number(end + 10, 2)};
    if (d->at == IN_64 || d->bytes == IN_64 || d->members == 0xffff) {
        uint64_t where = at >= 20 && is(end - 20, 0x07064b50) ? number(end - 12, 8) : UINT64_MAX;
        if (where > (uint64_t)at || (uint64_t)at - where < 56 || !is(map->data + where, 0x06064b50))
            return FAIL("%s: the archive's directory is not where its end says", path);
        const uint8_t *wide = map->data + where;
        *d = (struct directory){number(wide + 48, 8), number(wide + 40, 8), number(wide + 32, 8)};
    }
    if (d->at > (uint64_t)at || d->bytes > (uint64_t)at - d->at)
        return FAIL("%s: the archive's directory is said to be bytes %llu to %llu, its end is at %lld: it "
                    "was cut short",
                    path, (unsigned long long)d->at, (unsigned long long)(d->at + d->bytes), (long long)at);
    if (d->members > MEMBERS_MAX)
        return UNFIT("%s has %llu members, at most %d can be read", path, (unsigned long long)d->members,
                     MEMBERS_MAX);
    return 0;
}

/* Numbers of a directory's entry that stand in its extra field, in their order. */
static void widen(const uint8_t *extra, uint64_t bytes, uint64_t *whole, uint64_t *stored, uint64_t *local)
{
    while (bytes >= 4) {
        uint64_t id = number(extra, 2), length = number(extra + 2, 2), used = 0;
        if (length > bytes - 4)
            return;
        uint64_t *const numbers[] = {whole, stored, local};
        for (int i = 0; id == 1 && i < 3; i++)
            if (*numbers[i] == IN_64 && used + 8 <= length) {
                *numbers[i] = number(extra + 4 + used, 8);
                used += 8;
            }
        extra += 4 + length;
        bytes -= 4 + length;
    }
}

/* The checksum of a member: CRC-32, as zip has it. */
static uint32_t checksum(const uint8_t *data, uint64_t bytes)
{
    uint32_t table[256], sum = 0xffffffff;
    for (uint32_t n = 0; n < 256; n++) {
        table[n] = n;
        for (int bit = 0; bit < 8; bit++)
            table[n] = table[n] >> 1 ^ (table[n] & 1 ? 0xedb88320 : 0);
    }
    for (uint64_t i = 0; i < bytes; i++)
        sum = sum >> 8 ^ table[(sum ^ data[i]) & 0xff];
    return ~sum;
}

/* One member, `entry` its place in the directory, into the next array; others than .npy are
 * passed over. `verify`: its checksum must be right. */
static int read_member(const struct lik_map *map, const char *path, const uint8_t *entry, uint64_t directory,
                       int verify, struct lik_safetensors *file, struct lik_io_error *error)
{
    uint64_t stored = number(entry + 20, 4), whole = number(entry + 24, 4), local = number(entry + 42, 4);
    int64_t length = (int64_t)number(entry + 28, 2);
    const char *name = (const char *)entry + ENTRY_BYTES;
    widen(entry + ENTRY_BYTES + length, number(entry + 30, 2), &whole, &stored, &local);
    if (length <= 4 || memcmp(name + length - 4, ".npy", 4))
        return 0;
    if (number(entry + 8, 2) & 1)
        return UNFIT("%s: '%.*s' is encrypted", path, (int)lik_min_i64(length, 200), name);
    if (number(entry + 10, 2) || whole != stored)
        return UNFIT("%s: '%.*s' is compressed\n    Save the arrays with numpy.savez, not "
                     "savez_compressed.",
                     path, (int)lik_min_i64(length, 200), name);
    if (local > directory || directory - local < LOCAL_BYTES || !is(map->data + local, 0x04034b50))
        return FAIL("%s: '%.*s' is not where the archive's directory says", path,
                    (int)lik_min_i64(length, 200), name);
    uint64_t head = LOCAL_BYTES + number(map->data + local + 26, 2) + number(map->data + local + 28, 2);
    if (head > directory - local || stored > directory - local - head)
        return FAIL("%s: '%.*s' has %llu bytes, more than there are before the directory", path,
                    (int)lik_min_i64(length, 200), name, (unsigned long long)stored);
    uint32_t wanted = (uint32_t)number(entry + 16, 4), sum = wanted;
    if (verify)
        sum = checksum(map->data + local + head, stored);
    if (sum != wanted)
        return FAIL("%s: '%.*s' has the checksum %08x, the archive's directory says %08x: it is damaged",
                    path, (int)lik_min_i64(length, 200), name, sum, wanted);
    char *own = malloc((size_t)length - 3), *place = malloc(strlen(path) + (size_t)length + 4);
    if (!own || !place) {
        free(own);
        free(place);
        return lik_io_no_memory(error, path, "the names", length);
    }
    memcpy(own, name, (size_t)length - 4);
    own[length - 4] = 0;
    snprintf(place, strlen(path) + (size_t)length + 4, "%s, %s", path, own);
    struct lik_map member = {.data = map->data + local + head, .size = (int64_t)stored, .borrowed = 1};
    struct lik_array *array = &file->arrays[file->count++];
    int status = lik_npy_read(&member, place, array, error);
    array->name = own;
    free(place);
    return status;
}

static int read_all(const struct lik_map *map, const char *path, int verify, struct lik_safetensors *file,
                    struct lik_io_error *error)
{
    struct directory d = {0};
    *file = (struct lik_safetensors){0};
    int status = find_directory(map, path, &d, error);
    if (status)
        return status;
    file->arrays = calloc((size_t)d.members + 1, sizeof *file->arrays);
    if (!file->arrays)
        return lik_io_no_memory(error, path, "the members",
                                (int64_t)d.members * (int64_t)sizeof *file->arrays);
    uint64_t at = 0;
    for (uint64_t i = 0; i < d.members && !status; i++) {
        const uint8_t *entry = map->data + d.at + at;
        uint64_t size = d.bytes - at < ENTRY_BYTES ? UINT64_MAX
                                                   : ENTRY_BYTES + number(entry + 28, 2) +
                                                         number(entry + 30, 2) + number(entry + 32, 2);
        if (size > d.bytes - at || !is(entry, 0x02014b50))
            status =
                FAIL("%s: member %llu of the archive's directory is damaged", path, (unsigned long long)i);
        else
            status = read_member(map, path, entry, d.at, verify, file, error);
        at += size;
    }
    for (int64_t i = 0; i < file->count && !status; i++)
        for (int64_t k = 0; k < i && !status; k++)
            if (!strcmp(file->arrays[i].name, file->arrays[k].name))
                status = FAIL("%s: two arrays are called '%.200s'", path, file->arrays[i].name);
    if (status)
        lik_safetensors_free(file);
    return status;
}

int lik_npz_read(const struct lik_map *map, const char *path, struct lik_safetensors *file,
                 struct lik_io_error *error)
{
    return read_all(map, path, 0, file, error);
}

int lik_npz_verify(const struct lik_map *map, const char *path, struct lik_io_error *error)
{
    struct lik_safetensors file;
    int status = read_all(map, path, 1, &file, error);
    if (!status)
        lik_safetensors_free(&file);
    return status;
}
