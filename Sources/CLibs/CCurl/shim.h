// libcurl. Sole importer: Sources/BoxFS/Transfer.
#pragma once
#include <curl/curl.h>
