/*
 * Errors: one fixed-size value that says whose fault it is and what happened.
 *
 * No allocation: a struct err survives fork, crosses a pipe as bytes and may be
 * filled when memory has run out.  A function that can fail returns 0 or -1 (or a
 * descriptor, or a pointer) and fills the caller's struct err.  Only the edges (the
 * command line, HTTP) turn a class into an exit code or a status.
 */
#ifndef PRATAI_ERR_H
#define PRATAI_ERR_H

#include <stdint.h>

enum err_class {
	ERR_NONE,
	ERR_INPUT,     /* what the caller gave is wrong */
	ERR_DENIED,    /* no token, a wrong one, or not allowed */
	ERR_NOT_FOUND, /* what the caller names does not exist */
	ERR_CONFLICT,  /* it exists already, or somebody else changed it */
	ERR_FUNCTION,  /* the user's code failed */
	ERR_LIMIT,     /* a limit was reached: memory, time, pids, size */
	ERR_NODE,      /* this machine cannot: a system call failed */
	ERR_AGAIN,     /* may work later: busy, full, away */
	ERR_CLASS_COUNT
};

struct err {
	enum err_class cls;
	int errnum;     /* errno of the call that failed, or 0 */
	char step[32];  /* the step that failed, a stable word, or "" */
	char text[472]; /* one sentence, no newline, always terminated */
};

/* Fills *e and returns -1.  e may be NULL. */
int err_set(struct err *e, enum err_class cls, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As err_set, and appends ": " and the text of errno, which it also keeps. */
int err_sys(struct err *e, enum err_class cls, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "context: " before the text.  Class, errno and step stay.  Returns -1. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Names the step that failed, a word that reports and tests may rely on. */
void err_step(struct err *e, const char *step);

void err_clear(struct err *e);

/* "input", "node", ...: for logs. */
const char *err_class_name(enum err_class cls);

#endif
