"""One event of a python3 function: import it, read the event, call main, answer.

The process lives for one event, and every module imported is paid by every event: so
nothing is imported here that the interpreter has not loaded already or that is not built
in (os, re, json and traceback alone would double the start).  What only some events need
is in modules of its own beside this one and loaded by part().

The user's code may do anything to this process: close descriptors, fork, replace
functions of os and json, start threads.  So what is needed after main returned is bound
to names here before the user's code is read, the channel is checked to be still the
channel before the answer goes into it, and a forked child that comes back from main does
not answer.  Whatever happens, the node gets a right answer, a failure that says why, or
the end of the stream.
"""
import posix
import sys
import time
from _frozen_importlib import _find_spec, _load
from _frozen_importlib_external import (EXTENSION_SUFFIXES, ExtensionFileLoader,
                                        SourceFileLoader, spec_from_file_location)

HERE = __file__.rpartition("/")[0]
ENTRY_NAMES = ("new_module", "main")
LINE_MAX = 64 << 10
PAYLOAD_MAX = 64 << 20
ANSWER_MAX = 6 << 20
CHANNEL_FD = 500  # out of the way of code that counts descriptors from 3

_fstat, _getpid, _monotonic_ns = posix.fstat, posix.getpid, time.monotonic_ns
_write, _writev, _exit, _close = posix.write, posix.writev, posix._exit, posix.close


class Failure(Exception):
    """The event fails by a rule of the platform's: its type and one sentence."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


_parts = {}


def part(name):
    """The module `name` beside this one, loaded once, never found through sys.path or among
    the function's modules."""
    if name not in _parts:
        full, path = "pratai_" + name, HERE + "/" + name + ".py"
        loader = SourceFileLoader(full, path)
        _parts[name] = _load(spec_from_file_location(full, path, loader=loader))
    return _parts[name]


def _exists(path):
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


# ---- JSON ----------------------------------------------------------------------------
#
# The C half of the json package without the package, which imports re: 0.2 ms, not 10.
# Also out of reach of whoever replaces json.dumps.

def _refuse_constant(name):
    raise ValueError(name + " is not JSON")


class _Scanning:
    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = staticmethod(_refuse_constant)
    memo = {}


def _refuse_type(value):
    raise TypeError(type(value).__qualname__)


def _c_codec():
    for directory in sys.path:
        path = directory + "/_json" + EXTENSION_SUFFIXES[0]
        if directory.endswith("/lib-dynload") and "_json" not in sys.modules and _exists(path):
            loader = ExtensionFileLoader("_json", path)
            _load(spec_from_file_location("_json", path, loader=loader))
    import _json
    scan = _json.make_scanner(_Scanning)
    quote = _json.encode_basestring

    def decode(text):
        text = text.strip(" \t\n\r")
        try:
            value, end = scan(text, 0)
        except StopIteration as stop:
            raise ValueError("not JSON at character %d" % stop.value) from None
        except SystemError:  # the scanner wants json.decoder's exception, which is not loaded
            raise ValueError("not JSON") from None
        if end != len(text):
            raise ValueError("not JSON at character %d" % end)
        return value

    def encode(value):
        encoder = _json.make_encoder({}, _refuse_type, quote, None, ":", ",", False, False, False)
        return "".join(encoder(value, 0))

    if encode(decode('{"a":[1,2.5,"b"]}')) != '{"a":[1,2.5,"b"]}':
        raise ValueError("_json")
    return decode, encode


def _package_codec():
    import json

    def encode(value):
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"),
                          default=_refuse_type)

    return json.loads, encode


def _codec():
    try:
        return _c_codec()
    except (ImportError, AttributeError, TypeError, ValueError, OSError):
        return _package_codec()  # an interpreter whose private parts differ


# ---- The channel ---------------------------------------------------------------------

class Channel:
    """The socket to the node, moved to where the user's code does not meet it by chance."""

    def __init__(self, fd):
        self.fd = self._move(fd, CHANNEL_FD)
        # One descriptor more, given back when a failure is described: a function that
        # used up all others must not take its traceback with it.
        self.spare = self._move(posix.dup(self.fd), self.fd + 1)
        posix.set_blocking(self.fd, True)
        self.identity = self._identify()
        self.pid = _getpid()
        self.rest = b""

    @staticmethod
    def _move(fd, target):
        try:
            posix.dup2(fd, target, False)
        except OSError:
            target = posix.dup(fd)  # few descriptors allowed; the copy is close-on-exec, too
        if target != fd:
            posix.close(fd)
        return target

    def _identify(self):
        st = _fstat(self.fd)
        return st.st_dev, st.st_ino

    def release_spare(self):
        if self.spare >= 0:
            try:
                _close(self.spare)
            except OSError:
                pass
            self.spare = -1

    def has_input(self):
        """Whether the node has sent something already."""
        posix.set_blocking(self.fd, False)
        try:
            self.rest += posix.read(self.fd, LINE_MAX)
        except BlockingIOError:
            pass
        posix.set_blocking(self.fd, True)
        return bool(self.rest)

    def read_line(self):
        """The next line without its newline, or None at the end of the stream."""
        data = self.rest
        while b"\n" not in data:
            if len(data) >= LINE_MAX:
                raise ValueError("a line of the node's is too long")
            more = posix.read(self.fd, LINE_MAX)
            if not more:
                return None
            data += more
        line, _, self.rest = data.partition(b"\n")
        return line

    def read_bytes(self, count):
        if count > PAYLOAD_MAX:
            raise ValueError("a payload of %d bytes" % count)
        out = bytearray(count)
        view = memoryview(out)
        at = min(len(self.rest), count)
        view[:at] = self.rest[:at]
        self.rest = self.rest[at:]
        while at < count:
            n = posix.readv(self.fd, [view[at:]])
            if not n:
                raise EOFError("the payload ended early")
            at += n
        return bytes(out)

    def send(self, *pieces):
        """Writes all pieces, or ends the process when the channel is not there any more."""
        try:
            intact = self._identify() == self.identity
        except OSError:
            intact = False
        if not intact:
            die("the function closed or replaced the runtime's descriptor %d: its answer is lost"
                % self.fd)
        pieces = [memoryview(p) for p in pieces if p]
        try:
            while pieces:
                n = _writev(self.fd, pieces)
                while pieces and n >= len(pieces[0]):
                    n -= len(pieces.pop(0))
                if n:
                    pieces[0] = pieces[0][n:]
        except OSError:
            _exit(70)  # the node is gone; nobody is left to tell


def die(message):
    try:
        _write(2, b"pratai: " + message.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        pass
    _exit(70)


# ---- What the function finds around it ---------------------------------------------------

def _prepare_path(root):
    """/function, PYTHONPATH, /opt/deps, the standard library, the image's own packages."""
    function, deps = root + "/function", root + "/opt/deps"
    version = "python%d.%d" % sys.version_info[:2]
    extra = posix.environ.get(b"PYTHONPATH", b"").decode("utf-8", "surrogateescape")
    path = [function] + [p for p in extra.split(":") if p]
    if _exists(deps):
        path.append(deps)
    image = [p for p in ("/usr/local/lib/" + version + "/dist-packages",
                         "/usr/lib/python3/dist-packages",
                         sys.prefix + "/lib/" + version + "/site-packages") if _exists(p)]
    sys.path[:] = path + sys.path + image


def _prepare_streams():
    """Line by line, so that stdout, stderr and what children write keep their order; and
    no character that a print cannot encode may fail an event."""
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    if sys.stderr is not None:
        sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")


def _quit(code=None):
    raise SystemExit(code)


def _prepare_builtins():
    """exit and quit come from the site module, which is not loaded."""
    import builtins
    builtins.exit = builtins.quit = _quit


class _LoggingLoader:
    """The standard logging module's own loader; afterwards the logger `pratai` is set up.
    So only a function that imports logging pays for it."""

    def __init__(self, loader, identity):
        self.loader = loader
        self.identity = identity

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        part("logs").configure(module, self.identity)


class _LoggingFinder:
    def __init__(self, identity):
        self.identity = identity
        self.library = (sys.prefix + "/lib/python%d.%d/" % sys.version_info[:2])

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = _find_spec(name, path)
        if spec and spec.loader and (spec.origin or "").startswith(self.library):
            spec.loader = _LoggingLoader(spec.loader, self.identity)
        return spec


class Identity:
    """Whose log lines these are."""
    function_id = posix.environ.get(b"PRATAI_FUNCTION_ID", b"-").decode("utf-8", "replace")
    request_id = "-"  # until the event has come


# ---- The function ----------------------------------------------------------------------

def read_pth_files(root):
    """Some packages are found, or start, by a .pth file; it may run code."""
    deps = root + "/opt/deps"
    if deps in sys.path and any(name.endswith(".pth") for name in posix.listdir(deps)):
        import site
        site.addsitedir(deps)


def load_function(root):
    """The object `main` of the function's module, imported as `import` would."""
    for name in ENTRY_NAMES:
        path = root + "/function/" + name + ".py"
        if _exists(path):
            break
    else:
        raise Failure("NoMain", "there is no new_module.py or main.py at the function's root")
    sys.argv = [path]
    loader = SourceFileLoader(name, path)
    module = _load(spec_from_file_location(name, path, loader=loader))
    try:
        main = module.main
    except AttributeError:
        raise Failure("NoMain", "%s.py defines no main(payload=None)" % name) from None
    if not callable(main):
        raise Failure("BadMain", "main in %s.py is a value of type %s and cannot be called"
                      % (name, type(main).__qualname__))
    return main


def parameters_of(main):
    """(positional, varargs, keyword-only) of main: names with `required` and, for the
    positional ones, `by position only`.  None when nobody knows."""
    if type(main) is not type(load_function) or main.__dict__:
        return part("signature").inspect_parameters(main)
    code = main.__code__
    n, k = code.co_argcount, code.co_kwonlyargcount
    required = n - len(main.__defaults__ or ())
    names = code.co_varnames
    positional = [(names[i], i < required, i < code.co_posonlyargcount) for i in range(n)]
    defaults = main.__kwdefaults__ or {}
    return positional, bool(code.co_flags & 0x04), [(x, x not in defaults) for x in names[n:n + k]]


def decide_call(parameters):
    """How main wants to be called: (may be called without a payload, where the context
    goes: None, "second", or the keyword's name).  Failure when main cannot take a payload.

    The second parameter gets the context when it has no default or is named context or
    ctx: in main(payload, verbose=False) it is not ours to fill."""
    positional, varargs, keywords = parameters
    if not positional and not varargs:
        raise Failure("BadMain", "main takes no payload: write def main(payload=None)")
    required = [name for name, needed, _ in positional if needed]
    if len(required) > 2:
        raise Failure("BadMain", "main needs %d arguments (%s), but gets payload and context"
                      % (len(required), ", ".join(required)))
    for name, needed in keywords:
        if needed and name != "context":
            raise Failure("BadMain", "main needs the keyword argument %s, which it does not get"
                          % name)
    optional = bool(positional) and not positional[0][1]
    if any(name == "context" for name, _ in keywords):
        return optional, "context"
    if len(positional) > 1:
        name, needed, only = positional[1]
        if not needed and name not in ("context", "ctx", "_context", "_ctx"):
            return optional, None
        return (False, "second") if only else (optional, name)
    return (False, "second") if varargs else (optional, None)


class Context:
    """What main may know about its event."""

    __slots__ = ("event_id", "function_id", "request_id", "source", "attempt", "_deadline_ns")

    def __init__(self, event, sent_ns):
        self.event_id = event.get("event_id")
        self.function_id = event.get("function_id")
        self.request_id = event.get("request_id")
        self.source = event.get("source")
        self.attempt = event.get("attempt", 1)
        self._deadline_ns = sent_ns + event.get("timeout_ms", 0) * 1000000

    def remaining_ms(self):
        """Milliseconds until the function is ended, never below 0."""
        return max(0, (self._deadline_ns - _monotonic_ns()) // 1000000)

    def __repr__(self):
        return "<pratai context of event %s, attempt %s>" % (self.event_id, self.attempt)


def call(main, plan, payload, given, context):
    optional, where = plan
    args = (payload,) if given or not optional else ()
    if where is None:
        result = main(*args)
    elif where == "second":
        result = main(args[0] if args else None, context)
    elif args and where != "context":
        result = main(*args, context)
    else:
        result = main(*args, **{where: context})
    if hasattr(type(result), "__await__"):
        import asyncio

        async def wait():
            return await result

        return asyncio.run(wait())
    return result


def decode_payload(kind, data, decode):
    """What main gets."""
    try:
        if kind == "json":
            return decode(data.decode("utf-8"))
        return data.decode("utf-8") if kind == "text" else data
    except ValueError as error:  # JSON that Python cannot hold: a number of 5000 digits
        raise Failure("BadPayload", "the payload cannot be decoded as %s: %s"
                      % (kind, error)) from None


# ---- The answer ------------------------------------------------------------------------

def encode_answer(result, encode):
    """(content type, status or None, header fields or None, bytes) of what main returned."""
    if isinstance(result, (bytes, bytearray, memoryview)):
        return "application/octet-stream", None, None, bytes(result)
    if isinstance(result, dict) and "statusCode" in result:
        return part("http_answer").compose(result, lambda body: encode_json(body, encode))
    return "application/json", None, None, encode_json(result, encode)


def encode_json(value, encode):
    try:
        return encode(value).encode("utf-8")
    except MemoryError:
        raise
    except Exception as error:
        raise part("failure").explain_unencodable(value, error) from None


def flush_all():
    """What was printed and logged is out before the answer is: the node ends the sandbox
    as soon as it has the answer."""
    logging = sys.modules.get("logging")
    for flush in (getattr(logging, "shutdown", None), getattr(sys.stdout, "flush", None),
                  getattr(sys.stderr, "flush", None), getattr(sys.__stdout__, "flush", None)):
        try:
            if flush:
                flush()
        except BaseException:
            pass  # closed by the function: nothing of it is left to flush


class Run:
    """One event's way through the process."""

    def __init__(self, fd, root):
        self.root = root
        self.began_ns = _monotonic_ns() - time.process_time_ns()  # of the process
        self.import_us = self.run_us = 0
        self.channel = Channel(fd)
        self.decode, self.encode = _codec()
        self.identity = Identity()
        _prepare_streams()
        _prepare_builtins()
        _prepare_path(root)
        sys.meta_path.insert(0, _LoggingFinder(self.identity))
        try:
            import faulthandler
            faulthandler.enable()  # a crash in an extension module leaves a trace in the log
        except (ImportError, OSError, ValueError, AttributeError, RuntimeError):
            pass

    def send_line(self, message, body=b""):
        line = self.encode(message).encode("utf-8") + b"\n"
        self.channel.send(line, body)

    def leave_if_forked(self, code):
        """A child of the function's that came here by returning from main is not the one
        that answers."""
        if _getpid() != self.channel.pid:
            flush_all()
            _exit(code)

    def fail(self, error):
        self.channel.release_spare()
        try:
            if _getpid() != self.channel.pid:
                part("failure").print_error(error)
            self.leave_if_forked(1)
            description = part("failure").describe(error, self.encode)
        except BaseException:
            self.leave_if_forked(1)
            description = {"type": type(error).__name__[:60], "message": "", "traceback": ""}
        flush_all()
        self.send_line({"v": 1, "type": "result", "ok": False, "run_us": self.run_us,
                        "import_us": self.import_us, "error": description})
        _exit(1)

    def import_function(self):
        start_us = time.process_time_ns() // 1000
        began = _monotonic_ns()
        try:
            read_pth_files(self.root)
            main = load_function(self.root)
            plan = decide_call(parameters_of(main))
        finally:
            self.import_us = (_monotonic_ns() - began) // 1000
        self.leave_if_forked(0)
        self.send_line({"v": 1, "type": "imported", "start_us": start_us,
                        "import_us": self.import_us})
        return main, plan

    def read_event(self):
        """The kind of the event's payload and its bytes.  What is wrong here is the node's
        fault."""
        try:
            # What waited here during the import was sent when the process began.
            early = self.channel.has_input()
            line = self.channel.read_line()
            if line is None:
                _exit(0)  # made ahead of an event that never came
            event = self.decode(line.decode("utf-8"))
            if event.get("type") != "event":
                raise ValueError("not an event")
            self.context = Context(event, self.began_ns if early else _monotonic_ns())
            return event.get("payload", "none"), self.channel.read_bytes(event.get("bytes", 0))
        except MemoryError:
            raise
        except Exception as error:
            die("the node's event cannot be read: %s: %s" % (type(error).__name__, error))

    def tell_identity(self):
        """Log lines and environment are the event's from now on."""
        context = self.context
        self.identity.function_id = context.function_id or self.identity.function_id
        self.identity.request_id = context.request_id or "-"
        name, value = "PRATAI_EVENT_ID", context.event_id or ""
        if "os" in sys.modules:
            sys.modules["os"].environ[name] = value
        else:
            posix.environ[name.encode()] = value.encode()
            posix.putenv(name, value)

    def answer(self, main, plan, payload, given):
        began = _monotonic_ns()
        try:
            result = call(main, plan, payload, given, self.context)
            self.leave_if_forked(0)
            kind, status, fields, body = encode_answer(result, self.encode)
        finally:
            self.run_us = (_monotonic_ns() - began) // 1000
        if len(body) > ANSWER_MAX:
            raise Failure("ResponseTooLarge", "the answer has %d bytes; at most %d are allowed"
                          % (len(body), ANSWER_MAX))
        message = {"v": 1, "type": "result", "ok": True, "run_us": self.run_us,
                   "content_type": kind, "bytes": len(body)}
        if status is not None:
            message["status"] = status
        if fields:
            message["fields"] = fields
        flush_all()
        self.send_line(message, body)

    def run(self):
        try:
            main, plan = self.import_function()
            kind, data = self.read_event()
            self.tell_identity()
            given = kind in ("json", "text", "bytes")
            payload = decode_payload(kind, data, self.decode) if given else None
            self.answer(main, plan, payload, given)
        except BaseException as error:
            self.fail(error)
        _exit(0)


def serve(fd, root):
    """Serves the channel `fd` and ends the process: threads, daemons or not, and exit
    handlers do not hold up an answer."""
    Run(fd, root).run()
