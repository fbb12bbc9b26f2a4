"""The nodejs runtime: one event from import to answer."""
import json
import os
import re
import subprocess
import time

import pytest

from conftest import Process, command_of, stage_of, write_files

ECHO = "exports.main = (payload) => payload;\n"


@pytest.fixture(scope="session")
def stage():
    return stage_of("nodejs")


@pytest.fixture(scope="session")
def entry():
    return "main.js"


def returning(expression):
    return f"exports.main = (payload, context) => {expression};"


def test_echo(event):
    r = event(ECHO, {"a": [1, 2.5, "ü\n", None, True]})
    assert r.first["type"] == "imported" and r.first["import_us"] > 0 and r.first["start_us"] > 0
    assert r.ok and r.body == '{"a":[1,2.5,"ü\\n",null,true]}'.encode()
    assert r.result["content_type"] == "application/json" and r.result["run_us"] > 0
    assert (r.out, r.err) == ("", "")


@pytest.mark.parametrize("kind,payload,seen", [
    ("json", b' {"a": 1} ', "Object"), ("json", b"null", "null"), ("json", b'"text"', "String"),
    ("json", b"1e2", "Number"), ("text", "grüße\ufffd".encode(), "String"), ("bytes", b"\xff\0", "Buffer"),
    ("bytes", b"", "Buffer"), ("none", b"", "undefined")])
def test_payload_kinds(event, kind, payload, seen):
    r = event(returning("payload === null ? 'null' : payload === undefined ? 'undefined'"
                        " : payload.constructor.name"), payload, kind)
    assert json.loads(r.body) == seen


@pytest.mark.parametrize("kind,payload", [("json", b"[1] x"), ("json", b""), ("json", b'"\xff"'), ("text", b"\xff")])
def test_payloads_that_are_not_what_they_are_said_to_be(event, kind, payload):
    r = event(ECHO, payload, kind)
    assert r.type == "BadPayload" and f"cannot be decoded as {kind}" in r.message


def test_no_payload_takes_the_default(event):
    assert json.loads(event("exports.main = (payload = {x: 1}) => payload").body) == {"x": 1}


def test_large_payload_and_answer(event):
    data = bytes(range(256)) * (6 << 12)
    r = event(ECHO, data, "bytes")
    assert r.body == data and r.result["content_type"] == "application/octet-stream"


@pytest.mark.parametrize("files", [
    {"main.js": "exports.main = () => 'ok'"}, {"index.js": "module.exports = () => 'ok'"},
    {"main.js": "module.exports = async () => 'ok'"},
    {"main.js": "exports.default = () => 'ok'"}, {"main.js": "module.exports = { main() { return this.x }, x: 'ok' }"},
    {"main.mjs": "export function main() { return 'ok' }"}, {"main.mjs": "export default () => 'ok'"},
    {"main.mjs": "export default { main: async () => 'ok' }"}, {"main.mjs": "export const main = await (() => () => 'ok')()"},
    {"index.mjs": "import { x } from './lib/x.mjs'; export const main = () => x", "lib/x.mjs": "export const x = 'ok'"},
    {"main.cjs": "exports.main = () => 'ok'", "package.json": '{"type": "module"}'},
    {"main.js": "export const main = () => 'ok'", "package.json": '{"type": "module"}'},
    {"main.js": "exports.main = require('x').y", "node_modules/x/index.js": "exports.y = () => 'ok'"},
    {"main.mjs": "import { y } from 'x'; export { y as main }", "node_modules/x/index.mjs": "export const y = () => 'ok'",
     "node_modules/x/package.json": '{"exports": "./index.mjs"}'},
    {"main.js": "exports.main = async () => (await import('./x.mjs')).default", "x.mjs": "export default 'ok'"},
    {"main.js": "exports.main = () => new Promise((done) => setTimeout(done, 5, 'ok'))"},
    {"main.js": "exports.main = () => ({ then: (f) => f('ok') })"},
    {"main.js": "exports.main = () => require.main === module ? 'run as a script' : 'ok'"},
    {"main.js": "exports.main = () => __filename.endsWith('/function/main.js') && process.argv[1] === __filename"
                " && process.argv.length === 2 && 'ok'"},
    {"main.js": "exports.main = () => 'ok'", "main.mjs": "syntax error", "index.js": "syntax error"}])
def test_forms_of_main(event, files):
    r = event(files)
    assert r.ok, r.error
    assert r.body == b'"ok"' and r.err == ""


@pytest.mark.parametrize("files", [
    {"main.mjs": "export const main = await (() => () => 'ok')()"}, {"main.js": "exports.main = () => 'ok'"},
    {"main.js": "export default () => 'ok'", "package.json": '{"type": "module"}'}])
def test_node_whose_require_loads_no_modules(event, files):
    """As before 20.19."""
    can = subprocess.run(["node", "-p", "process.features.require_module"], capture_output=True, check=True).stdout
    r = event(files, env={"NODE_OPTIONS": "--no-experimental-require-module"} if can == b"true\n" else {})
    assert r.ok and r.body == b'"ok"', r.error


def test_context(event):
    r = event(returning("[context.event_id, context.function_id, context.request_id, context.source,"
                        " context.attempt, context.remaining_ms(), process.env.PRATAI_EVENT_ID]"), 1)
    *fixed, left, variable = json.loads(r.body)
    assert fixed == ["E1", "F1", "R1", "webhook", 2] and 0 < left <= 5000 and variable == "E1"


def remaining(stage, root, write_first):
    """What is left of 60 s after an import of one second."""
    write_files(root, {"function/main.js": "const end = Date.now() + 1000; while (Date.now() < end);"
                       "exports.main = (p, context) => context.remaining_ms()"})
    p = Process(command_of(stage, "command", root), root)
    event = b'{"v":1,"type":"event","timeout_ms":60000}\n'
    if write_first:
        p.write(event)
    assert p.line()["type"] == "imported"
    if not write_first:
        wait_until_it_sleeps(p.process.pid)
        p.write(event)
    left = int(p.stream.read(p.line()["bytes"]))
    p.end()
    return left


def wait_until_it_sleeps(pid):
    """In read, on the channel."""
    end = time.monotonic() + 30
    while not open(f"/proc/{pid}/syscall").read().split()[1:2] == ["0x3"]:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_remaining_time_counts_the_import(stage, root):
    """Where the event was there before, and where it came to a function that waited for it.  A
    thread of V8's that waits just then makes the first look like the second."""
    assert any(0 < remaining(stage, root, True) <= 59000 for _ in range(4))
    assert 59000 < remaining(stage, root, False) <= 60000


@pytest.mark.parametrize("source,kind,words", [
    ("exports.main = 5", "BadMain", "main in main.js is a value of type number"),
    ("exports.main = { x: 1 }", "BadMain", "of type object"),
    ("exports.x = 1", "NoMain", "main.js exports no main"), ("module.exports = null", "NoMain", "exports no main"),
    ("require('nosuch')", "Error", "Cannot find module 'nosuch'"),
    ("throw new TypeError('bad')", "TypeError", "bad"), ("process.exit(3)", "ProcessExit", "called process.exit(3)"),
    ("const x = ;", "SyntaxError", "Unexpected token ';'"), ("throw null", "null", "null"),
    ("throw undefined", "undefined", "undefined")])
def test_failed_import(event, source, kind, words):
    r = event(source)
    assert r.first["type"] == "result" and not r.ok  # sent without reading the event
    assert r.type == kind and words in r.message and r.first["import_us"] > 0


def test_module_that_never_loads(event):
    r = event({"main.mjs": "await new Promise(() => {}); export const main = 1"})
    assert r.type == "NeverSettled" and "top-level await" in r.message


def test_no_file(event):
    r = event({"dir/index.js": ECHO})
    assert r.type == "NoMain" and "(there is one in dir/" in r.message


@pytest.mark.parametrize("source,kind,words", [
    ("throw new RangeError('far')", "RangeError", "far"),
    ("throw 'text'", "String", "text"), ("throw { code: 5 }", "Object", "{ code: 5 }"),
    ("class Own extends Error {}; throw new Own('mine')", "Own", "mine"),
    ("const e = new Error('named'); e.name = 'Named'; throw e", "Named", "named"),
    ("return Promise.reject(new TypeError('late'))", "TypeError", "late"),
    ("setTimeout(() => { throw new TypeError('uncaught') }); return new Promise(() => {})", "TypeError", "uncaught"),
    ("Promise.reject(new TypeError('unhandled')); return new Promise((f) => setTimeout(f, 50))", "TypeError",
     "unhandled"),
    ("Promise.reject(7); return new Promise((f) => setTimeout(f, 50))", "UnhandledPromiseRejection", "7"),
    ("process.exit()", "ProcessExit", "called process.exit()"),
    ("process.exit(4); ", "ProcessExit", "called process.exit(4); a function answers by returning"),
    ("setTimeout(() => process.exit(1)); return new Promise(() => {})", "ProcessExit", "exit(1)"),
    ("return new Promise(() => {})", "NeverSettled", "cannot settle any more"),
    ("const f = () => f() + 1; f()", "RangeError", "Maximum call stack"),
    ("throw new Error('x'.repeat(1e7))", "Error", "[10000000 characters in all]"),
    ("throw new Error('\\ud800\\0')", "Error", "\ufffd\\x00"),
    ("throw Object.create(Error.prototype, { stack: { get() { throw 1 } }, message: { get() { throw 2 } } })", "Error",
     "cannot be read"),
    ("throw new Proxy({}, { get() { throw 1 } })", "Error", ""),
    ("require('fs').readFileSync('/no/such')", "Error", "ENOENT: no such file"),
    ("class N extends Error {}; Object.defineProperty(N, 'name', { value: 'N'.repeat(300) }); throw new N()", "N" * 63, ""),
    ("throw new AggregateError([new Error('one'), new Error('two')], 'many')", "AggregateError", "many")])
def test_failures(event, source, kind, words):
    r = event("exports.main = (payload) => { " + source + " };")
    assert r.first["type"] == "imported" and not r.ok
    assert r.type == kind and words in r.message, r.error
    assert len(r.message.encode()) <= 8 << 10 and len(r.traceback.encode()) <= 32 << 10


def test_traceback_has_user_frames_only(event):
    r = event("function inner() {\n  throw new TypeError('gone');\n}\nexports.main = async () => {\n  await 1;\n  inner();\n};\n")
    lines = r.traceback.splitlines()
    assert lines[0] == "TypeError: gone" and re.search(r"at inner \(.*/function/main.js:2:9\)$", lines[1])
    assert "main.js:6:3" in lines[2] and len(lines) == 3
    r = event("exports.main = () => { try { JSON.parse('{') } catch (e) { throw new Error('outer', { cause: e }) } }")
    assert "caused by: SyntaxError: " in r.traceback and "node:" not in r.traceback
    assert r.traceback.count("main.js:1") == 2


def test_traceback_of_a_module(event):
    r = event({"main.mjs": "import './helper.mjs'; export const main = 1", "helper.mjs": "null.x"})
    assert "helper.mjs:1:6" in r.traceback and "node:internal" not in r.traceback


@pytest.mark.parametrize("expression,body,kind", [
    ("undefined", b"null", "application/json"), ("null", b"null", "application/json"),
    ("'text'", b'"text"', "application/json"), ("[undefined, { a: undefined, b: null }]", b'[null,{"b":null}]', None),
    ("new Date(0)", b'"1970-01-01T00:00:00.000Z"', None), ("({ toJSON: () => 5 })", b"5", None),
    ("'\\\\ud800 null'", b'"\\\\ud800 null"', None), ("'\\u{1f600}'", '"\U0001f600"'.encode(), None),
    ("Buffer.from('raw')", b"raw", "application/octet-stream"), ("new Uint8Array([1, 2])", b"\1\2", None),
    ("new Uint16Array([258]).subarray(0, 1)", b"\2\1", None), ("new Uint8Array([7, 8]).buffer", b"\7\x08", None),
    ("Object.create(null)", b"{}", None), ("new Map([[1, 2]])", b"{}", None)])
def test_answers(event, expression, body, kind):
    r = event(returning(expression))
    assert r.ok, r.error
    assert r.body == body and kind in (None, r.result["content_type"])


@pytest.mark.parametrize("expression,words", [
    ("NaN", "holds NaN, which JSON cannot hold at $"), ("({ a: [1, { b: -Infinity }] })", "-Infinity, which JSON cannot hold at $.a[1].b"),
    ("10n", "holds a BigInt, which JSON cannot hold at $"), ("({ list: [1, 10n] })", "BigInt, which JSON cannot hold at $.list[1]"),
    ("(() => { const a = { x: [] }; a.x.push({}, a); return a })()", "contains itself at $.x[1]"),
    ("(() => { const a = []; a.push(a); return a })()", "contains itself at $[0]"),
    ("() => 1", "is a function"), ("Symbol('s')", "is a symbol"),
    ("({ s: '\\ud800' })", "lone surrogate, which UTF-8 cannot hold at $.s"),
    ("({ '\\udc00': 1 })", "lone surrogate in a key"),
    ("(() => { let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a })()", "nested too deeply")])
def test_answers_that_json_cannot_hold(event, expression, words):
    r = event(returning(expression))
    assert r.type == "BadResponse" and words in r.message and r.traceback == ""


def test_error_of_the_functions_own_json(event):
    r = event(returning("({ toJSON() { throw new TypeError('mine') } })"))
    assert r.type == "TypeError" and r.message == "mine"
    r = event("BigInt.prototype.toJSON = function () { return Number(this) };" + returning("({ n: 5n, same: [null, {}, {}] })"))
    assert r.body == b'{"n":5,"same":[null,{},{}]}'


def test_too_large(event):
    r = event(returning("Buffer.alloc(6291457)"))
    assert r.type == "ResponseTooLarge" and "6291457 bytes; at most 6291456" in r.message
    assert len(event(returning("Buffer.alloc(6291456)")).body) == 6291456


@pytest.mark.parametrize("answer,status,kind,fields,body", [
    ("{ statusCode: 201, body: 'made' }", 201, "text/plain; charset=utf-8", {}, b"made"),
    ("{ statusCode: 204 }", 204, "text/plain; charset=utf-8", {}, b""),
    ("{ statusCode: 200, headers: { 'content-type': 'text/html', 'X-Number': 5 }, body: '<p>' }", 200, "text/html",
     {"X-Number": "5"}, b"<p>"),
    ("{ statusCode: 200, headers: new Map([['A', true]]), body: { j: 1 } }", 200, "application/json", {"A": "true"}, b'{"j":1}'),
    ("{ statusCode: 200, headers: null, body: Buffer.from([255]) }", 200, "application/octet-stream", {}, b"\xff"),
    ("{ statusCode: 500, body: 'AQI=', isBase64Encoded: true }", 500, "application/octet-stream", {}, b"\1\2")])
def test_http_answers(event, answer, status, kind, fields, body):
    r = event(returning(f"({answer})"))
    assert r.ok, r.error
    assert (r.result["status"], r.result["content_type"], r.body) == (status, kind, body)
    assert r.result.get("fields", {}) == fields


@pytest.mark.parametrize("answer,words", [
    ("{ statusCode: '200' }", "has statusCode '200', not a whole number"), ("{ statusCode: 99 }", "not one from 200 to 599"),
    ("{ statusCode: 200, status: 1 }", "has the key 'status' beside statusCode"),
    ("{ statusCode: 200, headers: [] }", "headers of type array"),
    ("{ statusCode: 200, headers: { 'a b': '' } }", "header name 'a b', which HTTP does not allow"),
    ("{ statusCode: 200, headers: { a: 'x\\r\\nb: y' } }", "not printable ASCII"),
    ("{ statusCode: 200, headers: { a: {} } }", "header a with a value of type object"),
    ("{ statusCode: 200, headers: { a: '1', A: '2' } }", "has the header A twice"),
    ("{ statusCode: 200, headers: { 'Content-Length': '5' } }", "which the server sets itself"),
    ("{ statusCode: 200, headers: { 'Pratai-State': 'x' } }", "which the server sets itself"),
    ("{ statusCode: 200, headers: { 'content-type': 'x'.repeat(128) } }", "more than 127 characters"),
    ("{ statusCode: 200, headers: Object.fromEntries([...Array(65).keys()].map((i) => ['h' + i, ''])) }", "more than 64 headers"),
    ("{ statusCode: 304, body: 'x' }", "which has no body"), ("{ statusCode: 200, body: 'é', isBase64Encoded: true }", "its body is not"),
    ("{ statusCode: 200, body: 5, isBase64Encoded: true }", "its body is of type number"),
    ("{ statusCode: 200, isBase64Encoded: 'yes' }", "has isBase64Encoded 'yes'"),
    ("{ statusCode: 200, body: { n: NaN } }", "holds NaN, which JSON cannot hold at $.n")])
def test_http_answers_that_are_wrong(event, answer, words):
    r = event(returning(f"({answer})"))
    assert r.type == "BadResponse" and words in r.message


def test_log(event):
    r = event("console.log('import'); exports.main = () => { console.log('out', { a: 1 }); console.error('err');"
              " process.stdout.write('x'.repeat(60000)); return 1 }")
    assert r.ok and r.out == "import\nout { a: 1 }\n" + "x" * 60000 and r.err == "err\n"


def test_log_larger_than_a_pipe(event):
    r = event("exports.main = () => { for (let i = 0; i < 40; i++) { console.log('o'.repeat(9999));"
              " console.error('e'.repeat(9999)) } return 1 }")
    assert r.ok and r.out == ("o" * 9999 + "\n") * 40 and r.err == ("e" * 9999 + "\n") * 40


def test_nothing_holds_up_the_end(event):
    r = event("setInterval(() => {}, 1000); require('http').createServer().listen(0, '127.0.0.1');"
              "process.on('exit', () => console.log('exit'));" + returning("'done'"))
    assert r.body == b'"done"' and r.out == ""


def test_handlers_of_the_functions_own(event):
    r = event("process.on('uncaughtException', (e) => done(e.message)); let done;"
              "exports.main = () => new Promise((f) => { done = f; setTimeout(() => { throw new Error('kept') }) })")
    assert r.body == b'"kept"'
    r = event("process.on('unhandledRejection', () => {});"
              "exports.main = () => { Promise.reject(1); return new Promise((f) => setTimeout(f, 50, 'ok')) }")
    assert r.body == b'"ok"'


def test_the_channel_is_not_inherited(event):
    r = event("const { execFileSync } = require('child_process'); const { ino } = require('fs').fstatSync(3);"
              + returning("[ino, execFileSync('/bin/sh', ['-c', 'readlink /proc/$$/fd/* || true']).toString()]"))
    inode, links = json.loads(r.body)
    assert "socket:[" in links and f"socket:[{inode}]" not in links  # its standard output is another one


def test_closed_channel(event):
    r = event("exports.main = () => { require('fs').closeSync(3); return 1 }")
    assert r.result is None and r.code == 70 and "closed or replaced descriptor 3" in r.err
    r = event("const fs = require('fs'); exports.main = () => { fs.closeSync(3); fs.openSync('/dev/null', 'w'); return 1 }")
    assert r.result is None and r.code == 70


def test_replaced_globals(event):
    r = event("JSON.stringify = JSON.parse = process.reallyExit = () => { throw 1 };" + returning("({ still: 'here' })"))
    assert r.ok and json.loads(r.body) == {"still": "here"}


def test_stream_that_ends_without_an_event(stage, root):
    write_files(root, {"function/main.js": ECHO})
    p = Process(command_of(stage, "command", root), root)
    p.socket.shutdown(1)
    assert p.line()["type"] == "imported" and p.line() is None and p.end()[2] == 0


def test_heap_follows_the_memory(event):
    source = returning("require('v8').getHeapStatistics().heap_size_limit >> 20")
    sizes = [int(event(source, env={"PRATAI_MEMORY_MIB": str(m)}).body) for m in (64, 512)]
    assert sizes[0] <= 64 and 400 <= sizes[1] <= 512


def test_own_files_parse(stage):
    for path in sorted((stage / "layer/opt/pratai/nodejs").iterdir()):
        subprocess.run(["node", "--check", path], check=True)
    assert os.access(stage / "runtime.json", os.R_OK)
