/*
 * Is a file something that this machine can execute?  Told in words before it is tried, since
 * execve's errno is the same for a program of another machine, a script with a wrong first
 * line and an interpreter that is not there.
 */
#ifndef PRATAI_RUNTIMES_EXEC_PROGRAM_H
#define PRATAI_RUNTIMES_EXEC_PROGRAM_H

/* Of an event or a build, as pratai-runtime(7) has it.  Printable ASCII, no quotes. */
struct failure {
	char type[32];
	char message[400];
};

/* Fills *f; -1.  What does not belong into a message becomes '?'. */
int failure_set(struct failure *f, const char *type, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * The program main in a function's directory.  0, and its kind ("an ELF program", "a script
 * for /bin/sh") in kind; -1: NoMain or BadMain in *f.  Nothing is executed.
 */
int program_check(const char *directory, char kind[128], struct failure *f);

#endif
