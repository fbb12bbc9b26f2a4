"""bootstrap.py and runner.py: one event from import to answer."""
import json
import re

import pytest

ECHO = "def main(payload=None): return payload\n"


def test_echo(event):
    r = event(ECHO, {"a": [1, 2.5, "ü\n", None, True]})
    assert r.first["type"] == "imported" and r.first["import_us"] > 0
    assert r.ok and json.loads(r.body) == {"a": [1, 2.5, "ü\n", None, True]}
    assert r.body == '{"a":[1,2.5,"ü\\n",null,true]}'.encode()
    assert r.result["content_type"] == "application/json" and r.code == 0
    assert r.out == "" and r.err == ""


@pytest.mark.parametrize("kind,payload,seen", [
    ("json", b' {"a": 12345678901234567890.5, "b": 12345678901234567890} ', "dict"),
    ("json", b"null", "NoneType"), ("json", b'"text"', "str"), ("json", b"1e2", "float"),
    ("text", "grüße".encode(), "str"), ("bytes", b"\xff\0", "bytes"), ("bytes", b"", "bytes"),
    ("none", b"", "NoneType")])
def test_payload_kinds(event, kind, payload, seen):
    r = event("def main(payload=None): return type(payload).__name__", payload, kind)
    assert json.loads(r.body) == seen


@pytest.mark.parametrize("kind,payload", [
    ("json", b"[1] x"), ("json", b""), ("json", b'{"a'), ("json", b"1" * 5000), ("text", b"\xff"),
    ("json", b"NaN")])
def test_payloads_that_python_cannot_hold(event, kind, payload):
    r = event(ECHO, payload, kind)
    assert r.type == "BadPayload" and f"cannot be decoded as {kind}" in r.message


def test_pth_file_that_ends_the_process(event, root):
    (root / "opt/deps").mkdir(parents=True)
    (root / "opt/deps/x.pth").write_text("import sys; sys.exit(4)\n")
    assert event(ECHO).type == "SystemExit"


def test_large_payload_and_answer(event):
    data = bytes(range(256)) * (6 << 12)
    r = event(ECHO, data, "bytes")
    assert r.body == data and r.result["content_type"] == "application/octet-stream"


def test_new_module_comes_first(event):
    r = event({"main.py": "def main(p): return 'main'",
               "new_module.py": "import pickle\nclass C: pass\n"
               "def main(p): return [__name__, __file__[-24:], __spec__.name,"
               " type(pickle.loads(pickle.dumps(C()))).__module__]"})
    name, file, spec, module = json.loads(r.body)
    assert (name, spec, module) == ("new_module",) * 3 and file.endswith("/function/new_module.py")


@pytest.mark.parametrize("source,expected", [
    ("def main(payload, context): return context.event_id", "E1"),
    ("def main(payload, context=None): return context.function_id", "F1"),
    ("def main(payload=None, ctx=None): return ctx.request_id", "R1"),
    ("def main(payload=None, *, context): return context.source", "webhook"),
    ("def main(payload, context, /): return context.attempt", 2),
    ("def main(*args): return args[1].attempt", 2),
    ("def main(payload, other=5): return other", 5),
    ("def main(payload, context): return 4000 < context.remaining_ms() <= 5000", True),
    ("async def main(payload):\n import asyncio\n await asyncio.sleep(0)\n return payload", 1),
    ("async def main(payload, context): return context.event_id", "E1"),
    ("import functools\nmain = functools.partial(lambda a, p: [a, p], 7)", [7, 1]),
    ("class C:\n def __call__(self, p): return p\nmain = C()", 1),
    ("class C:\n def m(self, p, context): return context.event_id\nmain = C().m", "E1"),
    ("import functools\ndef d(f):\n @functools.wraps(f)\n def w(*a): return f(*a)\n return w\n"
     "@d\ndef main(p): return p", 1),
    ("def main(payload): return exit is not None and payload", 1)])
def test_signatures(event, source, expected):
    r = event(source, 1)
    assert r.ok, r.error
    assert json.loads(r.body) == expected


def test_remaining_time_counts_the_import(stage, root):
    """The deadline does not wait for an import that the event waits for."""
    from conftest import Process, command_of, write_files
    write_files(root, {"function/main.py": "import time\ntime.sleep(1)\n"
                       "def main(p, context): return context.remaining_ms()"})
    p = Process(command_of(stage, "command", root), root)
    p.write(b'{"v":1,"type":"event","timeout_ms":60000}\n')
    assert p.line()["type"] == "imported"
    body = p.stream.read(p.line()["bytes"])
    assert 0 < int(body) <= 59000
    p.end()


def test_default_is_used_without_payload(event):
    r = event("def main(payload={'x': 1}, context=None): return [payload, context.event_id]")
    assert json.loads(r.body) == [{"x": 1}, "E1"]


@pytest.mark.parametrize("source,kind,words", [
    ("def main(): pass", "BadMain", "takes no payload"),
    ("def main(*, payload): pass", "BadMain", "takes no payload"),
    ("def main(a, b, c): pass", "BadMain", "needs 3 arguments (a, b, c)"),
    ("def main(a, *, key): pass", "BadMain", "keyword argument key"),
    ("main = 5", "BadMain", "type int"), ("x = 1", "NoMain", "defines no main")])
def test_bad_main(event, source, kind, words):
    r = event(source, 1)
    assert r.first["type"] == "result" and not r.ok  # sent without reading the event
    assert r.type == kind and words in r.message and r.traceback == ""


def test_no_module(event):
    r = event({"other.py": ECHO})
    assert r.type == "NoMain" and "no new_module.py or main.py" in r.message


@pytest.mark.parametrize("source,kind,words", [
    ("import nosuch", "ModuleNotFoundError", "nosuch"), ("def main(:", "SyntaxError", "line 1"),
    ("1/0", "ZeroDivisionError", "division"), ("import sys; sys.exit(3)", "SystemExit", "exit(3)")])
def test_failed_import(event, source, kind, words):
    r = event(source)
    assert r.first["type"] == "result" and r.type == kind and words in r.message
    assert r.first["import_us"] > 0 and r.code == 1


def test_traceback_has_user_frames_only(event):
    r = event("def f():\n    raise KeyError('gone')\n\ndef main(p):\n    f()\n")
    assert r.type == "KeyError" and r.message == "'gone'"
    assert "main.py\", line 2, in f" in r.traceback and "raise KeyError" in r.traceback
    assert "runner.py" not in r.traceback and "importlib" not in r.traceback
    r = event("async def main(p):\n    1/0\n")
    assert "asyncio" not in r.traceback and "line 2, in main" in r.traceback
    r = event({"main.py": "import helper\ndef main(p): pass", "helper.py": "import gone_module"})
    assert "importlib" not in r.traceback and "helper.py" in r.traceback


@pytest.mark.parametrize("source,kind,words", [
    ("raise ValueError('x' * 10**7)", "ValueError", "[10000000 characters in all]"),
    ("raise ValueError('\\ud800\\0')", "ValueError", "\\ud800\\x00"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
    ("raise BaseException('b')", "BaseException", "b"),
    ("import sys; sys.exit(0)", "SystemExit", "sys.exit(0)"),
    ("exit()", "SystemExit", "sys.exit()"),
    ("main(p)", "RecursionError", "recursion"),
    ("raise MemoryError", "MemoryError", ""),
    ("raise type('N' * 300, (Exception,), {})()", "N" * 63, ""),
    ("raise type('E', (Exception,), {'__str__': lambda s: 1 // 0})()", "E", "ZeroDivisionError"),
    ("raise ExceptionGroup('many', [ValueError(1), KeyError(2)])", "ExceptionGroup", "many"),
    ("import os\n open_ones = []\n while True: open_ones.append(os.open('/', 0))", "OSError",
     "Too many open files")])
def test_failures(event, source, kind, words):
    r = event("def main(p):\n " + source)
    assert not r.ok and r.type == kind and words in r.message
    assert len(r.message.encode()) <= 8 << 10 and len(r.traceback.encode()) <= 32 << 10
    assert "main" in r.traceback


@pytest.mark.parametrize("message", ["'x' * (100 << 20)", "'x\\n' * (50 << 20)"])
def test_message_that_fills_the_memory(event, message):
    """Not a failure of ours to describe it: no copy of it is made."""
    r = event("import resource\ndef main(p):\n text = %s\n"
              " resource.setrlimit(resource.RLIMIT_DATA, (150 << 20,) * 2)\n"
              " raise ValueError(text)\n" % message)
    assert r.type == "ValueError" and r.message.endswith("[104857600 characters in all]")
    assert "line 5, in main" in r.traceback and "ValueError: x" in r.traceback


def test_long_traceback_is_cut_in_the_middle(event):
    source = "".join(f"def f{i}(): f{i + 1}() # {'x' * 100}\n" for i in range(400))
    r = event(source + "def f400(): raise ValueError('end' + '\\x01' * 5000)\ndef main(p): f0()\n")
    assert "bytes cut" in r.traceback and "in main" in r.traceback
    assert "in f400" in r.traceback or "ValueError: end" in r.traceback


@pytest.mark.parametrize("value,words", [
    ("{1}", "holds a value of type set, which JSON cannot hold"),
    ("{'a': [1, {'b': object()}]}", "type object, which JSON cannot hold at $.a[1].b"),
    ("float('nan')", "holds nan"),
    ("[1, float('-inf')]", "holds -inf, which JSON cannot hold at $[1]"),
    ("{(1, 2): 3}", "key of type tuple"), ("'\\ud800'", "lone surrogate"),
    ("(lambda x: x.append(x) or x)([])", "contains itself at $[0]"),
    ("__import__('functools').reduce(lambda a, _: [a], range(100000), 1)", "nested too deeply"),
    ("(x for x in [1])", "type generator"), ("main", "type function"),
    ("__import__('datetime').datetime.now()", "type datetime")])
def test_answers_that_json_cannot_hold(event, value, words):
    r = event(f"def main(p): return {value}")
    assert r.type == "BadResponse" and words in r.message, r.error


def test_answers_that_json_can_hold(event):
    r = event("import enum, collections\nclass I(enum.IntEnum): A = 1\n"
              "T = collections.namedtuple('T', 'a b')\n"
              "def main(p): return [I.A, T(1, 2), {1: 2, None: 3, True: 4}, (), -0.0, 10**400, '']")
    assert r.body == b'[1,[1,2],{"1":4,"null":3},[],-0.0,1' + b"0" * 400 + b',""]'


def test_too_large_answer(event):
    r = event("def main(p): return b'x' * p", (6 << 20) + 1)
    assert r.type == "ResponseTooLarge" and "6291457" in r.message
    assert event("def main(p): return b'x' * p", 6 << 20).ok


@pytest.mark.parametrize("value,status,kind,fields,body", [
    ("{'statusCode': 201}", 201, "text/plain; charset=utf-8", None, b""),
    ("{'statusCode': 200, 'body': 'hé'}", 200, "text/plain; charset=utf-8", None, "hé".encode()),
    ("{'statusCode': 200, 'body': b'x'}", 200, "application/octet-stream", None, b"x"),
    ("{'statusCode': 404, 'body': {'a': 1}}", 404, "application/json", None, b'{"a":1}'),
    ("{'statusCode': 302, 'headers': {'Location': '/x', 'X-N': 5, 'X-B': True}}", 302,
     "text/plain; charset=utf-8", {"Location": "/x", "X-N": "5", "X-B": "true"}, b""),
    ("{'statusCode': 200, 'headers': {'content-TYPE': 'text/html'}, 'body': '<p>'}", 200,
     "text/html", None, b"<p>"),
    ("{'statusCode': 200, 'body': 'aGk=', 'isBase64Encoded': True}", 200,
     "application/octet-stream", None, b"hi")])
def test_http_answers(event, value, status, kind, fields, body):
    r = event(f"def main(p): return {value}")
    assert r.ok, r.error
    assert (r.result["status"], r.result["content_type"], r.body) == (status, kind, body)
    assert r.result.get("fields") == fields


@pytest.mark.parametrize("value,words", [
    ("{'statusCode': 99}", "not one from 200 to 599"), ("{'statusCode': 600}", "not one from"),
    ("{'statusCode': '200'}", "not a whole number"), ("{'statusCode': True}", "not a whole number"),
    ("{'statusCode': 200, 'header': {}}", "'header'"),
    ("{'statusCode': 200, 'headers': []}", "type list"),
    ("{'statusCode': 200, 'headers': {'a b': '1'}}", "HTTP does not allow"),
    ("{'statusCode': 200, 'headers': {1: '1'}}", "HTTP does not allow"),
    ("{'statusCode': 200, 'headers': {'A': 'x\\r\\nB: y'}}", "not printable ASCII"),
    ("{'statusCode': 200, 'headers': {'A': None}}", "type NoneType"),
    ("{'statusCode': 200, 'headers': {'A': '1', 'a': '2'}}", "twice"),
    ("{'statusCode': 200, 'headers': {'Content-Length': '1'}}", "the server sets itself"),
    ("{'statusCode': 200, 'headers': {'pratai-State': 'x'}}", "the server sets itself"),
    ("{'statusCode': 200, 'headers': {'Date': 'x'}}", "the server sets itself"),
    ("{'statusCode': 200, 'headers': {'H%d' % i: '' for i in range(65)}}", "more than 64 headers"),
    ("{'statusCode': 204, 'body': 'x'}", "which has no body"),
    ("{'statusCode': 200, 'body': '!', 'isBase64Encoded': True}", "is not"),
    ("{'statusCode': 200, 'body': {1}}", "type set")])
def test_bad_http_answers(event, value, words):
    r = event(f"def main(p): return {value}")
    assert r.type == "BadResponse" and words in r.message, r.error


def test_logging(event):
    r = event("import logging\nlog = logging.getLogger('pratai')\nlog.info('early')\n"
              "def main(p):\n log.debug('one')\n logging.getLogger('pratai.x').error('two')\n"
              " logging.getLogger('other').info('quiet')\n logging.warning('root')\n return 1")
    lines = r.err.splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(stamp + " - - - - - INFO - early", lines[0])
    assert re.fullmatch(stamp + " - F1 - R1 - DEBUG - one", lines[1])
    assert re.fullmatch(stamp + " - F1 - R1 - ERROR - two", lines[2])
    assert lines[3:] == ["WARNING:root:root"]


def test_logging_is_not_loaded_before_it_is_used(event):
    r = event("import sys\ndef main(p): return sorted(set(sys.modules) & {'logging', 're', 'json',"
              " 'os', 'site', 'traceback', 'inspect'})")
    assert json.loads(r.body) == []


def test_own_logging_module(event):
    r = event({"logging.py": "mine = True",
               "main.py": "import logging\ndef main(p): return logging.mine"})
    assert json.loads(r.body) is True


def test_output_keeps_its_order(event):
    r = event("import os, sys\ndef main(p):\n print('a'); os.system('echo b'); print('c')\n"
              " sys.stdout.write('no newline \\ud800'); return 1")
    assert r.ok and r.out == "a\nb\nc\nno newline \\ud800"


@pytest.mark.parametrize("source", [
    "import os; os.closerange(3, 400); return 1",
    "import os; os.close(0); os.close(1); os.close(2); return 1",
    "import sys; sys.stdout.close(); sys.stderr.close(); return 1",
    "import sys; sys.stdout = sys.stderr = None; return 1",
    "import json; json.dumps = json.loads = None; return 1",
    "import os; os.write = os._exit = os.getpid = None; return 1",
    "import sys; sys.modules.clear(); return 1",
    "import threading, time; threading.Thread(target=time.sleep, args=(100,)).start(); return 1",
    "import os; os.fork(); return 1",
    "import os\n if os.fork() == 0: raise ValueError('child')\n os.wait(); return 1",
    "import os; os.chdir('/'); os.environ.clear(); return 1",
    "import atexit, time; atexit.register(time.sleep, 100); return 1",
    "import sys; sys.setrecursionlimit(60); return 1",
    "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); return 1",
    "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL); return 1",
    "import multiprocessing as m; q = m.Pool(2); r = q.map(abs, [-1]); return r[0]"])
def test_whatever_the_function_does(event, source):
    r = event("def main(p):\n " + source)
    assert r.ok and r.body == b"1", (r.error, r.err)


@pytest.mark.parametrize("source,code", [
    ("import os; os.closerange(3, 4096); return 1", 70),
    ("import os; os.closerange(3, 4096); [os.open('/', 0) for _ in range(600)]; return 1", 70),
    ("import os; os._exit(5)", 5),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
    ("import ctypes; ctypes.string_at(0)", -11)])
def test_no_answer_is_a_clear_end(event, source, code):
    r = event("def main(p):\n " + source)
    assert r.result is None and r.code == code
    if code == 70:
        assert "its answer is lost" in r.err
    if code == -11:
        assert "Segmentation fault" in r.err and "main.py" in r.err


def test_children_do_not_get_the_channel(event):
    r = event("import subprocess\ndef main(p): return subprocess.run(['ls', '/proc/self/fd'],"
              " stdout=-1, close_fds=False).stdout.decode().split()")
    assert json.loads(r.body) == ["0", "1", "2", "3"]  # 3 is what ls itself opened


def test_paths(event, root):
    (root / "opt/deps/dep").mkdir(parents=True)
    (root / "opt/deps/dep/__init__.py").write_text("x = 'dep'")
    (root / "opt/deps/here.pth").write_text("extra\n")
    (root / "opt/deps/extra").mkdir()
    (root / "opt/deps/extra/inpth.py").write_text("y = 'pth'")
    r = event({"main.py": "import sys, dep, inpth, mine\n"
               "def main(p): return [sys.path, dep.x, inpth.y, mine.z, sys.argv]",
               "mine.py": "z = 1", "random.py": "z = 2"}, env={"PYTHONPATH": "/from/env"})
    path, *rest, argv = json.loads(r.body)
    assert path[:3] == [f"{root}/function", "/from/env", f"{root}/opt/deps"]
    assert rest == ["dep", "pth", 1] and argv == [f"{root}/function/main.py"]
    assert path.index("/usr/lib/python3/dist-packages") > path.index(f"{root}/opt/deps") + 2


def test_names_of_the_standard_library_in_the_function(event):
    r = event({"main.py": "def main(p): raise ValueError('x')", "traceback.py": "", "re.py": "1/0",
               "json.py": "1/0", "linecache.py": "1/0", "os.py": "1/0"}, {"a": 1})
    assert r.type == "ValueError" and "line 1, in main" in r.traceback


def test_module_named_as_one_of_the_runtime(event):
    r = event({"main.py": "import pratai_failure\ndef main(p): raise ValueError('x')",
               "pratai_failure.py": ""})
    assert r.type == "ValueError" and "line 2, in main" in r.traceback


def test_environment_names_the_event(event):
    source = "def main(p):\n import os\n return os.environ['PRATAI_EVENT_ID']"
    assert json.loads(event(source, env={"PRATAI_EVENT_ID": "old"}).body) == "E1"
    assert json.loads(event("import os\n" + source, env={"PRATAI_EVENT_ID": "old"}).body) == "E1"


def test_compiled_module_is_used(event, build, root):
    import io
    import tarfile
    r = build({"main.py": "def main(p): return __cached__\n"})
    tar = tarfile.open(fileobj=io.BytesIO(r.tar))
    name, = [n for n in tar.getnames() if n.endswith(".pyc")]
    (root / "function/__pycache__").mkdir()
    (root / name).write_bytes(tar.extractfile(name).read())
    # Never checked against its source, which is another one here.
    r = event({"main.py": "def main(p): return 'compiled at the event'\n"})
    assert "/function/__pycache__/main." in json.loads(r.body)


def test_other_version_of_the_interpreter(event, stage, root, tmp_path_factory):
    """Without the .pyc files beside it the runtime works as well."""
    import shutil
    from conftest import Process, command_of, write_files
    copy = tmp_path_factory.mktemp("stage") / "python3"
    shutil.copytree(stage, copy)
    shutil.rmtree(copy / "layer/opt/pratai/python3/__pycache__")
    write_files(root, {"function/main.py": "def main(p): raise KeyError(1)"})
    p = Process(command_of(copy, "command", root), root)
    assert p.line()["type"] == "imported"
    p.write(b'{"v":1,"type":"event","payload":"none"}\n')
    assert p.line()["error"]["type"] == "KeyError"
    p.end()


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b'{"type":"other"}\n', b"x" * 70000,
                                  b'{"v":1,"type":"event"} more\n',
                                  b'{"v":1,"type":"event","payload":"json","bytes":9}\n{"a'])
def test_bad_lines_of_the_node(stage, root, line):
    from conftest import Process, command_of, write_files
    write_files(root, {"function/main.py": ECHO})
    p = Process(command_of(stage, "command", root), root)
    p.line()
    p.write(line)
    p.socket.shutdown(1)
    assert p.line() is None
    _, err, code = p.end()
    assert code == 70 and "the node's event cannot be read" in err


def test_event_that_never_comes(stage, root):
    from conftest import Process, command_of, write_files
    write_files(root, {"function/main.py": ECHO})
    p = Process(command_of(stage, "command", root), root)
    p.line()
    p.socket.shutdown(1)
    assert p.line() is None and p.end() == ("", "", 0)
