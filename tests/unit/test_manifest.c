/*
 * Manifests: what is taken out of a good one, and that no other is taken.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "core/model/manifest.h"

#define A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define CONFIG "{\"mediaType\":\"c\",\"digest\":\"" A "\",\"size\":7}"
#define LAYER "{\"mediaType\":\"l\",\"digest\":\"" B "\",\"size\":9}"

static struct manifest m;

static void
refused(const char *text, const char *word)
{
	struct err e = { 0 };

	if (!manifest_parse(text, strlen(text), &m, &e))
		fail_msg("%.200s: taken", text);
	assert_int_equal(e.cls, ERR_INPUT);
	if (!strstr(e.text, word))
		fail_msg("%.200s: %s", text, e.text);
}

static void
test_good_ones(void **state)
{
	static const char *const good[] = {
		"{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[" LAYER "," CONFIG "]}",
		"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":" CONFIG
		",\"layers\":[" LAYER "," CONFIG "],\"annotations\":{\"a\":\"b\"},\"subject\":null}",
		" {\"layers\":[" LAYER "," CONFIG "],\"config\":" CONFIG ",\"schemaVersion\":2,\"mediaType\":"
		"\"application/vnd.docker.distribution.manifest.v2+json\"}\n",
	};
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_int_equal(manifest_parse(good[i], strlen(good[i]), &m, &e), 0);
		assert_string_equal(m.config.digest, A + 7);
		assert_string_equal(m.config.media, "c");
		assert_int_equal(m.config.bytes, 7);
		assert_int_equal(m.layer_count, 2);
		assert_string_equal(m.layers[0].digest, B + 7);
		assert_string_equal(m.layers[0].media, "l");
		assert_int_equal(m.layers[0].bytes, 9);
		assert_string_equal(m.layers[1].digest, A + 7);
		for (size_t cut = 1; cut + 1 < strlen(good[i]); cut++)
			assert_int_equal(manifest_parse(good[i], cut, &m, &e), -1);
	}
}

static void
test_others(void **state)
{
	static const char *const blobs[][2] = {
		{ "5", "no digest" }, { "{\"size\":1}", "no digest" }, { "{\"digest\":\"" A "\"}", "no size" },
		{ "{\"digest\":\"" A "0\",\"size\":1}", "no digest" },
		{ "{\"digest\":\"sha512:00\",\"size\":1}", "no digest" },
		{ "{\"digest\":\"" A "\",\"size\":-1}", "no size" },
		{ "{\"digest\":\"" A "\",\"size\":1.5}", "no size" },
		{ "{\"digest\":\"" A "\",\"size\":8589934593}", "8589934592" },
	};
	char text[600];

	(void)state;
	refused("", "manifest");
	refused("[]", "none of OCI's");
	refused("{}", "none of OCI's");
	refused("{\"schemaVersion\":1,\"config\":" CONFIG ",\"layers\":[" LAYER "]}", "none of OCI's");
	refused("{\"schemaVersion\":2,\"layers\":[" LAYER "]}", "none of OCI's");
	refused("{\"schemaVersion\":2,\"mediaType\":\"x\",\"config\":" CONFIG ",\"layers\":[" LAYER "]}",
		"none of OCI's");
	refused("{\"schemaVersion\":2,\"manifests\":[]}", "index");
	refused("{\"schemaVersion\":2,\"config\":" CONFIG "}", "no layers");
	refused("{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[]}", "no layers");
	refused("{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":{\"a\":" LAYER "}}", "no layers");
	for (size_t i = 0; i < sizeof blobs / sizeof blobs[0]; i++) {
		snprintf(text, sizeof text, "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[%s]}", blobs[i][0]);
		refused(text, blobs[i][1]);
	}
}

static void
test_many_layers(void **state)
{
	char *text = malloc(200 * sizeof LAYER);
	struct err e;

	(void)state;
	for (int count = 127; count <= 128; count++) {
		size_t n = (size_t)sprintf(text, "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[");

		for (int i = 0; i < count; i++)
			n += (size_t)sprintf(text + n, "%s" LAYER, i ? "," : "");
		strcpy(text + n, "]}");
		if (count == 127)
			assert_int_equal(manifest_parse(text, strlen(text), &m, &e), 0);
		else
			refused(text, "127");
	}
	free(text);
}

static void
test_long_texts(void **state)
{
	char *text = calloc(1, MANIFEST_MAX_BYTES + 2);
	struct err e;

	(void)state;
	memset(text, ' ', MANIFEST_MAX_BYTES + 1);
	assert_int_equal(manifest_parse(text, MANIFEST_MAX_BYTES + 1, &m, &e), -1);
	assert_non_null(strstr(e.text, "4194304"));
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_ones),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_many_layers),
		cmocka_unit_test(test_long_texts),
	};

	return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
