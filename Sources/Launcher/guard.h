#pragma once

// Ends a mount's connection with the kernel when the mount process, our parent, dies.
//
// minor: of the mount's device, in decimal, which is the connection's name in fusectl (Documentation/filesystems/fuse/fuse.rst of the kernel).
// parent: the mount process, in decimal: it may have died before this one could ask to be told.
// Returns an exit status.
int guard_mount(const char *minor, const char *parent);
