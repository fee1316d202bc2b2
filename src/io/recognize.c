/* Recognizing files by their first bytes. */
#include "io/recognize.h"

#include "io/array.h"
#include "io/text.h"

const char *lik_recognize(const struct lik_map *map)
{
    if (lik_npy_recognize(map))
        return "npy";
    if (lik_npz_recognize(map))
        return "npz";
    if (lik_safetensors_recognize(map))
        return "safetensors";
    for (int64_t i = lik_text_has_mark((const char *)map->data, map->size) ? 3 : 0; i < map->size; i++) {
        uint8_t c = map->data[i];
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
            return c == '{' ? "JSON lines" : NULL;
    }
    return NULL;
}

int lik_recognize_fail(const struct lik_map *map, const char *path, struct lik_io_error *error)
{
    struct lik_array array;
    struct lik_safetensors tensors;
    if (map->size == 0)
        return lik_io_fail(error, LIK_IO_UNREADABLE, "%s is empty", path);
    int status = lik_text_refuse(map, path, error);
    if (status)
        return status;
    if (lik_path_ends(path, ".npy"))
        return lik_npy_read(map, path, &array, error);
    if (lik_path_ends(path, ".safetensors") && map->size > 8 && map->data[8] != '{')
        return lik_io_fail(error, LIK_IO_UNREADABLE,
                           "%s is not a .safetensors file: its header begins with byte 0x%02x, not with '{'",
                           path, map->data[8]);
    if (lik_path_ends(path, ".safetensors")) {
        status = lik_safetensors_read(map, path, &tensors, error);
        lik_safetensors_free(&tensors);
        return status;
    }
    return lik_io_fail(error, LIK_IO_UNREADABLE,
                       "%s is neither .npy, .npz, .safetensors nor JSON lines: it begins with byte 0x%02x\n"
                       "    `lik score --help` lists what can be read.",
                       path, map->data[0]);
}
