/*
 * The log: one line an entry to stderr, `key=value` fields, a "<N>" prefix where
 * journald reads it (JOURNAL_STREAM is set) and a time of our own elsewhere.  Never a
 * payload, an environment or a secret.  Values are quoted where they need it.
 */
#ifndef PRATAI_LOG_H
#define PRATAI_LOG_H

struct err;

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* program: a static string that starts each line ("control", "node", "spawner"). */
void log_open(const char *program, enum log_level level);

/* "error", "warning", "info" or "debug"; -1 for another word. */
int log_level_parse(const char *word);

/*
 * msg is a constant sentence.  The rest are pairs of key and value, both strings,
 * ended by NULL:  log_warning("node is gone", "node", id, "reason", why, NULL);
 */
void log_error(const char *msg, ...) __attribute__((sentinel));
void log_warning(const char *msg, ...) __attribute__((sentinel));
void log_info(const char *msg, ...) __attribute__((sentinel));
void log_debug(const char *msg, ...) __attribute__((sentinel));

/* log_error with the error's class and text as fields. */
void log_err(const char *msg, const struct err *e);

#endif
