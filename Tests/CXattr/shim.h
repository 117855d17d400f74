// What Swift's Glibc module does not show: xattr(7), renameat2(2).
#pragma once
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/// rename(2) that replaces nothing: EEXIST (RENAME_NOREPLACE of linux/fs.h).
static inline int rename_to_new(const char *from, const char *to) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 1u);
}
