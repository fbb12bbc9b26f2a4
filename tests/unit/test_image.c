/*
 * The record of an image: what is printed is read again, and nothing else is; names; what a
 * stack of layers shows at a path.
 */
#include "rootfs/image.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/layer_lookup.h"
#include "rootfs/oci.h"
#include "rootfs/tar_names.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void
test_record(void **state)
{
	static struct image i, back;
	struct buf text = { 0 }, again = { 0 };
	struct err e;

	(void)state;
	memcpy(i.manifest, HEX, 65);
	memcpy(i.config, HEX, 65);
	strcpy(i.os, "linux");
	i.layer_count = 2;
	i.base = 1;
	for (int k = 0; k < 2; k++) {
		memcpy(i.layers[k].blob, HEX, 65);
		memcpy(i.layers[k].diff, HEX, 65);
		memcpy(i.layers[k].key, HEX, 65);
		i.layers[k].blob_bytes = UINT32_MAX * 5ull;
		strcpy(i.layers[k].media, "a b%\n");
	}
	assert_int_equal(image_word(&i.env, "A=b c\n%20\x01\xff"), 0);
	assert_int_equal(image_word(&i.env, ""), 0);
	assert_int_equal(image_word(&i.cmd, "x"), 0);
	i.workdir = strdup("/a b");
	i.uid = -1;
	i.gid = 7;
	assert_int_equal(image_print(&i, &text), 0);
	assert_int_equal(image_parse(&back, text.data, text.len, &e), 0);
	assert_string_equal(back.env.list[0], "A=b c\n%20\x01\xff");
	assert_string_equal(back.env.list[1], "");
	assert_null(back.env.list[2]);
	assert_string_equal(back.layers[1].media, "a b%\n");
	assert_true(back.base == 1 && back.uid == -1 && back.gid == 7 && !back.user);
	assert_int_equal(image_print(&back, &again), 0);
	assert_string_equal(text.data, again.data);
	image_free(&back);
	/* Cut anywhere, it is none; with any byte changed it is one or none, but read safely. */
	for (size_t n = 0; n < text.len; n++) {
		char was = text.data[n];

		if (image_parse(&back, text.data, n, &e) == 0)
			assert_int_equal(text.data[n - 1], '\n');
		image_free(&back);
		for (unsigned c = 1; c < 256; c += 37) {
			text.data[n] = (char)c;
			image_parse(&back, text.data, text.len, &e);
			image_free(&back);
		}
		text.data[n] = was;
	}
	buf_free(&text);
	buf_free(&again);
	image_free(&i);
}

static void
test_too_many_words(void **state)
{
	struct image_words w = { 0 };
	struct image i = { .env = { 0 } };

	(void)state;
	for (int k = 0; k < IMAGE_WORDS_MAX; k++)
		assert_int_equal(image_word(&w, "x"), 0);
	assert_int_equal(image_word(&w, "x"), -1);
	i.env = w;
	image_free(&i);
}

static void
test_names(void **state)
{
	static const char *const good[] = { "a", "debian:12", "example.org:5000/a/b_c:1-x", "a@sha256:0", "sha256:0" };
	static const char *const bad[] = { "", "host", "-a", "/a", "a/", "a//b", "a..b", "a b", "a%2f", "a\n",
					   "sha256:" HEX };
	char hex[65];
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_int_equal(image_check_name(good[i], &e), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(image_check_name(bad[i], &e), -1);
	assert_int_equal(image_parse_digest("sha256:" HEX, hex), 0);
	assert_string_equal(hex, HEX);
	assert_int_equal(image_parse_digest("sha256:" HEX "0", hex), -1);
	assert_int_equal(image_parse_digest(HEX, hex), -1);
	assert_int_equal(image_parse_digest("sha256:A", hex), -1);
	assert_true(image_is_digest(HEX));
	assert_false(image_is_digest(HEX "0"));
	assert_false(image_is_digest("A" HEX));
}

/* The example of the image specification's text: ChainID of one layer is its diff id. */
static void
test_chain(void **state)
{
	char one[SHA256_HEX_MAX], two[SHA256_HEX_MAX], want[SHA256_HEX_MAX];
	static const char text[] = "sha256:" HEX " sha256:" HEX;
	struct err e;

	(void)state;
	assert_int_equal(crypto_init(&e), 0);
	oci_chain(NULL, HEX, one);
	assert_string_equal(one, HEX);
	oci_chain(one, HEX, two);
	sha256_hex(text, sizeof text - 1, want);
	assert_string_equal(two, want);
}

/* ---- Lookup ---- */

static int
look(const struct layer_stack *s, const char *path)
{
	struct stat st;
	int fd = layer_lookup(s, path, &st);

	if (fd < 0)
		return -errno;
	close(fd);
	return (int)(st.st_mode & 0777);
}

static void
make(int dir, const char *path, mode_t mode)
{
	int fd = openat(dir, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void
test_lookup(void **state)
{
	char path[] = "/tmp/test_image.XXXXXX";
	int top, dirs[3];
	struct layer_stack s = { dirs, 3 };
	struct err e;

	(void)state;
	assert_non_null(mkdtemp(path));
	top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 3; i++) {
		char name[] = { (char)('0' + i), 0 };

		assert_int_equal(mkdirat(top, name, 0755), 0);
		dirs[i] = openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_int_equal(mkdirat(dirs[i], "d", 0755), 0);
	}
	make(dirs[0], "both", 0601);
	make(dirs[2], "both", 0602);
	make(dirs[2], "low", 0603);
	make(dirs[2], "d/low", 0604);
	make(dirs[2], "d/gone", 0605);
	assert_int_equal(mknodat(dirs[1], "d/gone", S_IFCHR, 0), 0);
	assert_int_equal(mkdirat(dirs[2], "hidden", 0755), 0);
	make(dirs[2], "hidden/x", 0606);
	assert_int_equal(mknodat(dirs[0], "hidden", S_IFCHR, 0), 0);
	assert_int_equal(symlinkat("/etc", dirs[1], "link"), 0);
	assert_int_equal(mkdirat(dirs[2], "link", 0755), 0);
	make(dirs[2], "link/passwd", 0607);
	assert_int_equal(look(&s, "both"), 0601);
	assert_int_equal(look(&s, "low"), 0603);
	assert_int_equal(look(&s, "d/low"), 0604);
	assert_int_equal(look(&s, "d/gone"), -ENOENT);
	assert_int_equal(look(&s, "hidden/x"), -ENOENT);
	assert_int_equal(look(&s, "none"), -ENOENT);
	assert_int_equal(look(&s, "link/passwd"), -ELOOP);
	assert_int_equal(look(&s, "both/x"), -ENOTDIR);
	assert_int_equal(fsetxattr(dirs[1], LAYER_OPAQUE, "y", 1, 0), 0);
	assert_int_equal(look(&s, "low"), -ENOENT);
	assert_int_equal(look(&s, "both"), 0601);
	for (int i = 0; i < 3; i++)
		close(dirs[i]);
	close(top);
	assert_int_equal(dir_remove(AT_FDCWD, path, &e), 0);
}

/* ---- Names in headers ---- */

static size_t
put_header(char *at, char type, const char *data)
{
	size_t len = strlen(data);

	memset(at, 0, 512);
	snprintf(at + 124, 12, "%011o", (unsigned)len);
	at[156] = type;
	memcpy(at + 512, data, len);
	return 512 + (len + 511) / 512 * 512;
}

static void
test_tar_names(void **state)
{
	static char block[4096];
	static struct tar_names n;
	struct tar_window w = { .data = block, .size = sizeof block, .from = 0, .to = sizeof block };
	size_t at;

	(void)state;
	at = put_header(block, 'x', "11 path=ab\n16 linkpath=cde\n");
	put_header(block + at, '0', "");
	assert_int_equal(tar_names_read(&w, 0, &n), 0);
	assert_string_equal(n.path, "ab");
	assert_string_equal(n.target, "cde");
	/* The same over the window's end. */
	w.from = sizeof block - 512;
	w.to = 2 * sizeof block - 512;
	memmove(block + sizeof block - 512, block, 512);
	memmove(block, block + 512, 1024);
	assert_int_equal(tar_names_read(&w, sizeof block - 512, &n), 0);
	assert_string_equal(n.path, "ab");
	assert_int_equal(tar_names_read(&w, 0, &n), -1); /* gone by */
	w = (struct tar_window){ .data = block, .size = sizeof block, .to = sizeof block };
	for (int i = 0; i < 6; i++) {
		static const char *const bad[] = { "99 path=ab\n", "11 path=abc", "0 path=a\n", "path=ab\n",
						   "9 pathab\n", "99999999999999999999 path=a\n" };

		memset(block, 0, sizeof block);
		at = put_header(block, 'x', bad[i]);
		put_header(block + at, '0', "");
		assert_int_equal(tar_names_read(&w, 0, &n), -1);
	}
	/* Longer than what has gone by. */
	memset(block, 0, sizeof block);
	put_header(block, 'x', "");
	memcpy(block + 124, "77777777777", 12);
	assert_int_equal(tar_names_read(&w, 0, &n), -1);
	memset(block + 124, 0xff, 12);
	assert_int_equal(tar_names_read(&w, 0, &n), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record), cmocka_unit_test(test_too_many_words),
		cmocka_unit_test(test_names),  cmocka_unit_test(test_chain),
		cmocka_unit_test(test_lookup), cmocka_unit_test(test_tar_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
