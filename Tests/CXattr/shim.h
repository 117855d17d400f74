// What Swift's Glibc module does not show: xattr(7), renameat2(2), statx(2).
#pragma once
#include <fcntl.h>
#include <linux/stat.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/// rename(2) that replaces nothing: EEXIST (RENAME_NOREPLACE of linux/fs.h).
static inline int rename_to_new(const char *from, const char *to) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 1u);
}

/// What the file system says of an open file now, whatever the kernel believes (AT_STATX_FORCE_SYNC): how many names it has, and when it or they were
/// last changed, in nanoseconds since 1970.
/// Returns -1 with errno.
static inline int names_and_change(int descriptor, int64_t *names, int64_t *changed) {
    struct statx status;
    const int force_sync = 0x2000, empty_path = 0x1000;
    if (syscall(SYS_statx, descriptor, "", empty_path | force_sync, STATX_NLINK | STATX_CTIME, &status)) return -1;
    *names = status.stx_nlink;
    *changed = status.stx_ctime.tv_sec * 1000000000LL + status.stx_ctime.tv_nsec;
    return 0;
}
