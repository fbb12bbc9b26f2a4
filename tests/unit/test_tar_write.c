/*
 * What tar_write.h writes, tar_stream.h reads: names and links of any length, times, attributes,
 * data; and the same twice.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/crypto.h"
#include "core/base/err.h"
#include "rootfs/tar_stream.h"
#include "rootfs/tar_write.h"

static struct err e;

static int
temp(void)
{
	char path[] = "/tmp/test_tar_write.XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	return fd;
}

static char long_name[2001], long_target[1501], exact[101];

static const struct tar_attribute attributes[] = { { "user.a", "b\0c", 3 }, { "user.e", "", 0 } };
static const struct tar_item items[] = {
	{ .type = TAR_TYPE_DIR, .name = "d", .mode = 02755, .uid = 65535, .gid = 7, .mtime_s = 1600000000 },
	{ .type = TAR_TYPE_FILE, .name = long_name, .mode = 04644, .size = 5, .mtime_s = 1, .mtime_ns = 987654321,
	  .attributes = attributes, .attribute_count = 2 },
	{ .type = TAR_TYPE_DIR, .name = exact, .mode = 0755 },
	{ .type = TAR_TYPE_LINK, .name = "l", .target = long_target, .mode = 0777, .mtime_s = -5 },
	{ .type = TAR_TYPE_HARDLINK, .name = "h", .target = long_name, .mode = 0644 },
	{ .type = TAR_TYPE_FIFO, .name = "p\xff\n", .mode = 0600, .mtime_s = 99999999999 },
};
enum { ITEMS = sizeof items / sizeof items[0] };

static int
write_all(char diff[SHA256_HEX_MAX], char blob[SHA256_HEX_MAX], uint64_t *bytes)
{
	int fd = temp();
	struct tar_writer *w = tar_write_begin(fd, &e);

	assert_non_null(w);
	for (size_t i = 0; i < ITEMS; i++) {
		assert_int_equal(tar_write_item(w, &items[i], &e), 0);
		if (!items[i].size)
			continue;
		assert_int_equal(tar_write_data(w, "hello", 5, &e), 0);
		assert_int_equal(tar_write_pad(w, 5, &e), 0);
	}
	assert_int_equal(tar_write_end(w, diff, blob, bytes, &e), 0);
	tar_write_free(w);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), *bytes);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void
check_entry(struct tar_stream *t, const struct tar_item *x)
{
	static const enum tar_kind kinds[] = { ['0'] = TAR_FILE, ['1'] = TAR_HARDLINK, ['2'] = TAR_LINK,
					       ['5'] = TAR_DIR, ['6'] = TAR_FIFO };
	size_t n = strlen(x->name), len;
	struct tar_entry got;
	const void *data;
	const char *name;
	uint64_t at;

	assert_int_equal(tar_next(t, &got, &e), 1);
	assert_int_equal(got.kind, kinds[x->type]);
	assert_int_equal(strncmp(got.name, x->name, n), 0);
	assert_true(!got.name[n] || !strcmp(got.name + n, "/"));
	if (x->target)
		assert_string_equal(got.target, x->target);
	assert_int_equal(got.mode, x->mode);
	assert_int_equal(got.uid, x->uid);
	assert_int_equal(got.gid, x->gid);
	assert_int_equal(got.mtime_s, x->mtime_s);
	assert_int_equal(got.mtime_ns, x->mtime_ns);
	for (size_t i = 0; i < x->attribute_count; i++) {
		assert_true(tar_attribute(t, &name, &data, &len));
		assert_string_equal(name, x->attributes[x->attribute_count - 1 - i].name);
		assert_int_equal(len, x->attributes[x->attribute_count - 1 - i].len);
	}
	assert_false(tar_attribute(t, &name, &data, &len));
	if (x->size) {
		assert_int_equal(tar_data(t, &data, &len, &at, &e), 1);
		assert_int_equal(len, 5);
		assert_memory_equal(data, "hello", 5);
	}
}

static void
test_what_is_read(void **state)
{
	char diff[SHA256_HEX_MAX], blob[SHA256_HEX_MAX], read[SHA256_HEX_MAX];
	uint64_t bytes;
	int fd = write_all(diff, blob, &bytes);
	struct tar_stream *t = tar_open(fd, NULL, NULL, &e);
	struct tar_entry got;

	(void)state;
	assert_non_null(t);
	for (size_t i = 0; i < ITEMS; i++)
		check_entry(t, &items[i]);
	assert_int_equal(tar_next(t, &got, &e), 0);
	assert_int_equal(tar_end(t, read, &e), 0);
	assert_string_equal(read, diff);
	tar_free(t);
	close(fd);
}

static void
test_the_same_twice(void **state)
{
	char one[2][SHA256_HEX_MAX], two[2][SHA256_HEX_MAX];
	uint64_t bytes;

	(void)state;
	close(write_all(one[0], one[1], &bytes));
	sleep(1); /* gzip's header could say when */
	close(write_all(two[0], two[1], &bytes));
	assert_string_equal(one[0], two[0]);
	assert_string_equal(one[1], two[1]);
}

static void
test_a_full_disk(void **state)
{
	char diff[SHA256_HEX_MAX], blob[SHA256_HEX_MAX];
	int fd = open("/dev/full", O_WRONLY);
	struct tar_writer *w = tar_write_begin(fd, &e);
	uint64_t bytes;

	(void)state;
	assert_true(!w || tar_write_item(w, &items[0], &e) || tar_write_end(w, diff, blob, &bytes, &e));
	assert_non_null(strstr(e.text, "No space left"));
	tar_write_free(w);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_read),
		cmocka_unit_test(test_the_same_twice),
		cmocka_unit_test(test_a_full_disk),
	};

	memset(long_name, 'n', sizeof long_name - 1);
	for (size_t i = 200; i < sizeof long_name - 1; i += 200)
		long_name[i] = '/';
	memset(long_target, 't', sizeof long_target - 1);
	memset(exact, 'e', sizeof exact - 1);
	return crypto_init(&e) ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
