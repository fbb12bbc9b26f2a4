/*
 * How pratai-unpack gives up all that reading an archive needs not: no_new_privs; limits
 * on memory, CPU time, file size and descriptors; by landlock (where the kernel has it) all
 * paths but those below its directories; by seccomp everything that sandboxes may not call,
 * and of the rest sockets, new processes, exec and signals.
 */
#ifndef PRATAI_UNPACK_LOCK_H
#define PRATAI_UNPACK_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct err;

struct unpack_lock {
	int dest;   /* the directory that is written; -1: none */
	int source; /* one that is read; -1: none */
	int first_closed; /* descriptors from here on are closed */
	/* Whole trees, as a layer has them: hard links, pipes, whiteouts, removals; what is written
	 * is read again; owners, whoever the files belong to (capabilities of a user namespace). */
	bool whole_trees;
	uint64_t memory_bytes, file_bytes;
	unsigned cpu_seconds, files;
};

int unpack_lock_in(const struct unpack_lock *l, struct err *e);

#endif
