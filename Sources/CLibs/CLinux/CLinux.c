#define _GNU_SOURCE
#include "CLinux.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/ioprio.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int linux_allocate_keeping_size(int file, long end) {
    return fallocate(file, FALLOC_FL_KEEP_SIZE, 0, end);
}

int linux_set_direct(int file, int direct) {
    int flags = fcntl(file, F_GETFL);
    return flags < 0 ? -1 : fcntl(file, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT);
}

void linux_become_idle(void) {
    setpriority(PRIO_PROCESS, 0, 19);  // Linux: 0 is the calling thread
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

void linux_begin_writing(int file) {
    sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE);
}

void linux_limit_heaps(int count) {
    mallopt(M_ARENA_MAX, count);
}
