// libfuse 3.14, low-level API. Sole importer: Sources/BoxFS/Kernel.
#pragma once
#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <fuse3/fuse_opt.h>
