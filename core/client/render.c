/*
 * A cell is text in UTF-8 that functions and users chose, so it is hostile: control
 * characters are escaped in tables (a terminal would obey them), lines become lines of the
 * cell, and a cell longer than RENDER_CELL_BYTES_MAX ends with a sentence that says so.
 * Widths are columns of a terminal (wcwidth), which needs a UTF-8 locale; the program sets
 * one.  JSON, value and CSV carry everything as it is, unless a terminal is to show it.
 */
#include "core/client/render.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "core/base/buf.h"
#include "core/base/err.h"

struct cell {
	char *text; /* lines separated by '\n' */
	size_t width;
};

int
render_format_parse(const char *word)
{
	static const char *const names[] = { "table", "json", "value", "csv" };

	for (int i = 0; i < 4; i++)
		if (!strcmp(word, names[i]))
			return i;
	return -1;
}

/* The terminal columns of n bytes; text is well-formed or counts a column a byte. */
static size_t
display_width(const char *text, size_t n)
{
	mbstate_t state = { 0 };
	size_t width = 0;

	for (size_t i = 0; i < n;) {
		wchar_t wc;
		size_t len = mbrtowc(&wc, text + i, n - i, &state);
		int w;

		if (len == 0 || len == (size_t)-1 || len == (size_t)-2) {
			memset(&state, 0, sizeof state);
			width++;
			i++;
			continue;
		}
		w = wcwidth(wc);
		width += w > 0 ? (size_t)w : 0;
		i += len;
	}
	return width;
}

static bool
is_control(const char *text, size_t left, size_t *bytes)
{
	unsigned char c = (unsigned char)text[0];

	*bytes = 1;
	if (c < 0x20 || c == 0x7f)
		return true;
	if (c == 0xc2 && left > 1 && (unsigned char)text[1] < 0xa0) { /* U+0080..U+009F */
		*bytes = 2;
		return true;
	}
	return false;
}

/* As \xNN, or \u00NN, which JSON has, too. */
static void
escape(struct buf *out, const char *text, size_t len, bool json)
{
	for (size_t i = 0, n; i < len; i += n) {
		if (!is_control(text + i, len - i, &n) || text[i] == '\n')
			buf_put(out, text + i, n);
		else if (text[i] == '\t')
			buf_puts(out, "    ");
		else
			buf_printf(out, json ? "\\u%04x" : "\\x%02x", (unsigned char)text[i + n - 1]);
	}
}

void
render_escaped(FILE *f, const char *text, size_t len)
{
	struct buf out = { 0 };

	escape(&out, text, len, false);
	fwrite(out.data, 1, out.len, f);
	buf_free(&out);
}

void
render_text(const char *text, size_t len)
{
	if (isatty(STDOUT_FILENO))
		render_escaped(stdout, text, len);
	else
		fwrite(text, 1, len, stdout);
}

/* An object as "key=value" lines; deeper values as compact JSON. */
static void
put_object_lines(struct buf *out, struct span object)
{
	struct span key, value;
	size_t at = 0;

	while (span_next(object, &at, &key, &value)) {
		char *text = span_is(value, '{') || span_is(value, '[') ? NULL : span_text(value);

		if (out->len)
			buf_put(out, "\n", 1);
		buf_put(out, key.p, key.n);
		buf_put(out, "=", 1);
		if (text)
			buf_puts(out, text);
		else
			span_compact(value, out);
		free(text);
	}
}

static void
put_array_lines(struct buf *out, struct span array)
{
	struct span value;
	size_t at = 0;

	while (span_next(array, &at, NULL, &value)) {
		bool plain = !span_is(value, '{') && !span_is(value, '[');
		char *text = plain ? span_text(value) : NULL;

		if (out->len)
			buf_puts(out, plain ? ", " : "\n");
		if (text)
			buf_puts(out, text);
		else
			span_compact(value, out);
		free(text);
	}
}

/* A value as text: for people (lines) or for programs (compact JSON where it has parts). */
static char *
value_text(struct span value, bool people)
{
	struct buf out = { 0 };

	if (!span_is(value, '{') && !span_is(value, '['))
		return span_text(value);
	buf_puts(&out, "");
	if (!people)
		span_compact(value, &out);
	else if (span_is(value, '{'))
		put_object_lines(&out, value);
	else
		put_array_lines(&out, value);
	return buf_steal(&out);
}

static void
cell_set(struct cell *c, const char *text)
{
	struct buf out = { 0 };
	size_t len = strlen(text), keep = len;

	if (len > RENDER_CELL_BYTES_MAX) {
		keep = RENDER_CELL_BYTES_MAX;
		while (keep > 0 && ((unsigned char)text[keep] & 0xc0) == 0x80)
			keep--;
	}
	buf_puts(&out, "");
	escape(&out, text, keep, false);
	if (keep < len)
		buf_printf(&out, "\n(%zu bytes more: -f json shows all)", len - keep);
	while (out.len > 0 && out.data[out.len - 1] == '\n')
		out.data[--out.len] = '\0';
	c->text = buf_steal(&out);
	c->width = 0;
	for (const char *line = c->text; line && *line; line += strcspn(line, "\n")) {
		size_t w;

		line += *line == '\n';
		w = display_width(line, strcspn(line, "\n"));
		c->width = w > c->width ? w : c->width;
	}
}

static void
draw_rule(const size_t *widths, size_t columns)
{
	for (size_t i = 0; i < columns; i++) {
		putchar('+');
		for (size_t n = 0; n < widths[i] + 2; n++)
			putchar('-');
	}
	puts("+");
}

/* One row of cells, as many lines as its tallest cell has. */
static void
draw_row(const struct cell *row, const size_t *widths, size_t columns)
{
	const char *rest[RENDER_COLUMNS_MAX];
	bool more = true;

	for (size_t i = 0; i < columns; i++)
		rest[i] = row[i].text ? row[i].text : "";
	while (more) {
		more = false;
		for (size_t i = 0; i < columns; i++) {
			size_t n = strcspn(rest[i], "\n"), width = display_width(rest[i], n);

			printf("| %.*s%*s ", (int)n, rest[i], (int)(widths[i] - width), "");
			rest[i] += n;
			if (*rest[i] == '\n') {
				rest[i]++;
				more = true;
			}
		}
		puts("|");
	}
}

/* cells: (rows + 1) * columns, the head first.  Frees their text. */
static void
draw_table(struct cell *cells, size_t rows, size_t columns)
{
	size_t widths[RENDER_COLUMNS_MAX] = { 0 };

	for (size_t i = 0; i < (rows + 1) * columns; i++)
		if (cells[i].width > widths[i % columns])
			widths[i % columns] = cells[i].width;
	draw_rule(widths, columns);
	for (size_t r = 0; r <= rows; r++) {
		draw_row(cells + r * columns, widths, columns);
		if (r == 0 || r == rows)
			draw_rule(widths, columns);
	}
	if (rows == 0)
		draw_rule(widths, columns);
	for (size_t i = 0; i < (rows + 1) * columns; i++)
		free(cells[i].text);
}

static void
put_csv(const char *text, bool last)
{
	bool quoted = text[strcspn(text, ",\"\r\n")] != '\0';
	struct buf out = { 0 };

	if (quoted)
		buf_puts(&out, "\"");
	for (; *text; text++)
		buf_put(&out, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
	if (quoted)
		buf_puts(&out, "\"");
	render_text(out.data, out.len);
	buf_free(&out);
	fputs(last ? "\r\n" : ",", stdout);
}

static int
print_json(struct span s, struct err *e)
{
	struct buf out = { .max = (size_t)1 << 30 }, shown = { .max = (size_t)1 << 30 };
	struct buf *text = isatty(STDOUT_FILENO) ? &shown : &out;
	int rc = 0;

	span_pretty(s, &out);
	if (text == &shown)
		escape(&shown, out.data, out.len, true);
	if (out.failed || shown.failed)
		rc = err_set(e, ERR_NODE, "no memory to print the answer");
	else if (fwrite(text->data, 1, text->len, stdout) == text->len)
		putchar('\n');
	buf_free(&shown);
	buf_free(&out);
	return rc;
}

/* The record with only the columns asked for, as JSON. */
static void
put_selection(struct buf *out, const struct render *o, struct span record)
{
	buf_put(out, "{", 1);
	for (size_t i = 0; i < o->column_count; i++) {
		struct span value = span_path(record, o->columns[i]);

		/* Names of columns were found in a record, so nothing in them needs an escape. */
		buf_printf(out, "%s\"%s\":", i ? "," : "", o->columns[i]);
		if (value.p)
			buf_put(out, value.p, value.n);
		else
			buf_puts(out, "null");
	}
	buf_put(out, "}", 1);
}

static int
unknown_column(const char *column, struct span record, struct err *e)
{
	struct buf names = { .max = 360 }; /* of the sentence's sizeof e->text */
	struct span key, value;
	size_t at = 0;

	while (!names.failed && span_next(record, &at, &key, &value))
		buf_printf(&names, "%s%.*s", names.len ? ", " : "", (int)key.n, key.p);
	err_set(e, ERR_INPUT, "no column '%.60s'; there are: %s%s", column,
		names.data ? names.data : "none", names.failed ? ", ..." : "");
	buf_free(&names);
	return -1;
}

/* Each column asked for must be in some record (fields may be missing in others). */
static int
check_columns(const struct render *o, const struct span *rows, size_t count, struct err *e)
{
	for (size_t c = 0; count && c < o->column_count; c++) {
		size_t r = 0;

		while (r < count && !span_path(rows[r], o->columns[c]).p)
			r++;
		if (r == count)
			return unknown_column(o->columns[c], rows[0], e);
	}
	return 0;
}

static void
put_line(const char *text)
{
	if (text)
		render_text(text, strlen(text));
	putchar('\n');
}

static void
print_id(struct span record, const char *id_key)
{
	char *id = span_text(span_member(record, id_key));

	put_line(id);
	free(id);
}

/* Fields and values of one record in the formats that are not JSON. */
static void
print_fields(const struct render *o, const struct span *keys, const struct span *values, size_t n)
{
	struct cell *cells = calloc((n + 1) * 2, sizeof *cells);

	if (!cells)
		return;
	cell_set(&cells[0], "Field");
	cell_set(&cells[1], "Value");
	for (size_t i = 0; o->format == RENDER_CSV && i < n; i++) {
		char *key = strndup(keys[i].p, keys[i].n);

		put_csv(key ? key : "", i + 1 == n);
		free(key);
	}
	for (size_t i = 0; i < n; i++) {
		char *text = value_text(values[i], o->format == RENDER_TABLE);
		char *key = strndup(keys[i].p, keys[i].n);

		if (o->format == RENDER_CSV) {
			put_csv(text ? text : "", i + 1 == n);
		} else if (o->format == RENDER_VALUE) {
			put_line(text);
		} else {
			cell_set(&cells[(i + 1) * 2], key ? key : "");
			cell_set(&cells[(i + 1) * 2 + 1], text ? text : "");
		}
		free(key);
		free(text);
	}
	if (o->format == RENDER_TABLE) {
		draw_table(cells, n, 2);
	} else {
		free(cells[0].text);
		free(cells[1].text);
	}
	free(cells);
}

int
render_record(const struct render *o, struct span record, const char *id_key, struct err *e)
{
	struct span keys[RENDER_COLUMNS_MAX * 2], values[RENDER_COLUMNS_MAX * 2];
	size_t n = 0, at = 0;

	if (o->only_id) {
		print_id(record, id_key);
		return 0;
	}
	if (check_columns(o, &record, 1, e))
		return -1;
	if (o->format == RENDER_JSON) {
		struct buf text = { 0 };
		int rc;

		if (!o->column_count)
			return print_json(record, e);
		put_selection(&text, o, record);
		rc = print_json(span_of(text.data, text.len), e);
		buf_free(&text);
		return rc;
	}
	for (; n < o->column_count; n++) {
		keys[n] = (struct span){ o->columns[n], strlen(o->columns[n]) };
		values[n] = span_path(record, o->columns[n]);
	}
	while (!o->column_count && n < RENDER_COLUMNS_MAX * 2 &&
	       span_next(record, &at, &keys[n], &values[n]))
		n++;
	print_fields(o, keys, values, n);
	return 0;
}

static int
list_json(const struct render *o, const struct span *rows, size_t count, struct err *e)
{
	struct buf text = { .max = (size_t)1 << 30 };
	int rc;

	buf_put(&text, "[", 1);
	for (size_t i = 0; i < count; i++) {
		if (i)
			buf_put(&text, ",", 1);
		if (o->column_count)
			put_selection(&text, o, rows[i]);
		else
			buf_put(&text, rows[i].p, rows[i].n);
	}
	buf_put(&text, "]", 1);
	if (text.failed)
		rc = err_set(e, ERR_NODE, "no memory to print the list");
	else
		rc = print_json(span_of(text.data, text.len), e);
	buf_free(&text);
	return rc;
}

static void
list_plain(const struct render *o, const struct span *rows, size_t count,
	   const char *const *columns, size_t n)
{
	bool csv = o->format == RENDER_CSV;

	for (size_t c = 0; csv && c < n; c++)
		put_csv(columns[c], c + 1 == n);
	for (size_t r = 0; r < count; r++) {
		for (size_t c = 0; c < n; c++) {
			char *text = value_text(span_path(rows[r], columns[c]), false);

			if (csv)
				put_csv(text ? text : "", c + 1 == n);
			else if (text)
				render_text(text, strlen(text));
			if (!csv)
				putchar(c + 1 == n ? '\n' : ' ');
			free(text);
		}
	}
}

static int
list_table(const struct span *rows, size_t count, const char *const *columns, size_t n,
	   struct err *e)
{
	struct cell *cells = calloc((count + 1) * n, sizeof *cells);

	if (!cells)
		return err_set(e, ERR_NODE, "no memory to print the list");
	for (size_t c = 0; c < n; c++)
		cell_set(&cells[c], columns[c]);
	for (size_t r = 0; r < count; r++) {
		for (size_t c = 0; c < n; c++) {
			char *text = value_text(span_path(rows[r], columns[c]), true);

			cell_set(&cells[(r + 1) * n + c], text ? text : "");
			free(text);
		}
	}
	draw_table(cells, count, n);
	free(cells);
	return 0;
}

int
render_list(const struct render *o, const struct span *rows, size_t count,
	    const char *const *columns, const char *id_key, struct err *e)
{
	size_t n = 0;

	if (o->only_id) {
		for (size_t i = 0; i < count; i++)
			print_id(rows[i], id_key);
		return 0;
	}
	if (check_columns(o, rows, count, e))
		return -1;
	if (o->format == RENDER_JSON)
		return list_json(o, rows, count, e);
	if (o->column_count) {
		columns = o->columns;
		n = o->column_count;
	} else {
		while (columns[n])
			n++;
	}
	if (o->format == RENDER_TABLE) {
		if (list_table(rows, count, columns, n, e))
			return -1;
	} else {
		list_plain(o, rows, count, columns, n);
	}
	return 0;
}
