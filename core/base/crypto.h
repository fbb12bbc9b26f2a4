/*
 * SHA-256 from OpenSSL's libcrypto; random bytes and comparison in constant time from libsodium.
 */
#ifndef PRATAI_CRYPTO_H
#define PRATAI_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_HEX_MAX = 65 };

struct err;

/* Once per process, before anything else here. */
int crypto_init(struct err *e);

struct sha256 {
	_Alignas(16) unsigned char state[128];
};
void sha256_init(struct sha256 *h);
void sha256_update(struct sha256 *h, const void *data, size_t len);
void sha256_final(struct sha256 *h, uint8_t digest[SHA256_BYTES]);

void sha256(const void *data, size_t len, uint8_t digest[SHA256_BYTES]);
void sha256_hex(const void *data, size_t len, char hex[SHA256_HEX_MAX]);

void random_bytes(void *out, size_t len);
bool equal_in_constant_time(const void *a, const void *b, size_t len);

#endif
