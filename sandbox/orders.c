#include "sandbox/orders.h"

#include <string.h>
#include <sys/mman.h>

#include "core/base/err.h"

struct orders *
orders_new(void)
{
	void *o = mmap(NULL, sizeof(struct orders), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return o == MAP_FAILED ? NULL : o;
}

int
orders_keep_back(struct orders *o)
{
	return madvise(o, sizeof *o, MADV_DONTFORK);
}

void
orders_free(struct orders *o)
{
	if (o)
		munmap(o, sizeof *o);
}

static void *
take(struct orders *o, size_t bytes)
{
	size_t at = (o->used + 7) & ~(size_t)7;

	if (at > sizeof o->room || bytes > sizeof o->room - at)
		return NULL;
	o->used = at + bytes;
	return o->room + at;
}

static const char *
copy(struct orders *o, const char *text)
{
	size_t bytes = strlen(text) + 1;
	char *to = take(o, bytes);

	return to ? memcpy(to, text, bytes) : NULL;
}

static const char *const *
copy_list(struct orders *o, const char *const *list)
{
	const char **to;
	size_t count = 0;

	while (list[count])
		count++;
	to = take(o, (count + 1) * sizeof *to);
	if (!to)
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (!(to[i] = copy(o, list[i])))
			return NULL;
	to[count] = NULL;
	return to;
}

int
orders_write(struct orders *o, const struct sandbox_spec *spec, struct err *e)
{
	struct sandbox_spec *s = &o->spec;
	bool room = true;

	*s = *spec;
	for (unsigned i = 0; i < s->layer_count; i++)
		room = (s->layers[i].path = copy(o, s->layers[i].path)) && room;
	room = (s->argv = copy_list(o, s->argv)) && room;
	room = (s->envp = copy_list(o, s->envp)) && room;
	room = (s->workdir = copy(o, s->workdir)) && room;
	room = (s->hostname = copy(o, s->hostname)) && room;
	room = (!s->usr || (s->usr = copy(o, s->usr))) && room;
	if (s->gid) {
		gid_t *gid = take(o, sizeof *gid);

		room = gid && room;
		if (gid)
			*gid = *spec->gid;
		s->gid = gid;
	}
	return room ? 0 : err_set(e, ERR_LIMIT, "more than %d bytes of arguments and environment",
				  ORDERS_ROOM);
}
