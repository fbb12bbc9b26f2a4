#include "core/base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"

enum { LINE_MAX_BYTES = 2048 };

static struct {
	const char *program;
	enum log_level level;
	bool journal;
} logger = { .program = "pratai", .level = LOG_INFO };

static const char *const level_words[] = { "error", "warning", "info", "debug" };
static const int syslog_priority[] = { 3, 4, 6, 7 };

void
log_open(const char *program, enum log_level level)
{
	logger.program = program;
	logger.level = level;
	logger.journal = getenv("JOURNAL_STREAM") != NULL;
}

int
log_level_parse(const char *word)
{
	for (int i = 0; i <= LOG_DEBUG; i++)
		if (!strcmp(word, level_words[i]))
			return i;
	return -1;
}

static size_t
put(char *line, size_t at, const char *s, size_t n)
{
	if (n > LINE_MAX_BYTES - 2 - at)
		n = LINE_MAX_BYTES - 2 - at;
	memcpy(line + at, s, n);
	return at + n;
}

/* Quotes what would not read back as one word; control characters never get through. */
static size_t
put_value(char *line, size_t at, const char *value)
{
	bool plain = *value != '\0';

	for (const char *p = value; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == '"' || *p == '=' || *p == 0x7f)
			plain = false;
	if (plain)
		return put(line, at, value, strlen(value));
	at = put(line, at, "\"", 1);
	for (const char *p = value; *p; p++) {
		if (*p == '"' || *p == '\\') {
			char escaped[2] = { '\\', *p };
			at = put(line, at, escaped, 2);
		} else {
			char c = (unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p;
			at = put(line, at, &c, 1);
		}
	}
	return put(line, at, "\"", 1);
}

static void
emit(enum log_level level, const char *msg, va_list ap)
{
	char line[LINE_MAX_BYTES], head[96];
	size_t at = 0;
	const char *key;

	if (level > logger.level)
		return;
	if (logger.journal)
		snprintf(head, sizeof head, "<%d>%s: ", syslog_priority[level], logger.program);
	else {
		char now[CLOCK_RFC3339_MAX];
		clock_format(clock_real_us(), now);
		snprintf(head, sizeof head, "%s %s %s: ", now, logger.program, level_words[level]);
	}
	at = put(line, at, head, strlen(head));
	at = put(line, at, msg, strlen(msg));
	while ((key = va_arg(ap, const char *))) {
		const char *value = va_arg(ap, const char *);
		at = put(line, at, " ", 1);
		at = put(line, at, key, strlen(key));
		at = put(line, at, "=", 1);
		at = put_value(line, at, value ? value : "-");
	}
	line[at++] = '\n';
	/* Nobody can be told when stderr is gone. */
	if (write(STDERR_FILENO, line, at) < 0)
		return;
}

#define LOG_FUNCTION(name, level)                                                              \
	void name(const char *msg, ...)                                                        \
	{                                                                                      \
		va_list ap;                                                                    \
		va_start(ap, msg);                                                             \
		emit(level, msg, ap);                                                          \
		va_end(ap);                                                                    \
	}
LOG_FUNCTION(log_error, LOG_ERROR)
LOG_FUNCTION(log_warning, LOG_WARNING)
LOG_FUNCTION(log_info, LOG_INFO)
LOG_FUNCTION(log_debug, LOG_DEBUG)

void
log_err(const char *msg, const struct err *e)
{
	log_error(msg, "class", err_class_name(e->cls), "error", e->text, NULL);
}
