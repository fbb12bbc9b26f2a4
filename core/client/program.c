#include "core/client/program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"

int
program_find(const char *name, char path[PROGRAM_PATH_MAX], struct err *e)
{
	/* This program itself is in PREFIX/lib/pratai. */
	static const char *const places[] = { "", "../lib/pratai/", "../../bin/" };
	char self[PROGRAM_PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self);
	size_t dir;

	if (n < 0 || n == (ssize_t)sizeof self)
		return err_sys(e, ERR_NODE, "cannot tell where this program is");
	for (dir = (size_t)n; dir > 0 && self[dir - 1] != '/'; dir--)
		;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		int len = snprintf(path, PROGRAM_PATH_MAX, "%.*s%s%s", (int)dir, self, places[i], name);

		if (len < PROGRAM_PATH_MAX && access(path, X_OK) == 0)
			return 0;
	}
	return err_set(e, ERR_NODE, "%s is not beside %.*s: is the installation whole?", name,
		       (int)n > 200 ? 200 : (int)n, self);
}
