#define _GNU_SOURCE
#include "guard.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

// fusectl's file that ends the connection, of this connection only, whatever its number becomes. Root needs not have fusectl mounted.
static int open_abort(const char *minor) {
    char name[64];
    snprintf(name, sizeof name, "%s/abort", minor);
    int folder = open("/sys/fs/fuse/connections", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int file = openat(folder, name, O_WRONLY | O_CLOEXEC);
    if (file >= 0) return file;
    int context = fsopen("fusectl", FSOPEN_CLOEXEC);
    if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0) return -1;
    return openat(fsmount(context, FSMOUNT_CLOEXEC, 0), name, O_WRONLY | O_CLOEXEC);
}

int guard_mount(const char *minor, const char *parent) {
    // What ends the mount in good order ends us afterwards: the mount process sees to it.
    sigset_t signals;
    sigfillset(&signals);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    int abort = open_abort(minor);
    // Nothing of the mount's stays open here: not its lock, not its log, not the terminal, not the folder that it was started in.
    if (abort < 0 || dup2(abort, 0) != 0 || close_range(1, ~0U, 0) != 0 || chdir("/") != 0) return 1;
    sigset_t death;
    sigemptyset(&death);
    sigaddset(&death, SIGUSR1);
    if (getppid() == atoi(parent)) sigwaitinfo(&death, NULL);
    return write(0, "1", 1) == 1 ? 0 : 1;
}
