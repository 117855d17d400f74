// `boxfs`: starts the command line, `boxfs-command`, in this process.
//
// One command is answered here, because scripts run it after every step and a mount's answer takes less time than loading the command
// line's libraries: `boxfs flush PATH` without a terminal asks the mount by ioctl(2). Whatever it does not say yes to, the command line
// finds out again and explains.
#define _GNU_SOURCE
#include "guard.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/limits.h>
#include <linux/magic.h>

// The mount's end is Sources/BoxFS/Kernel/Callbacks.swift.
#define BOXFS_IOC_FLUSH _IO('B', 0xf5)

// Whether all that was written below the path's mount is on the server.
static int is_flushed(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return 0;
    struct stat status;
    struct statfs system;
    int is_ours = fstat(file, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))
        && fstatfs(file, &system) == 0 && system.f_type == FUSE_SUPER_MAGIC;
    // Pages that programs changed through mmap(2) and that the mount has not seen go first.
    int result = is_ours && syncfs(file) == 0 && ioctl(file, BOXFS_IOC_FLUSH) == 0;
    close(file);
    return result;
}

int main(int count, char **arguments) {
    // The mount process starts this (Sources/BoxFS/Command/Mounting/MountGuard.swift).
    if (count == 4 && strcmp(arguments[1], "--guard") == 0) return guard_mount(arguments[2], arguments[3]);
    if (count == 3 && strcmp(arguments[1], "flush") == 0 && arguments[2][0] != '-' && !isatty(STDERR_FILENO) && is_flushed(arguments[2])) return 0;
    char path[PATH_MAX + sizeof "-command"];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    if (length > 0) {
        strcpy(path + length, "-command");
        execv(path, arguments);
    }
    fprintf(stderr, "boxfs: %s cannot be started (%s). Install BoxFS again: both files belong together.\n", length > 0 ? path : "boxfs-command", strerror(errno));
    return 1;
}
