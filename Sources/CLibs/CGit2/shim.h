#pragma once
#include <git2/errors.h>
#include <git2/global.h>
#include <git2/merge.h>
