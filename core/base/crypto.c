#include "core/base/crypto.h"

#include <sodium.h>

#include "core/base/err.h"
#include "core/base/str.h"

_Static_assert(sizeof(struct sha256) >= sizeof(crypto_hash_sha256_state), "room for the state");
_Static_assert(SHA256_BYTES == crypto_hash_sha256_BYTES, "the size of a digest");

static crypto_hash_sha256_state *
state_of(struct sha256 *h)
{
	return (crypto_hash_sha256_state *)(void *)h->state;
}

int
crypto_init(struct err *e)
{
	if (sodium_init() < 0)
		return err_set(e, ERR_NODE, "libsodium does not start");
	return 0;
}

void
sha256_init(struct sha256 *h)
{
	crypto_hash_sha256_init(state_of(h));
}

void
sha256_update(struct sha256 *h, const void *data, size_t len)
{
	crypto_hash_sha256_update(state_of(h), data, len);
}

void
sha256_final(struct sha256 *h, uint8_t digest[SHA256_BYTES])
{
	crypto_hash_sha256_final(state_of(h), digest);
}

void
sha256(const void *data, size_t len, uint8_t digest[SHA256_BYTES])
{
	crypto_hash_sha256(digest, data, len);
}

void
sha256_hex(const void *data, size_t len, char hex[SHA256_HEX_MAX])
{
	uint8_t digest[SHA256_BYTES];

	sha256(data, len, digest);
	str_hex(digest, sizeof digest, hex);
}

void
random_bytes(void *out, size_t len)
{
	randombytes_buf(out, len);
}

bool
equal_in_constant_time(const void *a, const void *b, size_t len)
{
	return sodium_memcmp(a, b, len) == 0;
}
