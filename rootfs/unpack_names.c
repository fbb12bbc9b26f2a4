/*
 * A tree of names: nodes in an array, found by (parent, part) in a hash table.  A node
 * keeps one part of a path, at most 255 bytes, so that deep and long names cost no more
 * memory than their distinct parts, and the bound on nodes is the bound on memory.
 *
 * A directory may be implied (by "a/b") before or after it is named itself; named twice
 * it is a duplicate like any other.
 */
#include "rootfs/unpack_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/str.h"

struct node {
	uint32_t parent;
	uint32_t text; /* offset in the pool */
	uint8_t len;
	uint8_t kind;
	bool named; /* by an entry of its own, not only implied */
};

struct names {
	size_t max;
	unsigned depth;
	struct node *nodes; /* [0] is the root */
	size_t count, room;
	char *pool;
	size_t pool_len, pool_room;
	uint32_t *table; /* node numbers, 0: free */
	size_t mask;
	uint64_t seed; /* of this process: nobody can aim at one bucket */
};

struct names *
names_new(size_t max, unsigned depth)
{
	struct names *n = calloc(1, sizeof(*n));
	size_t size = 64;

	if (!n)
		return NULL;
	while (size < 2 * (max + 1))
		size *= 2;
	n->max = max;
	n->depth = depth;
	n->mask = size - 1;
	n->room = 64;
	n->pool_room = 4096;
	n->nodes = calloc(n->room, sizeof(*n->nodes));
	n->pool = malloc(n->pool_room);
	n->table = calloc(size, sizeof(*n->table));
	if (!n->nodes || !n->pool || !n->table) {
		names_free(n);
		return NULL;
	}
	n->nodes[0].kind = NAME_DIR;
	n->count = 1;
	random_bytes(&n->seed, sizeof(n->seed));
	return n;
}

void
names_free(struct names *n)
{
	if (!n)
		return;
	free(n->nodes);
	free(n->pool);
	free(n->table);
	free(n);
}

const char *
names_show(const char *path, size_t len, char out[NAME_SHOWN_MAX])
{
	bool utf8 = str_is_utf8(path, len);
	size_t at = 0, i;

	for (i = 0; i < len && at < NAME_SHOWN_MAX - 12; i++) {
		unsigned char c = (unsigned char)path[i];

		if (c < 0x20 || c == 0x7f || c == '\\' || (c >= 0x80 && !utf8))
			at += (size_t)snprintf(out + at, NAME_SHOWN_MAX - at, "\\x%02x", c);
		else
			out[at++] = path[i];
	}
	while (utf8 && i < len && ((unsigned char)path[i] & 0xc0) == 0x80)
		out[at++] = path[i++]; /* the rest of a character: at most three bytes */
	snprintf(out + at, NAME_SHOWN_MAX - at, "%s", i < len ? "..." : "");
	return out;
}

static int
refuse(struct err *e, const char *path, size_t len, const char *what)
{
	char shown[NAME_SHOWN_MAX];

	return err_set(e, ERR_INPUT, "the entry '%s' %s", names_show(path, len, shown), what);
}

/* What is wrong with one part, or NULL. */
static const char *
part_problem(const char *part, size_t len)
{
	if (len == 0)
		return "has an empty part in its name";
	if (len > NAME_PART_MAX)
		return "has a part of more than 255 bytes in its name";
	if (len == 1 && part[0] == '.')
		return "has '.' as a part of its name";
	if (len == 2 && part[0] == '.' && part[1] == '.')
		return "has '..' as a part of its name";
	if (len >= 4 && memcmp(part, ".wh.", 4) == 0)
		return "has a part that begins with '.wh.', which marks deletions in layers";
	return NULL;
}

static const char *
path_problem(const char *path, size_t len)
{
	if (len == 0)
		return "has no name";
	if (len > NAME_PATH_MAX)
		return "has a name of more than 4095 bytes";
	if (path[0] == '/')
		return "has an absolute name";
	if (len >= 2 && path[1] == ':' && ((path[0] | 32) >= 'a' && (path[0] | 32) <= 'z'))
		return "has a name with a drive letter";
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)path[i] < 0x20 || path[i] == 0x7f)
			return "has a control character in its name";
		if (path[i] == '\\')
			return "has a backslash in its name; '/' separates directories";
	}
	return str_is_utf8(path, len) ? NULL : "has a name that is not UTF-8";
}

static uint64_t
hash(const struct names *n, uint32_t parent, const char *part, size_t len)
{
	uint64_t h = n->seed ^ (parent * 0x9e3779b97f4a7c15ull);

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)part[i]) * 0x100000001b3ull;
	h ^= h >> 29;
	return (h * 0xbf58476d1ce4e5b9ull) >> 17;
}

/* The slot of (parent, part): its node, or 0 where it would go. */
static uint32_t *
find(const struct names *n, uint32_t parent, const char *part, size_t len)
{
	size_t at = hash(n, parent, part, len) & n->mask;

	for (; n->table[at]; at = (at + 1) & n->mask) {
		const struct node *node = &n->nodes[n->table[at]];

		if (node->parent == parent && node->len == len &&
		    memcmp(n->pool + node->text, part, len) == 0)
			break;
	}
	return &n->table[at];
}

/* A larger array, or NULL; *room counts items. */
static void *
grow(void *array, size_t *room, size_t need, size_t size)
{
	size_t more = *room;
	void *bigger;

	while (more < need)
		more *= 2;
	if (more == *room)
		return array;
	bigger = realloc(array, more * size);
	if (bigger)
		*room = more;
	return bigger;
}

static int
append(struct names *n, uint32_t *slot, uint32_t parent, const char *part, size_t len,
       enum name_kind kind, struct err *e)
{
	void *p;

	if (n->count > n->max)
		return err_set(e, ERR_LIMIT,
			       "the archive has more than %zu files and directories", n->max);
	p = grow(n->nodes, &n->room, n->count + 1, sizeof(*n->nodes));
	if (!p)
		return err_set(e, ERR_NODE, "out of memory for the names of an archive");
	n->nodes = p;
	p = grow(n->pool, &n->pool_room, n->pool_len + len, 1);
	if (!p)
		return err_set(e, ERR_NODE, "out of memory for the names of an archive");
	n->pool = p;
	memcpy(n->pool + n->pool_len, part, len);
	n->nodes[n->count] = (struct node){ .parent = parent,
					    .text = (uint32_t)n->pool_len,
					    .len = (uint8_t)len,
					    .kind = (uint8_t)kind };
	n->pool_len += len;
	*slot = (uint32_t)n->count++;
	return 0;
}

/* The node of path's last part is new or an implied directory that is named now. */
static int
name_last(struct names *n, uint32_t i, const char *path, size_t len, enum name_kind kind,
	  bool fresh, struct err *e)
{
	struct node *node = &n->nodes[i];

	if (!fresh && (node->kind != NAME_DIR) != (kind != NAME_DIR))
		return refuse(e, path, len, "is both a file and a directory");
	if (node->named || (!fresh && kind != NAME_DIR))
		return refuse(e, path, len, "is there twice");
	node->named = true;
	return 0;
}

int
names_add(struct names *n, const char *path, size_t len, enum name_kind kind, struct err *e)
{
	const char *problem = path_problem(path, len);
	uint32_t parent = 0;
	unsigned depth = 0;
	size_t start = 0, end;

	if (problem)
		return refuse(e, path, len, problem);
	for (;; start = end + 1) {
		const char *slash = memchr(path + start, '/', len - start);
		uint32_t *slot;
		bool fresh;

		end = slash ? (size_t)(slash - path) : len;
		problem = part_problem(path + start, end - start);
		if (!problem && ++depth > n->depth)
			problem = "is in too many directories, one in another";
		if (problem)
			return refuse(e, path, len, problem);
		slot = find(n, parent, path + start, end - start);
		fresh = !*slot;
		if (fresh && append(n, slot, parent, path + start, end - start,
				    slash ? NAME_DIR : kind, e) < 0)
			return -1;
		parent = *slot;
		if (!slash)
			return name_last(n, parent, path, len, kind, fresh, e);
		if (n->nodes[parent].kind != NAME_DIR)
			return refuse(e, path, len, "is below a name that is not a directory");
	}
}

int
names_check_link(const char *path, size_t len, const char *target, struct err *e)
{
	size_t target_len = strlen(target), depth = 0;
	bool leading = true;
	const char *p = target;

	for (size_t i = 0; i < len; i++)
		depth += path[i] == '/';
	if (!target_len || target_len > NAME_PATH_MAX || target[0] == '/')
		return refuse(e, path, len, "is a link that is empty or not relative");
	if (!str_is_utf8(target, target_len))
		return refuse(e, path, len, "is a link to a name that is not UTF-8");
	for (size_t i = 0; i < target_len; i++)
		if ((unsigned char)target[i] < 0x20 || target[i] == 0x7f || target[i] == '\\')
			return refuse(e, path, len,
				      "is a link to a name with a control character or backslash");
	for (; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL) {
		bool up = p[0] == '.' && p[1] == '.' && (p[2] == '/' || !p[2]);

		if (up && (!leading || depth-- == 0))
			return refuse(e, path, len, "is a link that leads out of the archive");
		if (!up)
			leading = false;
	}
	return 0;
}

size_t
names_count(const struct names *n)
{
	return n->count - 1;
}

enum name_kind
names_kind(const struct names *n, size_t i)
{
	return (enum name_kind)n->nodes[i + 1].kind;
}

void
names_path(const struct names *n, size_t i, char out[NAME_PATH_MAX + 1])
{
	size_t at = NAME_PATH_MAX;
	uint32_t node = (uint32_t)i + 1;

	out[at] = '\0';
	for (; node; node = n->nodes[node].parent) {
		const struct node *x = &n->nodes[node];

		if (out[at])
			out[--at] = '/';
		at -= x->len; /* names_add bounded the whole */
		memcpy(out + at, n->pool + x->text, x->len);
	}
	memmove(out, out + at, NAME_PATH_MAX + 1 - at);
}
