/* Atomic outputs; see output.h. */
#include "io/output.h"

#include "base/size.h"
#include "io/system.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTPUTS_MAX 4   /* open at once */
#define NAMES_MAX   100 /* runs that write the same file at once */
#define NAME_KEPT \
    200              /* bytes of a file's name in that of its temporary one: 255 is what file systems allow */
#define PATIENCE 100 /* times 10 ms, for a folder that somebody else has locked: a run of ours takes less */

/* Names of the unfinished outputs, for the signal handlers: never freed, taken only while the
 * file is there. */
static struct {
    char name[LIK_PATH_MAX];
    volatile sig_atomic_t taken;
} slots[OUTPUTS_MAX];

void lik_output_abandon_all(void)
{
    for (int i = 0; i < OUTPUTS_MAX; i++)
        if (slots[i].taken) {
            slots[i].taken = 0; /* another run may have the name from here on */
            lik_file_remove(slots[i].name);
        }
}

/* Does the information of both say that they are one file? */
static int same(const struct lik_file_info *a, const struct lik_file_info *b)
{
    return a->number == b->number && a->device == b->device;
}

static const char *folder_of(const char *path, char folder[LIK_PATH_MAX])
{
    int length = lik_path_folder(path);
    snprintf(folder, LIK_PATH_MAX, "%.*s", length ? length : 1, length ? path : ".");
    return folder;
}

/* The n-th temporary name of a path; -1 if it is too long. A name that is cut has a hash of the
 * whole in it (FNV-1a). */
static int temporary_name(const char *path, int n, char name[LIK_PATH_MAX])
{
    int folder = lik_path_folder(path), kept = (int)strnlen(path + folder, NAME_KEPT);
    char whole[16] = "";
    uint32_t hash = 2166136261u;
    for (int i = 0; i < 3 && kept > 1 && ((unsigned char)path[folder + kept] & 0xc0) == 0x80; i++)
        kept--; /* no half of a character */
    for (const char *at = path + folder; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 16777619u;
    if (path[folder + kept])
        snprintf(whole, sizeof whole, "~%08x", (unsigned)hash);
    errno = ENAMETOOLONG;
    return snprintf(name, LIK_PATH_MAX, "%.*s.lik-%.*s%s-%d", folder, path, kept, path + folder, whole, n) <
                   LIK_PATH_MAX
               ? 0
               : -1;
}

/* Creates the temporary file in a free slot. */
static int claim(struct lik_output *out, int private)
{
    int slot = 0;
    while (slot < OUTPUTS_MAX && slots[slot].taken)
        slot++;
    errno = slot < OUTPUTS_MAX ? EISDIR : EMFILE;
    if (slot == OUTPUTS_MAX || !out->path[lik_path_folder(out->path)])
        return -1;
    char *name = slots[slot].name;
    for (int i = 0; i < NAMES_MAX; i++) {
        if (temporary_name(out->path, i, name))
            return -1;
        lik_file_remove_dead(name);
        int fd = lik_file_create_held(name, private);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd < 0)
            return -1;
        out->fd = fd;
        out->temporary = name;
        out->slot = slot;
        out->number = i;
        slots[slot].taken = 1;
        return 0;
    }
    errno = EEXIST;
    return -1;
}

static void forget(struct lik_output *out)
{
    if (out->slot >= 0)
        slots[out->slot].taken = 0;
    if (out->fd >= 0 && out->fd != LIK_STDOUT)
        lik_file_close(out->fd);
    free(out->path);
    *out = (struct lik_output){.fd = -1, .slot = -1};
}

int lik_output_open(struct lik_output *out, const char *path, struct lik_io_error *error)
{
    struct lik_file_info info, there;
    *out = (struct lik_output){.fd = -1, .slot = -1};
    out->path = path ? lik_path_follow(path) : strdup("standard output");
    if (!out->path)
        return lik_io_fail_errno(error, path ? path : "standard output", "write");
    if (!path) {
        out->fd = LIK_STDOUT;
        return 0;
    }
    int exists = !lik_file_info(path, &info), failed = 0;
    if (exists && info.kind != LIK_FILE_REGULAR) {
        out->fd = lik_file_open_write(path);
        free(out->path); /* where /proc leads has no name */
        out->path = out->fd < 0 ? NULL : strdup(path);
        failed = !out->path;
    } else if (exists ? lik_file_info(out->path, &there) || !same(&there, &info) : errno != ENOENT) {
        failed = -1; /* such as a name under /proc of a file that has none */
    } else {
        lik_interrupts_hold(); /* none may come between the file and its slot */
        failed = claim(out, exists);
        lik_interrupts_release();
    }
    if (!failed)
        return 0;
    int status = lik_io_fail_errno(error, path, "write");
    forget(out);
    return status;
}

int lik_output_same(const struct lik_output *a, const struct lik_output *b)
{
    char folder[LIK_PATH_MAX];
    struct lik_file_info x, y;
    int named = !strcmp(a->path + lik_path_folder(a->path), b->path + lik_path_folder(b->path));
    if (named && !lik_file_info(folder_of(a->path, folder), &x) &&
        !lik_file_info(folder_of(b->path, folder), &y) && same(&x, &y))
        return 1;
    return !lik_file_info(a->path, &x) && !lik_file_info(b->path, &y) && x.kind == LIK_FILE_REGULAR &&
           x.links == 1 && same(&x, &y);
}

int lik_output_write(struct lik_output *out, const void *data, int64_t size, struct lik_io_error *error)
{
    const char *at = data;
    while (size > 0) {
        int64_t done = lik_file_write(out->fd, at, lik_min_i64(size, 1 << 30));
        if (done < 0)
            return lik_io_fail_errno(error, out->path, "write");
        at += done;
        size -= done;
    }
    return 0;
}

/* ---- putting in place ---- */

/* The name under which the file that `out` replaces stands aside. */
static const char *old_name(const struct lik_output *out, char name[LIK_PATH_MAX + 8])
{
    snprintf(name, LIK_PATH_MAX + 8, "%s.old", out->temporary);
    return name;
}

/* Makes sure that what was written is kept. */
static int settle(struct lik_output *out, struct lik_io_error *error)
{
    char aside[LIK_PATH_MAX + 8];
    if (!out->temporary) { /* a close tells what the last write did not; standard output stays open */
        int fd = out->fd;
        out->fd = -1;
        return (fd == LIK_STDOUT ? lik_stdout_sync() : lik_file_close(fd))
                   ? lik_io_fail_errno(error, out->path, "write")
                   : 0;
    }
    if (lik_file_inherit(out->fd, out->path, old_name(out, aside)))
        return lik_io_fail_errno(error, out->path, "set the mode of");
    return lik_file_sync(out->fd) ? lik_io_fail_errno(error, out->path, "write") : 0;
}

static int step_aside(struct lik_output *out, struct lik_io_error *error)
{
    char old[LIK_PATH_MAX + 8];
    if (out->temporary && lik_file_move(out->path, old_name(out, old))) {
        if (errno != ENOENT)
            return lik_io_fail_errno(error, out->path, "rename");
    } else if (out->temporary) {
        out->aside = 1;
    }
    return 0;
}

static int place(struct lik_output *out, struct lik_io_error *error)
{
    if (out->temporary && lik_file_move(out->temporary, out->path))
        return lik_io_fail_errno(error, out->path, "rename to");
    out->placed = 1;
    return 0;
}

/* After a failure in the middle: the new file goes, the old one comes back, by a second way if
 * the first is barred. If one cannot come back, none of those before it may. */
static int put_back(struct lik_output *out, int barred, struct lik_io_error *error)
{
    char old[LIK_PATH_MAX + 8];
    if (!out->temporary || !out->aside)
        return !barred && out->temporary && out->placed ? lik_file_remove(out->path) : barred;
    old_name(out, old);
    if (!barred && !lik_file_move(old, out->path))
        return 0;
    if (!barred && (!out->placed || !lik_file_remove(out->path)) && !lik_file_link(old, out->path))
        return lik_file_remove(old), 0;
    size_t said = strlen(error->text);
    snprintf(error->text + said, sizeof error->text - said, "\n    What %s held is in %s.", out->path, old);
    return -1;
}

/* Removes what dead runs left that wrote the same file, and the file of old that stood aside
 * meanwhile. */
static void sweep(const struct lik_output *out)
{
    char name[LIK_PATH_MAX], old[LIK_PATH_MAX + 8];
    for (int i = 0; i < NAMES_MAX && !temporary_name(out->path, i, name); i++) {
        snprintf(old, sizeof old, "%s.old", name);
        if (lik_file_remove_dead(name) && lik_file_is_own(old))
            lik_file_remove(old);
    }
}

/* See output.h for the order. */
static int replace(struct lik_output *const *outs, int count, struct lik_io_error *error)
{
    char name[LIK_PATH_MAX];
    int status = 0, barred = 0;
    intptr_t folder = -1;
    if (outs[0]->temporary)
        folder = lik_folder_lock(folder_of(outs[0]->path, name), count > 1 ? PATIENCE : 0);
    for (int i = 0; count > 1 && i < count && !status; i++)
        status = step_aside(outs[i], error);
    for (int i = count - 1; i >= 0 && !status; i--)
        status = place(outs[i], error);
    for (int i = count - 1; i >= 0 && status; i--)
        barred = put_back(outs[i], barred, error);
    for (int i = 0; i < count && !status; i++) {
        char old[LIK_PATH_MAX + 8];
        if (outs[i]->aside)
            lik_file_remove(old_name(outs[i], old));
        if (outs[i]->temporary && folder != -1)
            sweep(outs[i]);
    }
    lik_folder_unlock(folder);
    return status;
}

int lik_outputs_commit(struct lik_output *const *outs, int count, struct lik_io_error *error)
{
    int status = 0;
    for (int i = 0; i < count && !status; i++)
        status = settle(outs[i], error);
    lik_interrupts_hold();
    if (!status)
        status = replace(outs, count, error);
    for (int i = 0; i < count; i++) {
        if (status && outs[i]->temporary && !outs[i]->placed)
            lik_file_remove(outs[i]->temporary);
        forget(outs[i]);
    }
    lik_interrupts_release();
    return status;
}
