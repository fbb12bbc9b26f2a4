// What went wrong, as the three texts of an error: type, message, traceback.
//
// The traceback has the user's frames only.  Every text is bounded and valid UTF-8 without
// NUL, whatever was thrown; what throws when it is looked at is described all the same.
'use strict';
const util = require('util');

const { stringify } = JSON;
const HERE = __dirname + '/';
const TYPE_MAX = 63;
const MESSAGE_MAX = 8 << 10;
const TRACEBACK_MAX = 32 << 10;
const LINE_MAX = (64 << 10) - 512; // what stands around the three texts
const CAUSES_MAX = 8;

// The event fails by a rule of the platform's: its type and one sentence.
class Failure extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

function attempt(look, otherwise) {
  try {
    return look();
  } catch (error) {
    return otherwise;
  }
}

// Lone surrogates become U+FFFD.
function clean(text) {
  return Buffer.from(String(text)).toString().replaceAll('\0', '\\x00');
}

// At most limit bytes, cut at a character's edge.
function firstBytes(text, limit) {
  const data = Buffer.from(text.slice(0, limit));
  if (data.length <= limit) return text.slice(0, limit);
  let end = limit;
  while (end > 0 && (data[end] & 0xc0) === 0x80) end--;
  return data.toString('utf8', 0, end);
}

function cutEnd(raw, limit) {
  const text = clean(raw.slice(0, limit + 1));
  if (raw.length <= limit && Buffer.byteLength(text) <= limit) return text;
  const mark = limit >= 1024 ? ` [${raw.length} characters in all]` : '';
  return firstBytes(text, limit - mark.length) + mark;
}

// The beginning says what happened, the end where it started: the middle goes.
function cutMiddle(text, limit) {
  const bytes = Buffer.byteLength(text);
  if (bytes <= limit) return text;
  const tail = limit >> 2;
  const head = firstBytes(text, limit - tail - 64);
  const data = Buffer.from(text);
  let from = data.length - tail;
  while (from < data.length && (data[from] & 0xc0) === 0x80) from++;
  return `${head}\n  [... ${from - Buffer.byteLength(head)} bytes cut ...]\n${data.toString('utf8', from)}`;
}

function isError(value) {
  return util.types.isNativeError(value) || value instanceof Error;
}

function typeOf(value) {
  if (value instanceof Failure) return value.kind;
  if (value === null || value === undefined) return String(value);
  const made = attempt(() => value.constructor.name, '');
  const name = isError(value) ? attempt(() => value.name, '') : '';
  const kind = typeof name === 'string' && name && name !== 'Error' ? name : made;
  return typeof kind === 'string' && kind ? kind : 'Error';
}

function messageOf(value) {
  if (isError(value)) {
    const text = attempt(() => value.message, '(its message cannot be read)');
    return typeof text === 'string' ? text : attempt(() => util.inspect(text), '');
  }
  if (typeof value === 'string') return value;
  return attempt(() => util.inspect(value, { depth: 2 }), '(it cannot be shown)');
}

function isOwnFrame(line) {
  return line.includes(HERE) || line.includes('node:internal/') || /\(node:\w+/.test(line);
}

// value.stack without frames of ours and of node's own; a long message in it is cut first.
function stackOf(value) {
  const stack = attempt(() => value.stack, undefined);
  if (typeof stack !== 'string') return '';
  const at = stack.search(/\n {4}at /);
  const head = at < 0 ? stack : stack.slice(0, at);
  const frames = at < 0 ? [] : stack.slice(at + 1).split('\n');
  return [cutEnd(head, MESSAGE_MAX), ...frames.filter((line) => !isOwnFrame(line))].join('\n');
}

function traceback(value, seen) {
  if (!isError(value) || seen.size > CAUSES_MAX || seen.has(value)) return '';
  seen.add(value);
  let text = stackOf(value);
  for (const inner of attempt(() => [value.cause, ...(value.errors || [])], [])) {
    const more = traceback(inner, seen);
    if (more) text += `\n${inner === value.cause ? 'caused by' : 'one of them'}: ${more}`;
  }
  return text;
}

// {type, message, traceback}, of such a size that the line they go into fits.
function describe(value) {
  const own = value instanceof Failure;
  const out = { type: cutEnd(typeOf(value), TYPE_MAX), message: cutEnd(messageOf(value), MESSAGE_MAX) };
  const trace = own ? '' : clean(attempt(() => traceback(value, new Set()), ''));
  for (let limit = TRACEBACK_MAX; ; limit >>= 1) { // control characters grow by six in JSON
    out.traceback = cutMiddle(trace, limit);
    if (Buffer.byteLength(stringify(out)) <= LINE_MAX) return out;
    if (limit < 1024) out.message = cutEnd(out.message, 1024);
  }
}

module.exports = { Failure, describe };
