/*
 * What commands print: a record or a list of records, as a table, JSON, bare values or
 * CSV, in the way of the OpenStack clients.
 *
 * JSON is the control plane's own record, whole, unless columns are asked for; the other
 * formats show a command's default columns.  A column may be a path ("usage.wall_us").
 */
#ifndef PRATAI_CLIENT_RENDER_H
#define PRATAI_CLIENT_RENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "core/client/span.h"

struct err;

enum render_format { RENDER_TABLE, RENDER_JSON, RENDER_VALUE, RENDER_CSV };

enum { RENDER_COLUMNS_MAX = 64, RENDER_CELL_BYTES_MAX = 8192 };

struct render {
	enum render_format format;
	const char *columns[RENDER_COLUMNS_MAX]; /* given by -c, in this order */
	size_t column_count;
	bool only_id;
};

/* "table", "json", "value", "csv"; -1 for another word. */
int render_format_parse(const char *word);

/*
 * One record to stdout: its fields in the record's order, or the columns asked for.
 * id_key names the field that --only-id prints.  ERR_INPUT: a column that the record does
 * not have; ERR_NODE: no memory.  That stdout takes it is for the program's end to check.
 */
int render_record(const struct render *o, struct span record, const char *id_key, struct err *e);

/* A list, in the order given.  columns: the default ones, ends with NULL. */
int render_list(const struct render *o, const struct span *rows, size_t count,
		const char *const *columns, const char *id_key, struct err *e);

/* Text with control characters written as \xNN (tab and newline stay), for terminals. */
void render_escaped(FILE *f, const char *text, size_t len);
/* What others wrote to stdout: as it is, or escaped if that is a terminal. */
void render_text(const char *text, size_t len);

#endif
