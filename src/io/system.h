/* What the readers, the outputs and the command ask of the operating system: system_posix.c,
 * with what Linux and macOS have each for itself in system_linux.c and system_macos.c, and
 * system_windows.c. Paths and texts are UTF-8 everywhere. What fails says so in errno. */
#ifndef LIK_IO_SYSTEM_H
#define LIK_IO_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

#define LIK_PATH_MAX 4096

/* ---- which file a name leads to ---- */

enum lik_file_kind { LIK_FILE_REGULAR, LIK_FILE_FOLDER, LIK_FILE_OTHER };

struct lik_file_info {
    uint64_t device, number; /* of one file they are the same under all its names */
    int64_t size, links;
    enum lik_file_kind kind;
};

/* Links are followed. 0, or -1 with errno. */
int lik_file_info(const char *path, struct lik_file_info *info);
int lik_file_info_of(int fd, struct lik_file_info *info);

/* Length of the folder's part of a path, the separator included; 0: it has none. */
int lik_path_folder(const char *path);
/* Where a path leads, in fresh memory: links are followed, the last one also to what is not
 * there yet. NULL with errno. */
char *lik_path_follow(const char *path);

/* ---- reading and writing; file numbers are small integers everywhere ---- */

enum { LIK_STDIN, LIK_STDOUT, LIK_STDERR };

int lik_file_open_read(const char *path);
int lik_file_open_write(const char *path); /* what is there and is no regular file */
/* Bytes, 0 at the end, -1 with errno. Interruptions do not show. */
int64_t lik_file_read(int fd, void *to, int64_t bytes);
int64_t lik_file_write(int fd, const void *from, int64_t bytes);
int lik_file_close(int fd);
int lik_file_sync(int fd); /* what cannot be synced has been */
/* What the last write to standard output did not tell: a copy of it is closed. */
int lik_stdout_sync(void);

/* A regular file's bytes, of which there are some, for reading. NULL with errno. */
void *lik_file_map(int fd, int64_t bytes);
void lik_file_unmap(void *data, int64_t bytes);

/* ---- outputs, see output.h ---- */

/* Creates a file that is not there, and holds it: while it is open no run takes it for that of
 * a dead one. -1 with EEXIST where the name is taken. `private`: nobody else may read it
 * yet. */
int lik_file_create_held(const char *name, int private);
/* Removes a file that nobody holds and that this user owns. Whether none is there then. */
int lik_file_remove_dead(const char *name);
/* Is there a regular file of this user's, no link? */
int lik_file_is_own(const char *name);
/* Gives an open file the rights of the one at `path`, or if there is none there of the own one
 * at `aside`. */
int lik_file_inherit(int fd, const char *path, const char *aside);
int lik_file_move(const char *from, const char *to); /* replaces what is there, at once */
int lik_file_link(const char *from, const char *to); /* a second name */
int lik_file_remove(const char *name);               /* may be called by what lik_interrupts_catch calls */

/* A lock on a folder; waits up to `patience` times 10 ms. -1: there are no such locks, or
 * somebody keeps it. */
intptr_t lik_folder_lock(const char *folder, int patience);
void lik_folder_unlock(intptr_t lock);

/* ---- the process ---- */

/* What an interruption calls, and what reading a mapped file calls that was cut short. Both
 * must end with lik_end. Output that nobody reads fails as other writes do. */
void lik_interrupts_catch(void (*interrupted)(void), void (*cut_short)(void));
/* Between these two no interruption comes; errno stays. They do not nest. */
void lik_interrupts_hold(void);
void lik_interrupts_release(void);
/* Writes to standard error (NULL: nothing) and ends the program at once. */
_Noreturn void lik_end(int code, const char *text);

/* Standard streams carry bytes, and one that the caller has closed leads nowhere: else the next
 * file would take its place. Replaces main's arguments where those are not UTF-8. */
void lik_process_begin(int *argc, char ***argv);
/* A variable of the environment that may name a file. NULL: it is not set. */
const char *lik_environment(const char *name);
/* Which system this is: its name, release and processor, one line. */
void lik_system_text(char *text, size_t size);
/* The folder of what this user's programs of ours keep, made if it is not there; 0, or -1 with
 * errno, which is 0 where the environment tells no place for it. */
int lik_cache_folder(char path[LIK_PATH_MAX]);
/* The path of the running program; 0 or -1. */
int lik_program_path(char path[LIK_PATH_MAX]);
/* Cores this process may run on, two hardware threads of a core counted once. */
int lik_physical_cores(void);
double lik_seconds(void); /* since some moment */

int lik_is_terminal(int fd);
int lik_terminal_columns(int fd); /* 0: it is none, or does not say */
int lik_terminal_is_able(void);   /* to show colors and to go back in a line */
int lik_terminal_is_utf8(void);

/* The enum lik_io_status of what errno says, or what the system keeps beside it. */
int lik_system_status(void);

#endif
