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

/// How many names an open file has, as the file system says now, whatever the kernel believes (AT_STATX_FORCE_SYNC); -1 with errno.
static inline int64_t count_names(int descriptor) {
    struct statx status;
    const int force_sync = 0x2000, empty_path = 0x1000;
    return syscall(SYS_statx, descriptor, "", empty_path | force_sync, STATX_NLINK, &status) ? -1 : (int64_t)status.stx_nlink;
}
