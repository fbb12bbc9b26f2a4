#include "core/base/image_name.h"

#include <string.h>

#include "core/base/err.h"
#include "core/base/str.h"

int
image_parse_digest(const char *text, char hex[65])
{
	if (!str_starts(text, "sha256:"))
		return -1;
	text += strlen("sha256:");
	if (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64)
		return -1;
	memcpy(hex, text, 65);
	return 0;
}

int
image_check_name(const char *name, struct err *e)
{
	size_t len = strlen(name);
	char hex[65];

	if (len == 0 || len > IMAGE_NAME_MAX)
		return err_set(e, ERR_INPUT, "an image's name has 1 to %d characters", IMAGE_NAME_MAX);
	if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@") != len ||
	    strchr("._-/:@", name[0]) || strstr(name, "..") || strstr(name, "//") || name[len - 1] == '/')
		return err_set(e, ERR_INPUT, "'%.80s' is no name for an image (letters and digits, and "
			       "between them . _ - / : @)", name);
	if (!image_parse_digest(name, hex))
		return err_set(e, ERR_INPUT, "'%.12s...' is a digest and no name", name);
	if (!strcmp(name, "host"))
		return err_set(e, ERR_INPUT, "the image 'host' is the machine's own and built in");
	return 0;
}
