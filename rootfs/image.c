#include "rootfs/image.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/str.h"

#define FIRST_LINE "pratai-image 1"

bool
image_is_digest(const char *text)
{
	return strspn(text, "0123456789abcdef") == 64 && text[64] == '\0';
}

/* ---- Words ---- */

int
image_word(struct image_words *w, const char *word)
{
	char **more;

	if (w->count == IMAGE_WORDS_MAX)
		return -1;
	more = realloc(w->list, (w->count + 2) * sizeof *more);
	if (!more)
		return -1;
	w->list = more;
	more[w->count] = strdup(word);
	if (!more[w->count])
		return -1;
	more[++w->count] = NULL;
	return 0;
}

static void
free_words(struct image_words *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->list[i]);
	free(w->list);
	*w = (struct image_words){ 0 };
}

void
image_free(struct image *i)
{
	free_words(&i->env);
	free_words(&i->entrypoint);
	free_words(&i->cmd);
	free(i->workdir);
	free(i->user);
	i->workdir = i->user = NULL;
}

/* ---- Printing ---- */

static void
put_value(struct buf *out, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p <= 0x20 || *p == 0x7f || *p == '%')
			buf_printf(out, "%%%02x", *p);
		else
			buf_put(out, p, 1);
	buf_puts(out, "\n");
}

static void
put_line(struct buf *out, const char *key, const char *value)
{
	buf_printf(out, "%s ", key);
	put_value(out, value);
}

static void
put_words(struct buf *out, const char *key, const struct image_words *w)
{
	for (size_t i = 0; i < w->count; i++)
		put_line(out, key, w->list[i]);
}

int
image_print(const struct image *i, struct buf *out)
{
	buf_puts(out, FIRST_LINE "\n");
	buf_printf(out, "manifest %s\nconfig %s\n", i->manifest, i->config);
	put_line(out, "os", i->os);
	put_line(out, "arch", i->arch);
	put_line(out, "created", i->created);
	for (unsigned k = 0; k < i->layer_count; k++) {
		const struct image_layer *l = &i->layers[k];

		buf_printf(out, "layer %s %s %s %" PRIu64 " ", l->blob, l->diff, l->key, l->blob_bytes);
		put_value(out, l->media);
	}
	buf_printf(out, "base %u\n", i->base);
	put_words(out, "env", &i->env);
	put_words(out, "entrypoint", &i->entrypoint);
	put_words(out, "cmd", &i->cmd);
	if (i->workdir)
		put_line(out, "workdir", i->workdir);
	if (i->user)
		put_line(out, "user", i->user);
	buf_printf(out, "uid %" PRId64 "\ngid %" PRId64 "\n", i->uid, i->gid);
	buf_printf(out, "devices %" PRIu64 "\nattributes %" PRIu64 "\nowners %" PRIu64 "\n", i->devices,
		   i->attributes, i->owners);
	return out->failed || out->len > IMAGE_RECORD_MAX ? -1 : 0;
}

/* ---- Parsing ---- */

/* In place.  -1: a bad escape. */
static int
unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		int high, low;

		if (*text != '%') {
			*to++ = *text;
			continue;
		}
		high = str_hex_digit((unsigned char)text[1]);
		low = high < 0 ? -1 : str_hex_digit((unsigned char)text[2]);
		if (low < 0 || high * 16 + low == 0)
			return -1;
		*to++ = (char)(high * 16 + low);
		text += 2;
	}
	*to = '\0';
	return 0;
}

static int
take_digest(char out[SHA256_HEX_MAX], const char *text)
{
	if (!text || !image_is_digest(text))
		return -1;
	memcpy(out, text, SHA256_HEX_MAX);
	return 0;
}

static int
take_text(char *out, size_t size, char *value)
{
	return unescape(value) ? -1 : str_copy(out, size, value);
}

static int
take_string(char **out, char *value)
{
	if (*out || unescape(value))
		return -1;
	*out = strdup(value);
	return *out ? 0 : -1;
}

static int
take_word(struct image_words *w, char *value)
{
	return unescape(value) ? -1 : image_word(w, value);
}

static int
take_count(uint64_t *out, const char *value)
{
	int64_t n;

	if (str_int(value, 0, INT64_MAX, &n))
		return -1;
	*out = (uint64_t)n;
	return 0;
}

/* BLOB DIFF KEY BYTES MEDIA */
static int
take_layer(struct image *i, char *value)
{
	struct image_layer *l = &i->layers[i->layer_count];
	char *part[5];

	if (i->layer_count == IMAGE_LAYERS_MAX)
		return -1;
	for (int k = 0; k < 5; k++) {
		part[k] = value;
		value += strcspn(value, " ");
		if (*value == ' ')
			*value++ = '\0';
		else if (k < 4)
			return -1;
	}
	if (*value || take_digest(l->blob, part[0]) || take_digest(l->diff, part[1]) ||
	    take_digest(l->key, part[2]) || take_count(&l->blob_bytes, part[3]) ||
	    take_text(l->media, sizeof l->media, part[4]))
		return -1;
	i->layer_count++;
	return 0;
}

static int
take_line(struct image *i, const char *key, char *value)
{
	uint64_t n;

	if (!strcmp(key, "manifest"))
		return take_digest(i->manifest, value);
	if (!strcmp(key, "config"))
		return take_digest(i->config, value);
	if (!strcmp(key, "os"))
		return take_text(i->os, sizeof i->os, value);
	if (!strcmp(key, "arch"))
		return take_text(i->arch, sizeof i->arch, value);
	if (!strcmp(key, "created"))
		return take_text(i->created, sizeof i->created, value);
	if (!strcmp(key, "layer"))
		return take_layer(i, value);
	if (!strcmp(key, "env"))
		return take_word(&i->env, value);
	if (!strcmp(key, "entrypoint"))
		return take_word(&i->entrypoint, value);
	if (!strcmp(key, "cmd"))
		return take_word(&i->cmd, value);
	if (!strcmp(key, "workdir"))
		return take_string(&i->workdir, value);
	if (!strcmp(key, "user"))
		return take_string(&i->user, value);
	if (!strcmp(key, "uid"))
		return str_int(value, -1, UINT32_MAX, &i->uid);
	if (!strcmp(key, "gid"))
		return str_int(value, -1, UINT32_MAX, &i->gid);
	if (!strcmp(key, "devices"))
		return take_count(&i->devices, value);
	if (!strcmp(key, "attributes"))
		return take_count(&i->attributes, value);
	if (!strcmp(key, "owners"))
		return take_count(&i->owners, value);
	if (strcmp(key, "base") || take_count(&n, value) || n >= IMAGE_LAYERS_MAX)
		return -1;
	i->base = (unsigned)n;
	return 0;
}

static int
parse_lines(struct image *i, char *text)
{
	bool first = true;

	while (*text) {
		char *line = text, *space;

		text += strcspn(text, "\n");
		if (!*text)
			return -1; /* cut short */
		*text++ = '\0';
		if (first) {
			if (strcmp(line, FIRST_LINE))
				return -1;
			first = false;
			continue;
		}
		space = strchr(line, ' ');
		if (!space)
			return -1;
		*space = '\0';
		if (take_line(i, line, space + 1))
			return -1;
	}
	return first || !i->manifest[0] || !i->config[0] || !i->layer_count ||
			i->base >= i->layer_count ? -1 : 0;
}

int
image_parse(struct image *i, const char *text, size_t len, struct err *e)
{
	char *copy;
	int rc;

	memset(i, 0, sizeof *i);
	i->uid = i->gid = -1;
	if (len > IMAGE_RECORD_MAX || memchr(text, '\0', len))
		return err_set(e, ERR_NODE, "the record of the image is damaged");
	copy = strndup(text, len);
	if (!copy)
		return err_set(e, ERR_NODE, "no memory for the record of an image");
	rc = parse_lines(i, copy);
	free(copy);
	return rc ? err_set(e, ERR_NODE, "the record of the image is damaged") : 0;
}
