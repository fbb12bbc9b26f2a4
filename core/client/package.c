#include "core/client/package.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "core/client/zip.h"

static int
copy_zip(int from, const char *name, int to, struct err *e)
{
	char block[64 << 10];
	size_t total = 0;

	for (;;) {
		ssize_t n = fd_read_all(from, block, sizeof block);

		if (n < 0)
			return err_sys(e, ERR_INPUT, "%.200s: cannot read", name);
		if (n == 0)
			break;
		total += (size_t)n;
		if (total > ZIP_BYTES_MAX)
			return err_set(e, ERR_INPUT, "%.200s: larger than %d MiB", name,
				       ZIP_BYTES_MAX >> 20);
		if (fd_write_all(to, block, (size_t)n))
			return err_sys(e, ERR_NODE, "cannot keep the package in memory");
	}
	if (total == 0)
		return err_set(e, ERR_INPUT, "%.200s: is empty", name);
	return 0;
}

static int
put_content(const char *path, int to, struct err *e)
{
	bool is_stdin = !strcmp(path, "-");
	CLEAN_FD int fd = is_stdin ? dup(STDIN_FILENO)
				   : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, ERR_INPUT, "%.200s", *path ? path : "--file ''");
	if (S_ISDIR(st.st_mode))
		return zip_directory(fd, path, to, e);
	if (!is_stdin && !S_ISREG(st.st_mode))
		return err_set(e, ERR_INPUT, "%.200s: neither a zip nor a directory", path);
	return copy_zip(fd, is_stdin ? "stdin" : path, to, e);
}

static int
fill(int fd, const char *path, const char *metadata, const char *boundary, struct err *e)
{
	if (dprintf(fd,
		    "--%s\r\nContent-Disposition: form-data; name=\"metadata\"\r\n"
		    "Content-Type: application/json\r\n\r\n%s\r\n"
		    "--%s\r\nContent-Disposition: form-data; name=\"zip_file\"; "
		    "filename=\"package.zip\"\r\nContent-Type: application/zip\r\n\r\n",
		    boundary, metadata, boundary) < 0)
		return err_sys(e, ERR_NODE, "cannot keep the package in memory");
	if (put_content(path, fd, e))
		return -1;
	if (dprintf(fd, "\r\n--%s--\r\n", boundary) < 0)
		return err_sys(e, ERR_NODE, "cannot keep the package in memory");
	return 0;
}

int
package_make(const char *path, const char *metadata, struct package *out, struct err *e)
{
	CLEAN_FD int fd = memfd_create("pratai-package", MFD_CLOEXEC);
	char boundary[49] = "pratai-";
	unsigned char random[20];

	if (fd < 0)
		return err_sys(e, ERR_NODE, "cannot keep the package in memory");
	if (crypto_init(e))
		return -1;
	random_bytes(random, sizeof random);
	str_hex(random, sizeof random, boundary + 7);
	if (fill(fd, path, metadata, boundary, e))
		return -1;
	snprintf(out->content_type, sizeof out->content_type, "multipart/form-data; boundary=%s",
		 boundary);
	out->fd = fd_steal(&fd);
	return 0;
}
