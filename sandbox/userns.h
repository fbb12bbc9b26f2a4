/*
 * Why an ordinary user's sandbox cannot be made here, in words: distributions restrict user
 * namespaces in three ways, each behind a setting of its own.
 */
#ifndef PRATAI_SANDBOX_USERNS_H
#define PRATAI_SANDBOX_USERNS_H

struct err;

/*
 * e: a failure with errnum EPERM, EACCES or ENOSPC of the clone, or of the first calls that need
 * a capability in the new namespace.  Where a setting below sysctls ("/proc/sys") explains it,
 * e's text becomes a sentence with its name, its value and how to allow it; else it stays.
 */
void userns_explain(const char *sysctls, struct err *e);

#endif
