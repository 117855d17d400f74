// libcurl. Sole importer: Sources/BoxFS/Transfer. Swift cannot call variadic functions: each kind of option has a wrapper.
#pragma once
#include <curl/curl.h>

static inline CURLcode boxfs_curl_set_long(CURL *handle, CURLoption option, long value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode boxfs_curl_set_offset(CURL *handle, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode boxfs_curl_set_string(CURL *handle, CURLoption option, const char *value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode boxfs_curl_set_pointer(CURL *handle, CURLoption option, const void *value) {
    return curl_easy_setopt(handle, option, value);
}
typedef size_t (*boxfs_curl_transfer)(char *bytes, size_t size, size_t count, void *user);
static inline CURLcode boxfs_curl_set_transfer(CURL *handle, CURLoption option, boxfs_curl_transfer callback) {
    return curl_easy_setopt(handle, option, callback);
}
typedef int (*boxfs_curl_progress)(void *user, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow);
static inline CURLcode boxfs_curl_set_progress(CURL *handle, boxfs_curl_progress callback) {
    return curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, callback);
}
static inline CURLcode boxfs_curl_get_long(CURL *handle, CURLINFO info, long *value) {
    return curl_easy_getinfo(handle, info, value);
}
typedef curl_socket_t (*boxfs_curl_open)(void *user, curlsocktype purpose, struct curl_sockaddr *address);
typedef int (*boxfs_curl_close)(void *user, curl_socket_t socket);
static inline void boxfs_curl_set_sockets(CURL *handle, boxfs_curl_open open, boxfs_curl_close close, void *user) {
    curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, open);
    curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, user);
    curl_easy_setopt(handle, CURLOPT_CLOSESOCKETFUNCTION, close);
    curl_easy_setopt(handle, CURLOPT_CLOSESOCKETDATA, user);
}
