#include "runtimes/exec/program.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fdio.h"

/* The kernel reads as much of a script's first line. */
enum { HEAD_BYTES = 256, PROGRAM_HEADERS_MAX = 64 };

#if defined(__x86_64__)
enum { OWN_MACHINE = EM_X86_64 };
#elif defined(__aarch64__)
enum { OWN_MACHINE = EM_AARCH64 };
#else
#error "say here what this machine is called in ELF"
#endif

static const struct {
	uint16_t machine;
	const char *name;
} machines[] = {
	{ EM_X86_64, "x86-64" }, { EM_AARCH64, "arm64" },   { EM_386, "32-bit x86" },
	{ EM_ARM, "32-bit arm" }, { EM_RISCV, "riscv" },    { EM_PPC64, "ppc64" },
	{ EM_S390, "s390" },
};

int
failure_set(struct failure *f, const char *type, const char *fmt, ...)
{
	va_list ap;

	snprintf(f->type, sizeof f->type, "%s", type);
	va_start(ap, fmt);
	vsnprintf(f->message, sizeof f->message, fmt, ap);
	va_end(ap);
	for (char *p = f->message; *p; p++)
		if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\')
			*p = '?';
	return -1;
}

static const char *
machine_name(uint16_t machine)
{
	for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++)
		if (machines[i].machine == machine)
			return machines[i].name;
	return "another one";
}

/* Whether path can be executed in its turn. */
static int
check_interpreter(const char *what, const char *path, struct failure *f)
{
	if (path[0] != '/')
		return failure_set(f, "BadMain", "main's %s '%.150s' is not an absolute path", what,
				   path);
	if (access(path, F_OK) < 0)
		return failure_set(f, "BadMain", "main's %s %.150s is not in the image", what, path);
	if (access(path, X_OK) < 0)
		return failure_set(f, "BadMain", "main's %s %.150s is not executable", what, path);
	return 0;
}

static int
check_script(const char *head, size_t len, char kind[128], struct failure *f)
{
	const char *line = head + 2, *end = memchr(head, '\n', len);
	char path[HEAD_BYTES];
	size_t n;

	if (!end && len == HEAD_BYTES)
		return failure_set(f, "BadMain", "main's first line is longer than %d bytes",
				   HEAD_BYTES);
	if (!end)
		end = head + len;
	while (line < end && (*line == ' ' || *line == '\t'))
		line++;
	for (n = 0; line + n < end && line[n] != ' ' && line[n] != '\t'; n++)
		path[n] = line[n];
	path[n] = '\0';
	if (end > line && end[-1] == '\r')
		return failure_set(f, "BadMain", "main's first line ends in a carriage return: save it "
				   "with Unix line ends");
	if (!n)
		return failure_set(f, "BadMain", "main's first line names no interpreter after #!");
	snprintf(kind, 128, "a script for %.100s", path);
	return check_interpreter("interpreter", path, f);
}

/* The loader of a program that is not static. */
static int
check_loader(int fd, const Elf64_Ehdr *h, struct failure *f)
{
	char path[PATH_MAX];

	for (unsigned i = 0; i < h->e_phnum && i < PROGRAM_HEADERS_MAX; i++) {
		Elf64_Phdr p;
		ssize_t n;

		if (pread(fd, &p, sizeof p, (off_t)(h->e_phoff + i * sizeof p)) != sizeof p)
			return failure_set(f, "BadMain", "main is a damaged ELF program");
		if (p.p_type != PT_INTERP)
			continue;
		n = p.p_filesz < sizeof path ? pread(fd, path, p.p_filesz, (off_t)p.p_offset) : -1;
		if (n <= 0 || (size_t)n != p.p_filesz || path[n - 1])
			return failure_set(f, "BadMain", "main is a damaged ELF program");
		return check_interpreter("loader", path, f);
	}
	return 0;
}

static int
check_elf(int fd, const char *head, size_t len, struct failure *f)
{
	Elf64_Ehdr h;
	bool narrow = len > EI_CLASS && head[EI_CLASS] == ELFCLASS32;

	memset(&h, 0, sizeof h);
	memcpy(&h, head, len < sizeof h ? len : sizeof h);
	/* The machine stands at the same place in both classes. */
	if (h.e_machine != OWN_MACHINE || narrow)
		return failure_set(f, "BadMain", "main is a program for %s, and this machine is %s",
				   narrow && h.e_machine == OWN_MACHINE ? "32 bits"
									: machine_name(h.e_machine),
				   machine_name(OWN_MACHINE));
	if (len < sizeof h || (h.e_phnum && h.e_phentsize != sizeof(Elf64_Phdr)))
		return failure_set(f, "BadMain", "main is a damaged ELF program");
	if (h.e_type != ET_EXEC && h.e_type != ET_DYN)
		return failure_set(f, "BadMain", "main is an ELF file, but not a program: link it");
	if (!h.e_entry)
		return failure_set(f, "BadMain", "main is a shared library, not a program");
	return check_loader(fd, &h, f);
}

static int
check_content(int fd, char kind[128], struct failure *f)
{
	static const struct {
		const char *magic, *system;
	} foreign[] = {
		{ "MZ", "Windows" },
		{ "\xcf\xfa\xed\xfe", "macOS" },
		{ "\xca\xfe\xba\xbe", "macOS" },
	};
	char head[HEAD_BYTES];
	ssize_t n = fd_read_all(fd, head, sizeof head);

	if (n < 0)
		return failure_set(f, "BadMain", "main cannot be read: %s", strerror(errno));
	if (n == 0)
		return failure_set(f, "BadMain", "main is empty");
	if (n >= 2 && !memcmp(head, "#!", 2))
		return check_script(head, (size_t)n, kind, f);
	if (n >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG)) {
		snprintf(kind, 128, "an ELF program");
		return check_elf(fd, head, (size_t)n, f);
	}
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
		if ((size_t)n >= strlen(foreign[i].magic) &&
		    !memcmp(head, foreign[i].magic, strlen(foreign[i].magic)))
			return failure_set(f, "BadMain", "main is a program for %s: build it for Linux",
					   foreign[i].system);
	return failure_set(f, "BadMain", "main is neither an ELF program nor a script that begins "
			   "with #!");
}

/* A zip of a directory instead of what is in it is the usual mistake. */
static int
no_main(const char *directory, struct failure *f)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	char inner[PATH_MAX], hint[200] = "";

	while (dir && !hint[0] && (entry = readdir(dir))) {
		snprintf(inner, sizeof inner, "%.255s/main", entry->d_name);
		if (entry->d_name[0] != '.' && faccessat(dirfd(dir), inner, F_OK, 0) == 0)
			snprintf(hint, sizeof hint, " (there is one in %.60s/: zip what is in that "
				 "directory, not the directory)", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return failure_set(f, "NoMain", "there is no main at the root of the zip%s", hint);
}

int
program_check(const char *directory, char kind[128], struct failure *f)
{
	char path[PATH_MAX];
	struct stat st;
	CLEAN_FD int fd = -1;

	snprintf(path, sizeof path, "%s/main", directory);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return no_main(directory, f);
	if (fd < 0 || fstat(fd, &st) < 0)
		return failure_set(f, "BadMain", "main cannot be opened: %s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return failure_set(f, "BadMain", "main is %s, not a file",
				   S_ISDIR(st.st_mode) ? "a directory" : "something else");
	if (check_content(fd, kind, f))
		return -1;
	if (access(path, X_OK) < 0)
		return failure_set(f, "BadMain", "main is not executable: %s", strerror(errno));
	return 0;
}
