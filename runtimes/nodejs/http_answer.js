// An answer with a status and headers of the function's own:
//
//   { statusCode: 200, headers: { Name: 'value' }, body: …, isBase64Encoded: false }
//
// A body of text goes out as it is, bytes as they are, anything else as JSON; none is empty.
// What is wrong is an error and not a guess: a header with a line break in it would be
// another answer's header.
'use strict';

const KEYS = ['body', 'headers', 'isBase64Encoded', 'statusCode'];
// They belong to the connection, which the server answers for; so does what begins with pratai-.
const SERVER_FIELDS = new Set(['connection', 'content-length', 'date', 'keep-alive', 'proxy-connection',
  'te', 'trailer', 'transfer-encoding', 'upgrade']);
const FIELDS_MAX = 64;
const FIELDS_BYTES_MAX = 16 << 10;
const NAME_MAX = 127;
const CONTENT_TYPE_MAX = 127;

function show(value) {
  return require('util').inspect(value).slice(0, 100);
}

function checkField(name, raw, bad) {
  if (!/^[\w!#$%&'*+\-.^`|~]+$/.test(name) || name.length > NAME_MAX) {
    throw bad(`has the header name ${show(name)}, which HTTP does not allow`);
  }
  if (SERVER_FIELDS.has(name.toLowerCase()) || name.toLowerCase().startsWith('pratai-')) {
    throw bad(`has the header ${name}, which the server sets itself`);
  }
  if (!['string', 'number', 'boolean'].includes(typeof raw)) {
    throw bad(`has the header ${name} with a value of type ${raw === null ? 'null' : typeof raw}, not string`);
  }
  const value = String(raw);
  if (!/^[ -~]*$/.test(value)) {
    throw bad(`has the header ${name} with a character that is not printable ASCII`);
  }
  return value.trim();
}

// The content type, if they have one, and the other fields.
function checkHeaders(headers, bad) {
  const fields = {};
  const seen = new Set();
  let kind;
  let total = 0;
  if (headers === undefined || headers === null) return {};
  if (typeof headers !== 'object' || Array.isArray(headers)) {
    throw bad(`has headers of type ${Array.isArray(headers) ? 'array' : typeof headers}, not object`);
  }
  const entries = typeof headers.entries === 'function' ? [...headers.entries()] : Object.entries(headers);
  for (const [name, raw] of entries) {
    const value = checkField(String(name), raw, bad);
    const lower = name.toLowerCase();
    if (seen.has(lower)) throw bad(`has the header ${name} twice`);
    seen.add(lower);
    total += name.length + value.length;
    if (lower !== 'content-type') fields[name] = value;
    else if (value.length > CONTENT_TYPE_MAX) {
      throw bad(`has a Content-Type of more than ${CONTENT_TYPE_MAX} characters`);
    } else kind = value;
  }
  if (Object.keys(fields).length > FIELDS_MAX || total > FIELDS_BYTES_MAX) {
    throw bad(`has more than ${FIELDS_MAX} headers or ${FIELDS_BYTES_MAX} bytes of them`);
  }
  return { kind, fields };
}

function decodeBase64(body, bad) {
  if (typeof body !== 'string') throw bad(`is said to be base64, but its body is of type ${typeof body}`);
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(body)) {
    throw bad('is said to be base64, but its body is not');
  }
  return Buffer.from(body, 'base64');
}

// The content type when the headers name none, and the bytes.
function encodeBody(body, isBase64, { bad, bytesOf, encodeJson }) {
  if (isBase64 !== undefined && typeof isBase64 !== 'boolean') {
    throw bad(`has isBase64Encoded ${show(isBase64)}, not true or false`);
  }
  if (isBase64) return ['application/octet-stream', decodeBase64(body, bad)];
  if (body === undefined || body === null) return ['text/plain; charset=utf-8', Buffer.alloc(0)];
  if (typeof body === 'string') return ['text/plain; charset=utf-8', Buffer.from(body)];
  const bytes = bytesOf(body);
  return bytes ? ['application/octet-stream', bytes] : ['application/json', encodeJson(body)];
}

function compose(result, tools) {
  const { bad } = tools;
  const status = result.statusCode;
  const unknown = Object.keys(result).find((key) => !KEYS.includes(key));
  if (unknown !== undefined) {
    throw bad(`has the key ${show(unknown)} beside statusCode; known are ${KEYS.join(', ')}`);
  }
  if (!Number.isInteger(status)) throw bad(`has statusCode ${show(status)}, not a whole number`);
  if (status < 200 || status > 599) throw bad(`has statusCode ${status}, not one from 200 to 599`);
  const { kind, fields } = checkHeaders(result.headers, bad);
  const [usual, body] = encodeBody(result.body, result.isBase64Encoded, tools);
  if (body.length && [204, 205, 304].includes(status)) {
    throw bad(`has statusCode ${status}, which has no body, and a body of ${body.length} bytes`);
  }
  return { kind: kind ?? usual, status, fields, body };
}

module.exports = { compose };
