// What main returned, as content type, status, header fields and bytes.
'use strict';
const { Failure } = require('./failure.js');

const { stringify } = JSON;
const ANSWER_MAX = 6 << 20;

function bad(what) {
  return new Failure('BadResponse', 'the answer ' + what);
}

function bytesOf(value) {
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return Buffer.from(value);
  return null;
}

function hasLoneSurrogate(text) {
  return /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
}

function problemOf(value) {
  if (typeof value === 'number' && !Number.isFinite(value)) return `holds ${value}, which JSON cannot hold`;
  if (typeof value === 'bigint') return 'holds a BigInt, which JSON cannot hold';
  if (typeof value === 'string' && hasLoneSurrogate(value)) {
    return 'holds a lone surrogate, which UTF-8 cannot hold';
  }
  return null;
}

// The first thing in value that JSON cannot hold, and where; null when there is none.  It
// walks as stringify does, toJSON included: holders are the way from the root to here.
function findUnencodable(value) {
  const holders = [];
  const keys = [];
  let found = null;
  const where = (key) => '$' + [...keys.slice(2), key].map((k, i, all) => (
    all.length === 1 && keys.length < 2 ? '' : /^\d+$/.test(k) ? `[${k}]` : '.' + String(k).slice(0, 60)
  )).join('').slice(0, 400);
  const done = new Error('found');
  const tell = (what, key) => {
    found = `${what} at ${where(key)}`;
    throw done;
  };
  try {
    stringify(value, function look(key, item) {
      while (holders.length && holders[holders.length - 1] !== this) {
        holders.pop();
        keys.pop();
      }
      if (!holders.length) {
        holders.push(this);
        keys.push('');
      }
      const problem = problemOf(item);
      if (problem) tell(problem, key);
      if (hasLoneSurrogate(key)) tell('holds a lone surrogate in a key, which UTF-8 cannot hold', '');
      if (item !== null && typeof item === 'object') {
        if (holders.includes(item)) tell('contains itself', key);
        holders.push(item);
        keys.push(key);
      }
      return item;
    });
  } catch (error) {
    if (error instanceof RangeError) return 'is nested too deeply for JSON';
    if (error !== done) throw error; // the function's own toJSON
  }
  return found;
}

// stringify writes null for NaN and escapes for lone surrogates: only where its text has one
// of these is the value looked through.
function encodeJson(value) {
  let text;
  try {
    text = value === undefined ? 'null' : stringify(value);
  } catch (error) {
    const found = findUnencodable(value);
    throw found ? bad(found) : error;
  }
  if (text === undefined) throw bad(`is a ${typeof value}, which JSON cannot hold`);
  if (text.includes('null') || /\\ud[89a-f]/.test(text)) {
    const found = findUnencodable(value);
    if (found) throw bad(found);
  }
  return Buffer.from(text);
}

function encode(value) {
  const bytes = bytesOf(value);
  let out;
  if (bytes) {
    out = { kind: 'application/octet-stream', body: bytes };
  } else if (value !== null && typeof value === 'object' && Object.hasOwn(value, 'statusCode')) {
    out = require('./http_answer.js').compose(value, { bad, bytesOf, encodeJson });
  } else {
    out = { kind: 'application/json', body: encodeJson(value) };
  }
  if (out.body.length > ANSWER_MAX) {
    throw new Failure('ResponseTooLarge',
      `the answer has ${out.body.length} bytes; at most ${ANSWER_MAX} are allowed`);
  }
  return out;
}

module.exports = { encode };
