/*
 * Directories are opened one below another and no link is followed: whatever is done to the tree
 * meanwhile leads nowhere else.  What cannot be read is not counted.
 */
#include "core/build/disk_use.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fdio.h"

enum { DEPTH_MAX = 300 };

static void
count(int dir, unsigned depth, uint64_t max, uint64_t *bytes)
{
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;
	struct stat st;

	if (!d) {
		fd_close(&copy);
		return;
	}
	while (*bytes <= max && (entry = readdir(d))) {
		CLEAN_FD int below = -1;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
		    fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		*bytes += (uint64_t)st.st_blocks * 512;
		if (!S_ISDIR(st.st_mode) || depth == DEPTH_MAX)
			continue;
		below = openat(dir, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below >= 0)
			count(below, depth + 1, max, bytes);
	}
	closedir(d);
}

uint64_t
disk_use(int dir, uint64_t max)
{
	uint64_t bytes = 0;

	count(dir, 0, max, &bytes);
	return bytes;
}
