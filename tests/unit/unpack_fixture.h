/*
 * For tests of unpacking: a directory with "out" in it and nothing else, and a file of bytes.
 */
#ifndef PRATAI_TEST_UNPACK_FIXTURE_H
#define PRATAI_TEST_UNPACK_FIXTURE_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"

struct place {
	char path[64];
	int dir; /* holds "out", where things are unpacked, and nothing else */
	int out;
};

static inline int
setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	struct err e;

	assert_int_equal(crypto_init(&e), 0);
	strcpy(p->path, "/tmp/test_unpack.XXXXXX");
	assert_non_null(mkdtemp(p->path));
	p->dir = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(p->dir, "out", 0755), 0);
	p->out = openat(p->dir, "out", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(p->out >= 0);
	*state = p;
	return 0;
}

static inline int
teardown(void **state)
{
	struct place *p = *state;
	struct err e;

	assert_int_equal(dir_remove(p->dir, "out", &e), 0);
	assert_int_equal(rmdir(p->path), 0); /* nothing was written beside it */
	close(p->dir);
	close(p->out);
	free(p);
	return 0;
}

static inline int
file_of(const struct buf *b)
{
	int fd = memfd_create("archive", MFD_CLOEXEC);

	assert_true(fd >= 0);
	if (b->len)
		assert_int_equal(fd_write_all(fd, b->data, b->len), 0);
	return fd;
}

#endif
