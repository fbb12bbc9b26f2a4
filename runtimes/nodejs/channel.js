// The socket to the node on descriptor 3, read and written synchronously: nothing of it is
// in the event loop, so that a function's own handles alone decide when that ends.
//
// node makes inherited descriptors close-on-exec at its start, so no child holds it.
'use strict';
const fs = require('fs');

const { readSync, writeSync, fstatSync } = fs;
const FD = 3;
const LINE_MAX = 64 << 10;
const PAYLOAD_MAX = 64 << 20;
const EXIT_LOST = 70;

// Bound here, before the user's code can replace them.
const exit = process.reallyExit.bind(process);
const { wait } = Atomics;
const { stringify } = JSON;

// Somebody has made it non-blocking: a moment later, then.
function retry(call) {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') exit(EXIT_LOST);
      if (error.code !== 'EAGAIN' && error.code !== 'EINTR') throw error;
      wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

class Channel {
  constructor() {
    this.identity = fstatSync(FD).ino;
    this.rest = Buffer.alloc(0);
  }

  // The next line without its newline; null at the end of the stream.
  readLine() {
    let data = this.rest;
    let end;
    while ((end = data.indexOf(10)) < 0) {
      if (data.length >= LINE_MAX) throw new Error('a line of the node is too long');
      const more = Buffer.allocUnsafe(LINE_MAX);
      const n = retry(() => readSync(FD, more));
      if (n === 0) return null;
      data = Buffer.concat([data, more.subarray(0, n)]);
    }
    this.rest = data.subarray(end + 1);
    return data.toString('utf8', 0, end);
  }

  readBytes(count) {
    if (!(count >= 0 && count <= PAYLOAD_MAX)) throw new Error(`a payload of ${count} bytes`);
    const out = Buffer.allocUnsafeSlow(count);
    let at = this.rest.copy(out, 0, 0, count);
    this.rest = this.rest.subarray(at);
    while (at < count) {
      const n = retry(() => readSync(FD, out, at, count - at));
      if (n === 0) exit(EXIT_LOST);
      at += n;
    }
    return out;
  }

  isIntact() {
    try {
      return fstatSync(FD).ino === this.identity;
    } catch {
      return false;
    }
  }

  // A message and the bytes that follow it, or the end of the process when the channel is
  // not there any more.
  send(message, body) {
    if (!this.isIntact()) {
      try {
        writeSync(2, 'pratai: the function closed or replaced descriptor 3: its answer is lost\n');
      } catch {
        // nobody is left to tell
      }
      exit(EXIT_LOST);
    }
    this.write(Buffer.from(stringify(message) + '\n'));
    if (body) this.write(body);
  }

  write(data) {
    for (let at = 0; at < data.length;) {
      at += retry(() => writeSync(FD, data, at, data.length - at));
    }
  }
}

module.exports = { Channel };
