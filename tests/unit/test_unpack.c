/*
 * Zips written byte by byte, each wrong in one way: what the unpacker says, that it names
 * the entry, and that nothing appears beside its directory.
 */
#include "rootfs/unpack.h"

#include "tests/unit/unpack_fixture.h"
#include "tests/unit/zip_bytes.h"

/* ---- Running ---- */

static int
unpack(struct place *p, const struct buf *b, struct unpack_result *r, struct err *e)
{
	int fd = file_of(b), rc;

	rc = unpack_zip(fd, p ? p->out : -1, r, e);
	close(fd);
	return rc;
}

/* Both check and zip refuse it, with `says` in the sentence. */
static void
refused(struct place *p, const struct buf *b, const char *says)
{
	struct unpack_result r;
	struct err e = { 0 };

	assert_int_equal(unpack(NULL, b, &r, &e), -1);
	if (!strstr(e.text, says))
		fail_msg("said \"%s\" and not \"%s\"", e.text, says);
	assert_true(e.cls == ERR_INPUT || e.cls == ERR_LIMIT);
	assert_int_equal(unpack(p, b, &r, &e), -1);
	assert_non_null(strstr(e.text, says));
	assert_int_equal(dir_remove(p->dir, "out", &e), 0);
	close(p->out);
	assert_int_equal(mkdirat(p->dir, "out", 0755), 0);
	p->out = openat(p->dir, "out", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void
refuse_items(void **state, const struct item *items, size_t count, const char *says)
{
	struct buf b = { 0 };

	build_zip(&b, items, count, NULL);
	refused(*state, &b, says);
	buf_free(&b);
}

static void
refuse_shape(void **state, const struct shape *shape, const char *says)
{
	static const struct item one = { .name = "main.py", .data = "x" };
	struct buf b = { 0 };

	build_zip(&b, &one, 1, shape);
	refused(*state, &b, says);
	buf_free(&b);
}

static struct stat
stat_of(struct place *p, const char *path)
{
	struct stat st;

	assert_int_equal(fstatat(p->out, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st;
}

/* ---- Tests ---- */

static void
test_good(void **state)
{
	struct place *p = *state;
	static const struct item items[] = {
		{ .name = "./", .data = "", .attributes = UNIX_ATTRIBUTES(S_IFDIR | 0700) },
		{ .name = "./main.py", .data = "def main(payload=None): pass\n" },
		{ .name = "requirements.txt", .data = "six\n", .descriptor = true },
		{ .name = "bin/", .data = "", .attributes = UNIX_ATTRIBUTES(S_IFDIR | 02777) },
		{ .name = "bin/tool", .data = "#!", .attributes = UNIX_ATTRIBUTES(S_IFREG | 04755) },
		{ .name = "bin/link", .data = "../main.py", .attributes = UNIX_ATTRIBUTES(S_IFLNK | 0777) },
		{ .name = "ü/Main.py", .data = "" },
		{ .name = "main", .data = "" },
		{ .name = "bin/main", .data = "" },
	};
	struct unpack_result r;
	struct buf b = { 0 };
	struct err e = { 0 };
	char text[16] = "";

	for (int zip64 = 0; zip64 < 2; zip64++) {
		b.len = 0;
		build_zip(&b, items, 9, &(struct shape){ .zip64 = zip64, .comment = "a comment" });
		assert_int_equal(unpack(NULL, &b, &r, &e), 0);
	}
	assert_int_equal(unpack(p, &b, &r, &e), 0);
	assert_int_equal(r.entries, 9);
	assert_int_equal(r.bytes, 29 + 4 + 2);
	assert_int_equal(r.archive_bytes, b.len);
	assert_int_equal(strlen(r.sha256), 64);
	assert_int_equal(stat_of(p, "function").st_mode, S_IFDIR | 0555);
	assert_int_equal(stat_of(p, "function/main.py").st_mode, S_IFREG | 0444);
	assert_int_equal(stat_of(p, "function/main").st_mode, S_IFREG | 0555);
	assert_int_equal(stat_of(p, "function/bin/main").st_mode, S_IFREG | 0444);
	assert_int_equal(stat_of(p, "function/bin").st_mode, S_IFDIR | 0555);
	assert_int_equal(stat_of(p, "function/bin/tool").st_mode, S_IFREG | 0555);
	assert_int_equal(stat_of(p, "function/bin/tool").st_mtime, 315532800);
	assert_int_equal(stat_of(p, "function/ü").st_mtime, 315532800);
	assert_int_equal(readlinkat(p->out, "function/bin/link", text, sizeof(text)), 10);
	assert_memory_equal(text, "../main.py", 10);
	buf_free(&b);
}

static void
test_bad_names(void **state)
{
	static const struct {
		const char *name;
		const char *says;
	} bad[] = {
		{ "../x", "the entry '../x' has '..' as a part" },
		{ "a/../../x", "has '..'" },
		{ "a/..", "has '..'" },
		{ "..", "has '..'" },
		{ "a/./b", "has '.' as a part" },
		{ ".", "has '.' as a part" },
		{ "a/.", "has '.' as a part" },
		{ "/etc/x", "absolute" },
		{ "//x", "absolute" },
		{ ".//x", "absolute" },
		{ "a//b", "an empty part" },
		{ "C:/x", "drive letter" },
		{ "c:x", "drive letter" },
		{ "..\\x", "the entry '..\\x5cx' has a backslash" },
		{ "a\nb", "the entry 'a\\x0ab' has a control character" },
		{ "a\x7f", "control character" },
		{ "\xff\xfe", "the entry '\\xff\\xfe' has a name that is not UTF-8" },
		{ "\xed\xa0\x80", "not UTF-8" },
		{ ".wh.x", "'.wh.'" },
		{ "a/.wh..wh..opq", "'.wh.'" },
		{ "", "has no name" },
		{ "/", "has no name" },
		{ "d/", "" }, /* a directory: taken, see below */
	};

	for (size_t i = 0; bad[i].says[0]; i++) {
		struct item x = { .name = bad[i].name, .data = "" };

		refuse_items(state, &x, 1, bad[i].says);
	}
	refuse_items(state, &(struct item){ .name = "a\0b", .name_len = 3, .data = "" }, 1,
		     "the entry 'a\\x00b' has a control character");
}

static void
test_long_names(void **state)
{
	char name[5000];

	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	refuse_items(state, &(struct item){ .name = name, .data = "" }, 1, "255 bytes");
	name[256] = 'x';
	for (size_t i = 0; i < sizeof(name) - 1; i += 200)
		name[i + 150] = '/';
	name[4999] = '\0';
	refuse_items(state, &(struct item){ .name = name, .data = "" }, 1, "4095 bytes");
	for (size_t i = 0; i < 66; i += 2)
		memcpy(name + i, "a/", 3);
	name[65] = '\0';
	refuse_items(state, &(struct item){ .name = name, .data = "" }, 1, "too many directories");
}

static void
test_duplicates(void **state)
{
	struct item same[] = { { .name = "a", .data = "1" }, { .name = "a", .data = "2" } };
	struct item dot[] = { { .name = "a", .data = "1" }, { .name = "./a", .data = "2" } };
	struct item dirs[] = { { .name = "a/", .data = "" }, { .name = "a/", .data = "" } };
	struct item both[] = { { .name = "a/", .data = "" }, { .name = "a", .data = "2" } };
	struct item implied[] = { { .name = "a/b", .data = "" }, { .name = "a", .data = "2" } };
	struct item under[] = { { .name = "a", .data = "" }, { .name = "a/b", .data = "2" } };
	struct item link[] = {
		{ .name = "d", .data = "e", .attributes = UNIX_ATTRIBUTES(S_IFLNK | 0777) },
		{ .name = "d/b", .data = "2" },
	};
	struct item fine[] = { { .name = "a/b", .data = "" }, { .name = "a/", .data = "" },
			       { .name = "A/B", .data = "" } };
	struct unpack_result r;
	struct buf b = { 0 };
	struct err e;

	refuse_items(state, same, 2, "the entry 'a' is there twice");
	refuse_items(state, dot, 2, "is there twice");
	refuse_items(state, dirs, 2, "is there twice");
	refuse_items(state, both, 2, "is both a file and a directory");
	refuse_items(state, implied, 2, "is both a file and a directory");
	refuse_items(state, under, 2, "the entry 'a/b' is below a name that is not a directory");
	refuse_items(state, link, 2, "the entry 'd/b' is below a name that is not a directory");
	build_zip(&b, fine, 3, NULL);
	assert_int_equal(unpack(*state, &b, &r, &e), 0);
	buf_free(&b);
}

static void
test_links(void **state)
{
	static const char *const out[] = { "/etc/passwd", "..", "../x", "a/../../x", "a/..", "" };
	static const char *const in[] = { "x", "./x", "dir/x", ".", "a..b", "...", "../x" };
	struct unpack_result r;
	struct err e;

	for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++)
		refuse_items(state, &(struct item){ .name = "l", .data = out[i],
						    .attributes = UNIX_ATTRIBUTES(S_IFLNK | 0777) },
			     1, out[i][0] == '\0' || out[i][0] == '/' ? "the entry 'l' is " : "leads out");
	refuse_items(state, &(struct item){ .name = "l", .data = "a\nb",
					    .attributes = UNIX_ATTRIBUTES(S_IFLNK | 0777) },
		     1, "control character");
	for (size_t i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
		struct item x = { .name = "d/l", .data = in[i],
				  .attributes = UNIX_ATTRIBUTES(S_IFLNK | 0777) };
		struct buf b = { 0 };

		build_zip(&b, &x, 1, NULL);
		assert_int_equal(unpack(NULL, &b, &r, &e), 0);
		buf_free(&b);
	}
}

static void
test_kinds(void **state)
{
	static const mode_t special[] = { S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK };

	for (size_t i = 0; i < 4; i++)
		refuse_items(state, &(struct item){ .name = "dev", .data = "",
						    .attributes = UNIX_ATTRIBUTES(special[i] | 0666) },
			     1, "the entry 'dev' is a device, a pipe or a socket");
	refuse_items(state, &(struct item){ .name = "d/", .data = "content" }, 1,
		     "is a directory with content");
	refuse_items(state, &(struct item){ .name = "d/", .data = "",
					    .attributes = UNIX_ATTRIBUTES(S_IFREG | 0644) },
		     1, "has a '/' at the end");
}

static void
test_two_meanings(void **state)
{
	struct item overlap[] = { { .name = "a", .data = "1" }, { .name = "b", .data = "2" } };
	/* Info-ZIP's Unicode path: another name for the same entry, with the CRC of the first. */
	char unicode[4 + 5 + 4] = "\x75\x70\x09\0\1";
	uint32_t crc = crc32_of("main.py", 7);
	/* libarchive's "xl": the mode again, here of a link. */
	static const char xl[] = "\x78\x6c\x07\0\5\24\3\0\0\xff\xa1";

	refuse_items(state, &(struct item){ .name = "main.py", .local_name = "evil.py", .data = "" },
		     1, "the entry 'main.py' has two different names");
	refuse_items(state, &(struct item){ .name = "a", .local_name = "../a", .data = "" }, 1,
		     "has two different names");
	refuse_items(state, &(struct item){ .name = "a", .data = "x", .local_method = 8 }, 1,
		     "in two different ways");
	refuse_items(state, &(struct item){ .name = "a", .data = "x", .before = "hidden" }, 1,
		     "does not begin at the start");
	overlap[1].before = "hidden";
	refuse_items(state, overlap, 2, "bytes that belong to nothing");
	overlap[1].before = NULL;
	overlap[1].offset_add = (uint32_t)-32; /* both in the first's data */
	refuse_items(state, overlap, 2, "overlaps");
	overlap[1].offset_add = 5;
	refuse_items(state, overlap, 2, "is ");
	for (int i = 0; i < 4; i++)
		unicode[5 + i] = (char)(crc >> 8 * i);
	memcpy(unicode + 9, "../x", 4);
	refuse_items(state, &(struct item){ .name = "main.py", .data = "", .extra = unicode,
					    .extra_len = sizeof(unicode) }, 1, "'main.py'");
	refuse_items(state, &(struct item){ .name = "main.py", .data = "", .central_extra = unicode,
					    .central_extra_len = sizeof(unicode) }, 1,
		     "the entry 'main.py' has two different names");
	refuse_items(state, &(struct item){ .name = "main.py", .data = "/etc", .extra = xl,
					    .extra_len = sizeof(xl) - 1 }, 1, "'main.py'");
}

static void
test_damage(void **state)
{
	static const struct item extra[] = {
		{ .name = "a", .data = "" },
		{ .name = "b", .data = "", .central_extra = "\x55\x54\x09\0", .central_extra_len = 5 },
	};

	refuse_items(state, extra, 2, "the entry 'b' has a damaged extra field");
	refuse_items(state, &(struct item){ .name = "a", .data = "hello", .crc_xor = 1 }, 1,
		     "the entry 'a' is damaged");
	refuse_items(state, &(struct item){ .name = "a", .data = "hello", .method = 8 }, 1,
		     "the entry 'a' is damaged");
	refuse_items(state, &(struct item){ .name = "a", .data = "hello", .flags = 1 }, 1,
		     "is encrypted");
	refuse_items(state, &(struct item){ .name = "a", .data = "hello", .flags = 0x2041 }, 1,
		     "is encrypted");
	refuse_items(state, &(struct item){ .name = "a", .data = "hello", .method = 12 }, 1,
		     "other than deflate");
	refuse_items(state, &(struct item){ .name = "a", .data = "hello", .size_add = 1000 }, 1,
		     "two sizes");
}

static void
test_shapes(void **state)
{
	char comment[5000];

	memset(comment, 'c', sizeof(comment));
	comment[sizeof(comment) - 1] = '\0';
	refuse_shape(state, &(struct shape){ .prefix = "#!/bin/sh\n" }, "start of the file");
	refuse_shape(state, &(struct shape){ .prefix = "#!/bin/sh\n", .directory_add = (uint32_t)-10 },
		     "start of the file");
	refuse_shape(state, &(struct shape){ .suffix = "garbage" }, "something follows its end");
	refuse_shape(state, &(struct shape){ .comment = comment }, "a comment of more than 4096 bytes");
	refuse_shape(state, &(struct shape){ .comment = "PK\5\6 and more than an end record" }, "where it says");
	refuse_shape(state, &(struct shape){ .disk = 1 }, "one part of several");
	refuse_shape(state, &(struct shape){ .count_add = 1 }, "directory is damaged");
	refuse_shape(state, &(struct shape){ .count_add = 19 * 1024 }, "directory is damaged");
	refuse_shape(state, &(struct shape){ .count_add = 30000 }, "at most 20000");
	refuse_shape(state, &(struct shape){ .directory_add = 7 }, "not inside the file");
}

/* Every shorter piece of a zip, and every single changed byte, is an error or harmless. */
static void
test_cut_and_changed(void **state)
{
	static const struct item items[] = {
		{ .name = "main.py", .data = "def main(payload=None): pass\n", .descriptor = true },
		{ .name = "l", .data = "main.py", .attributes = UNIX_ATTRIBUTES(S_IFLNK | 0777) },
		{ .name = "d/", .data = "" },
	};
	struct buf b = { 0 };
	struct unpack_result r;
	struct err e;
	size_t whole;

	(void)state;
	build_zip(&b, items, 3, &(struct shape){ .zip64 = true });
	whole = b.len;
	for (b.len = 0; b.len < whole; b.len++)
		assert_int_equal(unpack(NULL, &b, &r, &e), -1);
	for (size_t i = 0; i < whole; i++) {
		for (int bit = 0; bit < 8; bit++) {
			b.data[i] ^= (char)(1 << bit);
			if (unpack(NULL, &b, &r, &e) < 0)
				assert_true(e.cls == ERR_INPUT || e.cls == ERR_LIMIT);
			b.data[i] ^= (char)(1 << bit);
		}
	}
	buf_free(&b);
}

static void
test_not_a_zip(void **state)
{
	struct buf b = { 0 };

	refused(*state, &b, "the zip is empty");
	buf_puts(&b, "x");
	refused(*state, &b, "not a zip");
	for (int i = 0; i < 1000; i++)
		buf_puts(&b, "no zip at all\n");
	refused(*state, &b, "not a zip");
	b.len = 0;
	build_zip(&b, NULL, 0, NULL);
	refused(*state, &b, "the zip is empty");
	buf_free(&b);
}

static void
test_too_large(void **state)
{
	struct unpack_result r;
	struct err e;
	int fd = memfd_create("large", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(ftruncate(fd, (64 << 20) + 1), 0);
	assert_int_equal(unpack_zip(fd, -1, &r, &e), -1);
	assert_int_equal(e.cls, ERR_LIMIT);
	assert_non_null(strstr(e.text, "at most 64 MiB"));
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_good), TEST(test_bad_names),
		TEST(test_long_names), TEST(test_duplicates), TEST(test_links),
		TEST(test_kinds), TEST(test_two_meanings), TEST(test_damage),
		TEST(test_shapes), TEST(test_not_a_zip), TEST(test_cut_and_changed),
		TEST(test_too_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
