// OpenSSL 3 libcrypto. Sole importer: Sources/Shared/Crypto.
#pragma once
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
