// xattr(7), which Swift's Glibc module does not show.
#pragma once
#include <sys/xattr.h>
