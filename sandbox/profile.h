/*
 * A profile in the OCI runtime specification's JSON form, with what moby's and
 * containers-common's files add to it, as the table that is compiled.  pratai-seccomp(5) is
 * its description.
 */
#ifndef PRATAI_PROFILE_H
#define PRATAI_PROFILE_H

#include <stddef.h>

struct err;
struct seccomp_table;

enum { PROFILE_BYTES_MAX = 1 << 20 };

/*
 * Fills t; kernel is uname's release, for minKernel.  ERR_INPUT: one sentence that names the
 * member or the system call at fault; ERR_LIMIT: too many rules.
 */
int profile_read(struct seccomp_table *t, const char *text, size_t len, const char *kernel,
		 struct err *e);

#endif
