#include "core/base/crypto.h"

/* Of OpenSSL only the bare hash: its state is ours, it allocates nothing, reads no configuration
 * and fails never.  It uses the processor's instructions for SHA, which libsodium does not. */
#define OPENSSL_API_COMPAT 0x10100000L
#include <openssl/sha.h>
#include <sodium.h>

#include "core/base/err.h"
#include "core/base/str.h"

_Static_assert(sizeof(struct sha256) >= sizeof(SHA256_CTX), "room for the state");
_Static_assert(SHA256_BYTES == SHA256_DIGEST_LENGTH, "the size of a digest");

static SHA256_CTX *
state_of(struct sha256 *h)
{
	return (SHA256_CTX *)(void *)h->state;
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
	SHA256_Init(state_of(h));
}

void
sha256_update(struct sha256 *h, const void *data, size_t len)
{
	SHA256_Update(state_of(h), data, len);
}

void
sha256_final(struct sha256 *h, uint8_t digest[SHA256_BYTES])
{
	SHA256_Final(digest, state_of(h));
}

void
sha256(const void *data, size_t len, uint8_t digest[SHA256_BYTES])
{
	struct sha256 h;

	/* Not SHA256(), which in OpenSSL 3 loads providers and a configuration. */
	sha256_init(&h);
	sha256_update(&h, data, len);
	sha256_final(&h, digest);
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
