// One event of a JavaScript function: import it, read the event, call main, answer, end.
//
// The process lives for one event.  Measured: node takes 21 ms of CPU to start; a startup
// snapshot or fewer V8 threads do not shorten that.
// NODE_EXTRA_CA_CERTS would take 40 ms more: an environment has what the function's owner
// put there.  --max-heap-size lets V8 collect garbage before the sandbox's memory is full; it
// would else take the machine's memory for its own, and die of what is not even used.
//
// The import comes before the event is read.  Whatever happens then (an exception that nobody
// caught, process.exit, an event loop with nothing left in it), the node gets a right answer,
// a failure that says why, or the end of the stream.
'use strict';
const began = process.hrtime.bigint();
const start_us = Math.round(process.uptime() * 1e6);
const { Channel } = require('./channel.js');
const { encode } = require('./answer.js');
const { Failure, describe } = require('./failure.js');

delete process.env.PRATAI_MEMORY_MIB; // the command has used it

const root = process.argv[2] ?? '';
const { parse } = JSON;
const { bigint: now } = process.hrtime;
const { kill, pid, resourceUsage } = process;

const channel = new Channel();
const run = { imported: false, answered: false, exit: null, run_us: 0, import_us: 0, mark: began };

function micros(since) {
  return Number((now() - since) / 1000n);
}

// Nothing holds up the end, timers and handles of the function included.
function end() {
  run.answered = true;
  kill.call(process, pid, 'SIGKILL');
}

function fail(value) {
  if (run.answered) return;
  if (run.imported) run.run_us = micros(run.mark);
  else run.import_us = micros(run.mark);
  channel.send({ v: 1, type: 'result', ok: false, run_us: run.run_us, import_us: run.import_us,
    error: describe(value) });
  end();
}

// Pipes that are full would have node keep what is written in memory: it is to be in the log
// before the answer goes out, and a flood is to meet its limit.  Made when first used, as ever.
function makeBlocking(name) {
  const { get, ...rest } = Object.getOwnPropertyDescriptor(process, name);
  let stream;
  Object.defineProperty(process, name, {
    ...rest,
    get() {
      if (!stream) {
        stream = get.call(process);
        stream._handle?.setBlocking?.(true);
      }
      return stream;
    },
  });
}

// ---- Ends that main does not return from ----

function watchEnds() {
  const { exit } = process;
  process.exit = function (code) {
    run.exit = `process.exit(${code === undefined ? '' : String(code).slice(0, 100)})`;
    return exit.apply(process, arguments);
  };
  process.on('exit', () => {
    if (run.exit) {
      fail(new Failure('ProcessExit', `the function called ${run.exit}; a function answers by returning`));
    }
    fail(new Failure('NeverSettled', run.imported
      ? 'the promise that main returned cannot settle any more: nothing is left that could do it'
      : 'the top-level await cannot end any more: nothing is left that could end it'));
  });
  // Also for rejections that nobody handles.  A function with a handler of its own has handled it.
  process.on('uncaughtException', (error) => {
    if (process.listenerCount('uncaughtException') === 1) fail(error);
  });
}

// ---- The function ----

async function load(directory) {
  const { find, isModule } = require('./entry.js');
  const name = find(directory);
  const path = `${directory}/${name}`;
  const url = () => require('url').pathToFileURL(path).href;
  process.argv = [process.argv[0], path];
  // Where node can, require loads an ES module, too, and 3 ms sooner than import does.
  if (!process.features.require_module && isModule(directory, name)) return [await import(url()), name];
  try {
    return [require(path), name];
  } catch (error) {
    // It has an await at its top level.  Nothing of it has run.
    if (error?.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error;
    return [await import(url()), name];
  }
}

// A function main, or one that is exported as the module or by default.
function chooseMain([module, name]) {
  const holders = [module, module?.default];
  for (const holder of holders) {
    const main = holder?.main;
    if (typeof main === 'function') return main.bind(holder);
    if (main !== undefined) {
      throw new Failure('BadMain', `main in ${name} is a value of type ${typeof main} and cannot be called`);
    }
  }
  for (const holder of holders) if (typeof holder === 'function') return holder;
  throw new Failure('NoMain', `${name} exports no main: write exports.main = (payload, context) => …`);
}

// ---- The event ----

class Context {
  #deadline;

  constructor(event, sent) {
    this.event_id = event.event_id;
    this.function_id = event.function_id;
    this.request_id = event.request_id;
    this.source = event.source;
    this.attempt = event.attempt ?? 1;
    this.#deadline = sent + BigInt(event.timeout_ms ?? 0) * 1000000n;
  }

  // Milliseconds until the function is ended, never below 0.
  remaining_ms() {
    const left = (this.#deadline - now()) / 1000000n;
    return left > 0n ? Number(left) : 0;
  }
}

function decodeText(data, kind) {
  const text = data.toString('utf8');
  // Only where bytes were replaced does the text have another length, or this character.
  if (text.includes('\ufffd') && !Buffer.from(text).equals(data)) {
    throw new SyntaxError('it is not UTF-8');
  }
  return kind === 'json' ? parse(text) : text;
}

function decode(kind, data) {
  if (kind === 'bytes') return data;
  if (kind !== 'json' && kind !== 'text') return undefined;
  try {
    return decodeText(data, kind);
  } catch (error) {
    throw new Failure('BadPayload', `the payload cannot be decoded as ${kind}: ${error.message}`);
  }
}

// The deadline runs from when the event was sent.  One that did not have to be waited for may
// have been sent at any time before: it is taken for as old as this process.
function readEvent() {
  const waits = () => resourceUsage.call(process).voluntaryContextSwitches;
  const before = waits();
  const line = channel.readLine();
  if (line === null) process.reallyExit(0);
  const sent = waits() === before ? began : now();
  const event = parse(line);
  const data = channel.readBytes(event.bytes ?? 0);
  process.env.PRATAI_EVENT_ID = event.event_id ?? '';
  return [decode(event.payload, data), new Context(event, sent)];
}

async function answer(main, payload, context) {
  run.mark = now();
  const { kind, status, fields, body } = encode(await main(payload, context));
  run.run_us = micros(run.mark);
  const message = { v: 1, type: 'result', ok: true, run_us: run.run_us, content_type: kind, bytes: body.length };
  if (status !== undefined) message.status = status;
  if (fields && Object.keys(fields).length) message.fields = fields;
  if (run.answered) return;
  channel.send(message, body);
  end();
}

async function serve() {
  try {
    watchEnds();
    makeBlocking('stdout');
    makeBlocking('stderr');
    Error.stackTraceLimit = 50;
    const main = chooseMain(await load(root + '/function'));
    run.import_us = micros(began);
    channel.send({ v: 1, type: 'imported', start_us, import_us: run.import_us });
    run.imported = true;
    run.mark = now();
    await answer(main, ...readEvent());
  } catch (error) {
    fail(error);
  }
}

serve();
