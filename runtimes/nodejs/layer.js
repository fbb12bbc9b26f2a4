// The layer of a version: its files as a tar (ustar, pax where a name is long), sorted, with
// times and owners fixed, so that the same files give the same bytes.
'use strict';
const fs = require('fs');
const { Failure } = require('./failure.js');

// 1980-01-01, the first time that a zip can hold: functions that zip their own files work.
const MTIME = 315532800;
const BLOCK = 512;
const CHUNK = 1 << 20;
const TOTAL_MAX = 512 << 20;
const ENTRIES_MAX = 100000;

// A relative link that stays inside is kept; for another its file is taken.
function linkEntry(name, path) {
  const target = fs.readlinkSync(path);
  const parts = target.split('/');
  const ups = parts.findIndex((part) => part !== '..');
  const stays = target && !target.startsWith('/') && (ups < 0 ? parts.length : ups) < name.split('/').length
    && (ups < 0 || !parts.slice(ups).includes('..'));
  if (stays) return { kind: 'link', target };
  const st = fs.statSync(path, { throwIfNoEntry: false });
  if (st?.isFile()) return { kind: 'file', path, size: st.size, mode: st.mode };
  throw new Failure('BadPackage',
    `the link ${name.slice(0, 200)} leads to ${target.slice(0, 200)}, outside of the function`);
}

function entryOf(name, path) {
  const st = fs.lstatSync(path, { throwIfNoEntry: false });
  if (!st) throw new Failure('BadPackage', `the name ${name.slice(0, 200)} is not UTF-8`);
  if (st.isDirectory()) return { kind: 'dir' };
  if (st.isSymbolicLink()) return linkEntry(name, path);
  if (st.isFile()) return { kind: 'file', path, size: st.size, mode: st.mode };
  throw new Failure('BadPackage', `${name.slice(0, 200)} is neither a file nor a directory nor a link`);
}

// Map of names in the layer; trees are [directory, name].
function plan(trees) {
  const entries = new Map();
  const pending = trees.map(([path, name]) => [path, name]);
  let total = 0;
  while (pending.length) {
    const [path, name] = pending.pop();
    const entry = entryOf(name, path);
    entries.set(name, entry);
    total += entry.size ?? 0;
    if (entry.kind === 'dir') {
      for (const child of fs.readdirSync(path)) pending.push([`${path}/${child}`, `${name}/${child}`]);
    }
    if (entries.size > ENTRIES_MAX) {
      throw new Failure('TooLarge', `the function and its dependencies have more than ${ENTRIES_MAX} files`);
    }
  }
  if (total > TOTAL_MAX) {
    throw new Failure('TooLarge', `the function and its dependencies have ${Math.ceil(total / (1 << 20))} MiB; at most `
      + `${TOTAL_MAX >> 20} are allowed`);
  }
  return new Map([...entries].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
}

function header(name, type, size, mode, link) {
  const h = Buffer.alloc(BLOCK);
  const octal = (value, at, length) => h.write(value.toString(8).padStart(length - 1, '0'), at);
  h.write(name, 0, 100);
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(MTIME, 136, 12);
  h.write('        ', 148);
  h.write(type, 156);
  h.write(link, 157, 100);
  h.write('ustar\x0000', 257);
  octal(h.reduce((sum, byte) => sum + byte, 0), 148, 7);
  return h;
}

function isPlain(text) {
  return text.length <= 100 && /^[ -~]*$/.test(text);
}

function paxRecord(key, value) {
  const bytes = Buffer.byteLength(` ${key}=${value}\n`);
  let length = bytes;
  while (length !== bytes + String(length).length) length = bytes + String(length).length;
  return `${length} ${key}=${value}\n`;
}

function padded(data) {
  return Buffer.concat([data, Buffer.alloc(-data.length & (BLOCK - 1))]);
}

// What precedes an entry's content.
function headers(name, type, size, mode, link = '') {
  const pax = Buffer.from((isPlain(name) ? '' : paxRecord('path', name))
    + (isPlain(link) ? '' : paxRecord('linkpath', link)));
  const own = header(isPlain(name) ? name : 'long', type, size, mode, isPlain(link) ? link : 'long');
  return pax.length ? Buffer.concat([header('pax', 'x', pax.length, 0o444, ''), padded(pax), own]) : own;
}

function sendFile(entry, write) {
  const fd = fs.openSync(entry.path, 'r');
  const chunk = Buffer.allocUnsafe(Math.min(CHUNK, entry.size));
  for (let left = entry.size; left > 0;) {
    const n = fs.readSync(fd, chunk, 0, Math.min(chunk.length, left));
    if (n === 0) throw new Failure('BadPackage', `${entry.path} became shorter while it was read`);
    write(chunk.subarray(0, n));
    left -= n;
  }
  fs.closeSync(fd);
  write(Buffer.alloc(-entry.size & (BLOCK - 1)));
}

function send(entries, write) {
  for (const [name, entry] of entries) {
    if (entry.kind === 'dir') write(headers(name, '5', 0, 0o555));
    else if (entry.kind === 'link') write(headers(name, '2', 0, 0o777, entry.target));
    else {
      write(headers(name, '0', entry.size, entry.mode & 0o111 ? 0o555 : 0o444));
      sendFile(entry, write);
    }
  }
  write(Buffer.alloc(2 * BLOCK));
}

module.exports = { plan, send };
