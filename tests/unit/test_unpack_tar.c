/*
 * Layers' tars written byte by byte: what is taken, what is refused and with which words,
 * and that nothing appears beside the directory.
 */
#include "rootfs/unpack.h"

#include "tests/unit/unpack_fixture.h"

static struct stat
stat_of(struct place *p, const char *path)
{
	struct stat st;

	assert_int_equal(fstatat(p->out, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st;
}

static void
put_tar(struct buf *b, const char *name, char type, const char *link, const char *data, int mode)
{
	char h[512] = "";
	unsigned sum = 0;
	size_t len = strlen(data);

	snprintf(h, 100, "%s", name);
	snprintf(h + 100, 8, "%07o", (unsigned)mode & 07777);
	snprintf(h + 108, 8, "%07o", 0u);
	snprintf(h + 116, 8, "%07o", 0u);
	snprintf(h + 124, 12, "%011o", (unsigned)len);
	snprintf(h + 136, 12, "%011o", 0u);
	memset(h + 148, ' ', 8);
	h[156] = type;
	snprintf(h + 157, 100, "%s", link);
	memcpy(h + 257, "ustar\00000", 8);
	for (int i = 0; i < 512; i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	buf_put(b, h, sizeof(h));
	buf_put(b, data, len);
	memset(h, 0, sizeof(h));
	buf_put(b, h, (512 - len % 512) % 512);
}

static int
run_tar(struct place *p, struct buf *b, bool end, struct unpack_result *r, struct err *e)
{
	static const char zeros[1024];
	int fd, rc;

	if (end)
		buf_put(b, zeros, sizeof(zeros));
	fd = file_of(b);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	rc = unpack_tar(fd, p->out, r, e);
	close(fd);
	return rc;
}

static void
test_tar(void **state)
{
	struct place *p = *state;
	struct unpack_result r;
	struct buf b = { 0 };
	struct err e = { 0 };
	char sum[SHA256_HEX_MAX];

	put_tar(&b, "function/", '5', "", "", 0755);
	put_tar(&b, "function/main.py", '0', "", "pass\n", 0666);
	put_tar(&b, "function/run", '0', "", "#!", 04711);
	put_tar(&b, "function/l", '2', "../opt/deps/six.py", "", 0777);
	put_tar(&b, "opt", '5', "", "", 0700);
	put_tar(&b, "opt/deps/six.py", '0', "", "six", 0600);
	assert_int_equal(run_tar(p, &b, true, &r, &e), 0);
	assert_int_equal(r.entries, 6);
	assert_int_equal(r.bytes, 10);
	sha256_hex(b.data, b.len, sum);
	assert_string_equal(r.sha256, sum);
	assert_int_equal(stat_of(p, "function/run").st_mode, S_IFREG | 0555);
	assert_int_equal(stat_of(p, "opt/deps/six.py").st_mode, S_IFREG | 0444);
	assert_int_equal(stat_of(p, "opt/deps").st_mode, S_IFDIR | 0555);
	buf_free(&b);
}

static void
test_bad_tars(void **state)
{
	static const struct {
		const char *name;
		char type;
		const char *link;
		const char *says;
	} bad[] = {
		{ "etc/passwd", '0', "", "is not in function/ or opt/deps/" },
		{ "opt/pratai/x", '0', "", "is not in function/ or opt/deps/" },
		{ "opt/depsx", '0', "", "is not in function/ or opt/deps/" },
		{ "functional", '0', "", "is not in function/ or opt/deps/" },
		{ "opt", '0', "", "is not in function/ or opt/deps/" },
		{ "/function/x", '0', "", "absolute" },
		{ "function/../../x", '0', "", "'..'" },
		{ "function/x", '1', "function/y", "is a hard link" },
		{ "function/x", '3', "", "is a device" },
		{ "function/x", '6', "", "is a device, a pipe" },
		{ "function/x", '2', "../../etc", "leads out" },
		{ "function/x", '2', "/etc", "not relative" },
		{ "function/.wh.x", '0', "", "'.wh.'" },
		{ NULL, 0, NULL, NULL },
	};

	for (size_t i = 0; bad[i].name; i++) {
		struct unpack_result r;
		struct buf b = { 0 };
		struct err e = { 0 };

		put_tar(&b, bad[i].name, bad[i].type, bad[i].link, "", 0644);
		assert_int_equal(run_tar(*state, &b, true, &r, &e), -1);
		assert_int_equal(e.cls, ERR_INPUT);
		if (!strstr(e.text, bad[i].says))
			fail_msg("%s: said \"%s\"", bad[i].name, e.text);
		buf_free(&b);
		teardown(state);
		setup(state);
	}
}

static void
test_cut_tar(void **state)
{
	struct unpack_result r;
	struct buf b = { 0 };
	struct err e = { 0 };

	put_tar(&b, "function/a", '0', "", "hello", 0644);
	assert_int_equal(run_tar(*state, &b, false, &r, &e), -1);
	assert_non_null(strstr(e.text, "cut short"));
	teardown(state);
	setup(state);
	b.len = 600;
	assert_int_equal(run_tar(*state, &b, false, &r, &e), -1);
	buf_free(&b);
	teardown(state);
	setup(state);
	put_tar(&b, "function/a", '0', "", "1", 0644);
	put_tar(&b, "function/a", '0', "", "2", 0644);
	assert_int_equal(run_tar(*state, &b, true, &r, &e), -1);
	assert_non_null(strstr(e.text, "is there twice"));
	buf_free(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_tar), TEST(test_bad_tars), TEST(test_cut_tar) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
