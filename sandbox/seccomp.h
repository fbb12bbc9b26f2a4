/*
 * The system call filter, compiled at build time (gen_seccomp_main.c, from the policy in
 * seccomp_rules.c) so that a sandbox only loads it.
 *
 * In short: what interpreters and ordinary programs use is allowed; a call that exists
 * and is refused by policy fails with EPERM (a socket's family with EAFNOSUPPORT, its
 * protocol with EPROTONOSUPPORT); a call that is not known, clone3 among them, fails with
 * ENOSYS; a call of another architecture (int 0x80) kills the process with SIGSYS.
 */
#ifndef PRATAI_SECCOMP_H
#define PRATAI_SECCOMP_H

struct err;
struct sock_filter;

/*
 * Loads the filter into the calling thread, which has no_new_privs (else EACCES, unless it
 * has CAP_SYS_ADMIN in its user namespace).  Cannot be undone; children inherit it.
 * Async-signal-safe but for the text of an error.
 */
int seccomp_install(struct err *e);

/* The same with the few calls of an init that has nothing left to do but to wait. */
int seccomp_install_init(struct err *e);

/* The code of "default" or "strict" (seccomp_rules.c), which is ours. */
const struct sock_filter *seccomp_builtin(const char *list, unsigned *length);
/* As seccomp_install, with another program. */
int seccomp_install_other(const struct sock_filter *code, unsigned length, struct err *e);

/* The same for a program that asks: its listener, or -1. */
int seccomp_install_listener(const struct sock_filter *code, unsigned length, struct err *e);

/* The number of BPF instructions of seccomp_install's, for reports. */
unsigned seccomp_length(void);

#endif
